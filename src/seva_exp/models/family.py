"""A family of models: all that our code must know of it. What is not said here is as most have it.

The families are the files of ``models/families/``: one each (docs/add_a_model.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any, Literal

from seva_exp.core.errors import InputError
from seva_exp.core.interfaces import Encoded, EncodedImage
from seva_exp.models.pixels import ByShape, PixelLayout

if TYPE_CHECKING:  # an estimate of memory asks families, and loads no torch
    import torch


@dataclass(frozen=True)
class Attention:
    """A family's attention, where it differs from a causal model's. ``sees_both_ways``: the tokens
    of a prompt that see each other in both directions. ``window_over_blocks``: whether a sliding
    window cuts those too. ``answer_type``: token_type_ids of an answer."""

    sees_both_ways: Literal["none", "images", "all"] = "none"
    window_over_blocks: bool = False
    answer_type: int = 0

    def blocks(self, encoded: Encoded) -> tuple[int, ...]:
        """A number per prompt token, equal for tokens that see each other; -1: causal."""
        if self.sees_both_ways == "none":
            return ()
        if self.sees_both_ways == "all":
            return (0,) * (len(encoded.ids) - encoded.context) + (-1,) * encoded.context
        numbers, block, before = [], -1, 0
        for kind in encoded.types["token_type_ids"]:
            block += kind == 1 and before != 1
            numbers.append(block if kind == 1 else -1)
            before = kind
        return tuple(numbers)


@dataclass(frozen=True)
class VisionModules:
    """What a picture goes through, as names of modules. The defaults are all usual names, for a
    family of which nothing is known."""

    towers: tuple[str, ...] = ("vision_tower", "vision_model", "visual")
    """The vision tower, below the base model: one of these."""
    projector: str = r"multi_modal_projector|connector|visual\.(merger|deepstack_merger_list\.\d+)"
    """What stands between tower and language model, whole names as a regular expression."""
    apart: bool = True
    """Whether the projector is no part of the tower: the tower's output can then be kept while the
    projector is trained."""
    one_block: bool = False
    """Whether a picture's features are one block, whatever pictures are computed with it, and
    ``get_image_features`` gives a list of them: several then go through the tower at once."""


class Family:
    """The default: a chat template, one image token in its text that the processor expands where it
    stands, causal attention with positions from 0. A family overrides what differs. ``processor``
    is always transformers' own, ``config`` the model's."""

    model_types: tuple[str, ...] = ()
    """transformers' ``model_type`` of the models that it is the family of."""
    proven: tuple[str, ...] = ()
    """``model_type`` of the text models with which our own attention is exact, in training (packed
    sequences, tests/training/test_packed_families.py) and in generation (the continuous-batching
    engine, tests/decoding/test_engine_families.py). Attention must be the only thing that mixes
    tokens: a linear attention's state would leak from one answer into the next. None: transformers'
    own ways are taken."""
    pictures: tuple[tuple[int, int | None], ...] = ()
    """For an estimate of memory: tiles and image tokens of a picture of 640 x 480 pixels, of each
    of ``model_types``. None: a token for each patch (or for those that its config merges to one);
    where nothing is said, of one tile."""
    needs_template = True
    """Without a chat template it cannot be asked."""
    pixels: PixelLayout = ByShape()
    """Where the image values lie in the processor's output."""
    attention = Attention()
    """Who sees whom."""
    vision = VisionModules()
    """Tower and projector."""

    def settle(self, processor: Any, config: Any) -> None:
        """Put right what published files leave out. Called once, before anything is encoded."""

    def limit(self, processor: Any, max_pixels: int) -> None:
        """Let the processor make pictures of more than ``max_pixels`` pixels smaller. Raises
        InputError where a picture's size is not the processor's to choose."""
        raise InputError(
            f"model.max_pixels={max_pixels}: this family shows every picture at sizes of its own; "
            "only Qwen-VL takes a bound. Take model.max_pixels=null."
        )

    def chat_text(self, processor: Any, system: str | None, prompt: str) -> str:
        """The text that the processor takes with one picture: the prompt in the chat template."""
        return _templated(processor, system, [{"type": "image"}, _text(prompt)])

    def text_alone(self, processor: Any, system: str | None, prompt: str) -> str:
        """The prompt in the chat template as it is tokenised, without a picture."""
        return _templated(processor, system, [_text(prompt)])

    def written(self, processor: Any, text: str) -> str:
        """``text`` as the processor rewrites it before it is tokenised, with one image token
        instead of the run of them that stands for the picture."""
        return text

    def image_token(self, processor: Any) -> str:
        """The token whose embeddings become the picture's features."""
        return getattr(processor, "image_token", None) or processor.tokenizer.image_token

    def end_token(self, processor: Any) -> str | None:
        """The token that ends an answer, where it is not the one that the checkpoint's generation
        config and its tokenizer agree on."""
        return None

    def grid(self, image: EncodedImage, tokens: int) -> tuple[int, int] | None:
        """Rows and columns of the ``tokens`` that stand for a picture, in reading order over all
        that the model sees of it; None where they are no such grid (tiles), and where that is not
        known."""
        return None

    def positions(self, model: Any, encoded: Encoded) -> torch.Tensor:
        """A prompt's rope positions, [A, L] with A axes. An answer's go on from the largest, the
        same on all axes."""
        import torch

        return torch.arange(len(encoded.ids))[None]  # rotary: where they begin is no matter


def square(tokens: int) -> tuple[int, int] | None:
    """The grid of a picture with as many rows of tokens as columns."""
    side = isqrt(tokens)
    return (side, side) if side * side == tokens and side else None


def _templated(processor: Any, system: str | None, content: list[dict[str, str]]) -> str:
    """One user turn in the chat template, behind a system turn where there is one."""
    messages: list[dict[str, Any]] = []
    if system:
        messages.append({"role": "system", "content": [_text(system)]})
    messages.append({"role": "user", "content": content})
    return processor.apply_chat_template(messages, add_generation_prompt=True)


def _text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}
