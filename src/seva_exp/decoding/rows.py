"""What waits for an answer: questions on a picture, split where they begin to differ."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from torch import Tensor

from seva_exp.core.interfaces import Encoded, EncodedImage, Request, VisionLanguageModel
from seva_exp.models.attention import attention_of, positions_of
from seva_exp.models.context import answer_limit, encoded_within

ImageChange = Callable[[Request, EncodedImage], EncodedImage]
"""A pixel-space view of one request's image."""


@dataclass(eq=False)
class Row:
    """A question and its answer so far. ``end`` are the prompt's ids behind the prefix,
    ``positions`` [A, F] theirs (A = 1, or 3 axes), ``first_position`` the answer's first,
    ``limit`` the most tokens of the answer. ``seed``: of its draws, where it is sampled.
    ``beside``: the row that its logits are contrasted with, and that row's group. That one does not
    lead: it has the same list of ``tokens``, and comes and goes with this one."""

    request: Request
    end: tuple[int, ...]
    positions: Tensor
    first_position: int
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    seed: int = 0
    beside: tuple[Row, PrefixGroup] | None = None
    leads: bool = True

    @property
    def kept(self) -> int:
        """Tokens of its own whose keys are in its slot: all but the last, which is to be fed."""
        return len(self.end) + len(self.tokens) - 1

    @property
    def most(self) -> int:
        """Places that its longest answer needs."""
        return len(self.end) + self.limit

    @property
    def fed(self) -> int:
        """Tokens of its own that are ever fed: of the longest answer all but the last."""
        return len(self.end) + self.limit - 1

    def together(self, group: PrefixGroup) -> list[tuple[Row, PrefixGroup]]:
        """The row, which is in ``group``, and the one beside it."""
        return [(self, group), *([self.beside] if self.beside else [])]

    def contrast(self, other: Row, group: PrefixGroup) -> None:
        """Put ``other``, which is in ``group``, beside this one."""
        self.beside, other.leads, other.tokens = (other, group), False, self.tokens
        self.limit = other.limit = min(self.limit, other.limit)


@dataclass(eq=False)
class Seen:
    """A picture until the last of its ``prefixes`` was run."""

    image: EncodedImage | None
    prefixes: int
    features: Any = None

    def used(self) -> None:
        """Note that one prefix was run; after the last, image and features are dropped."""
        self.prefixes -= 1
        if not self.prefixes:
            self.image = self.features = None


@dataclass(eq=False)
class PrefixGroup:
    """Rows behind one prefix: ``ids``, ``positions`` [A, P], ``blocks`` as in ``Prompt``; its
    ``slot`` once it was run. ``picture``: None where the prompts have none."""

    picture: Seen | None
    ids: tuple[int, ...]
    positions: Tensor
    blocks: tuple[int, ...]
    waiting: deque[Row]
    running: int = 0
    slot: int | None = None


@dataclass(frozen=True)
class Contrasted:
    """What stands beside some requests on one picture: other ``prompts``, one each, on the same
    ``image``, on another, or on none."""

    image: EncodedImage | None
    prompts: Sequence[str]


def groups_of(
    vlm: VisionLanguageModel,
    requests: Sequence[Request],
    image: EncodedImage | None,
    other: Contrasted | None = None,
) -> list[PrefixGroup]:
    """The questions on one picture. Their longest common beginning is run once; where it does not
    hold the whole picture, or all of a prompt sees all of it, each question is a group. One that
    the model's context has no room for, or not for what stands beside it, is in none. The groups of
    what stands beside are told by the rows."""
    asked = [encoded_within(vlm, image, one.prompt, one.context) for one in requests]
    beside: list[Encoded | None] = []
    if other is not None:
        both = zip(requests, other.prompts, strict=True)
        beside = [encoded_within(vlm, other.image, text, one.context) for one, text in both]
    fits = [None not in found for found in zip(asked, *([beside] if other else []), strict=True)]
    fitting = [one for one, fit in zip(requests, fits, strict=True) if fit]
    if not fitting:
        return []
    own = _pairs(requests, asked, fits)
    if other is None:
        return _grouped(vlm, image, own)
    twins = _pairs(requests, beside, fits)
    if other.image is image:  # one picture, and one beginning
        groups = _grouped(vlm, image, [*own, *twins])
    else:
        groups = [*_grouped(vlm, image, own), *_grouped(vlm, other.image, twins)]
    rows = [(row, group) for group in groups for row in group.waiting]
    leading, others = rows[: len(own)], rows[len(own) :]
    for (row, _), (twin, group) in zip(leading, others, strict=True):
        row.contrast(twin, group)
    return list(dict.fromkeys(group for _, group in leading))


def _pairs(
    requests: Sequence[Request], encoded: Sequence[Encoded | None], fits: Sequence[bool]
) -> list[tuple[Request, Encoded]]:
    found = zip(requests, encoded, fits, strict=True)
    return [(request, one) for request, one, fit in found if fit and one is not None]


def _grouped(
    vlm: VisionLanguageModel, image: EncodedImage | None, pairs: list[tuple[Request, Encoded]]
) -> list[PrefixGroup]:
    """Prompts on one picture, or on none, in their order."""
    encoded = [found for _, found in pairs]
    length = _shared_length(encoded)
    alone = attention_of(vlm).sees_both_ways == "all" or length < _end_of_image(encoded[0])
    together = [[pair] for pair in pairs]
    if len(pairs) > 1 and not alone:
        together = [[pair for some in together for pair in some]]
    picture = Seen(image, len(together)) if image else None
    return [
        _group(vlm, picture, some, length if len(some) > 1 else len(some[0][1].ids))
        for some in together
    ]


def _group(
    vlm: VisionLanguageModel,
    picture: Seen | None,
    pairs: list[tuple[Request, Encoded]],
    length: int,
) -> PrefixGroup:
    rows: deque[Row] = deque()
    first = pairs[0][1]
    for request, encoded in pairs:
        at = positions_of(vlm, encoded)
        limit = answer_limit(vlm, encoded, request.max_new_tokens)
        rows.append(Row(request, encoded.ids[length:], at[:, length:], int(at.max()) + 1, limit))
    blocks = attention_of(vlm).blocks(first)[:length]
    return PrefixGroup(
        picture, first.ids[:length], positions_of(vlm, first)[:, :length], blocks, rows
    )


def _shared_length(encoded: Sequence[Encoded]) -> int:
    """Of the common beginning; every question keeps at least one token of its own."""
    columns = zip(*(one.ids[:-1] for one in encoded), strict=False)
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, columns))


def _end_of_image(encoded: Encoded) -> int:
    """The place behind the last placeholder; the first place behind which a prompt without a
    picture may branch off."""
    run, ids = encoded.image.placeholders, encoded.ids
    if not run:
        return 1
    starts = (i for i, id in enumerate(ids) if id == run[0] and ids[i : i + len(run)] == run)
    return next(starts) + len(run)
