"""Contrastive decoding written out: two forward passes of the whole sequence for each token, no
cache, and the papers' formulas on their logits."""

from __future__ import annotations

import math
from typing import Any

import torch

from seva_exp.core.interfaces import Request
from seva_exp.decoding.contrast import Constant, Contrast, CutoffOnly, M3id, YesBias
from seva_exp.decoding.sampling import Sampling
from seva_exp.inputs.views import View


def next_logits(vlm: Any, encoded: Any, tokens: list[int]) -> torch.Tensor:
    """[V] behind a prompt and so many tokens of its answer."""
    inputs = {"input_ids": torch.tensor([[*encoded.ids, *tokens]])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    kinds = {"token_type_ids": vlm._family.attention.answer_type, "mm_token_type_ids": 0}
    for name, values in encoded.types.items():
        inputs[name] = torch.tensor([[*values, *[kinds[name]] * len(tokens)]])
    if encoded.image.pixels:
        inputs |= vlm.image_inputs([encoded.image])
    return vlm.model(**inputs, use_cache=False).logits[0, -1].float()


def prompts(vlm: Any, request: Request, view: View | None) -> tuple[Any, Any]:
    """The question as it is, and as it stands beside it."""
    picture = request.load()
    own = vlm.encode(vlm.encode_image(picture), request.prompt)
    if view is None:
        return own, vlm.encode_text(request.prompt)
    changed = vlm.encode_image(view.image(picture, request.image_key))
    changed = view.pixels(vlm, changed, request.image_key)
    return own, vlm.encode(changed, view.prompt(request.prompt, request.id))


def contrasted(
    rule: Contrast, own: torch.Tensor, other: torch.Tensor, t: int, yes: set[int]
) -> torch.Tensor:
    """Scores [V] by the papers' formulas."""
    p = torch.softmax(own.double(), dim=0)
    scores = own
    if isinstance(rule, Constant):
        scores = (1 + rule.alpha) * own - rule.alpha * other
    if isinstance(rule, M3id) and (rule.confident == 1 or p.max() < rule.confident):
        g = math.exp(-rule.decay * t)
        scores = own + (1 - g) / g * (own - other)
    if isinstance(rule, YesBias):
        scores = own.clone()
        scores[sorted(yes)] += rule.bias * (t == 0)
        return scores
    return torch.where(p >= rule.cutoff * p.max(), scores, -math.inf)  # type: ignore[attr-defined]


@torch.inference_mode()
def written_out(
    vlm: Any,
    request: Request,
    rule: Contrast,
    view: View | None = None,
    how: Sampling | None = None,
    yes: set[int] = frozenset(),
) -> tuple[int, ...]:
    """The answer's ids, greedy or drawn."""
    assert isinstance(rule, Constant | M3id | CutoffOnly | YesBias)
    own, other = prompts(vlm, request, view)
    tokens: list[int] = []
    while len(tokens) < request.max_new_tokens and not (tokens and tokens[-1] in vlm.eos_ids):
        mine, theirs = (next_logits(vlm, one, tokens) for one in (own, other))
        mine[vlm.image_token_id] = -torch.inf
        scores = contrasted(rule, mine, theirs, len(tokens), yes)
        scores[vlm.image_token_id] = -torch.inf
        if how:
            draw = torch.tensor([how.seed_of(request.id)]), torch.tensor([len(tokens)])
            scores = how.scores(scores[None], *draw)[0]
        tokens.append(int(scores.argmax()))
    return tuple(tokens)
