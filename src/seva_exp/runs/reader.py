"""One reader of a run's folder: its report, its config, and what its stages made, wherever the
folder's links lead. Whatever shows or exports a finished run reads it here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from seva_exp.core.errors import InputError
from seva_exp.core.paths import MARKER
from seva_exp.core.records import (
    Answer,
    Pair,
    Prediction,
    Report,
    Sample,
    StageResult,
    from_json,
    read_jsonl,
)
from seva_exp.core.spec import Json
from seva_exp.core.store import Manifest, Store
from seva_exp.runs.links import followed

if TYPE_CHECKING:
    from seva_exp.benchmarks import AnyBenchmark
    from seva_exp.models import AnyModel

TRAINING = ("align", "finetune")
"""Kinds of stages that make an adapter."""
KEPT = 4
"""Files of predictions that are held at once: a base that runs share is read once."""


@dataclass(frozen=True)
class Evaluated:
    """One model's answers to one benchmark. ``model`` is ``base``, ``aligned``, ``round1`` ..."""

    model: str
    benchmark: str
    predictions: Path


@dataclass(frozen=True)
class FinishedRun:
    """A finished run's folder. A stage goes by its label (``answers.moco``); the first part of the
    label is its kind. Artifacts need not be in the store any more: what is read of one that is gone
    is empty, unless it says that it raises."""

    folder: Path
    report: Report
    config: Json

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises InputError when the folder holds no finished run."""
        import yaml

        place = followed(folder) if folder.is_file() else folder
        try:
            text = (place / "report.json").read_text(encoding="utf-8")
            report = Report.from_json(json.loads(text))
            config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
            return cls(place, report, dict(config))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"{folder}: {_why_no_run(place)}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            text = " ".join(str(error).split())
            why = f"{type(error).__name__}: {text}"
            raise InputError(f"{folder}: holds no finished run ({why}).") from None

    @classmethod
    def read_all(cls, folders: Sequence[Path]) -> tuple[list[Self], list[str]]:
        """The finished runs, each folder once, and why others are left out: one that is not
        finished does not hide the rest. A sweep's folder stands for its runs. What else lies in a
        folder of runs (its store) is passed over, so that ``runs/*`` can be given."""
        runs, left_out = [], []
        listed = [run for folder in folders for run in _runs_of_sweep(folder) or [folder]]
        for folder in dict.fromkeys(followed(folder) for folder in listed):
            if _beside_runs(folder):
                continue
            try:
                runs.append(cls.read(folder))
            except InputError as error:
                left_out.append(str(error))
        return runs, left_out

    @property
    def finished_at(self) -> datetime:
        """When its report was written."""
        return datetime.fromtimestamp((self.folder / "report.json").stat().st_mtime)

    @property
    def data_root(self) -> str | None:
        """Where the benchmarks' official files lay, if the config says."""
        return self.config.get("data_root")

    @cached_property
    def command(self) -> tuple[str, ...]:
        """The words that began it; empty for a run of the Python API."""
        file = self.folder / "overrides.txt"
        return tuple(shlex.split(file.read_text(encoding="utf-8"))) if file.exists() else ()

    def stages(self, *kinds: str) -> list[StageResult]:
        """The stages of these kinds, in the order of work."""
        return [stage for stage in self.report.stages if stage.name.split(".")[0] in kinds]

    def key(self, label: str) -> str:
        """The key of the stage of this label; empty when the run has none."""
        return next((stage.key for stage in self.report.stages if stage.name == label), "")

    def artifact(self, label: str) -> Path:
        """Where the artifact of a stage lies, or lay."""
        return followed(self.folder / label)

    @property
    def store(self) -> Store:
        """The store of the final model's adapter, or, where nothing was trained, of the first
        artifact."""
        return self._store((self.trained or self.report.stages[0]).name)

    def _store(self, label: str) -> Store:
        return Store(self.artifact(label).parents[1])

    def manifest(self, label: str) -> Manifest | None:
        """Of a stage's artifact; None where it is not whole any more."""
        return self._store(label).find(label.split(".")[0], self.key(label))

    @property
    def trained(self) -> StageResult | None:
        """The stage that made the final model's adapter."""
        return ([None, *self.stages(*TRAINING)])[-1]

    @property
    def adapter(self) -> Path | None:
        """The final model's adapter, in PEFT's layout; None where nothing was trained."""
        return self.artifact(self.trained.name) / "adapter" if self.trained else None

    def model(self) -> AnyModel:
        """The base model. Raises InputError for one that this version of seva_exp does not know."""
        from pydantic import TypeAdapter, ValidationError

        from seva_exp.models import AnyModel

        found: TypeAdapter[AnyModel] = TypeAdapter(AnyModel)
        try:
            return found.validate_python(self.config.get("model"))
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise InputError(f"{self.folder}: holds no finished run (model: {why}).") from None

    def benchmark(self, name: str) -> AnyBenchmark:
        """Raises InputError for one that this version of seva_exp does not know."""
        from pydantic import TypeAdapter, ValidationError

        from seva_exp.benchmarks import AnyBenchmark

        found: TypeAdapter[AnyBenchmark] = TypeAdapter(AnyBenchmark)
        try:
            return found.validate_python((self.config.get("benchmark") or {}).get(name))
        except ValidationError as error:
            why = f"benchmark.{name} is of another version: {error}"
            raise InputError(f"{self.folder}: {why}") from None

    def evaluated(self) -> Iterator[Evaluated]:
        """The evaluations of models on benchmarks, in the order of work."""
        for stage in self.stages("evaluate"):
            _, model, benchmark = stage.name.split(".", 2)
            yield Evaluated(model, benchmark, self.predictions_file(model, benchmark))

    def predictions_file(self, model: str, benchmark: str) -> Path:
        """A model's answers to a benchmark, scored as its scores are: where a judge scored them, as
        the judge has left them."""
        judged = any(stage.name == f"judge.{model}.{benchmark}" for stage in self.report.stages)
        kind = "judge" if judged else "evaluate"
        return self.artifact(f"{kind}.{model}.{benchmark}") / "predictions.jsonl"

    def predictions(self, model: str, benchmark: str) -> list[Prediction]:
        """The rows of ``predictions_file``."""
        path = self.predictions_file(model, benchmark)
        return _predictions(path) if path.exists() else []

    @property
    def pairs_stage(self) -> StageResult | None:
        """The stage whose pairs the report counts: those that the last alignment learnt from;
        where there was none, the last that were made."""
        made = self.stages("pairs")
        aligned = [one.name.removeprefix("align") for one in self.stages("align")]
        learnt = [one for one in made if aligned and one.name == f"pairs{aligned[-1]}"]
        return ([None, *made, *learnt])[-1]

    def pairs(self) -> Iterator[Pair]:
        """Of ``pairs_stage``."""
        stage = self.pairs_stage
        file = self.artifact(stage.name) / "pairs.jsonl" if stage else None
        if file and file.exists():
            yield from read_jsonl(file, Pair)

    def reference(self) -> Iterator[Json]:
        """Of the last round, by pair: ``chosen`` is log pi_ref of the chosen answer, ``rejected``
        those of the rejected ones. Raises FileNotFoundError where the artifact is gone."""
        for stage in self.stages("reference")[-1:]:
            with (self.artifact(stage.name) / "reference.jsonl").open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def training(self) -> Iterator[Json]:
        """The logged steps of all training: ``{"stage": "align", "step": 1, "loss": 0.69}``."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    def views(self) -> dict[str, str]:
        """View (``clean`` is one) -> label of the stage in which the base model answered: that of
        the first round."""
        found = {}
        for stage in self.stages("answers"):
            _, view, *later = stage.name.split(".")
            if view != "instructions" and ".".join(later) in ("", "round1"):
                found[view] = stage.name
        return found

    def answers(self, label: str, wanted: Iterable[str]) -> dict[str, Answer]:
        """By sample, of the stage of this label, the answers to the ``wanted`` samples; read as far
        as the last of these, so first ones of a long file cost little."""
        rows = _rows(self.artifact(label) / "answers.jsonl", "sample_id", wanted)
        return {row["sample_id"]: from_json(Answer, row) for row in rows}

    def previews(self, label: str) -> dict[str, Path]:
        """By sample, the kept pictures of what the view of this stage showed."""
        index = self.artifact(label) / "previews" / "index.json"
        if not index.exists():
            return {}
        rows = json.loads(index.read_text(encoding="utf-8"))
        return {row["sample_id"]: index.parent / row["file"] for row in rows}

    def samples(self, wanted: Iterable[str]) -> list[Sample]:
        """Of these ids, in the file's order."""
        file = self.artifact("samples") / "samples.jsonl"
        return [from_json(Sample, row) for row in _rows(file, "id", wanted)]

    def image_root(self) -> Path | None:
        """Where the samples' pictures lie; None when their source can't be told any more."""
        from pydantic import TypeAdapter, ValidationError

        from seva_exp.data import AnyData

        try:
            data = TypeAdapter(AnyData).validate_python(self.config["data"])
            return data.image_root(self.artifact("samples"))
        except (ValidationError, KeyError, InputError):
            return None


@lru_cache(maxsize=KEPT)
def _predictions(path: Path) -> list[Prediction]:
    return list(read_jsonl(path, Prediction))


def _rows(file: Path, name: str, wanted: Iterable[str]) -> Iterator[Json]:
    """Those whose field ``name`` is one of ``wanted``."""
    left = set(wanted)
    if not left or not file.exists():
        return
    with file.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row[name] in left:
                left.discard(row[name])
                yield row
            if not left:
                return


def _why_no_run(folder: Path) -> str:
    """Of a folder in which files of a run are missing."""
    if (folder / "config.yaml").exists():
        return "this run is not finished."
    if (folder / MARKER).exists():
        return f"holds runs and is none: give those in it, e.g. {folder}/*"
    if not folder.is_dir():
        return "no such folder."
    return "holds no finished run (there is no report.json)."


def _beside_runs(folder: Path) -> bool:
    """Whether it lies where runs do and is none: the store, the sweeps' own folders."""
    there = folder.is_dir() and (folder.parent / MARKER).exists()
    return there and not (folder / "config.yaml").exists()


def _runs_of_sweep(folder: Path) -> list[Path]:
    """Those that are done, in the jobs' order (``sweep.Record``); empty when it is no sweep's."""
    files = sorted(folder.glob("jobs/*.json"), key=lambda file: (len(file.stem), file.stem))
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [Path(row["ended"]["run"]) for row in rows if row["state"] == "done"]
