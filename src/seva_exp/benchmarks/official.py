"""A benchmark of official files below the data root: read offline, asked and scored by a protocol.

Files are looked at whole before any model is loaded; what is wrong in them is refused with file and
row. Their content is part of the key, where they lie is not.
"""

from __future__ import annotations

import reprlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from seva_exp.benchmarks.base import (
    Benchmark,
    Hasher,
    Metric,
    Question,
    accuracy,
    ratio,
)
from seva_exp.benchmarks.files import (
    BenchmarkFiles,
    Candidates,
    FilePicture,
    FileRow,
    Picture,
    Stamps,
    stamp,
)
from seva_exp.benchmarks.judging import OWN, Judging
from seva_exp.benchmarks.protocols import Protocol, load_protocol
from seva_exp.benchmarks.question import Scored
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json, digest
from seva_exp.inputs.fields import BadRow, encodable, spoken

Rule = Callable[[str, str, Json], Scored]
"""(what the model said, the target, the question's details) -> score; a pure function."""


def right_or_wrong(extracted: str, correct: bool, parsed: bool = True) -> Scored:
    """One answer of those that are just right or wrong. What no rule parses is wrong, and counted
    apart; never guessed."""
    counts = {"asked": 1.0, "correct": float(correct), "unparsed": float(not parsed)}
    return Scored(extracted, float(correct), counts)


def judged(text: str, target: str, details: Json) -> Scored:
    """The rule of benchmarks that a judge scores: nothing is known before."""
    return Scored("", None, {})


@dataclass(frozen=True)
class Item:
    """A row that was found whole: the texts of its prompt, its target, its picture (if it has one).
    ``shows`` as in ``Question``."""

    row: FileRow
    id: str
    group: str
    type: str
    texts: dict[str, str]
    target: str
    picture: Picture | None
    details: Json = field(default_factory=dict)
    shows: str = ""


@dataclass(frozen=True)
class Loaded:
    """A benchmark's items, and the files that they were read from."""

    items: list[Item]
    files: list[Path]

    @property
    def pictures(self) -> list[FilePicture]:
        """The picture files, each once."""
        found = {
            i.picture.name: i.picture for i in self.items if isinstance(i.picture, FilePicture)
        }
        return [found[name] for name in sorted(found)]

    def pictures_digest(self, sha256: Hasher) -> str:
        """Of the picture files' names and contents."""
        return digest([[picture.name, sha256(picture.path)] for picture in self.pictures])


_READ: dict[str, tuple[Any, Stamps]] = {}
"""By what is read and the data root: a run reads the same files several times over."""
Read = TypeVar("Read")


def once_read(key: list[Any], root: Path, read: Callable[[BenchmarkFiles], Read]) -> Read:
    """What ``read`` makes of the source, made once until a file or a folder's listing changes."""
    name = digest([*key, str(root)])
    known = _READ.get(name)
    if known is None or any(stamp(path) != was for path, was in known[1].items()):
        source = BenchmarkFiles(root)
        _READ[name] = read(source), source.stamps
    found: Read = _READ[name][0]
    return found


