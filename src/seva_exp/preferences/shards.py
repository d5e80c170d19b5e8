"""The answers stage's samples in shards: runs of consecutive samples, each with a file of its own
once it is answered. The cut depends on the samples alone, so that any number of processes, and
whoever goes on after a kill, have the same ones.

In ``parts/``: ``index.jsonl`` says where each shard begins, ``000012.jsonl`` holds the answers of a
finished one, ``finished-RANK.jsonl`` the digests of such files, ``journal-RANK.jsonl`` what a
process has of those it works on, ``before.jsonl`` what killed processes had, and ``claims.jsonl``
who works on which.
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
from seva_exp.core.spec import Json
from seva_exp.core.store import PARTS, Journal, journal_line, read_journal

SMALLEST, LARGEST = 64, 2048
"""Samples of a shard; the largest is also what a process takes at once."""
MANY = 64
"""Shards that a set is cut into while they lie between these two."""
FINISHED = "finished-{}.jsonl"
BEFORE, CLAIMS, INDEX, LOCK = "before.jsonl", "claims.jsonl", "index.jsonl", "claims.lock"


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
    ``asks`` says. What one process has written is gathered by the next."""

    def __init__(self, file: Path, asks: Callable[[Sample], bool], work: Path) -> None:
        self._file = file
        self._asks = asks
        self._folder = work / PARTS
        self._folder.mkdir(exist_ok=True)
        self.all = [Shard(**row) for row in read_journal(self._folder / INDEX)]
        if not self.all:
            self.all = list(cut(file, asks))
            with whole_file(self._folder / INDEX) as index:
                index.write(journal_line([asdict(shard) for shard in self.all]))

    def begin(self) -> list[Shard]:
        """Called before any process works: the shards that are not finished, in their order. What
        journals hold of them is kept in one file."""
        (self._folder / CLAIMS).write_bytes(b"")
        finished = self._finished()
        left = [shard for shard in self.all if self._path(shard).name not in finished]
        numbers = {shard.number for shard in left}
        journals = sorted(self._folder.glob("journal*.jsonl"))
        files = [self._folder / BEFORE, *journals]
        rows = [row for file in files for row in read_journal(file) if row["shard"] in numbers]
        with whole_file(self._folder / BEFORE) as file:
            file.write(journal_line(rows))
        for journal in journals:
            journal.unlink()
        return left

    def _finished(self) -> set[str]:
        """Names of the files of finished shards. One that is damaged is set aside."""
        found, damaged = _finished(self._folder)
        for path in damaged:
            aside = set_aside(path)
            warn_of_damage(f"{path}: is damaged; set aside as {aside.name}, and answered again")
        return found

    def take(self, left: Sequence[Shard], rank: int, ranks: int) -> list[Shard]:
        """The shards of ``left`` that this process works on next; none when all are taken. The
        fewer are left, the fewer are taken, so that all processes end together."""
        from filelock import FileLock

        with FileLock(self._folder / LOCK):
            open_ones = left[sum(len(numbers) for _, numbers in self._claims()) :]
            taken = _portion(open_ones, ranks)
            if taken:
                with (self._folder / CLAIMS).open("a") as file:
                    file.write(json.dumps([rank, [shard.number for shard in taken]]) + "\n")
        return taken

    def read(self, shard: Shard) -> list[Sample]:
        """The samples of a shard that are asked."""
        return _read(self._file, shard, self._asks)

    def samples(self) -> Iterator[Sample]:
        """All samples that are answered in this view."""
        for shard in self.all:
            yield from self.read(shard)

    def journal(self, rank: int) -> Journal:
        """Of this process; each row names its shard."""
        return Journal(self._folder, f"journal-{rank}.jsonl")

    def before(self) -> dict[int, list[Json]]:
        """Shard -> answers in journals of killed processes."""
        found: dict[int, list[Json]] = {}
        for row in read_journal(self._folder / BEFORE):
            found.setdefault(row.pop("shard"), []).append(row)
        return found

    def finish(self, shard: Shard, answers: Iterable[object], rank: int = 0) -> None:
        """Writes a shard's file, and its digest beside it."""
        path = self._path(shard)
        write_jsonl(path, answers)
        line = journal_line([{"name": path.name, "sha256": file_sha256(path)}])
        sums = self._folder / FINISHED.format(rank)
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
        numbers = [taken for owner, taken in self._claims() if owner == rank]
        if not numbers:
            return "on no sample yet"
        ids = [sample.id for number in numbers[-1] for sample in self.read(self.all[number])]
        return f"on {len(ids)} samples from {ids[0]} to {ids[-1]}" if ids else "on no sample"

    def _claims(self) -> list[tuple[int, list[int]]]:
        lines = (self._folder / CLAIMS).read_text().splitlines()
        return [(rank, numbers) for rank, numbers in map(json.loads, lines)]

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
        journals = [self._folder / BEFORE, *self._folder.glob("journal*.jsonl")]
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


def _portion(shards: Sequence[Shard], ranks: int) -> list[Shard]:
    """The first shards: for one process as many as it takes at once, for several half of what each
    would get."""
    most = LARGEST
    if ranks > 1:
        most = min(LARGEST, sum(shard.questions for shard in shards) // (2 * ranks))
    taken: list[Shard] = []
    for shard in shards:
        if taken and sum(one.questions for one in taken) + shard.questions > most:
            break
        taken.append(shard)
    return taken


def _read(file: Path, shard: Shard, asks: Callable[[Sample], bool]) -> list[Sample]:
    with file.open("rb") as lines:
        lines.seek(shard.offset)
        samples = [_sample(lines.readline()) for _ in range(shard.samples)]
    return [sample for sample in samples if asks(sample)]


def _name(shard: Shard) -> str:
    return f"{shard.number:06d}.jsonl"


def _sample(line: bytes) -> Sample:
    return from_json(Sample, json.loads(line))
