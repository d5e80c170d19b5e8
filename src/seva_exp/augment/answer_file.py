"""Rejected answers that are there already: a file."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.augment.base import TextSource
from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json
from seva_exp.inputs.fields import BadRow, as_text, object_of, parsed, text_of, value_of
from seva_exp.inputs.json_rows import lines
from seva_exp.inputs.user_paths import existing_file


class AnswerFile(TextSource):
    """Rows such as ``{"id": "a.jpg", "rejected": "A cat."}``, or with a list of several texts, one
    a sample. A sample that has none makes no pair by this source."""

    edits: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    kind: Literal["answer_file"] = "answer_file"
    path: str | None = Field(
        None, min_length=1, description="the file, one JSON object a line; a run needs it"
    )
    id_field: str = Field("id", min_length=1, description="a row's key of the sample's id")
    rejected_field: str = Field(
        "rejected",
        min_length=1,
        description="a row's key of the rejected text, or the list of them",
    )

    def check(self, where: str) -> None:
        """Reads the file; forgets what an earlier run read."""
        self.__dict__.pop("rows", None)
        dict(self._read(where))

    def identity(self) -> Json:
        return {name: value for name, value in self.to_json().items() if name != "path"}

    def files(self, where: str = "aug.answer_file") -> dict[str, Path]:
        if self.path is None:
            raise InputError(f"{where}.path: must be set ({where}.path=FILE.jsonl).")
        return {"path": existing_file(f"{where}.path", self.path)}

    @cached_property
    def rows(self) -> dict[str, tuple[str, ...]]:
        """The texts by sample, read once."""
        return dict(self._read(f"aug.{self.kind}"))

    def _read(self, where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Row by row. Raises InputError with the line of the first bad one."""
        seen: dict[str, int] = {}
        for number, line in lines(self.files(where)["path"], f"{where}.path"):
            try:
                row = object_of(parsed(line))
                id, texts = text_of(row, self.id_field), self._texts(row)
                if id in seen:
                    raise BadRow("twice", f"{id!r} is in line {seen[id]} already", self.id_field)
            except BadRow as error:
                raise InputError(f"{where}.path: {self.path!r}, line {number}: {error}") from error
            seen[id] = number
            yield id, texts
        if not seen:
            raise InputError(f"{where}.path: {self.path!r} has no row.")

    def _texts(self, row: Json) -> tuple[str, ...]:
        found = value_of(row, self.rejected_field)
        texts = found if isinstance(found, list) else [found]
        if not texts:
            raise BadRow("empty", "a list without a text", self.rejected_field)
        return tuple(as_text(text, self.rejected_field) for text in texts)

    def texts(self, sample_id: str, chosen: str, rng: random.Random) -> Sequence[str]:
        return self.rows.get(sample_id, ())