class ByProtocol(Benchmark):
    """Base of the benchmarks whose questions lie in files and that a protocol tells how to ask and
    score. A subclass says where its files are (``load``), and what a protocol may name."""

    placeholders: ClassVar[tuple[str, ...]] = ("question",)
    """What a protocol's ``prompt`` can fill in."""
    judgings: ClassVar[Mapping[str, Callable[[Any, BenchmarkFiles], Judging]]] = {}
    """What a protocol's ``judge`` can be: (the benchmark, the source) -> how a judge is asked. One
    of them is ``own``."""

    kind: str
    protocol: str = Field("llava15", min_length=1)
    """How it is asked and scored: a packaged protocol's name, or a file of one's own."""

    @property
    @abstractmethod
    def scoring(self) -> Mapping[str, Rule]:
        """What a protocol's ``rule`` can be."""

    @property
    def section(self) -> str:
        """The name of its part of a protocol's file."""
        return self.kind

    @abstractmethod
    def load(self, root: Path | None) -> Loaded:
        """All items. Raises InputError, with file and row."""

    @cached_property
    def _protocol(self) -> tuple[str, Protocol]:
        where = f"benchmark.{self.kind}.protocol"
        found = load_protocol(
            self.protocol, self.section, self.scoring, self.placeholders, self.judgings, where
        )
        if self.needs_judge and found[1].judge is None:
            raise InputError(
                f"{where}={self.protocol}: {self.section}.judge: must be set, since a judge scores "
                f"this benchmark.{suggest('', self.judgings)}"
            )
        return found

    @property
    def rules_of_protocol(self) -> Protocol:
        """The protocol's part for this benchmark."""
        return self._protocol[1]

    @property
    def plain_protocol(self) -> str:
        return self._protocol[0]

    @property
    def judged(self) -> bool:
        return self.rules_of_protocol.judge is not None

    def check(self, root: Path | None) -> None:
        self.load(root)

    def questions(self, root: Path | None = None) -> Iterator[Question]:
        """Every question, in the files' order."""
        for item in self.load(root).items:
            yield Question(
                id=item.id,
                group=item.group,
                type=item.type,
                prompt=self.rules_of_protocol.render(item.texts),
                target=item.target,
                max_new_tokens=self.rules_of_protocol.max_new_tokens,
                load=item.picture.load if item.picture else None,
                details=item.details,
                shows=item.shows,
            )

    def predict(self, question: Question, text: str) -> Prediction:
        """Score one answer by the protocol's rule."""
        rule = self.scoring[self.rules_of_protocol.rule]
        return question.answered(text, rule(text, question.target, question.details))


