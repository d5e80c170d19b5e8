"""The pairs of a run that is not done: of what its views have answered so far, by its own filters.
It is read beside the run, or after a kill: nothing is written, and no lock is taken."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError
from seva_exp.core.printable import error_text
from seva_exp.core.records import Answer, Drop, Pair, Sample
from seva_exp.core.spec import Json
from seva_exp.core.store import FORCED, PARTIAL, Store
from seva_exp.experiment.graph import graph
from seva_exp.experiment.value import Experiment
from seva_exp.preferences.pairs import (
    Candidates,
    Tally,
    candidates_of,
    make_pairs,
    side_by_side,
)
from seva_exp.preferences.shards import AnswersSoFar
from seva_exp.runs.folder import PLAN
from seva_exp.runs.links import followed
from seva_exp.stages import Answers, Pairs, Rejected, Samples
from seva_exp.stages.artifacts import AnswerArtifact, SampleArtifact

TRIES = 5
"""Readings of a run that goes on meanwhile: a file may be gone when its turn comes."""


@dataclass(frozen=True)
class SoFar:
    """``answered``: by the label of each source of the pairs, how many samples it has answered and
    is asked. ``counts`` is a summary of the stage ``pairs``, in which ``sampled`` are the samples
    that all of these have answered; the ``missing`` sources have not begun. ``latest`` are the last
    pairs in the samples' order."""

    run: str
    stage: str
    samples: int
    answered: dict[str, tuple[int, int]]
    missing: tuple[str, ...]
    counts: Json
    latest: tuple[Pair, ...]


def pairs_so_far(folder: Path, most: int) -> SoFar:
    """Of a run's folder, with ``most`` of its latest pairs. Raises InputError where it is none."""
    run = _Begun.read(folder)
    for _ in range(TRIES):
        try:
            return run.so_far(most)
        except FileNotFoundError as error:
            gone = error
    raise InputError(f"{gone.filename}: is gone from the store; give the run's command again.")


@dataclass(frozen=True)
class _Begun:
    """A run that was begun: its experiment, and the plan's stages by label."""

    folder: Path
    experiment: Experiment
    plan: dict[str, Json]

    @classmethod
    def read(cls, folder: Path) -> _Begun:
        import yaml

        place = followed(folder) if folder.is_file() else folder
        if not (place / "config.yaml").is_file():
            raise InputError(
                f"{folder}: holds no run (config.yaml). Give a run's folder, such as runs/latest."
            )
        try:
            config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
            fields = {name: config[name] for name in Experiment.model_fields if name in config}
            experiment = Experiment.model_validate_json(json.dumps(fields))
            stages = json.loads((place / PLAN).read_text(encoding="utf-8"))
            return cls(place, experiment, {row["name"]: row for row in stages})
        except FileNotFoundError:
            why = f"it has no {PLAN}: an earlier version of seva_exp began it"
        except (OSError, ValueError, TypeError, LookupError, ValidationError) as error:
            why = error_text(error, kind=True)
        raise InputError(
            f"{folder}: what this run has cannot be told ({why}). Its command, given again, goes "
            "on in the same store, in a folder that tells it."
        )

    def so_far(self, most: int) -> SoFar:
        known = graph(self.experiment, FileDigests(self.store.root))
        rounds = [stage for stage in known if isinstance(stage, Pairs)]
        begun = [stage for stage in rounds if self._answered(stage.clean)]
        return self._pairs((begun or rounds[:1])[-1], most)

    def _pairs(self, stage: Pairs, most: int) -> SoFar:
        others = (one for one in stage.negatives if one.label != stage.clean.label)
        every: list[Answers | Rejected] = [stage.clean, *others] if stage.asked else []
        found = {one.label: has for one in every if (has := self._answered(one))}
        clean = found.get(stage.clean.label)
        negatives = [one for one in stage.negatives if one.label in found]
        views = [one.view for one in negatives]
        asks = [None if isinstance(one, Rejected) else one.asks(self._samples) for one in negatives]

        def groups() -> Iterator[Candidates]:
            assert clean
            rows = [clean.answers(), *(found[one.label].answers() for one in negatives)]
            for sample, (best, *others) in side_by_side(self._samples.samples(), rows):
                if best and _all_answered(sample, asks, others):
                    yield candidates_of(sample, best[0], dict(zip(views, others, strict=True)))

        tally, latest = Tally(views), deque[Pair](maxlen=most)
        chosen = self._chosen(stage) if stage.by_scores or not stage.asked else None
        if chosen:
            latest.extend(stage.makes(chosen[0]).pairs())
        elif clean and negatives and not stage.by_scores:
            for made in make_pairs(groups, stage.filters, stage.seed, stage.newlines):
                tally.add(made)
                if not isinstance(made.result, Drop):
                    latest.append(made.result)
        return SoFar(
            run=str(self.folder.resolve()),
            stage=stage.label,
            samples=sum(1 for _ in self._samples.samples()),
            answered={label: (has.done, has.total) for label, has in found.items()},
            missing=tuple(one.label for one in every if one.label not in found),
            counts=chosen[1] if chosen else tally.summary(),
            latest=tuple(latest),
        )

    def _chosen(self, stage: Pairs) -> tuple[Path, Json] | None:
        """The artifact and its summary. Answers are chosen when all are scored: before, nothing can
        be told."""
        row = self.plan.get(stage.label)
        manifest = self.store.find(stage.name, row["key"]) if row else None
        return (self.store.path(stage.name, manifest.key), manifest.summary) if manifest else None

    @cached_property
    def store(self) -> Store:
        """That in which the run's first stage came to lie. Raises InputError."""
        first = self.folder / Samples.name
        if not (first.is_symlink() or first.exists()):
            raise InputError(f"{self.folder}: no stage of this run is done, so there is no answer.")
        return Store(followed(first).parents[1])

    @property
    def _samples(self) -> SampleArtifact:
        return SampleArtifact(self.store.path(Samples.name, self.plan[Samples.name]["key"]))

    def _answered(self, stage: Answers | Rejected) -> AnswersSoFar | _Whole | None:
        """What the stage has answered; None where it has not begun. Unfinished work is looked for
        first: when it is finished, it becomes the artifact."""
        row = self.plan.get(stage.label)
        if row is None:  # the run stops before it
            return None
        path = self.store.path(stage.name, row["key"])
        if isinstance(stage, Answers):
            work = path.with_suffix(FORCED if row["forced"] else PARTIAL)
            some = AnswersSoFar(self._samples.file, stage.asks(self._samples), work)
            if some.total:
                return some
        manifest = self.store.find(stage.name, row["key"])
        if manifest is None:
            return None
        samples = "samples" if isinstance(stage, Rejected) else "answers"
        return _Whole(stage.makes(path), manifest.summary[samples])


@dataclass(frozen=True)
class _Whole:
    """A finished stage's answers; ``done`` are the samples that it was asked."""

    artifact: AnswerArtifact
    done: int

    @property
    def total(self) -> int:
        return self.done

    def answers(self) -> Iterator[Answer]:
        """In the samples' order."""
        return self.artifact.answers()


def _all_answered(
    sample: Sample,
    asks: Sequence[Callable[[Sample], bool] | None],
    answers: Sequence[Sequence[Answer]],
) -> bool:
    """Whether each view that the sample falls to has answered; a source of texts may have none."""
    return all(
        bool(found) or asked is None or not asked(sample)
        for asked, found in zip(asks, answers, strict=True)
    )
