"""A run's folder: config, command, report, metrics, and readable links into the store."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from seva_exp.core.disk import named, told_of_disk
from seva_exp.core.environment import CODE
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.files import write_whole
from seva_exp.core.paths import MARKER
from seva_exp.core.records import ALIGNED, Delta, PairCounts, Report, StageResult
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import Manifest, Store
from seva_exp.runs.events import Listener, Outcome, Plan
from seva_exp.runs.links import write_link
from seva_exp.stages import Stage
from seva_exp.stages.artifacts import PairArtifact, ScoreArtifact

GALLERY = 24
"""Most example pairs in a report."""


class RunDir(Listener):
    """``runs/<date>_<time>_<name>/``, and the link ``runs/latest``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, plan: Plan) -> RunDir:
        """Make a new folder and write what is about to be done."""
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        try:
            plan.dir.mkdir(parents=True, exist_ok=True)
            (plan.dir / MARKER).touch()
        except OSError as error:
            raise InputError(
                f"machine.runs={plan.dir}: cannot write to this folder ({error.strerror}). "
                "Give another."
            ) from None
        for count in range(1, 1000):
            suffix = "" if count == 1 else f"-{count}"
            path = plan.dir.absolute() / f"{stamp}_{plan.name[:80]}{suffix}"
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
            except OSError as error:
                raise StageError(told_of_disk(error, plan.dir)) from error
        folder = cls(path)
        try:
            write_link(path.parent / "latest", path)
            folder._write_plan(plan)
        except OSError as error:
            raise StageError(told_of_disk(error, path)) from error
        return folder

    def _write_plan(self, plan: Plan) -> None:
        import yaml

        config = yaml.safe_dump(without_secrets(plan.config), sort_keys=False, allow_unicode=True)
        write_whole(self.path / "config.yaml", config)
        if plan.overrides:  # a run of the Python API has no command
            words = " ".join(shlex.quote(hide(word)) for word in plan.overrides)
            command = f"python -m seva_exp {words}\n"
            write_whole(self.path / "overrides.txt", command)

    def logged(self, stage: str, step: int, values: Json) -> None:
        """Append a step while the stage works, for ``tail -f``."""
        path = self.path / "metrics.jsonl"
        with named(path), path.open("a", encoding="utf-8") as file:
            file.write(canonical({"stage": stage, **values}) + "\n")

    def link(self, label: str, artifact: Path) -> None:
        """A readable name for a stage's artifact."""
        write_link(self.path / label, artifact)

    def finished(self, outcome: Outcome) -> None:
        """Write ``report.json``, the whole ``metrics.jsonl`` and the contract's links."""
        rows = "".join(canonical(row) + "\n" for row in outcome.training)
        write_whole(self.path / "metrics.jsonl", rows)
        for name, file in outcome.links.items():
            write_link(self.path / name, self.path / file)
        text = json.dumps(outcome.report.to_json(), indent=2, ensure_ascii=False)
        write_whole(self.path / "report.json", text + "\n")


def collect_outcome(
    plan: Plan,
    done: Sequence[tuple[Stage, Manifest, bool]],
    store: Store,
    folder: RunDir,
) -> Outcome:
    """Read from the artifacts what a report shows."""
    stages = [stage for stage, _, _ in done]

    def path_of(stage: Stage) -> Path:
        return store.path(stage.name, stage.key)

    results, summaries = [], {}
    for stage, manifest, cached in done:
        seconds = round(manifest.seconds, 3)
        results.append(StageResult(stage.label, stage.key, cached, seconds))
        summaries[stage.label] = manifest.summary
    pairs = _pairs(stages)
    trained = _last(stage for stage in stages if stage.trains)
    counts = summaries[pairs.label] if pairs else None
    links = {"adapter": f"{trained.label}/adapter"} if trained else {}
    links |= {"pairs.jsonl": f"{pairs.label}/pairs.jsonl"} if pairs else {}
    report = Report(
        key=plan.key,
        name=plan.name,
        seed=plan.seed,
        dir=str(folder.path),
        stages=tuple(results),
        pairs=PairCounts(**{k: counts[k] for k in ("sampled", "kept", "dropped")})
        if counts
        else None,
        scores=tuple(
            score for stage in _measured(stages) for score in stage.scores(path_of(stage))
        ),
        deltas=tuple(_deltas(stages, path_of)),
    )
    return Outcome(
        plan=plan,
        report=report,
        examples=tuple(pairs.examples(path_of, GALLERY)) if pairs else (),
        training=tuple(
            {"stage": stage.label, **row}
            for stage in stages
            for row in stage.makes(path_of(stage)).training()
        ),
        stage_metrics=summaries,
        environment={n: v for n, v in done[-1][1].environment.items() if n != CODE},
        answered=tuple(filter(None, (stage.answered(path_of) for stage in stages))),
        links=links,
    )


def _last(stages: Iterable[Stage]) -> Stage | None:
    """Of several rounds, the last one's stage."""
    return ([None, *stages])[-1]


def _pairs(stages: Sequence[Stage]) -> Stage | None:
    """That of which the last alignment learnt; where there was none, the last that made pairs."""
    aligned = _last(stage for stage in stages if stage.trains and stage.scores_pairs)
    made = _last(stage for stage in stages if stage.makes is PairArtifact)
    return aligned.inputs["pairs"] if aligned else made


def _measured(stages: Sequence[Stage]) -> list[Stage]:
    """The stages whose scores are the run's: of a judged benchmark the judge's alone."""
    judged = {stage.inputs["of"].label for stage in stages if stage.judges}
    found = (stage for stage in stages if stage.makes is ScoreArtifact)
    return [stage for stage in found if stage.label not in judged]


def _deltas(stages: Sequence[Stage], path_of: Callable[[Stage], Path]) -> list[Delta]:
    """Those of the final model first, then those of the models on the way to it."""
    found = [delta for stage in stages for delta in stage.deltas(path_of(stage))]
    return sorted(found, key=lambda delta: delta.model != ALIGNED)
