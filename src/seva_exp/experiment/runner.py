"""Running an experiment: ``run(experiment, machine) -> Report``. Torch is loaded by the first stage
that needs a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from seva_exp.core.digests import FileDigests
from seva_exp.core.disk import is_full, is_of_disk, message_of_disk
from seva_exp.core.errors import StageError
from seva_exp.core.machine import Machine
from seva_exp.core.progress import progress
from seva_exp.core.records import Report, StageResult
from seva_exp.core.runtime import settle
from seva_exp.experiment.execution import Execution
from seva_exp.experiment.graph import graph
from seva_exp.experiment.options import Options
from seva_exp.experiment.past import forecast
from seva_exp.experiment.plan import plan_run, planned
from seva_exp.experiment.preflight import make_ready
from seva_exp.experiment.stopping import Stopping
from seva_exp.experiment.value import Experiment
from seva_exp.experiment.work import Work
from seva_exp.runs.events import Listener, Listeners, Plan
from seva_exp.runs.folder import RunDir, collect_outcome
from seva_exp.runs.holdings import note_use
from seva_exp.stages import Stage, StageContext
from seva_exp.stages.base import Crew
from seva_exp.stages.loaded import LoadedModel
from seva_exp.stages.ray_crew import RayCrew


def run(
    experiment: Experiment,
    machine: Machine | None = None,
    options: Options | None = None,
    *,
    listeners: Sequence[Listener] = (),
    overrides: Sequence[str] = (),
    crew: Crew | None = None,
    loaded: LoadedModel | None = None,
) -> Report:
    """Run an experiment and return its report. What the store holds is not computed again. ``crew``
    does the work with this process (``stages.members``), or those of ``machine.cluster``. What is
    ``loaded`` is used, and stays so for the next run.

    Raises InputError when something is wrong before work starts, StageError when a stage cannot
    finish; what was finished stays in the store.
    """
    options = options or Options()
    machine = machine or Machine()
    digests = FileDigests(machine.store_root())
    plan, work = plan_run(experiment, machine, options, overrides, digests)
    plan = replace(plan, notes=(*plan.notes, *forecast(work, overrides)))
    if options.dry_run:
        return _foretold(plan, Listeners(listeners))
    machine, chosen, store = work.machine, work.chosen, work.store
    make_ready(experiment.model, experiment.dpo, machine, chosen, plan.stages)
    writes = not all(row.cached for row in plan.stages)
    if writes:  # what is all there is only read: the store may be another's
        store.create()
        digests.save()
    workers = ExitStack()
    if machine.cluster and _has_work_for_actors(chosen, plan):
        crew = workers.enter_context(RayCrew(machine, store.root))
    folder = RunDir.create(plan)
    note_use(store.root, folder.path.parent)
    plan, everyone = replace(plan, dir=folder.path), Listeners([folder, *listeners])
    settle()
    context = _context(machine, digests, folder, everyone, crew, loaded)
    try:
        everyone.planned(plan)
        execution = Execution(store, context, folder, everyone)
        stopping = Stopping(work.experiment, chosen, store)
        if number := execution.run(chosen, plan.stages, stopping.after):
            plan = _ended(execution, plan, work, stopping, number)
        if loaded is None:
            context.release()
        if writes:
            digests.save()
        outcome = collect_outcome(plan, execution.done, store, folder)
        for listener in (folder, *listeners):
            listener.finished(outcome)
    except BaseException as raised:
        _tell_failure(error := _of_a_disk(raised, folder), (folder, *listeners))
        if error is raised:
            raise
        raise error from raised
    finally:
        context.end_vllm()
        workers.close()
    return outcome.report


def _context(
    machine: Machine,
    digests: FileDigests,
    folder: RunDir,
    everyone: Listener,
    crew: Crew | None,
    loaded: LoadedModel | None,
) -> StageContext:
    """What the run's stages work with."""
    return StageContext(
        machine, digests, folder.noting(partial(progress, machine.progress)),
        everyone.logged, everyone.warned, everyone.noted,
        crew=crew, run_folder=folder.path, loaded=loaded or LoadedModel(),
    )  # fmt: skip


def _has_work_for_actors(chosen: Sequence[Stage], plan: Plan) -> bool:
    """Whether a stage that is left is shared out piece by piece."""
    rows = zip(chosen, plan.stages, strict=True)
    return any(stage.shared and not stage.trains for stage, row in rows if not row.cached)


def _foretold(plan: Plan, listener: Listener) -> Report:
    """Of a dry run."""
    listener.planned(plan)
    results = tuple(StageResult(row.name, row.key, row.cached, 0.0) for row in plan.stages)
    return Report(plan.key, plan.name, plan.seed, "", results)


def _tell_failure(error: BaseException, listeners: Sequence[Listener]) -> None:
    """Every listener hears of it, also where one before it raises: a note of ``error`` then."""
    for listener in listeners:
        try:
            listener.failed(error)
        except Exception as second:
            error.add_note(f"and {type(listener).__name__}.failed raised {second!r}")


def _ended(execution: Execution, plan: Plan, work: Work, stopping: Stopping, number: int) -> Plan:
    """What is left of a run whose last round is ``number``, and its plan: that round's model is the
    final one."""
    why, options = stopping.why(number), work.options
    done = {stage.label: stage.key for stage, _, _ in execution.done}
    wanted = graph(work.experiment, work.digests, options.data_root_path(), number)
    wanted = [] if options.stop_after else wanted
    left = [stage for stage in wanted if done.get(stage.label) != stage.key]
    made = set(done.values())
    rows = {
        stage.label: planned(
            stage,
            stage.key in made or stage.key in work.there,
            stage.key in work.forced and stage.key not in made,
        )
        for stage in left
    }
    execution.listener.noted(why)
    execution.run(left, list(rows.values()))
    kept = {stage.label for stage in wanted} or done.keys()
    execution.done = [one for one in execution.done if one[0].label in kept]
    before = [row for row in plan.stages if row.name in kept and row.name not in rows]
    return replace(plan, stages=(*before, *rows.values()), notes=(*plan.notes, why))


def _of_a_disk(error: BaseException, folder: RunDir) -> BaseException:
    """What a person is told where a file of the run's folder could not be written."""
    if is_of_disk(error) or (isinstance(error, OSError) and is_full(error, folder.path)):
        assert isinstance(error, OSError)
        return StageError(message_of_disk(error, folder.path))
    return error
