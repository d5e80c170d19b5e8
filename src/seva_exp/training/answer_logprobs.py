"""Mean log-probabilities of several answers to one question, by the policy or the reference, with
the clean picture, with a negative view's, or with none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from seva_exp.core.errors import UnusableText
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.records import AnswerGroup, Sample
from seva_exp.inputs.images import image_size, load_image
from seva_exp.inputs.views import PartnerPictures, View
from seva_exp.training.collate import Preference, TextCollator
from seva_exp.training.forward import (
    Forward,
    PackedForward,
    PlainForward,
    forward_for,
    scored,
    vision_for,
)
from seva_exp.training.lengths import fitting
from seva_exp.training.preferences import shown_image
from seva_exp.training.reference import scoring
from seva_exp.training.spec import Fast


class Look(NamedTuple):
    """One way of looking at an answer. ``policy``: with the adapter that the round begins with,
    else by the base model; ``picture``: of what kind."""

    policy: bool = True
    picture: Literal["clean", "view", "none"] = "clean"


@dataclass(frozen=True)
class Reading:
    """What log-probabilities are read with: pictures lie below ``root``; ``everyone`` reads the
    samples that ``view`` may draw partners from; ``start`` is the policy's adapter."""

    vlm: VisionLanguageModel
    root: Path
    placement: Placement
    fast: Fast
    label: str
    view: View | None = None
    everyone: Callable[[], Iterator[Sample]] = lambda: iter(())
    start: Path | None = None


Means = list[tuple[float | None, ...]]
"""Per group a mean per answer; None for one that cannot be looked at."""
Read = Callable[[Sequence[AnswerGroup], Look], Means]


class TextForward(PlainForward):
    """Plain rows of prompts without a picture."""

    def collator(self, preferences: Sequence[Preference]) -> TextCollator:
        return TextCollator(self._vlm, preferences)


@contextmanager
def reading(how: Reading, groups: Sequence[AnswerGroup]) -> Iterator[Read]:
    """A function that looks at some of ``groups``; the model is then as it was. Raises StageError
    where no group fits the model's context."""
    prepared = _Prepared(how)
    asked = [one for group in groups if (one := prepared.clean(group))]
    fits = {one.id for one in fitting(how.vlm, asked, how.label)[0]} if asked else set()
    with scoring(how.vlm, how.start) as model, closing(_Ways(how, model)) as ways:

        def read(some: Sequence[AnswerGroup], look: Look) -> Means:
            rows = {
                group.sample.id: one
                for group in some
                if group.sample.id in fits and (one := prepared.seen(group, look))
            }
            found: dict[str, list[float]] = {}
            if rows:
                whole = [*rows.values()]
                base = not look.policy and how.start is not None
                with model.disable_adapter() if base else nullcontext():
                    found = _means(how, model, ways.forward(look, whole), whole)
            return [prepared.placed(group, found.get(group.sample.id, [])) for group in some]

        yield read


class _Ways:
    """The forward pass of each look. The packed sequence changes the model's attention, so that it
    is taken down where a prompt without a picture goes through plain rows, and put up again."""

    def __init__(self, how: Reading, model: Any) -> None:
        self._how, self._model = how, model
        self._open: Forward | None = None
        self._packs = False

    def forward(self, look: Look, first: Sequence[Preference]) -> Forward:
        """Where the packed sequence is first taken it is compared with plain rows on ``first``."""
        how = self._how
        if look.picture == "none":
            self.close()
            return TextForward(how.vlm)
        if self._open is None and self._packs:
            self._open = PackedForward(how.vlm, vision_for(how.vlm, how.placement))
        elif self._open is None:
            self._open = forward_for(how.vlm, self._model, first, how.fast, how.placement)
            self._packs = isinstance(self._open, PackedForward)
        return self._open

    def close(self) -> None:
        """Leave the model as it was."""
        if self._open:
            self._open.close()
        self._open = None


def _means(
    how: Reading, model: Any, forward: Forward, rows: list[Preference]
) -> dict[str, list[float]]:
    """Log-probability per token (end of sequence included) of each answer, chosen first, by the
    row's id."""
    batch = forward.collator(rows)([{"row": i} for i in range(len(rows))])
    sums, lengths = scored(forward, model, batch, how.placement, how.vlm.model.dtype)
    means = iter((sums.double() / lengths).tolist())
    first = [next(means) for _ in rows]
    return {
        row.id: [chosen, *(next(means) for _ in row.rejected)]
        for row, chosen in zip(rows, first, strict=True)
    }


@dataclass
class _Prepared:
    """Groups as rows: an answer that is no answer to this model is left out of its row."""

    how: Reading
    _partners: PartnerPictures | None = None
    _ids: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def ids(self, group: AnswerGroup) -> list[tuple[int, ...]]:
        """Token ids of each answer; empty for one that cannot be looked at."""
        if group.sample.id not in self._ids:
            answers = zip(group.texts, group.tokens, strict=True)
            self._ids[group.sample.id] = [self._tokens(group, *answer) for answer in answers]
        return self._ids[group.sample.id]

    def _tokens(self, group: AnswerGroup, text: str, ids: tuple[int, ...]) -> tuple[int, ...]:
        try:
            return ids or self.how.vlm.answer_ids(group.sample.prompt, text)
        except UnusableText:
            return ()

    def clean(self, group: AnswerGroup) -> Preference | None:
        """The row with the clean picture; None where no answer is left."""
        sample, root = group.sample, self.how.root
        answers = [ids for ids in self.ids(group) if ids]
        if not answers:
            return None
        return Preference(
            id=sample.id,
            prompt=sample.prompt,
            load=partial(load_image, root, sample.image),
            chosen=answers[0],
            rejected=tuple(answers[1:]),
            size=partial(image_size, root, sample.image),
            picture_id=sample.image.sha256,
        )

    def seen(self, group: AnswerGroup, look: Look) -> Preference | None:
        """The row as ``look`` sees it."""
        row, view = self.clean(group), self.how.view
        if row is None or look.picture != "view":
            return row
        assert view
        prompt = view.prompt(row.prompt, row.id)
        if not view.changes_pictures:
            return replace(row, prompt=prompt)
        make = partial(shown_image, self.how.vlm, view, group.sample, self.how.root, self._pictures)
        return replace(row, prompt=prompt, shown=make, picture_id=f"{row.id}/{view.name}")

    @property
    def _pictures(self) -> PartnerPictures:
        if self._partners is None:
            mixes = self.how.view is not None and self.how.view.mixes
            self._partners = PartnerPictures(self.how.everyone() if mixes else ())
        return self._partners

    def placed(self, group: AnswerGroup, means: Sequence[float]) -> tuple[float | None, ...]:
        """The means in the places of the group's answers."""
        left = iter(means)
        return tuple(next(left, None) if ids else None for ids in self.ids(group))
