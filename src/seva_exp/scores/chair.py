"""How much of what an answer names is on the picture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from seva_exp.benchmarks.coco_objects import Objects, read_synonyms
from seva_exp.benchmarks.mentions import mention_counts
from seva_exp.benchmarks.shapes import describe_counts
from seva_exp.core.errors import InputError
from seva_exp.core.records import AnswerGroup
from seva_exp.core.spec import Json
from seva_exp.inputs.fields import BadRow, as_text, object_of, parsed, text_of, value_of
from seva_exp.inputs.json_rows import lines
from seva_exp.inputs.user_paths import existing_file
from seva_exp.scores.base import CandidateScore, Desk, Scorer, Values

Counts = dict[str, float]


class Chair(CandidateScore):
    """-CHAIRi + recall x (the share of the picture's objects that is named), as CHAIR counts
    (arXiv:1809.02156): CHAIR-DPO (arXiv:2508.20181) prefers the answer of lower CHAIR. An answer
    that names no object has no score. What is there tells a file, or the embedded world itself."""

    kind: Literal["chair"] = "chair"
    path: str | None = Field(
        None,
        min_length=1,
        description='JSON lines such as {"id": "a.jpg", "objects": ["cat", {"label": "dog", "box": '
        "[0, 0, 9, 9]}]}, by a detector, say; null: what the data knows (the embedded world)",
    )
    synonyms: str | None = Field(
        None,
        min_length=1,
        description="with path: a line an object, its name first, then its synonyms, commas "
        "between (CHAIR's synonyms.txt); null: the file's labels as they are",
    )
    id_field: str = Field("id", min_length=1, description="a row's key of the sample's id")
    objects_field: str = Field(
        "objects", min_length=1, description="a row's key of the labels, or of boxes with a label"
    )
    recall: float = Field(
        0.0, ge=0, description="weight of the share that is named: without it the shortest wins"
    )

    @property
    def needs_truth(self) -> bool:
        return self.path is None

    @property
    def no_verdict(self) -> str:
        return f"with recall={self.recall} counts what is not said, too" if self.recall else ""

    def check(self, where: str) -> None:
        if self.synonyms and not self.path:
            raise InputError(f"{where}.synonyms: is read with a file alone; set {where}.path too.")
        if self.path:
            self._there(where)

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        values = super().identity(sha256)
        for name in ("path", "synonyms"):
            if values[name] and (file := Path(values[name]).expanduser()).is_file():
                values[name] = sha256(file)
        return values

    @contextmanager
    def scorer(self, desk: Desk, groups: Sequence[AnswerGroup]) -> Iterator[Scorer]:
        count = self._by_file() if self.path else self._by_truth(desk)

        def score(some: Sequence[AnswerGroup]) -> Values:
            return [
                tuple(self.value(count(group.sample.id, text)) for text in group.texts)
                for group in some
            ]

        yield score

    def value(self, counts: Counts | None) -> float | None:
        """The score of one answer by CHAIR's counts; None where they are none, or it names no
        object."""
        if not counts or not counts["mentions"]:
            return None
        found = counts["found"] / counts["present"] if counts["present"] else 1.0
        return self.recall * found - counts["wrong"] / counts["mentions"]

    def _by_truth(self, desk: Desk) -> Callable[[str, str], Counts | None]:
        def count(id: str, text: str) -> Counts | None:
            there = desk.truth(id)
            return None if there is None else describe_counts(there, text).counts

        return count

    def _by_file(self) -> Callable[[str, str], Counts | None]:
        there, objects = self._there("method.scores.chair")

        def count(id: str, text: str) -> Counts | None:
            if id not in there:
                return None
            named: Sequence[Hashable] = objects.mentions(text)
            return mention_counts(named, there[id], text)

        return count

    def _there(self, where: str) -> tuple[dict[str, tuple[str, ...]], Objects]:
        """The objects of each sample's picture, and how they are found in a text. Raises InputError
        with the line of the first bad row."""
        labels: dict[str, tuple[str, ...]] = {}
        for number, line in lines(existing_file(f"{where}.path", self.path or ""), f"{where}.path"):
            try:
                row = object_of(parsed(line))
                labels[text_of(row, self.id_field)] = self._labels(row)
            except BadRow as error:
                raise InputError(f"{where}.path: {self.path!r}, line {number}: {error}") from error
        names = {label: label for some in labels.values() for label in some}
        if not names:
            raise InputError(f"{where}.path: {self.path!r} names no object.")
        objects = self._objects(where) if self.synonyms else Objects(names)
        if unknown := sorted(names.keys() - objects.names.keys()):
            raise InputError(f"{where}.synonyms: {self.synonyms!r} does not know {unknown[0]!r}.")
        known = {id: tuple(objects.names[one] for one in some) for id, some in labels.items()}
        return known, objects

    def _objects(self, where: str) -> Objects:
        file = existing_file(f"{where}.synonyms", self.synonyms or "")
        text = file.read_text(encoding="utf-8", errors="replace")
        if not text.strip(" ,\r\n"):
            raise InputError(f"{where}.synonyms: {self.synonyms!r} holds no synonyms.")
        return read_synonyms(text)

    def _labels(self, row: Json) -> tuple[str, ...]:
        found = value_of(row, self.objects_field)
        if not isinstance(found, list):
            raise BadRow("wrong type", "a list is needed", self.objects_field)
        named = [text_of(one, "label") if isinstance(one, dict) else one for one in found]
        return tuple(as_text(one, self.objects_field).strip().lower() for one in named)
