"""Running an experiment: ``run(experiment, machine) -> Report``. Torch is loaded by the first stage
that needs a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from seva_exp.core.digests import FileDigests
from seva_exp.core.machine import Machine
from seva_exp.core.progress import progress
from seva_exp.core.records import Report, StageResult
from seva_exp.core.runtime import settle
from seva_exp.core.store import Store
from seva_exp.experiment.execution import Execution
from seva_exp.experiment.fits import fitted
from seva_exp.experiment.plan import plan_run
from seva_exp.experiment.preflight import make_ready
from seva_exp.experiment.value import Experiment, Options
from seva_exp.runs.events import Listener, Listeners
from seva_exp.runs.folder import RunDir, collect_outcome
from seva_exp.stages import StageContext


def run(
    experiment: Experiment,
    machine: Machine | None = None,
    options: Options | None = None,
    *,
    listeners: Sequence[Listener] = (),
    overrides: Sequence[str] = (),
) -> Report:
    """Run an experiment and return its report. What the store holds is not computed again.

    Raises InputError when something is wrong before work starts, StageError when a stage cannot
    finish; what was finished stays in the store.
    """
    options = options or Options()
    machine = fitted(experiment, machine or Machine(), options.dry_run)
    digests = FileDigests(machine.store_root())
    plan, chosen = plan_run(experiment, machine, options, overrides, digests)
    everyone = Listeners(listeners)
    if options.dry_run:
        everyone.planned(plan)
        results = tuple(StageResult(row.name, row.key, row.cached, 0.0) for row in plan.stages)
        return Report(plan.key, plan.name, plan.seed, "", results)
    make_ready(experiment.model, experiment.dpo, machine, chosen, plan.stages)
    store = Store(machine.store_root()).create()
    digests.save()
    folder = RunDir.create(plan)
    plan = replace(plan, dir=folder.path)
    everyone = Listeners([folder, *listeners])
    settle()
    context = StageContext(
        machine, digests, partial(progress, machine.progress), everyone.logged, everyone.warned
    )
    try:
        everyone.planned(plan)
        execution = Execution(store, context, folder, everyone)
        execution.run(chosen, plan.stages)
        context.release()
        digests.save()
        outcome = collect_outcome(plan, execution.done, store, folder)
        for listener in (folder, *listeners):
            listener.finished(outcome)
    except BaseException as error:
        for listener in (folder, *listeners):
            try:
                listener.failed(error)
            except Exception as second:
                error.add_note(f"and {type(listener).__name__}.failed raised {second!r}")
        raise
    return outcome.report
