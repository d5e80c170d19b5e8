"""The clean answer, rewritten by the model: what the sources of kind ``Rewrite`` do, each by a
function of its own. A new one registers with ``rewriter_of``.

Shape legend: S tokens of all answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial, singledispatch
from pathlib import Path
from random import Random

from seva_exp.augment import Apasi, PovidNoise, Rewrite
from seva_exp.benchmarks.coco_objects import Objects
from seva_exp.core.errors import UnusableText
from seva_exp.core.interfaces import Encoded, Placement, VisionLanguageModel
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Answer, Sample
from seva_exp.core.texts import in_place_of, pieces
from seva_exp.inputs.images import image_size, load_image
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.models.context import behind
from seva_exp.preferences.continuing import Begun, Piece, without_picture
from seva_exp.preferences.filters import NOT_REPLACED, ONE_SENTENCE, SAME_TOKENS
from seva_exp.training.collate import Preference
from seva_exp.training.forward import forward_for, passed
from seva_exp.training.head import Head
from seva_exp.training.preferences import shown_image
from seva_exp.training.reference import scoring
from seva_exp.training.spec import Fast

Answered = tuple[Sample, Answer]
"""A sample with its clean answer."""
Rewriter = Callable[[Sequence[Answered]], list[Answer]]
"""A rewritten answer to each, whose ``stop`` says why where there is none."""


@dataclass(frozen=True)
class Bench:
    """What answers are rewritten with: the model as the round begins. Pictures lie below ``root``;
    ``view`` is what the source shows, None: nothing; ``everyone`` reads the clean answers to all
    samples; ``name`` is the source's in this run."""

    vlm: VisionLanguageModel
    root: Path
    placement: Placement
    name: str
    seed: int
    view: View | None
    everyone: Callable[[], Iterator[Answer]]
    fast: Fast = "auto"

    def unmade(self, clean: Answer, why: str) -> Answer:
        """In place of an answer that there is none of."""
        return Answer(clean.sample_id, self.name, clean.asked, "", (), why)


@singledispatch
def rewriter_of(source: Rewrite, bench: Bench) -> AbstractContextManager[Rewriter]:
    """A function that rewrites answers; at the end of the block the model is as it was."""
    raise TypeError(f"nothing rewrites for {type(source).__name__}")


# APASI


@dataclass(frozen=True)
class Gap:
    """A sentence that is replaced: which, what stands before it, and what the model is asked in its
    place."""

    number: int
    begun: Begun
    asked: Encoded


@rewriter_of.register
@contextmanager
def _apasi(source: Apasi, bench: Bench) -> Iterator[Rewriter]:
    likely = Likely(source.guide, bench.everyone()) if source.guide else None

    def rewrite(some: Sequence[Answered]) -> list[Answer]:
        gaps = [gaps_of(source, bench, clean, likely) for _, clean in some]
        asked = [(gap.asked, gap.begun) for own in gaps for gap in own]
        most, size = source.max_new_tokens, bench.placement.batch_size
        new = without_picture(bench.vlm, asked, source.split, most, size)
        return [
            _replaced(source, bench, clean, own, [next(new) for _ in own])
            for (_, clean), own in zip(some, gaps, strict=True)
        ]

    yield rewrite


def gaps_of(source: Apasi, bench: Bench, clean: Answer, likely: Likely | None) -> list[Gap]:
    """The sentences of an answer that are replaced: ``rate`` of them, one at least, never the
    first, drawn by (seed, sample id). None of an answer of one sentence."""
    parts = pieces(clean.text, source.split)
    if len(parts) < 2:
        return []
    rng = python_rng(bench.seed, "rewrite/apasi", clean.sample_id)
    count = min(len(parts) - 1, max(1, round(source.rate * len(parts))))
    found = []
    for number in sorted(rng.sample(range(1, len(parts)), count)):
        before = "".join(parts[:number])
        guided = likely(clean.text, rng) if likely else None
        lead = source.lead.replace("{object}", guided) if guided else ""
        try:
            ids = bench.vlm.answer_ids(clean.asked, before + lead)[:-1]
        except UnusableText:
            continue
        asked = behind(bench.vlm, bench.vlm.encode_text(clean.asked), ids)
        found.append(Gap(number, Begun(before, ids), asked))
    return found


