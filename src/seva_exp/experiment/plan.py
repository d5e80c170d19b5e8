"""What a run would do, told before it does: its stages, their keys, what the store has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from seva_exp.core.digests import FileDigests
from seva_exp.core.machine import Machine
from seva_exp.core.spec import Spec, digest
from seva_exp.experiment.options import Options
from seva_exp.experiment.preflight import Preflight, Problems, notes
from seva_exp.experiment.value import Experiment
from seva_exp.experiment.work import Work
from seva_exp.runs.events import Plan, PlannedStage
from seva_exp.stages import Stage


def plan_run(
    experiment: Experiment,
    machine: Machine,
    options: Options,
    overrides: Sequence[str],
    digests: FileDigests,
    preflight: Preflight | None = None,
) -> tuple[Plan, Work]:
    """The plan of a run: keys, and which artifacts the store holds already. Loads no model. Raises
    InputError for what is wrong, and for what is lacking unless it is a dry run, which tells it."""
    problems = (preflight or Preflight())(experiment, machine, options, digests=digests)
    (replace(problems, lacking=(), absent=()) if options.dry_run else problems).refuse()
    work = problems.work if options.dry_run else _resolved(problems.work)
    experiment, chosen = work.experiment, work.chosen
    rows = [planned(stage, stage.key in work.there, stage.key in work.forced) for stage in chosen]
    judged = notes(experiment.left_out, experiment.judge, machine.judge, chosen, rows, work.store)
    plan = Plan(
        key=digest([stage.key for stage in chosen]),
        name=options.name or experiment.title,
        seed=experiment.seed,
        config={**experiment.to_json(), "machine": work.machine.to_json(), **options.to_json()},
        overrides=tuple(overrides),
        stages=tuple(rows),
        dir=machine.runs_root(),
        lacking=_lacking(problems) if options.dry_run else (),
        absent=problems.absent,
        notes=(*judged, *(_dry(work) if options.dry_run else ())),
    )
    return plan, work


def planned(stage: Stage, cached: bool, forced: bool) -> PlannedStage:
    """A stage's row."""
    return PlannedStage(
        name=stage.label,
        key=stage.key,
        cached=cached,
        forced=forced,
        inputs=tuple(source.label for source in stage.inputs.values()),
        kind=stage.name,
    )


def _resolved(work: Work) -> Work:
    """With what servers say of their models, which keys hold."""
    experiment, machine = work.experiment, work.given
    resolved: dict[str, Spec] = {"generation": experiment.generation.resolved(machine.server)}
    if judge := experiment.judging:
        resolved["judge"] = judge.resolved(machine.judge)
    known = experiment.model_copy(update=resolved)
    return work if known == experiment else replace(work, experiment=known)


def _lacking(problems: Problems) -> tuple[str, ...]:
    """What must still be given, and what only a run asks servers for."""
    experiment = problems.work.experiment
    generation, judge = experiment.generation, experiment.judging
    return (
        *problems.lacking,
        *generation.unresolved(),
        *(judge.unresolved() if judge else []),
    )


def _dry(work: Work) -> Iterator[str]:
    """What is damaged, and what the stages that are left to do need of the device's memory."""
    yield from work.damaged
    if work.left:
        yield from replace(work.fit, only=work.left).lines()
    for stage in work.chosen:
        if stage.label in work.left and (note := stage.cost_note()):
            yield note
