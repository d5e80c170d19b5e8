"""One reader of a run's folder: its report, its config, and what its stages made, wherever the
folder's links lead. Whatever shows or exports a finished run reads it here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from seva_exp import plugins
from seva_exp.benchmarks import AnyBenchmark
from seva_exp.core.errors import InputError
from seva_exp.core.manifest import Fault, check_file
from seva_exp.core.paths import MARKER
from seva_exp.core.printable import error_text
from seva_exp.core.records import (
    Answer,
    Pair,
    Prediction,
    Report,
    Sample,
    StageResult,
)
from seva_exp.core.spec import Json
from seva_exp.core.store import Manifest, Store
from seva_exp.data import AnyData
from seva_exp.models import AnyModel
from seva_exp.runs.links import followed
from seva_exp.stages import (
    STAGES,
    Align,
    Answers,
    Evaluate,
    JudgeAnswers,
    Pairs,
    Reference,
    Samples,
)
from seva_exp.stages.artifacts import (
    AdapterArtifact,
    AnswerArtifact,
    Artifact,
    PairArtifact,
    ReferenceArtifact,
    SampleArtifact,
    ScoreArtifact,
)
from seva_exp.stages.labels import (
    about_model,
    kind_of,
    model_and_benchmark,
    of_same_round,
    view_and_round,
)

KEPT = 4
"""Files of predictions that are held at once: a base that runs share is read once."""
Kind = TypeVar("Kind", bound=Artifact)

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What a damaged file of a run's folder may raise where it is parsed."""


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
        except (OSError, *UNREADABLE, yaml.YAMLError) as error:
            why = error_text(error, kind=True)
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
        return [stage for stage in self.report.stages if kind_of(stage.name) in kinds]

    def key(self, label: str) -> str:
        """The key of the stage of this label; empty when the run has none."""
        return next((stage.key for stage in self.report.stages if stage.name == label), "")

    def artifact(self, label: str) -> Path:
        """Where the artifact of a stage lies, or lay."""
        return followed(self.folder / label)

    def file(self, label: str, name: str) -> Path:
        """A file of a stage's artifact, which need not be there any more. Raises InputError where
        it is not what the stage wrote, and where it may not be read."""
        artifact = self.artifact(label)
        try:
            check_file(artifact, name)
        except Fault as fault:
            raise InputError(f"{self.folder}: {label}: {fault}. {self.again}") from None
        return artifact / name

    @property
    def again(self) -> str:
        """For a person: how to have again what is gone or damaged."""
        command = f": {shlex.join(self.command)}" if self.command else ""
        return f"Run it again: that recomputes what is damaged or gone{command}"

    @property
    def store(self) -> Store:
        """The store of the final model's adapter, or, where nothing was trained, of the first
        artifact."""
        return self._store((self.trained or self.report.stages[0]).name)

    def _store(self, label: str) -> Store:
        return Store(self.artifact(label).parents[1])

    def manifest(self, label: str) -> Manifest | None:
        """The manifest of a stage's artifact; None where the artifact is not whole any more."""
        store, name = self._store(label), (self.artifact(label).parent.name, self.key(label))
        return store.whole(*name)

    @property
    def trained(self) -> StageResult | None:
        """The stage that made the final model's adapter."""
        trains = (name for name, stage in STAGES.items() if stage.trains)
        return ([None, *self.stages(*trains)])[-1]

    @property
    def adapter(self) -> Path | None:
        """The final model's adapter, in PEFT's layout; None where nothing was trained."""
        return AdapterArtifact(self.artifact(self.trained.name)).adapter if self.trained else None

    def model(self) -> AnyModel:
        """The base model. Raises InputError for one that this version of seva_exp does not know."""
        found: TypeAdapter[AnyModel] = TypeAdapter(AnyModel)
        try:
            return found.validate_python(self.config.get("model"))
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise InputError(f"{self.folder}: holds no finished run (model: {why}).") from None

    def benchmark(self, name: str) -> AnyBenchmark:
        """Raises InputError for one that this version of seva_exp does not know. A plugin's is
        known where it is installed or $SEVA_EXP_PLUGINS names it: a folder has no code run."""
        plugins.load_installed()
        found: TypeAdapter[AnyBenchmark] = TypeAdapter(AnyBenchmark)
        try:
            return found.validate_python((self.config.get("benchmark") or {}).get(name))
        except ValidationError as error:
            named = ",".join(self.config.get("plugins") or ())
            why = f"benchmark.{name} is of another version: {error}"
            if named:
                why = f"benchmark.{name} may be a plugin's: set {plugins.VARIABLE}={named}."
            raise InputError(f"{self.folder}: {why}") from None

    def evaluated(self) -> Iterator[Evaluated]:
        """The evaluations of models on benchmarks, in the order of work."""
        for stage in self.stages(Evaluate.name):
            model, benchmark = model_and_benchmark(stage.name)
            yield Evaluated(model, benchmark, self.predictions_file(model, benchmark))

    def predictions_file(self, model: str, benchmark: str) -> Path:
        """A model's answers to a benchmark, scored as its scores are: where a judge scored them, as
        the judge has left them."""
        judged = about_model(JudgeAnswers.name, model, benchmark)
        known = any(stage.name == judged for stage in self.report.stages)
        label = judged if known else about_model(Evaluate.name, model, benchmark)
        return self.file(label, ScoreArtifact.main)

    def predictions(self, model: str, benchmark: str) -> list[Prediction]:
        """The rows of ``predictions_file``."""
        path = self.predictions_file(model, benchmark)
        return _predictions(path) if path.exists() else []

    @property
    def pairs_stage(self) -> StageResult | None:
        """The stage whose pairs the report counts: those that the last alignment learnt from;
        where there was none, the last that were made."""
        made, aligned = self.stages(Pairs.name), self.stages(Align.name)
        label = of_same_round(Pairs.name, aligned[-1].name) if aligned else ""
        return ([None, *made, *(one for one in made if one.name == label)])[-1]

    def pairs(self) -> Iterator[Pair]:
        """The pairs that ``pairs_stage`` kept."""
        if (stage := self.pairs_stage) and (found := self._kept(PairArtifact, stage.name)):
            yield from found.pairs()

    def margins(self) -> Iterator[float]:
        """The margins of the last round's reference, pair by pair: log pi_ref(chosen) - the mean of
        log pi_ref(rejected). Raises FileNotFoundError where the artifact is gone."""
        for stage in self.stages(Reference.name)[-1:]:
            file = self.file(stage.name, ReferenceArtifact.main)
            yield from ReferenceArtifact(file.parent).margins()

    def training(self) -> Iterator[Json]:
        """The logged steps of all training: ``{"stage": "align", "step": 1, "loss": 0.69}``."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise InputError(f"{path}, line {number}: is damaged. {self.again}") from None

    def views(self) -> dict[str, str]:
        """View (``clean`` is one) -> label of the stage in which the base model answered: that of
        the first round."""
        found = {}
        for stage in self.stages(Answers.name):
            view, round = view_and_round(stage.name)
            if view != "instructions" and round in ("", "round1"):
                found[view] = stage.name
        return found

    def answers(self, label: str, wanted: Collection[str]) -> dict[str, Answer]:
        """The answers of the stage of this label to the ``wanted`` samples, by sample."""
        found = self._kept(AnswerArtifact, label)
        return {one.sample_id: one for one in found.answers(wanted)} if found else {}

    def previews(self, label: str) -> dict[str, Path]:
        """The kept pictures of what the view of this stage showed, by sample."""
        self.file(label, AnswerArtifact.index)
        found = self._kept(AnswerArtifact, label)
        return found.previews() if found else {}

    def samples(self, wanted: Collection[str]) -> list[Sample]:
        """The samples of these ids, in the file's order."""
        found = self._kept(SampleArtifact, Samples.name)
        return list(found.samples(wanted)) if found else []

    def _kept(self, kind: type[Kind], label: str) -> Kind | None:
        """The artifact of a stage; None where it is gone."""
        file = self.file(label, kind.main)
        return kind(self.artifact(label)) if file.exists() else None

    def image_root(self) -> Path | None:
        """Where the samples' pictures lie; None when their source can't be told any more."""
        try:
            data = TypeAdapter(AnyData).validate_json(json.dumps(self.config["data"]))
            return data.image_root(self.artifact(Samples.name))
        except (ValidationError, KeyError, InputError):
            return None


@lru_cache(maxsize=KEPT)
def _predictions(path: Path) -> list[Prediction]:
    return list(ScoreArtifact(path.parent).predictions())


def _why_no_run(folder: Path) -> str:
    """Why a folder in which files of a run are missing holds no finished run."""
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
    """The runs of a sweep that are done, in the jobs' order (``sweep.Record``); none where the
    folder is no sweep's."""
    files = sorted(folder.glob("jobs/*.json"), key=lambda file: (len(file.stem), file.stem))
    found = []
    for file in files:
        try:
            row = json.loads(file.read_bytes())
            if row["state"] == "done":
                found.append(Path(row["ended"]["run"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            why = f"is damaged ({type(error).__name__}). Give the runs' folders themselves."
            raise InputError(f"{file}: {why}") from None
    return found
