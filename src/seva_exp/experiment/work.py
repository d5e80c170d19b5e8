"""The work of a run: its stages, what of them the store has, and the machine that does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from seva_exp.core.digests import FileDigests
from seva_exp.core.machine import Machine
from seva_exp.core.store import Store
from seva_exp.experiment.fits import Fit
from seva_exp.experiment.graph import chosen_stages, forced_keys, graph
from seva_exp.experiment.options import Options
from seva_exp.experiment.value import Experiment
from seva_exp.stages import Stage


@dataclass(frozen=True)
class Work:
    """An experiment on a machine, as ``given``. Each property is found once, when it is asked for.
    ``planned``: it may be meant for another machine."""

    experiment: Experiment
    given: Machine
    options: Options
    digests: FileDigests
    planned: bool = False

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All of the experiment's."""
        return tuple(graph(self.experiment, self.digests, self.options.data_root_path()))

    @cached_property
    def fit(self) -> Fit:
        """What the stages need of the machine's memory."""
        return Fit(self.experiment, self.given, planned=self.planned, stages=self.stages).fitted()

    @property
    def machine(self) -> Machine:
        """With the batch sizes that fit, where ``machine.fit`` asks for them."""
        return self.fit.machine if self.given.fit else self.given

    @property
    def store(self) -> Store:
        """Where artifacts lie."""
        return Store(self.given.store_root())

    @cached_property
    def chosen(self) -> list[Stage]:
        """The stages that the run does."""
        for stage in self.stages:  # in their order: the last one's key alone asks a call per stage
            _ = stage.key
        return chosen_stages(self.stages, self.options.stop_after)

    @cached_property
    def forced(self) -> set[str]:
        """Keys of the stages that are computed anew."""
        return forced_keys(self.options.force, self.stages)

    @cached_property
    def _looked(self) -> tuple[set[str], list[str]]:
        """Keys of the stages that are read from the store, and what is damaged there and made
        again. Large files are looked at where a stage is left to read them."""
        there: set[str] = set()
        read: set[str] = set()
        faults: list[str] = []
        for stage in reversed(self.chosen):
            fault = self.store.fault(stage.name, stage.key, large=stage.key in read)
            if fault:
                faults.append(f"{stage.label}: {fault}; it will be set aside and recomputed")
            found = stage.key not in self.forced and not fault
            if found and self.store.find(stage.name, stage.key) is not None:
                there.add(stage.key)
            else:
                read |= {one.key for one in stage.inputs.values()}
        return there, faults[::-1]

    @property
    def there(self) -> set[str]:
        """Keys of the chosen stages that are read from the store."""
        return self._looked[0]

    @property
    def damaged(self) -> list[str]:
        """What the store has and cannot be used, for people."""
        return self._looked[1]

    @property
    def left(self) -> frozenset[str]:
        """Labels of the chosen stages that are left to do."""
        return frozenset(stage.label for stage in self.chosen if stage.key not in self.there)
