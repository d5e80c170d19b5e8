"""A run's folder: config, command, report, metrics, and readable links into the store."""

from __future__ import annotations

import contextlib
import json
import shlex
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from seva_exp.core.disk import message_of_disk, named
from seva_exp.core.environment import CODE
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.files import write_whole
from seva_exp.core.paths import MARKER
from seva_exp.core.printable import error_text, printable
from seva_exp.core.records import ALIGNED, Delta, PairCounts, Report, StageResult
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import Manifest, Store
from seva_exp.runs.events import Listener, Outcome, Plan, PlannedStage
from seva_exp.runs.findings import findings
from seva_exp.runs.links import write_link
from seva_exp.runs.state import Progress, State, StateFile, facts_of
from seva_exp.stages import Stage
from seva_exp.stages.artifacts import AnswerArtifact, PairArtifact
from seva_exp.stages.candidates import VERDICTS
from seva_exp.stages.sentences import SENTENCES

ERROR = "error.txt"
"""The traceback of what stopped the run."""
PLAN = "plan.json"
"""The stages with their keys: where in the store their artifacts come to lie."""
GALLERY = 24
"""Most example pairs in a report."""


class RunDir(Listener):
    """``runs/<date>_<time>_<name>/``, and the link ``runs/latest``. As long as the run works, its
    state is written there, and what happens into its log."""

    def __init__(self, path: Path, state: StateFile) -> None:
        self.path = path
        self._state = state

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
                raise StageError(message_of_disk(error, plan.dir)) from error
        facts = State(name=plan.name, seed=plan.seed, **facts_of(plan.config))
        folder = cls(path, StateFile(path, facts))
        try:
            write_link(path.parent / "latest", path)
            folder._write_plan(plan)
        except OSError as error:
            folder._state.failed(error)
            raise StageError(message_of_disk(error, path)) from error
        return folder

    def _write_plan(self, plan: Plan) -> None:
        import yaml

        config = yaml.safe_dump(without_secrets(plan.config), sort_keys=False, allow_unicode=True)
        write_whole(self.path / "config.yaml", config)
        if command := self._command(plan):
            write_whole(self.path / "overrides.txt", f"{command}\n")
        stages = [asdict(stage) for stage in plan.stages]
        write_whole(self.path / PLAN, json.dumps(stages, indent=1, ensure_ascii=False) + "\n")

    def noting(self, progress: Progress) -> Progress:
        """``progress``, of which the run's state has the count."""
        return self._state.noting(progress)

    def planned(self, plan: Plan) -> None:
        """What is about to be done, in the log."""
        todo = sum(not row.cached for row in plan.stages)
        self._state.say(f"{plan.name}, seed {plan.seed}: {len(plan.stages)} stages, {todo} to do")
        for note in plan.notes:
            self._state.say(note)

    def stage_started(self, stage: PlannedStage) -> None:
        self._state.stage(stage.name)
        self._state.say(f"{stage.name} begins (key {stage.key[:12]})")

    def waiting(self, stage: PlannedStage) -> None:
        self._state.say(f"{stage.name}: another process is computing this")

    def warned(self, text: str) -> None:
        self._state.say(f"warning: {text}")

    def noted(self, text: str) -> None:
        """What a stage is about to do."""
        self._state.say(text)

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        self._state.say(f"{stage.name}: skipped: {reason}")

    def stage_finished(self, result: StageResult, metrics: Json) -> None:
        how = "read from the store" if result.cached else f"done in {result.seconds:.1f} s"
        self._state.stage("")
        self._state.say(f"{result.name}: {how}")

    @staticmethod
    def _command(plan: Plan) -> str | None:
        """The words that repeat it; None: a run of the Python API has none."""
        if not plan.overrides:
            return None
        return f"python -m seva_exp {' '.join(shlex.quote(hide(word)) for word in plan.overrides)}"

    def logged(self, stage: str, step: int, values: Json) -> None:
        """Append a step while the stage works, for ``tail -f``."""
        path = self.path / "metrics.jsonl"
        with named(path), path.open("a", encoding="utf-8") as file:
            file.write(canonical({"stage": stage, **values}) + "\n")

    def link(self, label: str, artifact: Path) -> None:
        """A readable name for a stage's artifact."""
        write_link(self.path / label, artifact)

    def failed(self, error: BaseException) -> None:
        """Write down where it stopped; what is wrong with the input is told in full elsewhere."""
        said = error_text(error) if isinstance(error, Exception) else "interrupted"
        self._state.say(f"stopped: {said}")
        self._state.failed(error)
        if isinstance(error, Exception) and not isinstance(error, InputError):
            text = "".join(traceback.format_exception(error))
            with contextlib.suppress(OSError):  # a full disk
                (self.path / ERROR).write_text(hide(printable(text)), encoding="utf-8")

    def finished(self, outcome: Outcome) -> None:
        """Write ``report.json``, the whole ``metrics.jsonl`` and the contract's links."""
        rows = "".join(canonical(row) + "\n" for row in outcome.training)
        write_whole(self.path / "metrics.jsonl", rows)
        for name, file in outcome.links.items():
            write_link(self.path / name, self.path / file)
        made_by = {
            "command": self._command(outcome.plan),
            "versions": without_secrets(outcome.environment),
            "config": without_secrets(outcome.plan.config),
        }
        found = {**outcome.report.to_json(), **made_by}
        text = json.dumps(found, indent=2, ensure_ascii=False)
        write_whole(self.path / "report.json", text + "\n")
        self._state.say("done")
        self._state.end("done")


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
        results.append(stage_result(stage, manifest, cached))
        summaries[stage.label] = manifest.summary
    pairs = _pairs(stages)
    trained = _last(stage for stage in stages if stage.trains)
    report = Report(
        key=plan.key,
        name=plan.name,
        seed=plan.seed,
        dir=str(folder.path),
        stages=tuple(results),
        pairs=_counted(pairs, stages, summaries) if pairs else None,
        scores=tuple(
            score for stage in _measured(stages) for score in stage.scores(path_of(stage))
        ),
        deltas=tuple(_deltas(stages, path_of)),
        findings=tuple(findings(stages, path_of, summaries)),
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
        explained=tuple(filter(None, (stage.explained(path_of) for stage in stages))),
        pairs_stage=pairs.label if pairs else "",
        adapter_stage=trained.label if trained else "",
    )


