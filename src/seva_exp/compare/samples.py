"""The same samples across views: the clean picture, what each view showed, and each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seva_exp.compare.comparison import Comparison
from seva_exp.compare.differences import in_words
from seva_exp.compare.runs import ComparedRun
from seva_exp.core.records import CLEAN, Answer, Sample
from seva_exp.core.spec import Json
from seva_exp.report.gallery import marked, picture

SAMPLES, VIEWS, SIDE = 8, 12, 224
"""Most samples and views that are shown; the pictures' largest side in pixels."""


@dataclass(frozen=True)
class AnsweredView:
    """One artifact of answers: the view's name, its stage's label in the first of the runs that
    share it."""

    view: str
    label: str
    runs: tuple[int, ...]


def views_of(runs: Sequence[ComparedRun]) -> list[AnsweredView]:
    """The clean answers and all views' on the same samples, an artifact once; of several sets of
    samples (seeds may draw others) the one with the most views, the first of equals."""
    found: dict[tuple[str, str], dict[tuple[str, str], AnsweredView]] = {}
    for i, run in enumerate(runs):
        labels = run.views()
        if CLEAN not in labels:
            continue
        views = found.setdefault((run.key("samples"), run.key(labels[CLEAN])), {})
        for view, label in labels.items():
            known = views.get((view, run.key(label)))
            sharing = (*known.runs, i) if known else (i,)
            views[view, run.key(label)] = AnsweredView(
                view, known.label if known else label, sharing
            )
    largest = max(found.values(), key=len, default={})
    return sorted(largest.values(), key=lambda one: one.view != CLEAN)[: VIEWS + 1]


def same_samples(c: Comparison) -> list[Json]:
    """Cards for the page: samples that most views kept a picture of come first, among them those
    whose answers differ most."""
    runs = [c.models[i].run for i in c.finals]
    answered = views_of(runs)
    if len(answered) < 2:
        return []
    clean, *views = answered
    previews = [runs[one.runs[0]].previews(one.label) for one in views]
    wanted = {sample for found in previews for sample in found}
    answers = [runs[one.runs[0]].answers(one.label, wanted) for one in answered]
    known = [s for s in runs[clean.runs[0]].samples(wanted) if s.id in answers[0]]

    def interest(sample: Sample) -> tuple[int, int]:
        texts = {found[sample.id].text for found in answers if sample.id in found}
        return sum(sample.id in found for found in previews), len(texts)

    chosen = sorted(known, key=interest, reverse=True)[:SAMPLES]
    root = runs[clean.runs[0]].image_root()
    shown = list(zip(_names(views, c), answers[1:], previews, strict=True))
    return [_card(s, root, answers[0], shown) for s in chosen]


def _card(
    sample: Sample,
    root: Path | None,
    clean: dict[str, Answer],
    views: Sequence[tuple[str, dict[str, Answer], dict[str, Path]]],
) -> Json:
    answers = [
        (name, found[sample.id], shown) for name, found, shown in views if sample.id in found
    ]
    own = clean[sample.id]
    return {
        "id": sample.id,
        "question": own.asked,
        "clean": picture(root / sample.image.path if root else None, SIDE),
        "chosen": marked(own.text, [answer.text for _, answer, _ in answers]),
        "views": [
            {
                "name": name,
                "asked": answer.asked if answer.asked != own.asked else "",
                "picture": picture(shown.get(sample.id), SIDE),
                "rejected": marked(answer.text, (own.text,)),
                "same": answer.text == own.text,
            }
            for name, answer, shown in answers
        ],
    }


def _names(views: Sequence[AnsweredView], c: Comparison) -> list[str]:
    """The views' names; those of one name are told apart by the fields of their runs."""
    fields = [c.shared_fields([c.finals[run] for run in one.runs]) for one in views]
    names = []
    for one, own in zip(views, fields, strict=True):
        alike = [f for other, f in zip(views, fields, strict=True) if other.view == one.view]
        apart = {n: v for n, v in own.items() if len({str(f.get(n)) for f in alike}) > 1}
        names.append(f"{one.view}: {in_words(apart)}" if apart else one.view)
    return names