class Official(ByProtocol):
    """Base of the official benchmarks. A subclass tells where its files lie, and turns rows into
    items."""

    layout: ClassVar[tuple[Candidates, ...]] = ()
    """The files and folders of the official layout, below the data root."""
    tables: ClassVar[Candidates] = ()
    """VLMEvalKit's table, which is read where the official layout's first file is not there."""
    source: ClassVar[str]
    """Where the files are to be had."""
    rules: ClassVar[Mapping[str, Rule]]
    """What a protocol's ``rule`` can be."""
    tells_unparsed: ClassVar[bool] = False
    """Whether a metric tells what no rule could read."""
    judge_files: ClassVar[tuple[Candidates, ...]] = ()
    """What a judge's questions are made of, where the benchmark does without it."""

    @property
    def scoring(self) -> Mapping[str, Rule]:
        return self.rules

    def official_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        """The items of the official layout, for a benchmark that has one (``layout``)."""
        return iter(())

    def table_items(self, source: BenchmarkFiles) -> Iterator[Item]:
        """The items of VLMEvalKit's table, for a benchmark that has one (``tables``)."""
        return iter(())

    def verify(self, items: Sequence[Item]) -> None:
        """Check what must hold of all items together. Raises InputError."""

    def lacking(self, root: Path | None) -> str | None:
        if root is not None:
            return None
        return (
            "data_root: must be set (data_root=DIR, or $SEVA_EXP_DATA): the folder of the "
            "benchmarks' official files; `python -m seva_exp.data check` tells which they are."
        )

    def judging(self, root: Path | None, own: bool = False) -> Judging | None:
        if self.rules_of_protocol.judge is None:
            return None
        if root is None:
            raise InputError(str(self.lacking(root)))
        way = OWN if own else self.rules_of_protocol.judge
        return once_read(
            ["judging", way, self.to_json()], root, lambda source: self.judgings[way](self, source)
        )

    def identity(self, sha256: Hasher, root: Path | None) -> Json:
        fields = self.to_json() | {"protocol": self.rules_of_protocol.identity()}
        if root is None:
            return fields
        loaded = self.load(root)
        files = sorted([path.name, sha256(path)] for path in loaded.files)
        return fields | {"files": files, "pictures": loaded.pictures_digest(sha256)}

    def load(self, root: Path | None) -> Loaded:
        """All items, read once until a file or a folder's listing changes."""
        if root is None:
            raise InputError(str(self.lacking(root)))
        return once_read([self.to_json(), self.rules_of_protocol.identity()], root, self._load)

    def present(self, root: Path) -> bool:
        """Whether the benchmark's first file is below ``root``."""
        source = BenchmarkFiles(root)
        return any(source.find(candidates) for candidates in (*self.layout[:1], self.tables))

    def _load(self, source: BenchmarkFiles) -> Loaded:
        official = bool(self.layout) and source.find(self.layout[0]) is not None
        if not official and not source.find(self.tables):
            raise InputError(
                f"benchmark.{self.kind}: its files are not there. Put\n{self.goes(source.root)}"
            )
        items = list(self.official_items(source) if official else self.table_items(source))
        if not items:
            places = [place for names in (*self.layout[:1], self.tables) for place in names]
            where = next(iter(source.files), None) or source.find(places)
            raise InputError(f"benchmark.{self.kind}: there is no question in {where}.")
        check_items(items)
        self.verify(items)
        return Loaded(items, list(source.files))

    def goes(self, root: Path) -> str:
        """Exactly where what is needed goes, a line each."""
        lines = [f"  {root / candidates[0]}" for candidates in self.layout]
        if self.tables:
            lines += [f"  {'or ' if lines else ''}{root / self.tables[0]} (VLMEvalKit's table)"]
        lines += [f"  {root / candidates[0]} (for a judge)" for candidates in self.judge_files]
        return "\n".join([*lines, f"  from {self.source}"])

    @property
    def table_name(self) -> str:
        return Path(self.tables[-1]).stem if self.tables else self.kind

    def table_rows(self, root: Path | None = None) -> Iterator[tuple[str, Json]]:
        for item in self.load(root).items:
            yield item.id, self.table_row(item)

    def table_row(self, item: Item) -> Json:
        """The row that VLMEvalKit's evaluator reads of a question: its own table's, as it is."""
        if item.row.held is not None:
            return {name: value for name, value in item.row.values.items() if name != "image"}
        question = item.texts.get("question", "")
        row = {"index": item.id, "question": question, "answer": item.target}
        return row | {"category": item.type}

    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """Accuracy of all and by type; what no rule could read, where it ``tells_unparsed``."""
        return accuracies(types, self.tells_unparsed)


def check_items(items: Iterable[Item]) -> None:
    """Refuses an id that stands there twice, and what cannot be asked or written down."""
    owners: dict[str, FileRow] = {}
    for item in items:
        if first := owners.get(item.id):
            item.row.refuse(f"duplicate id {item.id!r}, as in {first.file}, {first.place}")
        owners[item.id] = item.row
        _check_texts(item)


def _check_texts(item: Item) -> None:
    """Refuses what cannot be asked or written down."""
    for text in (item.id, item.group, item.type, item.target, *item.texts.values()):
        if encodable(text) != text or "\0" in text:
            item.row.refuse(f"not text: {reprlib.repr(text)}")
    for text in item.texts.values():
        try:
            spoken(text, "prompt")
        except BadRow as error:
            item.row.refuse(str(error))


UNPARSED = ratio("unparsed")
"""Answers that no rule could read, in percent: they count as wrong."""


def accuracies(types: Sequence[str], unparsed: bool = False) -> list[Metric]:
    """Accuracy over all answers and, where there are several types, of each; what no rule could
    read."""
    every = (tuple(types),)
    found = [Metric("all", "accuracy", accuracy, every)]
    if len(types) > 1:
        found += [Metric(type_, "accuracy", accuracy, ((type_,),)) for type_ in types]
    return found + ([Metric("all", "unparsed", UNPARSED, every, "lower")] if unparsed else [])
