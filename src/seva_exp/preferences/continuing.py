"""How an answer goes on: the sentence, or clause, behind a beginning of it, by its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from seva_exp.core.interfaces import Encoded, VisionLanguageModel
from seva_exp.core.texts import Split, pieces
from seva_exp.decoding.hf_generate import left_padded
from seva_exp.models.context import answer_limit


class Piece(NamedTuple):
    """A sentence, or clause, as ``core.texts.pieces`` cuts it, and its tokens: without an end of
    sequence."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Begun:
    """An answer's beginning: its whole ``pieces`` as text, and all ``ids`` that are given; with a
    lead into the next piece these are more."""

    text: str
    ids: tuple[int, ...]


def pieces_of(
    vlm: VisionLanguageModel, ids: Sequence[int], split: Split
) -> tuple[Piece, ...] | None:
    """A generated answer's pieces, in order; None where one ends within a token."""
    found, begun = [], Begun("", ())
    for text in pieces(vlm.decode(ids), split):
        tokens = _up_to(vlm, begun, ids[len(begun.ids) :], begun.text + text)
        if tokens is None:
            return None
        found.append(Piece(text, tokens))
        begun = Begun(begun.text + text, begun.ids + tokens)
    return tuple(found)


def next_piece(
    vlm: VisionLanguageModel, begun: Begun, ids: Sequence[int], split: Split
) -> Piece | None:
    """The first piece of what was generated behind ``begun``; None where it is no piece of its own:
    there is none, it has not come to its end, or it goes on with what was begun."""
    whole, before = vlm.decode((*begun.ids, *ids)), pieces(begun.text, split)
    found = pieces(whole, split)
    ended = bool(ids) and ids[-1] in vlm.eos_ids
    if found[: len(before)] != before or len(found) < len(before) + (1 if ended else 2):
        return None
    text = found[len(before)]
    tokens = _up_to(vlm, begun, ids, begun.text + text)
    return None if tokens is None else Piece(text, tokens)


def _up_to(
    vlm: VisionLanguageModel, begun: Begun, ids: Sequence[int], text: str
) -> tuple[int, ...] | None:
    """The fewest of ``ids`` behind what is begun that make the answer ``text``."""
    for count in range(1, len(ids) + 1):
        if vlm.decode((*begun.ids, *ids[:count])) == text:
            return tuple(ids[:count])
    return None


LOOK = 4
"""Steps of decoding between two looks at what has come to its end."""


class Unfinished(StoppingCriteria):
    """Rows whose next piece is whole need no more tokens."""

    def __init__(
        self, vlm: VisionLanguageModel, begun: Sequence[Begun], split: Split, width: int
    ) -> None:
        self._vlm, self._begun, self._split, self._width = vlm, begun, split, width

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        new = input_ids[:, self._width :]
        if new.shape[1] % LOOK:
            return torch.zeros(len(new), dtype=torch.bool, device=new.device)
        rows = zip(self._begun, new.tolist(), strict=True)
        whole = [next_piece(self._vlm, one, ids, self._split) is not None for one, ids in rows]
        return torch.tensor(whole, device=new.device)


@torch.inference_mode()
def without_picture(
    vlm: VisionLanguageModel,
    rows: Sequence[tuple[Encoded, Begun]],
    split: Split,
    most: int,
    batch_size: int,
) -> Iterator[Piece | None]:
    """The next piece behind each prompt without a picture and what is begun of its answer, greedy,
    in their order; None where ``most`` tokens make none, or the model's context has no room."""
    for at in range(0, len(rows), batch_size):
        asked, begun = zip(*rows[at : at + batch_size], strict=True)
        limits = [max(0, answer_limit(vlm, row, most)) for row in asked]
        inputs = left_padded(asked, vlm.pad_id, vlm.device)
        width = inputs["input_ids"].shape[1]
        if not any(limits):
            yield from [None] * len(asked)
            continue
        out = vlm.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max(limits),
            stopping_criteria=StoppingCriteriaList([Unfinished(vlm, begun, split, width)]),
        )
        for one, row, limit in zip(begun, out[:, width:].tolist(), limits, strict=True):
            yield next_piece(vlm, one, _until_end(vlm, row[:limit]), split)


def _until_end(vlm: VisionLanguageModel, ids: list[int]) -> tuple[int, ...]:
    """Up to an end of sequence, and without what a row is filled up with that needs no more."""
    for place, token in enumerate(ids):
        if token in vlm.eos_ids:
            return tuple(ids[: place + 1])
        if token == vlm.pad_id:
            return tuple(ids[:place])
    return tuple(ids)
