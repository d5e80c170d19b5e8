"""What the words of base's and final model's answers rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from PIL.Image import Image

from seva_exp.augment import AnySource
from seva_exp.core.files import write_whole
from seva_exp.core.interfaces import Placement
from seva_exp.core.records import ALIGNED, BASE, Delta, Score, write_jsonl
from seva_exp.core.spec import Json, canonical, digest
from seva_exp.grounding.agreeing import answers_under_weak_views
from seva_exp.grounding.joining import joined
from seva_exp.grounding.metrics import counted, metrics, protocol
from seva_exp.grounding.pieces import Piece, baseline, pieces_of
from seva_exp.grounding.rows import ExplainedSample, ShownPictures
from seva_exp.grounding.spec import Explain
from seva_exp.inputs.views import View
from seva_exp.stages.artifacts import ExplainArtifact
from seva_exp.stages.base import Inputs, Stage, StageContext, Trained
from seva_exp.stages.evaluation import Evaluate, JudgeAnswers
from seva_exp.stages.per_sample import PerSample, Work
from seva_exp.stages.shown import Explained

Asked = tuple[str, Piece]
"""Which model reads what."""
TOLD = 20
"""Answers that a summary names."""
SIDE = 336
"""Largest side of a kept picture, in pixels."""


@dataclass(frozen=True)
class ExplainWords(PerSample):
    """What each word of some answers rests on, under base and final model, which both read the same
    answers: ``words.jsonl`` (those that are shown), ``measured.jsonl`` (those that the metrics
    rest on), ``scores.jsonl``, ``deltas.jsonl``, ``pictures/``. ``view`` is the negative view that
    stands beside the mean picture; ``seed`` the run's."""

    name: ClassVar[str] = "explain"
    version: ClassVar[int] = 1
    makes: ClassVar[type[ExplainArtifact]] = ExplainArtifact
    batch_field: ClassVar[str] = "train_batch_size"
    base: Evaluate | JudgeAnswers
    after: Evaluate | JudgeAnswers
    how: Explain
    seed: int
    called: str = field(default="", compare=False)
    """The view's name in this run."""
    view: AnySource | None = None

    @property
    def label(self) -> str:
        return f"{self.name}.{self.base.benchmark_name}"

    @property
    def models(self) -> dict[str, Evaluate]:
        """By name the evaluations, which know the models."""
        found = {BASE: self.base, ALIGNED: self.after}
        return {n: one.of if isinstance(one, JudgeAnswers) else one for n, one in found.items()}

    @property
    def trained(self) -> Trained | None:
        """What the aligned model was trained by; None for a whole checkpoint."""
        return self.models[ALIGNED].trained

    @property
    def inputs(self) -> Mapping[str, Stage]:
        adapter = {"adapter": self.trained} if self.trained else {}
        return {"base": self.base, "after": self.after, **adapter}

    def spec(self) -> Json:
        models = self.models
        drawn = self.view is not None or self.how.agreement is not None
        return {
            "explain": self.how.identity(),
            "models": [one.model.identity(one.digests) for one in models.values()],
            "view": self.view.keyed() if self.view else None,
            "seed": self.seed if drawn else None,
        }

    def pieces(self, inputs: Inputs) -> list[Piece]:
        """What is explained, in the questions' order."""
        before, after = (
            list(stage.makes(inputs[name]).predictions())
            for name, stage in (("base", self.base), ("after", self.after))
        )
        return pieces_of(self.base.benchmark, self.base.root, before, after, self.how)

    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Asked]]:
        pieces = self.pieces(inputs)
        for which in (BASE, ALIGNED):
            yield from ((f"{which}/{piece.id}", (which, piece)) for piece in pieces)

    @contextmanager
    def working(
        self, work: Path, inputs: Inputs, context: StageContext, left: Sequence[Asked]
    ) -> Iterator[Work]:
        context.keep_base()
        with _Reading(self, work, inputs, context, left) as reading:

            def make(some: Sequence[Asked]) -> list[Json]:
                return [
                    row
                    for which, group in groupby(some, key=lambda asked: asked[0])
                    for row in reading.rows(which, [piece for _, piece in group])
                ]

            yield make

    def gathered(
        self, work: Path, pieces: Sequence[Asked], rows: Sequence[Mapping[str, Any]]
    ) -> Json:
        by_model: dict[str, dict[str, Json]] = {BASE: {}, ALIGNED: {}}
        for (which, piece), row in zip(pieces, rows, strict=True):
            by_model[which][piece.id] = dict(row)
        every = [piece for which, piece in pieces if which == BASE]
        found = [
            joined(one, {which: of[one.id] for which, of in by_model.items()}, self.how)
            for one in every
        ]
        made = self.makes(work)
        shown = [one for one, of in zip(found, every, strict=True) if of.shown]
        measured = [one for one, of in zip(found, every, strict=True) if of.measured]
        write_lines(made.file, shown)
        write_index(work, shown)
        write_lines(made.measured_file, measured)
        scores = self._measure(made, measured, {one.id: one.base.group for one in every})
        left_out = sorted({text for row in rows for text in row["left_out"]})
        words = sum(len(answer.words) for one in found for answer in one.answers)
        return {
            "shown": len(shown),
            "measured": len(measured),
            "words": words,
            **{f"{one.metric}.{one.model}": round(one.value, 4) for one in scores},
            **({"left_out": left_out[:TOLD]} if left_out else {}),
            **_no_maps(rows),
        }

    def _measure(
        self, made: ExplainArtifact, samples: Sequence[ExplainedSample], groups: dict[str, str]
    ) -> list[Score]:
        from seva_exp.benchmarks.statistics import deltas, scores

        found: list[Score] = []
        changes: list[Delta] = []
        if samples:
            name = self.base.benchmark_name
            both = counted(samples, groups, self.how)
            for model, rows in both.items():
                found += scores(
                    metrics, rows, model=model, benchmark=name, protocol=protocol(self.how)
                )
            changes = deltas(metrics, both[BASE], both[ALIGNED], benchmark=name)
        write_jsonl(made.scores_file, found)
        write_jsonl(made.deltas_file, changes)
        return found

    def cost_note(self) -> str:
        how, models = self.how, len(self.models)
        looks = 2 + bool(self.view)
        cells = how.blocks**2 if how.mapped and "occlusion" in how.maps else 0
        once = len([one for one in how.maps if one != "occlusion"]) if how.mapped else 0
        weak = len(how.agreement.views) if how.agreement else 0
        asked = f", and {models * weak} answers under weak views each" if weak else ""
        return (
            f"{self.label}: forward passes of the language model, each over a picture, a question "
            f"and both answers: {models * looks} a measured question (up to {how.measured}), "
            f"{models * (looks + cells + once)} a shown one (up to {how.shown}; with {cells} cells "
            f"a map; of up to 64 image tokens each is one){asked}"
        )

    def explained(self, path_of: Callable[[Stage], Path]) -> Explained | None:
        name = self.base.benchmark_name
        return Explained(name, path_of(self), self.how.rests, self.called)

    def scores(self, path: Path) -> list[Score]:
        found = self.makes(path).scores()
        return [replace(one, benchmark=self.base.benchmark_name) for one in found]

    def deltas(self, path: Path) -> list[Delta]:
        found = self.makes(path).deltas()
        return [replace(one, benchmark=self.base.benchmark_name) for one in found]


