"""When rounds end early: after one that made the model not significantly better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seva_exp.benchmarks.guards import is_gain, is_significant
from seva_exp.core.errors import StageError
from seva_exp.core.records import BASE, Delta
from seva_exp.core.store import Store
from seva_exp.experiment.value import Experiment
from seva_exp.stages import Evaluate, Stage, paired
from seva_exp.stages.labels import about_model


@dataclass(frozen=True)
class Stopping:
    """Says of each evaluation on the benchmark of ``method.curriculum.stop`` whether its round was
    the last. It depends on predictions alone, so that a run that goes on decides alike."""

    experiment: Experiment
    chosen: Sequence[Stage]
    store: Store

    def after(self, stage: Stage) -> int | None:
        """The number of the round that ``stage`` has measured, if it is the last."""
        measure = self.experiment.method.curriculum.measure
        if not (measure and isinstance(stage, Evaluate) and stage.benchmark_name == measure[0]):
            return None
        number = stage.which.removeprefix("round")
        if not number.isdecimal():
            return None
        delta = self._gain(stage, int(number))
        return None if is_significant(delta) and is_gain(delta) else int(number)

    def why(self, number: int) -> str:
        """For a person."""
        rounds, stop = self.experiment.method.rounds, self.experiment.method.curriculum.stop
        return f"stopped after round {number} of {rounds}: no significant gain on {stop}"

    def _gain(self, stage: Evaluate, number: int) -> Delta:
        """The metric's change from the model before the round, paired by questions."""
        measure = self.experiment.method.curriculum.measure
        assert measure
        name, split, metric = measure
        which = BASE if number == 1 else f"round{number - 1}"
        label = about_model(Evaluate.name, which, name)
        before = next(one for one in self.chosen if one.label == label)
        assert isinstance(before, Evaluate)
        said = [
            list(one.makes(self.store.path(one.name, one.key)).predictions())
            for one in (before, stage)
        ]
        for delta in paired(stage.benchmark, name, *said):
            if (delta.split, delta.metric) == (split, metric):
                return delta
        raise StageError(f"method.curriculum.stop: {name} has measured no {split}/{metric}.")