def _replaced(
    source: Apasi, bench: Bench, clean: Answer, gaps: list[Gap], new: list[Piece | None]
) -> Answer:
    parts = pieces(clean.text, source.split)
    if len(parts) < 2:
        return bench.unmade(clean, ONE_SENTENCE)
    if not any(new):
        return bench.unmade(clean, NOT_REPLACED)
    for gap, piece in zip(gaps, new, strict=True):
        if piece:
            parts[gap.number] = in_place_of(parts[gap.number], piece.text, source.split)
    return Answer(clean.sample_id, bench.name, clean.asked, "".join(parts), (), clean.stop)


class Likely:
    """Objects that go with those that a text names, by how often answers name both."""

    def __init__(self, objects: Sequence[str], answers: Iterator[Answer]) -> None:
        self._objects = Objects({one: one for one in objects})
        self._together = Counter[tuple[str, str]]()
        for answer in answers:
            named = self._named(answer.text)
            self._together.update((a, b) for a in named for b in named if a != b)

    def _named(self, text: str) -> list[str]:
        return sorted({str(one) for one in self._objects.mentions(text)})

    def __call__(self, text: str, rng: Random) -> str | None:
        """One that the text does not name, as likely as it is named together with those that it
        does; None where none ever is."""
        named = self._named(text)
        weights = {
            one: sum(self._together[there, one] for there in named)
            for one in sorted(self._objects.names)
            if one not in named
        }
        if not any(weights.values()):
            return None
        return rng.choices([*weights], [*weights.values()])[0]


# POVID


@rewriter_of.register
@contextmanager
def _povid_noise(source: PovidNoise, bench: Bench) -> Iterator[Rewriter]:
    vlm = bench.vlm
    head = Head(vlm.model)
    with scoring(vlm, None) as model:
        forward = None

        def likeliest(some: Sequence[Answered]) -> list[Answer]:
            nonlocal forward
            rows = [_row(bench, *one) for one in some]
            known = [row for row in rows if row]
            if not known:
                return [bench.unmade(clean, clean.stop) for _, clean in some]
            if forward is None:
                forward = forward_for(vlm, model, known, bench.fast, bench.placement)
            batch = forward.collator(known)([{"row": i} for i in range(len(known))])
            dtype = vlm.model.dtype
            _, out = passed(forward, model, batch, bench.placement, dtype, hidden=True)
            ids = iter(head.likeliest(out["hidden"], vlm.image_token_id).tolist())
            return [
                _said(bench, clean, row, tuple(next(ids) for _ in row.chosen))
                if row
                else bench.unmade(clean, clean.stop)
                for (_, clean), row in zip(some, rows, strict=True)
            ]

        def rewrite(some: Sequence[Answered]) -> list[Answer]:
            size = bench.placement.train_batch_size
            batches = (some[at : at + size] for at in range(0, len(some), size))
            return [answer for batch in batches for answer in likeliest(batch)]

        try:
            yield rewrite
        finally:
            if forward is not None:
                forward.close()


def _row(bench: Bench, sample: Sample, clean: Answer) -> Preference | None:
    """The clean answer behind the question as it was asked, with the picture that the view shows;
    None where there is no answer."""
    view, root = bench.view, bench.root
    assert view
    try:
        ids = clean.tokens or (bench.vlm.answer_ids(clean.asked, clean.text) if clean.text else ())
    except UnusableText:
        return None
    if not ids:
        return None
    return Preference(
        id=sample.id,
        prompt=clean.asked,
        load=partial(load_image, root, sample.image),
        chosen=ids,
        rejected=(),
        size=partial(image_size, root, sample.image),
        picture_id=f"{sample.id}/{view.name}",
        shown=partial(shown_image, bench.vlm, view, sample, root, PartnerPictures(())),
    )


def _said(bench: Bench, clean: Answer, row: Preference, ids: tuple[int, ...]) -> Answer:
    if ids == row.chosen:
        return bench.unmade(clean, SAME_TOKENS)
    text = bench.vlm.decode(ids)
    return Answer(clean.sample_id, bench.name, clean.asked, text, ids, clean.stop)