def write_lines(file: Path, samples: Sequence[ExplainedSample]) -> None:
    """A line of JSON each."""
    write_whole(file, "".join(canonical(one.to_json()) + "\n" for one in samples))


def _no_maps(rows: Sequence[Mapping[str, Any]]) -> Json:
    """Why there are no maps of a method, where there are none."""
    found: dict[str, str] = {}
    for row in rows:
        found |= row.get("no_maps", {})
    return {"no_maps": found} if found else {}


def keep_pictures(work: Path, piece: Piece, clean: Image, worse: Image | None) -> None:
    """Files of what the models see of a piece's picture."""
    folder = (work / ExplainArtifact.index).parent
    folder.mkdir(exist_ok=True)
    for name, picture in zip(_files(piece.id), (clean, worse), strict=True):
        if picture:
            picture.thumbnail((SIDE, SIDE))
            picture.save(folder / name)


def write_index(work: Path, samples: Sequence[ExplainedSample]) -> None:
    """Which of the kept files are whose."""
    index = work / ExplainArtifact.index
    index.parent.mkdir(exist_ok=True)
    rows = []
    for sample in samples:
        clean, worse = _files(sample.id)
        there = (index.parent / worse).exists()
        rows.append(
            ShownPictures(id=sample.id, clean=clean, worse=worse if there else "").to_json()
        )
    write_whole(index, canonical(rows) + "\n")


def _files(id: str) -> tuple[str, str]:
    name = digest(id)[:16]
    return f"{name}.png", f"{name}_worse.png"


def _nowhere(piece: Piece, clean: Image, worse: Image | None) -> None:
    """They are kept already."""


class _Reading:
    """The models, one after the other: the aligned one is the base with the adapter beside its
    weights, where there is one."""

    def __init__(
        self,
        stage: ExplainWords,
        work: Path,
        inputs: Inputs,
        context: StageContext,
        left: Sequence[Asked],
    ) -> None:
        self._stage, self._work, self._context, self._left = stage, work, context, left
        trained = stage.trained
        self._adapter = trained.makes(inputs["adapter"]).adapter if trained else None
        every = stage.base.benchmark.chosen(stage.base.root)
        chosen = baseline(every, stage.how.pictures)
        self._baseline = [question.load for question in chosen if question.load]
        self._stack = ExitStack()
        self._which = ""

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self, which: str, pieces: Sequence[Piece]) -> list[Json]:
        """A row for each piece, read by one of the models."""
        if which != self._which:
            self._open(which)
        return [
            {"sample_id": f"{which}/{piece.id}", "weak": self._weak.get(piece.id, []), **row}
            for piece, row in zip(pieces, self._read(pieces), strict=True)
        ]

    def _open(self, which: str) -> None:
        from seva_exp.grounding.reading import Reading, reading

        self._stack.close()
        stage, context = self._stage, self._context
        model = stage.models[which].model
        adapter = self._adapter if which == ALIGNED else None
        vlm = context.model(model, adapter)
        placement: Placement = context.placement(self._work, model, adapter)
        self._weak: dict[str, list[str]] = {}
        if ambiguity := stage.how.agreement:
            mine = [piece for of, piece in self._left if of == which]
            self._weak = answers_under_weak_views(
                vlm, model, ambiguity, placement, mine, which, stage.seed
            )
        view = View(stage.called, stage.view, stage.seed) if stage.view else None
        keep = partial(keep_pictures, self._work) if which == BASE else _nowhere
        how = Reading(vlm, stage.how, placement, self._baseline, view, keep)
        self._read = self._stack.enter_context(reading(how))
        self._which = which
