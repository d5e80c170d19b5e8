"""``seva_exp.run``: an experiment with the console, the report page and a tracker watching it."""

from __future__ import annotations

from collections.abc import Sequence

from seva_exp.core.machine import Machine
from seva_exp.core.records import Report
from seva_exp.experiment import Experiment, Options
from seva_exp.experiment import run as run_experiment
from seva_exp.report.console import Console
from seva_exp.report.html import HtmlReport
from seva_exp.runs.events import Listener
from seva_exp.stages.base import Crew
from seva_exp.stages.loaded import LoadedModel
from seva_exp.tracking import AnyTracker, NoTracker, make_listeners


def run(
    experiment: Experiment,
    machine: Machine | None = None,
    options: Options | None = None,
    *,
    tracker: AnyTracker | None = None,
    listeners: Sequence[Listener] | None = None,
    overrides: Sequence[str] = (),
    crew: Crew | None = None,
    loaded: LoadedModel | None = None,
) -> Report:
    """Run an experiment; print what happens, write ``report.html``, log to the tracker.

    ``listeners`` replaces console and page; ``overrides`` is the command line to write down;
    ``crew`` does the work with this process (``stages.members``); the model that is ``loaded`` is
    used, and stays so for the next run.
    Raises InputError before work starts when something is wrong, StageError when a stage fails.
    """
    machine, options = machine or Machine(), options or Options()
    watching = [HtmlReport(), Console()] if listeners is None else list(listeners)
    tracked = NoTracker() if tracker is None or options.dry_run else tracker
    tracking = make_listeners(tracked, machine.store_root(), machine.runs_root())
    watching = [*tracking, *watching]
    return run_experiment(
        experiment,
        machine,
        options,
        listeners=watching,
        overrides=overrides,
        crew=crew,
        loaded=loaded,
    )
