"""A data set of the `datasets` library: saved in a folder, or on the Hugging Face hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.printable import error_text
from seva_exp.core.records import Drop, Sample
from seva_exp.core.spec import Json, digest
from seva_exp.data.base import (
    Hasher,
    PathSource,
    hash_or_none,
    refuse_placeholder,
    some,
)
from seva_exp.data.conversation import Turns, text_in
from seva_exp.data.draw import draw, in_order
from seva_exp.data.hf_pictures import (
    Written,
    any_by_path,
    holds_pictures,
    path_stored,
    undecoded,
)
from seva_exp.data.kept import Kept
from seva_exp.data.rows import row_name, row_number, stop
from seva_exp.inputs.fields import BadRow
from seva_exp.inputs.user_paths import existing_folder

if TYPE_CHECKING:
    from datasets import Dataset

DRAW = "data.hf.draw"
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


class HfData(PathSource):
    """Rows of a data set: a picture (an Image feature, bytes, or a file's path; or a list of one)
    with a question (a text, or the first of a column of turns).

    Pictures are written as they are stored, byte for byte, below ``root/images``, each once; the
    folder's paths of pictures are relative to it. A sample's id is the row's number. What ends a
    run, or is left out with ``on_error: skip``, is a row that was drawn and gives no sample.
    """

    kind: Literal["hf"] = "hf"
    needs = "FOLDER_OR_ID"
    path: str | None = Field(
        None,
        min_length=1,
        description="a folder written by save_to_disk, or the id of a data set on the hub",
    )
    config: str | None = Field(
        None, min_length=1, description="the configuration of a data set on the hub"
    )
    split: str | None = Field(
        None, min_length=1, description="such as train; null: the only one there is"
    )
    revision: str | None = Field(
        None,
        min_length=1,
        description="commit of a data set on the hub, 40 hex digits: a branch would move, and the "
        "same key would stand for other data",
    )
    image_field: str = Field("image", min_length=1, description="the column of the pictures")
    question_field: str | None = Field(
        None, min_length=1, description="the column of the questions; null: prompt for all"
    )
    prompt: str = Field(
        "Describe the image in detail.",
        min_length=1,
        description="the question to every picture where question_field is null",
    )
    response_field: str | None = Field(
        None, min_length=1, description="the column of the answers (instruction data); null: none"
    )
    samples: int | None = Field(
        None, ge=1, description="number of rows to draw, by the run's seed; null: all of them"
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="what a bad row does: end the run, or be left out and counted"
    )

    @property
    def responds(self) -> bool:
        return self.response_field is not None

    @property
    def seeded(self) -> bool:
        return self.samples is not None

    def lacking(self, where: str = "data") -> str | None:
        at_hub = self.path is not None and not self._is_local() and HUB_ID.fullmatch(self.path)
        if self.revision is not None or not at_hub:
            return super().lacking(where)
        return (
            f"{where}.revision: must be set ({where}.revision=COMMIT), since {self.path!r} is no "
            "folder here and so a data set of the hub: 40 hex digits, a branch would move."
        )

    def check(self, where: str = "data") -> None:
        refuse_placeholder(f"{where}.prompt", self.prompt)
        path = self.required_path(where)
        if lacking := self.lacking(where):
            raise InputError(lacking)
        if self._is_local():
            self._check_folder(where, path)
        elif not HUB_ID.fullmatch(path):
            raise InputError(f"{where}.path: {path!r} is no folder here and no id of the hub.")
        elif not COMMIT.fullmatch(self.revision or ""):
            raise InputError(
                f"{where}.revision={self.revision}: a commit of {path!r} is needed, 40 hex digits, "
                "since a branch or tag can move."
            )

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        fields = self.fields()
        if self.path is None or not self._is_local():
            return fields
        folder = self._split_folder(where, self.path)
        files = [sha256(folder / name) for name in _data_files(where, folder)]
        fields |= {"path": None, "files": len(files), "contents": digest(files)}
        outside = self._outside(self._table(where), seed)
        linked = [hash_or_none(self._base(where) / name, sha256) for name in outside]
        return fields | {"linked": digest(linked)} if linked else fields

    def estimate(self, where: str = "data") -> int | None:
        rows = len(self._table(where)) if self._is_local() else None
        return min(rows, self.samples or rows) if rows else self.samples

    def image_root(self, root: Path) -> Path:
        return root / "images"

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        table = self._table(where)
        folder = self.image_root(root)
        folder.mkdir(parents=True, exist_ok=True)
        pictures = Written(folder, self._base(where), self.image_field)
        keep = kept or Kept()

        def look(name: str) -> Sample | Drop:
            number = row_number(name)
            try:
                return self._sample(name, table[number - 1], pictures)
            except BadRow as error:
                if self.on_error == "skip":
                    return error.drop(name)
                stop(where, self.path, number, error)

        names = [row_name(number) for number in range(1, len(table) + 1)]
        drawn = draw(names, self.samples, seed, DRAW, self.on_error == "skip")
        made = in_order(names, drawn, lambda name: keep(lambda: look(name)))
        yield from some(made, f"{where}.path", self.path, "row", "rows")

    def _sample(self, name: str, values: Json, pictures: Written) -> Sample:
        prompt, response = self.prompt, ""
        if self.question_field:
            prompt = text_in(values, self.question_field, Turns.first_question)
        if self.response_field:
            response = text_in(values, self.response_field, Turns.first_answer)
        return Sample(name, pictures.ref(values[self.image_field]), prompt, response)

    def _is_local(self) -> bool:
        path = os.path.expanduser(self.path or "")
        return path.startswith((".", os.sep)) or os.path.exists(path)

    def _base(self, where: str) -> Path:
        """The folder to which paths of pictures are relative."""
        return (
            existing_folder(f"{where}.path", self.required_path(where))
            if self._is_local()
            else Path()
        )

    def _check_folder(self, where: str, path: str) -> None:
        for name in ("config", "revision"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"{where}.{name}: {path!r} is a folder, which has none; leave it null."
                )
        _data_files(where, self._split_folder(where, path))

    def _split_folder(self, where: str, path: str) -> Path:
        """The folder of one split: the data set's own, or one inside it."""
        folder = existing_folder(f"{where}.path", path)
        if not (folder / "dataset_dict.json").is_file():
            if self.split is not None:
                raise InputError(f"{where}.split: {path!r} has no splits; leave it null.")
            return folder
        splits = [entry.parent.name for entry in folder.glob("*/state.json")]
        return folder / _chosen(where, path, self.split, splits)

    def _table(self, where: str) -> Dataset:
        """The data set with the columns that are needed, pictures as they are stored."""
        import datasets

        path = self.required_path(where)
        try:
            if self._is_local():
                table = datasets.load_from_disk(str(self._split_folder(where, path)))
            else:
                table = self._download(where, path)
        except InputError:
            raise
        except Exception as error:  # foreign files and the net raise errors of many types
            message = error_text(error)
            mend = "" if self._is_local() else _OFFLINE.format(where=where)
            raise InputError(
                f"{where}.path: {path!r} cannot be loaded: {message}.{mend}"
            ) from error
        return self._columns(where, table)

    def _download(self, where: str, path: str) -> Dataset:
        import datasets

        if self.split is not None:
            return datasets.load_dataset(
                path, self.config, split=self.split, revision=self.revision
            )
        splits = datasets.load_dataset(path, self.config, revision=self.revision)
        return splits[_chosen(where, path, None, list(splits))]

    def _columns(self, where: str, table: Dataset) -> Dataset:
        for key in ("image_field", "question_field", "response_field"):
            name = getattr(self, key)
            if name is not None and name not in table.column_names:
                hint = suggest(name, table.column_names)
                raise InputError(f"{where}.{key}={name}: there is no such column.{hint}")
        feature = table.features[self.image_field]
        if plain := undecoded(feature):
            table = table.cast_column(self.image_field, plain)
        elif not holds_pictures(feature):
            raise InputError(
                f"{where}.image_field={self.image_field}: the column holds {feature}; pictures, "
                "their bytes or their paths are needed."
            )
        fields = (self.image_field, self.question_field, self.response_field)
        return table.select_columns([*dict.fromkeys(name for name in fields if name)])

    def _outside(self, table: Dataset, seed: int | None) -> list[str]:
        """The paths of pictures that lie in no file of the data set, of the rows that are tried."""
        if not any_by_path(table, self.image_field):
            return []
        names = [row_name(number) for number in range(1, len(table) + 1)]
        drawn = draw(names, self.samples, seed, DRAW, self.on_error == "skip")
        rows = table.select_columns([self.image_field])
        found = (rows[row_number(name) - 1][self.image_field] for name in drawn.tried)
        paths = (path for value in found if isinstance(path := path_stored(value), str))
        return sorted({*paths})


_OFFLINE = (
    " Without the net, save the data set elsewhere (save_to_disk) and give the folder: "
    "{where}.path=FOLDER."
)


def _chosen(where: str, path: str, split: str | None, splits: list[str]) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split in splits:
        return split
    if split is None:
        raise InputError(
            f"{where}.split: must be set: {path!r} has the splits {', '.join(sorted(splits))}."
        )
    raise InputError(f"{where}.split={split}: {path!r} has no such split.{suggest(split, splits)}")


def _data_files(where: str, folder: Path) -> list[str]:
    """The names of a saved data set's files of rows, in their order."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{where}.path: {str(folder)!r} holds no data set as save_to_disk writes it "
            f"(state.json: {error})."
        ) from error
    if lost := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{where}.path: {str(folder)!r} lacks its file {lost[0]!r}.")
    return names
