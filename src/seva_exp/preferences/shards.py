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
from seva_exp.core.records import Answer, Sample, from_json, read_jsonl, write_jsonl
from seva_exp.core.sharing import BEFORE, JOURNALS, Sharing
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS, Journal, journal_line, read_journal

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
        found, damaged = _finished(self._folder)
        for path in damaged:
            aside = set_aside(path)
            warn_of_damage(f"{path}: is damaged; set aside as {aside.name}, and answered again")
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
        return _read(self._file, shard, self._asks)

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
        return self._folder / _name(shard)


class AnswersSoFar:
    """What an unfinished answers stage that works in ``work`` has when this is made: those samples
    of ``file`` that ``asks`` says. Nothing is written and no lock is taken. Of answers that are in
    no finished shard yet (``LARGEST`` at most in each process) the text is held. Raises
    FileNotFoundError where the stage has just gone on."""

    def __init__(self, file: Path, asks: Callable[[Sample], bool], work: Path) -> None:
        self._file = file
        self._asks = asks
        self._folder = work / PARTS
        self._shards = [Shard(**row) for row in read_journal(self._folder / INDEX)]
        self._open: dict[int, dict[str, Json]] = {}
        journals = [self._folder / BEFORE, *self._folder.glob(JOURNALS.format("*"))]
        for row in (row for journal in journals for row in read_journal(journal)):
            self._open.setdefault(row.pop("shard"), {})[row["sample_id"]] = row
        self._finished, _ = _finished(self._folder)  # later: a shard is in its file or in a journal

    @property
    def total(self) -> int:
        """Samples that are asked."""
        return sum(shard.questions for shard in self._shards)

    @property
    def done(self) -> int:
        """Those that have their answer."""
        return sum(
            shard.questions if self._is_finished(shard) else len(self._open.get(shard.number, ()))
            for shard in self._shards
        )

    def answers(self) -> Iterator[Answer]:
        """In the samples' order."""
        for shard in self._shards:
            if self._is_finished(shard):
                yield from read_jsonl(self._folder / _name(shard), Answer)
            elif rows := self._open.get(shard.number):
                for sample in _read(self._file, shard, self._asks):
                    if sample.id in rows:
                        yield from_json(Answer, rows[sample.id])

    def _is_finished(self, shard: Shard) -> bool:
        return _name(shard) in self._finished


def _finished(folder: Path) -> tuple[set[str], list[Path]]:
    """Names of the files of finished shards, and the files that are damaged."""
    known: dict[str, set[str]] = {}
    for file in folder.glob(FINISHED.format("*")):
        for row in read_journal(file):
            known.setdefault(row["name"], set()).add(row["sha256"])
    found, damaged = set(), []
    for path in folder.glob("[0-9]*.jsonl"):
        sums = known.get(path.name)
        if sums and file_sha256(path) not in sums:
            damaged.append(path)
        else:
            found.add(path.name)
    return found, damaged


def _read(file: Path, shard: Shard, asks: Callable[[Sample], bool]) -> list[Sample]:
    with file.open("rb") as lines:
        lines.seek(shard.offset)
        samples = [_sample(lines.readline()) for _ in range(shard.samples)]
    return [sample for sample in samples if asks(sample)]


def _name(shard: Shard) -> str:
    return f"{shard.number:06d}.jsonl"


def _sample(line: bytes) -> Sample:
    return from_json(Sample, json.loads(line))
