"""How an answer goes on: the sentence, or clause, behind a beginning of it, by its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

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


@torch.inference_mode()
def without_picture(
    vlm: VisionLanguageModel, rows: Sequence[Encoded], most: int, batch_size: int
) -> Iterator[tuple[int, ...]]:
    """Greedy continuations of prompts without a picture, of up to ``most`` tokens, in their
    order; none where the model's context has no room."""
    for at in range(0, len(rows), batch_size):
        some = rows[at : at + batch_size]
        limits = [max(0, answer_limit(vlm, row, most)) for row in some]
        inputs = left_padded(some, vlm.pad_id, vlm.device)
        width = inputs["input_ids"].shape[1]
        if not any(limits):
            yield from [()] * len(some)
            continue
        out = vlm.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max(limits))
        for row, limit in zip(out[:, width:].tolist(), limits, strict=True):
            yield _until_end(vlm, row[:limit])


def _until_end(vlm: VisionLanguageModel, ids: list[int]) -> tuple[int, ...]:
    ends = (place for place, token in enumerate(ids, 1) if token in vlm.eos_ids)
    return tuple(ids[: next(ends, len(ids))])
