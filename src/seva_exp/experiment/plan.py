"""What a run would do, told before it does: its stages, their keys, what the store has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from seva_exp.core.digests import FileDigests
from seva_exp.core.machine import Machine
from seva_exp.core.spec import Spec, digest
from seva_exp.core.store import Store
from seva_exp.experiment.fits import Fit, fitted
from seva_exp.experiment.graph import chosen_stages, forced_keys, graph
from seva_exp.experiment.preflight import Preflight, notes
from seva_exp.experiment.value import Experiment, Options
from seva_exp.runs.events import Plan, PlannedStage
from seva_exp.stages import Stage


def plan_run(
    experiment: Experiment,
    machine: Machine,
    options: Options,
    overrides: Sequence[str],
    digests: FileDigests,
    preflight: Preflight | None = None,
) -> tuple[Plan, list[Stage]]:
    """The plan of a run: keys, and which artifacts the store holds already. Loads no model. Raises
    InputError for what is wrong, and for what is lacking unless it is a dry run, which tells it."""
    machine = fitted(experiment, machine, options.dry_run)
    root = options.data_root_path()
    generation, judge = experiment.generation, experiment.judging
    problems = (preflight or Preflight())(experiment, machine, options)
    missing = [*problems.lacking, *problems.absent]
    (replace(problems, lacking=(), absent=()) if options.dry_run else problems).refuse()
    if options.dry_run:
        missing += generation.unresolved() + (judge.unresolved() if judge else [])
    else:
        resolved: dict[str, Spec] = {"generation": generation.resolved(machine.server)}
        resolved |= {"judge": judge.resolved(machine.judge)} if judge else {}
        experiment = experiment.model_copy(update=resolved)
    all_stages = graph(experiment, digests, root)
    chosen = chosen_stages(all_stages, options.stop_after)
    forced = forced_keys(options.force, all_stages)
    store = Store(machine.store_root())
    there, faults = _look(chosen, forced, store)
    rows = [
        PlannedStage(
            name=stage.label,
            key=stage.key,
            cached=stage.key in there,
            forced=stage.key in forced,
            inputs=tuple(source.label for source in stage.inputs.values()),
            kind=stage.name,
        )
        for stage in chosen
    ]
    plan = Plan(
        key=digest([stage.key for stage in chosen]),
        name=options.name or experiment.title,
        seed=experiment.seed,
        config={**experiment.to_json(), "machine": machine.to_json(), **options.to_json()},
        overrides=tuple(overrides),
        stages=tuple(rows),
        dir=machine.runs_root(),
        lacking=tuple(missing),
        notes=(
            *notes(experiment.left_out, experiment.judge, machine.judge, chosen, rows, store),
            *(faults if options.dry_run else ()),
            *(_memory(experiment, machine, rows) if options.dry_run else ()),
        ),
    )
    return plan, chosen


def _look(
    chosen: Sequence[Stage], forced: Collection[str], store: Store
) -> tuple[set[str], list[str]]:
    """Keys of the stages that are read from the store, and what is damaged there and made again.
    Large files are looked at where a stage is left to read them."""
    there: set[str] = set()
    read: set[str] = set()
    faults: list[str] = []
    for stage in reversed(chosen):
        fault = store.fault(stage.name, stage.key, large=stage.key in read)
        if fault:
            faults.append(f"{stage.label}: {fault}; it will be set aside and made again")
        found = stage.key not in forced and not fault
        if found and store.find(stage.name, stage.key) is not None:
            there.add(stage.key)
        else:
            read |= {one.key for one in stage.inputs.values()}
    return there, faults[::-1]


def _memory(
    experiment: Experiment, machine: Machine, rows: Sequence[PlannedStage]
) -> Iterator[str]:
    """What the stages that load the model need of the device's memory."""
    only = frozenset(row.name for row in rows)
    yield from Fit(experiment, machine, only, planned=True).lines()
