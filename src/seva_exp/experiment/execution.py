"""The stages of a run, one after the other: each read from the store, or made there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seva_exp.core.closure import code_of, is_other
from seva_exp.core.environment import CODE, describe_environment
from seva_exp.core.errors import StageError
from seva_exp.core.machine import Machine
from seva_exp.core.records import StageResult
from seva_exp.core.spec import Json
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment.graph import with_inputs
from seva_exp.runs.events import Listener, PlannedStage
from seva_exp.runs.folder import RunDir
from seva_exp.stages import Align, Pairs, Reference, Stage, StageContext, Trained


@dataclass
class Execution:
    """Where stages are made, and who hears of it."""

    store: Store
    context: StageContext
    folder: RunDir
    told: Listener
    done: list[tuple[Stage, Manifest, bool]] = field(default_factory=list)
    """What there is, and whether it was there before."""

    def run(self, chosen: Sequence[Stage], rows: Sequence[PlannedStage]) -> None:
        """Every stage in turn. Where no pair is left there is nothing to align: the stages that
        need the adapter are skipped, and what was measured is still reported."""
        for stage, row in zip(chosen, rows, strict=True):
            if not row.cached:  # now: files that are edited while it works are not what it runs
                code_of(type(stage))
        if old := self._of_other_code(chosen, rows):
            self.told.warned(made_by_other_code(old))
        skipped: dict[str, str] = {}
        for stage, row in zip(chosen, rows, strict=True):
            why = next((skipped[s.key] for s in stage.inputs if s.key in skipped), "")
            if not why and isinstance(stage, (Align, Reference)):
                why = self._no_pair(stage.pairs)
            if why:
                skipped[stage.key] = why
                self.told.stage_skipped(row, why)
            else:
                self.done.append((stage, *self._make(stage, row)))

    def _of_other_code(self, chosen: Sequence[Stage], rows: Sequence[PlannedStage]) -> list[Stage]:
        """Stages that will be read from the store, and were made when the code that decides their
        results was another. Its digest is in no key: where a result changed, so did a version."""
        found = []
        for stage, row in zip(chosen, rows, strict=True):
            manifest = self.store.find(stage.name, stage.key) if row.cached else None
            if manifest and is_other(manifest.environment.get(CODE), type(stage)):
                found.append(stage)
        return found

    def _no_pair(self, pairs: Pairs) -> str:
        """Why there is nothing to align; empty when there is."""
        summary = next(m.summary for s, m, _ in self.done if s.key == pairs.key)
        if summary["kept"]:
            return ""
        why = ", ".join(f"{n} {reason}" for reason, n in summary["dropped"].items())
        return (
            f"no pair is left of {summary['sampled']} (dropped: {why}); use a stronger "
            "augmentation (e.g. aug.diffusion_noise.step=800), milder filters or more samples"
        )

    def _make(self, stage: Stage, row: PlannedStage) -> tuple[Manifest, bool]:
        """One stage: read from the store, or made there under its lock."""
        machine = self.context.machine

        def describe(seconds: float, summary: Json) -> Manifest:
            inputs = {source.label: source.key for source in stage.inputs}
            environment = describe_environment(machine) | {CODE: code_of(type(stage))}
            identity = (stage.name, stage.version, stage.key, stage.spec(), inputs)
            return Manifest(*identity, environment, seconds, summary)

        paths = [self.store.path(source.name, source.key) for source in stage.inputs]
        try:
            manifest, cached = self.store.make(
                describe,
                stage.name,
                stage.key,
                lambda work: stage.run(work, paths, self.context),
                force=row.forced,
                on_start=lambda: self.told.stage_started(row),
                on_wait=lambda: self.told.waiting(row),
            )
        except RuntimeError as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's, known without importing torch
                raise StageError(_no_memory(stage, machine)) from error
            raise
        self.folder.link(stage.label, self.store.path(stage.name, stage.key))
        made_in = manifest.environment.get("dtype")
        if cached and made_in and machine.dtype not in ("auto", made_in):
            self.told.warned(
                f"{stage.label} was made in {made_in} and is taken as it is; force=[{stage.label}] "
                f"makes it anew in {machine.dtype}"
            )
        result = StageResult(stage.label, stage.key, cached, round(manifest.seconds, 3))
        self.told.stage_finished(result, manifest.summary)
        return manifest, cached


def made_by_other_code(old: Sequence[Stage]) -> str:
    """What is told of artifacts that other code made. Forcing a stage forces all that follow."""
    keys = {stage.key for stage in old}
    first = [stage.label for stage in old if not keys & with_inputs(stage.inputs)]
    return (
        f"{', '.join(stage.label for stage in old)}: made by other code than this, and read from "
        f"the store all the same; to make it anew, with all that follows: force=[{','.join(first)}]"
    )


def _no_memory(stage: Stage, machine: Machine) -> str:
    trains = isinstance(stage, (Trained, Reference))
    size = "train_batch_size" if trains else "batch_size"
    return (
        f"{stage.label}: out of memory with machine.{size}={getattr(machine, size)}. Lower it"
        + (" or set machine.gradient_checkpointing=true" if trains else "")
        + "; what was finished is kept, and results do not change."
    )
