"""The stages of a run, one after the other: each read from the store, or made there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from seva_exp.core.closure import code_of, is_other
from seva_exp.core.disk import is_full, is_of_disk, message_of_disk
from seva_exp.core.environment import CODE, describe_environment
from seva_exp.core.errors import ChangedFile, InputError, StageError, is_out_of_memory
from seva_exp.core.machine import Machine
from seva_exp.core.printable import error_text
from seva_exp.core.spec import Json
from seva_exp.core.store import Manifest, Store
from seva_exp.experiment.graph import with_inputs
from seva_exp.runs.events import Listener, PlannedStage
from seva_exp.runs.folder import ERROR, RunDir, stage_result
from seva_exp.stages import Stage, StageContext


@dataclass
class Execution:
    """The making of a run's stages: store, context, the run's folder, and the listener."""

    store: Store
    context: StageContext
    folder: RunDir
    listener: Listener
    done: list[tuple[Stage, Manifest, bool]] = field(default_factory=list)
    """What there is, and whether it was there before."""
    _rows: dict[str, PlannedStage] = field(default_factory=dict)

    def run(
        self,
        chosen: Sequence[Stage],
        rows: Sequence[PlannedStage],
        last: Callable[[Stage], int | None] = lambda stage: None,
    ) -> int | None:
        """Make every stage in turn. Where no pair is left there is nothing to align: the stages
        that need the adapter are skipped, and what was measured is still reported. Ends where
        ``last`` gives a number, which is returned."""
        self._rows |= {row.key: row for row in rows}
        for stage, row in zip(chosen, rows, strict=True):
            if not row.cached:  # now: files that are edited while it works are not what it runs
                code_of(type(stage))
        if old := self._of_other_code(chosen, rows):
            self.listener.warned(made_by_other_code(old))
        skipped: dict[str, str] = {}
        for stage, row in zip(chosen, rows, strict=True):
            inputs = stage.inputs.values()
            why = next((skipped[one.key] for one in inputs if one.key in skipped), "")
            if why := why or stage.nothing_to_do(self._summaries(stage)):
                skipped[stage.key] = why
                self.listener.stage_skipped(row, why)
            else:
                self.done.append((stage, *self._make(stage, row)))
                if number := last(stage):
                    return number
        return None

    def _of_other_code(self, chosen: Sequence[Stage], rows: Sequence[PlannedStage]) -> list[Stage]:
        """Stages that will be read from the store, and were made when the code that decides their
        results was another. Its digest is in no key: where a result changed, so did a version."""
        found = []
        for stage, row in zip(chosen, rows, strict=True):
            manifest = self.store.find(stage.name, stage.key) if row.cached else None
            if manifest and is_other(manifest.environment.get(CODE), type(stage)):
                found.append(stage)
        return found

    def _summaries(self, stage: Stage) -> dict[str, Json]:
        """What the inputs of a stage were summarised as, by their names."""
        known = {one.key: manifest.summary for one, manifest, _ in self.done}
        return {name: known[one.key] for name, one in stage.inputs.items()}

    def _make(self, stage: Stage, row: PlannedStage) -> tuple[Manifest, bool]:
        """One stage: read from the store, or made there under its lock. An input of which a picture
        turns out damaged is made again, and then this stage."""
        try:
            found = self._stored(stage, row)
        except ChangedFile as error:
            source = self._maker(stage, error.path)
            if source is None:
                raise
            text = f"{error.path.name} is damaged (its bytes have another digest)"
            self.store.withdraw(source.name, source.key, False, self._warn(source), text)
            found = self._stored(stage, row)
        manifest, cached = found
        self.folder.link(stage.label, self.store.path(stage.name, stage.key))
        made_in = manifest.environment.get("dtype")
        machine = self.context.machine
        if cached and made_in and machine.dtype not in ("auto", made_in):
            self.listener.warned(
                f"{stage.label} was made in {made_in} and is taken as it is; force=[{stage.label}] "
                f"recomputes it in {machine.dtype}"
            )
        result = stage_result(stage, manifest, cached)
        self.listener.stage_finished(result, manifest.summary)
        return manifest, cached

    def _stored(self, stage: Stage, row: PlannedStage) -> tuple[Manifest, bool]:
        machine = self.context.machine

        def describe(seconds: float, summary: Json) -> Manifest:
            sources = {source.label: source.key for source in stage.inputs.values()}
            environment = describe_environment(machine) | {CODE: code_of(type(stage))}
            identity = (stage.name, stage.version, stage.key, stage.spec(), sources)
            return Manifest(*identity, environment, seconds, summary)

        def work(folder: Path) -> Json:
            if stage.needs_model and not stage.asks_vllm:
                self.context.end_vllm()
            return stage.run(folder, self._inputs(stage), self.context)

        try:
            return self.store.make(
                describe,
                stage.name,
                stage.key,
                work,
                force=row.forced,
                large=not row.cached,
                on_start=lambda: self.listener.stage_started(row),
                on_wait=lambda: self.listener.waiting(row),
                on_damage=self._warn(stage),
            )
        except StageError:
            raise
        except InputError as error:
            computed = (one for one, _, cached in self.done if not cached)
            if stage.needs_model or any(one.needs_model for one in computed):
                raise StageError(f"{stage.label}: {error}") from error
            raise  # no model was loaded yet: bad input, as what preflight finds
        except Exception as error:
            if is_out_of_memory(error):
                raise StageError(_no_memory(stage, machine)) from error
            if is_full(error, self.store.root) or is_of_disk(error):
                text = message_of_disk(error, self.store.root)
                raise StageError(f"{stage.label}: {text}") from error
            raise StageError(_stopped(stage, error, self.folder.path)) from error

    def _inputs(self, stage: Stage) -> dict[str, Path]:
        """Where its inputs lie, each as it was written: what was damaged is made again."""
        for source in stage.inputs.values():
            try:
                whole = self.store.whole(source.name, source.key)
            except InputError as error:
                raise StageError(f"{source.label}: {error}") from error
            if not whole:
                self._make(source, replace(self._rows[source.key], cached=False, forced=False))
        return {n: self.store.path(one.name, one.key) for n, one in stage.inputs.items()}

    def _maker(self, stage: Stage, file: Path) -> Stage | None:
        """Whose artifact a file lies in, of a stage's inputs and theirs."""
        for source in stage.inputs.values():
            if file.is_relative_to(self.store.path(source.name, source.key)):
                return source
            if found := self._maker(source, file):
                return found
        return None

    def _warn(self, stage: Stage) -> Callable[[str], None]:
        return lambda text: self.listener.warned(f"{stage.label}: {text}")


def made_by_other_code(old: Sequence[Stage]) -> str:
    """The warning about artifacts that other code made. Forcing a stage forces all that follow."""
    keys = {stage.key for stage in old}
    first = [stage.label for stage in old if not keys & with_inputs(stage.inputs.values())]
    return (
        f"{', '.join(stage.label for stage in old)}: made by other code than this, and read from "
        f"the store all the same; to recompute it, with all that follows: force=[{','.join(first)}]"
    )


def _stopped(stage: Stage, error: Exception, run: Path) -> str:
    """What is told of an error that no stage expects."""
    said = error_text(error, kind=True)
    if isinstance(error, OSError) and error.filename:
        said = f"{error.filename}: {error.strerror}"
    return (
        f"{stage.label}: {said}. What was finished is kept: the same command resumes from there. "
        f"Where it stopped: {os.path.relpath(run / ERROR)}"
    )


def _no_memory(stage: Stage, machine: Machine) -> str:
    size = stage.batch_field
    return (
        f"{stage.label}: out of memory with machine.{size}={getattr(machine, size)}. Lower it"
        + (" or set machine.gradient_checkpointing=true" if size == "train_batch_size" else "")
        + "; what was finished is kept, and results do not change."
    )
