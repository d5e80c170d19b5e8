"""What a finished run's final model took to make."""

from __future__ import annotations

from seva_exp.runs.reader import FinishedRun
from seva_exp.stages import STAGES
from seva_exp.stages.labels import kind_of


def costs_of(run: FinishedRun) -> dict[str, float]:
    """What making a run's final model took, as if nothing had been there before, by its report: of
    all stages but those that measure (evaluations, judges, comparisons), whichever run did their
    work. ``seconds`` are those of the machine that did it. Nothing where nothing was trained; a
    report of before there were counts has seconds alone."""
    if run.trained is None:
        return {}
    made = [stage for stage in run.report.stages if not _measures(kind_of(stage.name))]
    counted = {
        "answers": sum(stage.answers for stage in made),
        "steps": sum(stage.steps for stage in made),
    }
    seconds = round(sum(stage.seconds for stage in made), 1)
    return {**(counted if counted["steps"] else {}), "seconds": seconds}


def _measures(kind: str) -> bool:
    return kind in STAGES and STAGES[kind].measures
