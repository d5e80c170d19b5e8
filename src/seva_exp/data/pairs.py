"""A preference set that is there already: pictures with a question, a chosen and a rejected answer,
in the formats of other trainers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.records import Drop, Sample
from seva_exp.core.spec import Json
from seva_exp.data.base import Hasher, PathSource
from seva_exp.data.kept import Kept
from seva_exp.data.packed import Picture
from seva_exp.data.parquet import ParquetData
from seva_exp.data.preferences import (
    COLUMNS,
    INFO,
    Format,
    Naming,
    described,
    image_field,
    naming_of,
    picture_in,
    preference_of,
)
from seva_exp.data.rows import DataRow, SampleRows, image_of, row_name
from seva_exp.inputs.fields import object_of, parsed, value_of
from seva_exp.inputs.json_rows import rows

if TYPE_CHECKING:
    import pyarrow.parquet


class PairRows(SampleRows):
    """Preferences in a file of JSON rows, the pictures beside it."""

    kind: Literal["pairs"] = "pairs"
    format: Format = "auto"
    columns: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)

    @property
    def _naming(self) -> Naming:
        return Naming(self.columns, self.tags)

    def _items(self, where: str) -> Iterator[tuple[int, object]]:
        yield from rows(self._file(), f"{where}.path")

    def _image_key(self) -> str:
        return "images"

    def _look_at(self, number: int, item: object, root: str) -> DataRow:
        values = object_of(parsed(item) if isinstance(item, bytes) else item)
        found = preference_of(values, self.format, self._naming)
        named = self._naming.renamed(values)
        name = image_field(named)
        path = picture_in(value_of(named, name), name)
        image = image_of({name: path}, name, root)
        answers = found.chosen, found.rejected
        return DataRow(number, row_name(number), image, found.prompt, *answers)


class PairTable(ParquetData):
    """Preferences in Parquet files, which hold the pictures."""

    kind: Literal["pairs"] = "pairs"  # type: ignore[assignment]
    format: Format = "auto"

    def _look_over(self, file: str, where: str) -> None:
        names = self._open(file, where).schema_arrow.names
        if self.image_field not in names:
            there = ", ".join(names)
            raise InputError(
                f"{where}.path: {file!r} has no column 'images' or 'image' with the pictures "
                f"(it has {there})."
            )

    def columns_of(self, where: str) -> list[str]:
        """Those of the first file."""
        return list(self._open(self._names(where)[0], where).schema_arrow.names)

    def _columns(self, table: pyarrow.parquet.ParquetFile) -> list[str]:
        return [name for name in table.schema_arrow.names if name in COLUMNS]

    def _made(self, id: str, picture: Picture, values: Json) -> Sample:
        found = preference_of(_without_nulls(values), self.format)
        plain = super()._made(id, picture, values)
        return Sample(id, plain.image, found.prompt, found.chosen, found.rejected)


def _without_nulls(values: Json) -> Json:
    """A column that has nothing in this row is none of it."""
    return {name: value for name, value in values.items() if value is not None}


class PairsData(PathSource):
    """A preference set of JSON rows (or a list of them) beside its pictures, or of Parquet files
    with the pictures in them. Nothing is asked: chosen and rejected answers are the set's own.

    A folder is LLaMA-Factory's with a ``dataset_info.json``, or one of Parquet files.
    """

    needs = "FILE"
    gives_pairs: ClassVar[bool] = True
    kind: Literal["pairs"] = "pairs"
    path: str | None = Field(
        None,
        min_length=1,
        description="the file, or the folder of Parquet files or of a dataset_info.json",
    )
    format: Format = Field(
        "auto", description="whose rows: auto tells it by the keys of each; else one for all"
    )
    image_folder: str | None = Field(
        None,
        min_length=1,
        description="the folder that the rows' pictures are relative to; null: the file's own",
    )
    files: tuple[str, ...] = Field(
        ("*.parquet",),
        min_length=1,
        description="names or patterns of the Parquet files below a folder, in this order",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="what a bad row does: end the run, or be left out and counted"
    )
    samples: int | None = Field(
        None, ge=1, description="number of rows to draw, by the run's seed; null: all of them"
    )

    @property
    def seeded(self) -> bool:
        return self.samples is not None

    def _source(self, where: str) -> PairRows | PairTable:
        """What reads it, by what lies at ``path``."""
        given = Path(self.required_path(where)).expanduser()
        options = self.model_dump(include={"max_broken", "on_error", "samples", "format"})
        if given.is_dir() and (given / INFO).is_file():
            file, naming = described(given, where)
            return self._rows(file, naming, options)
        if given.is_dir() or given.suffix == ".parquet":
            table = PairTable(path=str(given), files=self.files, **options)
            name = image_field(table.columns_of(where)) if given.exists() else "image"
            return table.model_copy(update={"image_field": name})
        return self._rows(given, naming_of(given, where), options)

    def _rows(self, file: Path, naming: Naming, options: Json) -> PairRows:
        return PairRows(
            path=str(file),
            image_folder=self.image_folder,
            columns=dict(naming.columns),
            tags=dict(naming.tags),
            **options,
        )

    def check(self, where: str = "data") -> None:
        """Looks at the paths and at the first row."""
        self._source(where).check(where)

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        fields = self.fields("path", "image_folder", "files")
        if self.path is None:
            return fields
        return fields | {"rows": self._source(where).identity(sha256, where, seed)}

    def estimate(self, where: str = "data") -> int | None:
        return self._source(where).estimate(where)

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        yield from self._source(where).read(seed, root, sha256, where, kept)

    def image_root(self, root: Path) -> Path:
        return Path(os.path.abspath(self._source("data").image_root(root)))
