"""Work of the model that is a row for each sample: shared by several processes, and taken up again
where a kill left it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS, Journal, read_journal
from seva_exp.stages.base import Inputs, Stage, StageContext
from seva_exp.stages.processes import ProcessTask, launch

Work = Callable[[Sequence[Any]], list[Json]]
"""A row for each of some pieces, with its ``sample_id``."""


class PerSample(Stage):
    """Base of the stages that make a row for each piece of their ``todo``."""

    needs_model: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    unit: ClassVar[str] = "answer"
    """What the progress counts."""

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        job = ProcessTask(self.share, self.label, work, inputs, together=False)
        if self.shared and context.machine.processes > 1:
            launch(job, context)
        else:
            job.task(work, inputs, context)
        known = {row["sample_id"]: row for row in journaled(work)}
        found = [(piece, known[id]) for id, piece in self.todo(inputs)]
        return self.gathered(work, [piece for piece, _ in found], [row for _, row in found])

    def share(self, work: Path, inputs: Inputs, context: StageContext) -> Json:
        """One process's share: every ``ranks``-th sample that no journal has."""
        done = {row["sample_id"] for row in journaled(work)}
        every = list(self.todo(inputs))
        mine = islice(every, context.rank, None, context.ranks)
        left = [piece for id, piece in mine if id not in done]
        journal = Journal(work / PARTS, f"journal-{context.rank}.jsonl")
        machine = context.machine
        sizes = {"batch_size": machine.batch_size, "train_batch_size": machine.train_batch_size}
        size = sizes[self.batch_field]
        with context.progress(self.label, len(every), self.unit) as meter:
            if context.rank == 0:
                meter.update(len(done))
            if not left:
                return {}
            with self.working(work, inputs, context, left) as make:
                for some in (left[at : at + size] for at in range(0, len(left), size)):
                    journal.append(make(some))
                    meter.update(len(some))
        return {}

    @abstractmethod
    def todo(self, inputs: Inputs) -> Iterator[tuple[str, Any]]:
        """Each sample's id and what is looked at for it, in the samples' order."""

    @abstractmethod
    def working(
        self, work: Path, inputs: Inputs, context: StageContext, left: Sequence[Any]
    ) -> AbstractContextManager[Work]:
        """What makes the rows of the pieces that are ``left`` to this process."""

    @abstractmethod
    def gathered(
        self, work: Path, pieces: Sequence[Any], rows: Sequence[Mapping[str, Any]]
    ) -> Json:
        """Write the artifact from all pieces and their rows, in the samples' order; the summary."""


def journaled(work: Path) -> Iterator[Json]:
    """The rows of all processes, also of such as were killed."""
    for file in sorted((work / PARTS).glob("journal-*.jsonl")):
        yield from read_journal(file)
