"""Instruction data in LLaVA's format: a picture, a question and its answer (STIC's stage 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.core.errors import nearest
from seva_exp.core.spec import Json
from seva_exp.data.conversation import turns_of
from seva_exp.data.rows import DataRow, SampleRows, image_of
from seva_exp.inputs.fields import BadRow, object_of, parsed
from seva_exp.inputs.json_rows import rows

IMAGE, IMAGES = "image", "images"
"""A row's key of its picture; the second is that of chat models' data, and holds a list."""
NO_PICTURE = "no picture"


class InstructData(SampleRows):
    """The first exchange of each conversation: the human's question and gpt's response, without
    ``<image>`` and outer spaces. A JSON list of conversations, or one a line.

    STIC's stage 2: 5,000 of LLaVA's SFT rows. The first bad row ends the run; with ``on_error:
    skip`` it becomes a drop. Rows of text alone (41k of LLaVA-1.5's 665k) always do. Pictures are
    read for drawn rows only.
    """

    not_broken: ClassVar[frozenset[str]] = SampleRows.not_broken | {NO_PICTURE}
    kind: Literal["instruct"] = "instruct"
    path: str | None = Field(
        None, min_length=1, description="conversations in LLaVA's format, a JSON list or JSON lines"
    )
    id_field: str | None = Field(
        "id",
        min_length=1,
        description="a row's key of its unique id; null: row-<number>, as LLaVA's own files need",
    )

    @property
    def responds(self) -> bool:
        return True

    def _items(self, where: str) -> Iterator[tuple[int, object]]:
        yield from rows(self._file(), f"{where}.path")

    def _image_key(self) -> str:
        return IMAGE

    def _look_at(self, number: int, item: object, root: str) -> DataRow:
        values = object_of(parsed(item) if isinstance(item, bytes) else item)
        key = IMAGES if IMAGES in values and IMAGE not in values else IMAGE
        if _is_text_alone(values, key):
            raise BadRow(NO_PICTURE, "a row of text alone", left_out=True)
        image = image_of(values, key, root)
        turns = turns_of(values)
        return DataRow(
            number, self._id(number, values), image, turns.first_question(), turns.first_answer()
        )


def _is_text_alone(values: Json, key: str) -> bool:
    """Whether the row has no picture and speaks of none."""
    if values.get(key) not in (None, "", []):
        return False
    misspelt = key not in values and nearest(key, values) is not None
    return not misspelt and not turns_of(values).shows_picture()
