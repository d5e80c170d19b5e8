"""How long stages may take, and how much room: by what the likest artifacts of the store took."""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.manifest import Fault, read_manifest
from seva_exp.core.redact import hide
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment.work import Work
from seva_exp.preferences.answers import LOADING
from seva_exp.stages import Stage

BY_SAMPLE = (
    "samples",
    "answers",
    "scores",
    "model_scores",
    "pairs",
    "chosen_pairs",
    "reference",
)
"""Stages whose time and disk grow with the samples."""
LONG, MANY = 600.0, 10_000
"""Seconds from which a run is told beforehand what it may take; samples from which it is told how
to learn that."""


@dataclass(frozen=True)
class Cost:
    """Time and disk that a stage may take. ``seconds``, ``size`` (bytes): None where no such stage
    was ever made."""

    seconds: float | None
    size: float | None
    judge_calls: int


class Past:
    """Time and disk that a store's artifacts took."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = Store(root)
        self._known: dict[str, frozenset[str]] = {}
        self._own: dict[str, frozenset[str]] = {}
        self._counts: dict[str, int | None] = {}
        self._questions: dict[str, tuple[int, int] | None] = {}

    @cached_property
    def _manifests(self) -> dict[str, Manifest]:
        """By key; of those that can be read."""
        found = {}
        for artifact in self._store.artifacts():
            with suppress(Fault, InputError):
                one = read_manifest(artifact)
                found[one.key] = one
        return found

    def cost(self, stage: Stage) -> Cost:
        """The medians of those artifacts of this stage and model that came about in the likest way:
        with the fewest fields that differ, in the stage's spec and in all that it was made from."""
        spec, own = stage.spec(), self._own_leaves(stage)
        alike: dict[int, list[Manifest]] = {}
        for one in self._manifests.values():
            if one.stage == stage.name and one.spec.get("model") == spec.get("model"):
                alike.setdefault(len(self._leaves("", one) ^ own), []).append(one)
        judged = stage.judge_estimate(self._store)
        calls = judged.calls if judged else 0
        if not alike:
            return Cost(None, None, calls)
        nearest = alike[min(alike)]
        shares = [(share, one) for one in nearest if (share := self._share(stage, one)) is not None]
        if not shares:
            return Cost(None, None, calls)
        return Cost(
            statistics.median(_seconds(one, share) for share, one in shares),
            statistics.median(share * self._size(one) for share, one in shares),
            calls,
        )

    def _share(self, stage: Stage, past: Manifest) -> float | None:
        """How many times the samples (or questions) of a past artifact this stage has; 1 where time
        does not go by them, None where it does and they are not known."""
        if asked := self.questions(stage):
            then = past.summary.get("questions")
            return asked[0] / then if then else None
        then = self._samples_then(past.key) if stage.name in BY_SAMPLE else None
        if not then:
            return 1.0
        wanted = self.samples(stage)
        return wanted / then if wanted else None

    def questions(self, stage: Stage) -> tuple[int, int] | None:
        """A benchmark's questions and the tokens that their answers may have: counted once for all
        models that are asked."""
        spec = stage.spec()
        if "benchmark" not in spec:
            return None
        key = canonical(spec["benchmark"])
        if key not in self._questions:
            self._questions[key] = stage.question_estimate()
        return self._questions[key]

    def samples(self, stage: Stage) -> int | None:
        """The number of a stage's samples: those that were made, else about those to be made."""
        if stage.key not in self._counts:
            known = (self.samples(one) for one in stage.inputs.values())
            self._counts[stage.key] = (
                self._samples_then(stage.key)
                or next(filter(None, known), None)
                or stage.sample_estimate()
            )
        return self._counts[stage.key]

    def _samples_then(self, key: str) -> int | None:
        one = self._manifests.get(key)
        if one is None or one.stage == "samples":
            return one.summary.get("samples") if one else None
        return next((n for key in one.inputs.values() if (n := self._samples_then(key))), None)

    def _size(self, one: Manifest) -> int:
        files = self._store.path(one.stage, one.key).rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def _leaves(self, label: str, one: Manifest) -> frozenset[str]:
        if one.key not in self._known:
            sources = (
                self._leaves(name, self._manifests[key])
                for name, key in one.inputs.items()
                if key in self._manifests
            )
            self._known[one.key] = frozenset().union(*sources)
        return self._known[one.key] | _flat(label, one.spec)

    def _own_leaves(self, stage: Stage, label: str = "") -> frozenset[str]:
        if stage.key not in self._own:
            sources = (self._own_leaves(one, one.label) for one in stage.inputs.values())
            self._own[stage.key] = frozenset().union(*sources)
        return self._own[stage.key] | _flat(label, stage.spec())


