"""The answers stage's samples in shards: runs of consecutive samples, each with a file of its own
once it is answered. The cut depends on the samples alone, so that any number of processes, and
whoever goes on after a kill, have the same ones.

In ``parts/``, beside who works on which (``core.sharing``): ``index.jsonl`` says where each shard
begins, ``000012.jsonl`` holds the answers of a finished one, ``finished-RANK.jsonl`` the digests of
such files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from seva_exp.core.digests import file_sha256
from seva_exp.core.disk import named, set_aside, warn_of_damage
from seva_exp.core.files import whole_file
from seva_exp.core.records import Sample, from_json, write_jsonl
from seva_exp.core.sharing import Sharing
from seva_exp.core.spec import Json
from seva_exp.core.store import Journal, journal_line, read_journal

SMALLEST, LARGEST = 64, 2048
"""Samples of a shard; the largest is also what a process takes at once."""
MANY = 64
"""Shards that a set is cut into while they lie between these two."""
FINISHED, INDEX = "finished-{}.jsonl", "index.jsonl"


@dataclass(frozen=True)
class Shard:
    """``samples`` lines of the file of samples from byte ``offset`` on; ``questions`` of them are
    answered in this view."""

    number: int
    offset: int
    samples: int
    questions: int


def cut(file: Path, asks: Callable[[Sample], bool]) -> Iterator[Shard]:
    """The shards of a file of samples. Samples on one picture that stand together stay together,
    up to twice the usual size."""
    with file.open("rb") as lines:
        size = min(LARGEST, max(SMALLEST, sum(1 for _ in lines) // MANY))
    number = start = end = samples = to_answer = 0
    picture = ""
    with file.open("rb") as lines:
        for line in lines:
            sample = _sample(line)
            other = sample.image.sha256 != picture
            if samples >= 2 * size or (samples >= size and other):
                yield Shard(number, start, samples, to_answer)
                number, start, samples, to_answer = number + 1, end, 0, 0
            samples, to_answer, end = samples + 1, to_answer + asks(sample), end + len(line)
            picture = sample.image.sha256
    if samples:
        yield Shard(number, start, samples, to_answer)


class Shards:
    """The shards of one answers stage that works in ``work``: those samples of ``file`` that
    ``asks`` says, as process ``rank`` of ``ranks`` works on them. What one process has written is
    gathered by the next."""

    def __init__(
        self,
        file: Path,
        asks: Callable[[Sample], bool],
        work: Path,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._file = file
        self._asks = asks
        self._sharing = Sharing(work, rank, ranks)
        self._folder = self._sharing.folder
        self.all = [Shard(**row) for row in read_journal(self._folder / INDEX)]
        if not self.all:
            self.all = list(cut(file, asks))
            with whole_file(self._folder / INDEX) as index:
                index.write(journal_line([asdict(shard) for shard in self.all]))

    def begin(self) -> list[Shard]:
        """Called before any process works: the shards that are not finished, in their order."""
        finished = self._finished()
        left = [shard for shard in self.all if self._path(shard).name not in finished]
        numbers = {shard.number for shard in left}
        self._sharing.begin(lambda row: row["shard"] in numbers)
        return left

    def _finished(self) -> set[str]:
        """Names of the files of finished shards. One that is damaged is set aside."""
        known: dict[str, set[str]] = {}
        for file in self._folder.glob(FINISHED.format("*")):
            for row in read_journal(file):
                known.setdefault(row["name"], set()).add(row["sha256"])
        found = set()
        for path in self._folder.glob("[0-9]*.jsonl"):
            sums = known.get(path.name)
            if sums and file_sha256(path) not in sums:
                aside = set_aside(path)
                warn_of_damage(f"{path}: is damaged; set aside as {aside.name}, and answered again")
            else:
                found.add(path.name)
        return found

    def take(self, left: Sequence[Shard]) -> tuple[list[Shard], list[Json]]:
        """The shards of ``left`` that this process works on next, none when all are done; and
        answers to them in journals of processes that died while this one worked."""
        while True:
            taken = self._sharing.take({shard.number: shard.questions for shard in left}, LARGEST)
            shards = [self.all[number] for number in taken.pieces]
            # One that died may have finished some of those that it had.
            open_ones = [shard for shard in shards if not self._path(shard).exists()]
            if open_ones or not shards:
                numbers = {shard.number for shard in open_ones}
                rows = self._sharing.inherited(taken)
                return open_ones, [row for row in rows if row["shard"] in numbers]

    def read(self, shard: Shard) -> list[Sample]:
        """The samples of a shard that are asked."""
        with self._file.open("rb") as file:
            file.seek(shard.offset)
            samples = [_sample(file.readline()) for _ in range(shard.samples)]
        return [sample for sample in samples if self._asks(sample)]

    def samples(self) -> Iterator[Sample]:
        """All samples that are answered in this view."""
        for shard in self.all:
            yield from self.read(shard)

    def journal(self) -> Journal:
        """Of this process; each row names its shard."""
        return self._sharing.journal()

    def before(self) -> dict[int, list[Json]]:
        """Shard -> answers in journals of earlier attempts' processes."""
        found: dict[int, list[Json]] = {}
        for row in self._sharing.before():
            found.setdefault(row["shard"], []).append(row)
        return found

    def finish(self, shard: Shard, answers: Iterable[object]) -> None:
        """Writes a shard's file, and its digest beside it."""
        path = self._path(shard)
        write_jsonl(path, answers)
        line = journal_line([{"name": path.name, "sha256": file_sha256(path)}])
        sums = self._folder / FINISHED.format(self._sharing.rank)
        with named(sums), sums.open("ab", buffering=0) as file:
            file.write(line)

    def merge(self, target: Path) -> None:
        """All shards' answers as one file, in the samples' order."""
        with whole_file(target) as file:
            for shard in self.all:
                with self._path(shard).open("rb") as part:
                    shutil.copyfileobj(part, file)

    def work_of(self, rank: int) -> str:
        """The samples that a process was working on, for an error's message."""
        numbers = self._sharing.latest(rank)
        if not numbers:
            return "on no sample yet"
        ids = [sample.id for number in numbers for sample in self.read(self.all[number])]
        return f"on {len(ids)} samples from {ids[0]} to {ids[-1]}" if ids else "on no sample"

    def _path(self, shard: Shard) -> Path:
        return self._folder / f"{shard.number:06d}.jsonl"


def _sample(line: bytes) -> Sample:
    return from_json(Sample, json.loads(line))
