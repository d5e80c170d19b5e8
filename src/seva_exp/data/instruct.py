"""Instruction data in LLaVA's format: a picture, a question and its answer (STIC's stage 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from seva_exp.data.conversation import turns_of, utterance
from seva_exp.data.rows import DataRow, SampleRows, image_of
from seva_exp.inputs.fields import object_of, parsed
from seva_exp.inputs.json_rows import elements, is_list, lines


class InstructData(SampleRows):
    """The first exchange of each conversation: the human's question and gpt's response, without
    ``<image>`` and outer spaces. A JSON list of conversations, or one a line.

    STIC's stage 2: 5,000 of LLaVA's SFT rows. The first bad row ends the run; with ``on_error:
    skip`` it becomes a drop, as do rows without a picture. Pictures are read for drawn rows only.
    """

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
        file = self._file()
        yield from elements(file, f"{where}.path") if is_list(file) else lines(file)

    def _image_key(self) -> str:
        return "image"

    def _look_at(self, number: int, item: object, root: str) -> DataRow:
        values = object_of(parsed(item) if isinstance(item, bytes) else item)
        image = image_of(values, "image", root)
        turns = turns_of(values)
        question, response = utterance(turns, 0, "human"), utterance(turns, 1, "gpt")
        return DataRow(number, self._id(number, values), image, question, response)