def stage_result(stage: Stage, manifest: Manifest, cached: bool) -> StageResult:
    """A stage with what its artifact took, by the artifact's summary."""
    summary, seconds = manifest.summary, round(manifest.seconds, 3)
    asked = stage.needs_model and issubclass(stage.makes, AnswerArtifact)
    answers = summary.get(VERDICTS, 0) + (summary.get("answers", 0) if asked else 0)
    answers += summary.get(SENTENCES, 0) if stage.needs_model else 0
    steps = summary.get("steps", 0) if stage.trains else 0
    return StageResult(stage.label, stage.key, cached, seconds, answers, steps)


def _last(stages: Iterable[Stage]) -> Stage | None:
    """Of several rounds, the last one's stage."""
    return ([None, *stages])[-1]


def _pairs(stages: Sequence[Stage]) -> Stage | None:
    """That of which the last alignment learnt; where there was none, the last that made pairs."""
    aligned = _last(stage for stage in stages if stage.trains and stage.scores_pairs)
    made = _last(stage for stage in stages if issubclass(stage.makes, PairArtifact))
    return aligned.inputs["pairs"] if aligned else made


def _counted(pairs: Stage, stages: Sequence[Stage], summaries: Mapping[str, Json]) -> PairCounts:
    """What became of the samples: by the summary of ``pairs``, less those that could not be scored
    with the model."""
    counts, later = summaries[pairs.label], Counter[str]()
    for stage in stages:
        if stage.scores_pairs and not stage.trains and stage.inputs["pairs"].key == pairs.key:
            later.update(summaries[stage.label].get("dropped", {}))
    dropped = dict(Counter(counts["dropped"]) + later)
    return PairCounts(counts["sampled"], counts["kept"] - later.total(), dropped)


def _measured(stages: Sequence[Stage]) -> list[Stage]:
    """The stages whose scores are the run's: of a judged benchmark the judge's alone."""
    judged = {stage.inputs["of"].label for stage in stages if stage.judges}
    return [stage for stage in stages if stage.label not in judged]


def _deltas(stages: Sequence[Stage], path_of: Callable[[Stage], Path]) -> list[Delta]:
    """Those of the final model first, then those of the models on the way to it."""
    found = [delta for stage in stages for delta in stage.deltas(path_of(stage))]
    return sorted(found, key=lambda delta: delta.model != ALIGNED)
