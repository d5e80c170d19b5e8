"""Maps that one forward pass gives: of the image tokens' last hidden states, and of attention.

Shape legend: L tokens of prompt and answer, N of them image tokens, T the answer's, C text tokens
before one of these, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from seva_exp.core.interfaces import Encoded, VisionLanguageModel
from seva_exp.models.attention import attends_by
from seva_exp.training.collate import model_inputs

GENERIC = "Write a general description of the image."
"""The question without a question of relative attention (arXiv:2502.17422)."""
DEPTH = 14 / 32
"""The layer that it reads, as a share of all: layer 14 of LLaVA-1.5-7B."""
SPREAD = 1.0
"""Standard deviation, in ranks, of the rank-Gaussian filter."""


@dataclass(frozen=True)
class Pass:
    """A forward pass of a prompt and its answer: ``hidden`` [L, W] of the last layer, ``attention``
    [L, L] of one layer, the mean over heads; where the image tokens are, and the answer begins."""

    ids: Tensor
    hidden: Tensor
    attention: Tensor
    image: Tensor
    begins: int


Maps = Callable[[VisionLanguageModel, Encoded, tuple[int, ...]], Tensor]
"""A prompt with its picture and an answer's T ids in, [T, N] out."""


def passed_once(vlm: VisionLanguageModel, prompt: Encoded, answer: tuple[int, ...]) -> Pass:
    """On plain rows, with attention that can be read."""
    inputs = model_inputs(vlm, [prompt], [answer])
    inputs.pop("completion_mask")
    placed = {name: value.to(vlm.device) for name, value in inputs.items()}
    with torch.no_grad(), attends_by(vlm.model, "eager"):
        out = vlm.model.base_model(**placed, output_attentions=True, use_cache=False)
    ids = placed["input_ids"][0]
    layer = round(DEPTH * len(out.attentions))
    return Pass(
        ids,
        out.last_hidden_state[0].float(),
        out.attentions[layer][0].float().mean(dim=0),
        (ids == vlm.image_token_id).nonzero()[:, 0],
        len(prompt.ids),
    )


def activation(vlm: VisionLanguageModel, prompt: Encoded, answer: tuple[int, ...]) -> Tensor:
    """TAM (arXiv:2506.23270): how much each image token's hidden state speaks for an answer's
    token, less what it speaks for the text before, scaled by least squares, below 0 nothing."""
    seen = passed_once(vlm, prompt, answer)
    head: Any = vlm.model.get_output_embeddings()
    weight = head.weight.float()
    at_image = (seen.hidden[seen.image] @ weight[seen.ids].T).relu()  # [N, L]
    text = torch.ones_like(seen.ids, dtype=torch.bool)
    text[seen.image] = False
    found = []
    for place in range(seen.begins, len(seen.ids)):
        own = at_image[:, place]
        before = text.clone()
        before[place:] = False
        before &= seen.ids != seen.ids[place]
        near = (seen.hidden[before] @ weight[seen.ids[place]]).relu()  # [C]
        other = at_image[:, before] @ near
        scale = (own @ other) / (other @ other).clamp(min=1e-12)
        found.append((own - scale.clamp(min=0) * other).relu())
    return torch.stack(found)


def relative_attention(
    vlm: VisionLanguageModel, prompt: Encoded, answer: tuple[int, ...]
) -> Tensor:
    """Attention to each image token where an answer's token is predicted, over that behind a
    generic question (arXiv:2502.17422): tokens that all questions attend to cancel out."""
    seen = passed_once(vlm, prompt, answer)
    plain = passed_once(vlm, vlm.encode(prompt.image, GENERIC), ())
    generic = plain.attention[-1, plain.image]
    asked = seen.attention[seen.begins - 1 : len(seen.ids) - 1][:, seen.image]
    return asked / generic.clamp(min=1e-12)


TOKEN_MAPS: dict[str, Maps] = {"activation": activation, "relative_attention": relative_attention}


def rank_gaussian(values: Tensor) -> Tensor:
    """Each cell [rows, columns] as the mean of the 3 x 3 around it, weighted by a Gaussian of their
    ranks' distance from the middle one: lone peaks go, edges stay."""
    rows, columns = values.shape
    edged = pad(values[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    around = torch.stack([edged[y : y + rows, x : x + columns] for y in range(3) for x in range(3)])
    ranks = torch.arange(9, dtype=values.dtype, device=values.device) - 4
    weights = torch.exp(-(ranks**2) / (2 * SPREAD**2))
    ordered = around.sort(dim=0).values
    return (ordered * weights[:, None, None]).sum(dim=0) / weights.sum()