def _seconds(past: Manifest, share: float) -> float:
    """A model is loaded once, however many samples there are."""
    loading = min(past.seconds, past.summary.get(LOADING, 0.0))
    return loading + share * (past.seconds - loading)


def _flat(path: str, value: Json) -> frozenset[str]:
    """Every plain value with its path."""
    if isinstance(value, dict) and value:
        parts = (_flat(f"{path}/{key}", child) for key, child in value.items())
        return frozenset().union(*parts)
    return frozenset([f"{path}={canonical(value)}"])


def duration(seconds: float) -> str:
    """In the largest unit of which there is more than one and a half."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(bytes: float) -> str:
    """In binary units."""
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if bytes >= 2**power:
            return f"{bytes / 2**power:.1f} {unit}"
    return f"{bytes / 2**10:.0f} KiB"


def free_in(root: Path) -> int:
    """Bytes that are free where a store lies, or comes to lie."""
    folders = (root.absolute(), *root.absolute().parents)
    return shutil.disk_usage(next(folder for folder in folders if os.path.isdir(folder))).free


def forecast(work: Work, words: Sequence[str]) -> Iterator[str]:
    """Of a dry run, and of a run that is long: the time and disk of the stages that are left, or
    the command (``words`` are its own) of a probe that tells them."""
    past, dry = Past(work.given.store_root()), work.options.dry_run
    left = [stage for stage in work.chosen if stage.key not in work.there]
    costs = {stage.label: past.cost(stage) for stage in left}
    seconds = sum(cost.seconds or 0 for cost in costs.values())
    room, free = sum(cost.size or 0 for cost in costs.values()), free_in(past.root)
    known = [stage for stage in left if costs[stage.label].seconds is not None]
    if known and (dry or seconds >= LONG or room > free):
        unknown = ", ".join(stage.label for stage in left if stage not in known)
        told = ", ".join(_told(past, stage, costs[stage.label]) for stage in known)
        yield (
            f"forecast, as the likest past stages took: {duration(seconds)}, {size(room)} of "
            f"{size(free)} free ({told})" + (f"; unknown: {unknown}" if unknown else "")
        )
    if dry and (measured := [(one, n) for one in left if (n := past.questions(one))]):
        yield _of_benchmarks(measured)
    samples = max((past.samples(stage) or 0 for stage in left), default=0)
    asked = [stage for stage in left if stage.name == "answers"]
    if samples >= MANY and any(stage not in known for stage in asked):
        data = work.experiment.data
        yield (
            f"{samples:,} samples, and no answers of such a view and model are in the store: a "
            "probe tells throughput, time and disk (dry_run=true afterwards): "
            f"python -m seva_exp {_probe(words, data.probe)}"
        )


def _of_benchmarks(asked: Sequence[tuple[Stage, tuple[int, int]]]) -> str:
    """What is left to ask, stage by stage, and how long its answers may be."""
    each = ", ".join(f"{stage.label} {questions:,}" for stage, (questions, _) in asked)
    return (
        f"benchmarks: {sum(questions for _, (questions, _) in asked):,} questions ({each}), whose "
        f"answers have {sum(tokens for _, (_, tokens) in asked):,} tokens at most"
    )


def _told(past: Past, stage: Stage, cost: Cost) -> str:
    assert cost.seconds is not None
    samples = past.samples(stage) if stage.name in BY_SAMPLE else None
    rate = (samples or 0) / max(cost.seconds, 1e-3)
    told = f" at {rate:,.{0 if rate >= 100 else 1}f}/s" if rate else ""
    return f"{stage.label} {duration(cost.seconds)}{told}"


def _probe(words: Sequence[str], few: str) -> str:
    """The command's words, with few samples."""
    instead = [*few.split(), "stop_after=pairs"]
    names = {word.partition("=")[0] for word in [*instead, "dry_run="]}
    others = [word for word in words if word.lstrip("+").partition("=")[0] not in names]
    return " ".join(shlex.quote(hide(word)) for word in [*others, *instead])
