"""A file with one JSON object a line: a picture and the question about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from seva_exp.data.rows import DataRow, SampleRows, image_of
from seva_exp.inputs.fields import object_of, parsed, spoken, text_of
from seva_exp.inputs.json_rows import lines


class JsonlData(SampleRows):
    """Rows such as ``{"image": "a.jpg", "question": "What is this?"}``, in the file's order.

    The first bad row ends the run, with its number; with ``on_error: skip`` it becomes a drop.
    Each picture that is used has been decoded once. Blank lines are no rows.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: str | None = Field(
        None, min_length=1, description="the file; ~ and relative paths are understood"
    )
    image_field: str = Field("image", min_length=1, description="a row's key of the picture's path")
    question_field: str = Field("question", min_length=1, description="a row's key of the question")

    def _items(self, where: str) -> Iterator[tuple[int, object]]:
        yield from lines(self._file())

    def _image_key(self) -> str:
        return self.image_field

    def _look_at(self, number: int, item: object, root: str) -> DataRow:
        values = object_of(parsed(item) if isinstance(item, bytes) else item)
        image = image_of(values, self.image_field, root)
        question = spoken(text_of(values, self.question_field), self.question_field)
        return DataRow(number, self._id(number, values), image, question)
