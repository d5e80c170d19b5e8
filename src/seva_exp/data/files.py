"""What the sources of a folder's pictures share: a draw by names, and one prompt for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.records import Drop, ImageRef, Sample
from seva_exp.core.spec import Json, digest
from seva_exp.data.base import (
    Hasher,
    PathSource,
    hash_or_none,
    refuse_placeholder,
    some,
)
from seva_exp.data.draw import DrawnOrder, draw, in_order
from seva_exp.data.kept import Kept
from seva_exp.inputs.fields import encodable
from seva_exp.inputs.images import UnusableImage, open_image
from seva_exp.inputs.user_paths import existing_folder, walk

BAD_NAME = "file name is not UTF-8"


@dataclass
class Listing:
    """The names of the candidates in a fixed order, each once, and what is none already."""

    names: list[str] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    """Where in a list of names each stands, such as "line 7"."""


class PictureFiles(PathSource):
    """Pictures of a folder, all asked the same question; a sample's id is the relative path.

    Every candidate is accounted for: it is a sample, or a drop with the reason. Each picture that
    is used has been decoded once, so that nothing fails hours later.
    """

    needs = "FOLDER"
    path: str | None = Field(
        None, min_length=1, description="the folder of pictures; ~ and relative paths are fine"
    )
    prompt: str = Field(
        "Describe the image in detail.", min_length=1, description="the question to every picture"
    )
    recursive: bool = Field(True, description="whether to look into the folders inside it")
    samples: int | None = Field(
        None, ge=1, description="number of pictures to draw, by the run's seed; null: all of them"
    )

    @property
    def seeded(self) -> bool:
        return self.samples is not None

    def check(self, where: str = "data") -> None:
        refuse_placeholder(f"{where}.prompt", self.prompt)
        folder = self._folder(where)
        if next(walk(folder, self.recursive, f"{where}.path"), None) is None:
            raise InputError(f"{where}.path: there is no file in {self.path!r}.")

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        fields = self.fields("path", "names")
        if self.path is None:
            return fields
        folder = self._folder(where)
        listing = self._listing(folder, where)
        contents = [
            [name, hash_or_none(folder / name, sha256)]
            for name in sorted(self._draw(listing, seed).tried)
        ]
        made_of = [listing.names, [drop.sample_id for drop in listing.drops], contents]
        files = len(listing.names) + len(listing.drops)
        return fields | {"files": files, "contents": digest(made_of)}

    def estimate(self, where: str = "data") -> int | None:
        return self._draw(self._listing(self._folder(where), where), 0).wanted

    def image_root(self, root: Path) -> Path:
        return Path(self.required_path("data")).expanduser().absolute()

    def read(
        self,
        seed: int,
        root: Path,
        sha256: Hasher,
        where: str = "data",
        kept: Kept | None = None,
    ) -> Iterator[Sample | Drop]:
        folder = self._folder(where)
        listing = self._listing(folder, where)
        make = self._maker(folder, listing, sha256, where, kept or Kept())
        made = in_order(listing.names, self._draw(listing, seed), make)
        every = chain(listing.drops, made)
        return some(every, f"{where}.path", self.path, "picture", "files")

    def _listing(self, folder: Path, where: str) -> Listing:
        """The candidates. A file name that is no text is none that a record can hold. Raises
        InputError where it is one that this process's locale cannot read."""
        names = sorted(walk(folder, self.recursive, f"{where}.path"))
        texts = [name for name in names if encodable(name) == name]
        others = sorted({*names} - {*texts})
        locale = sys.getfilesystemencoding()
        if locale != "utf-8" and (read := next(filter(None, map(_in_utf8, others)), None)):
            raise InputError(
                f"{where}.path: the file name {read!r} cannot be read in this locale ({locale}). "
                "Set PYTHONUTF8=1, or a UTF-8 locale (LC_ALL=C.UTF-8)."
            )
        return Listing(texts, [Drop(encodable(name), BAD_NAME) for name in others])

    def _maker(
        self, folder: Path, listing: Listing, sha256: Hasher, where: str, kept: Kept
    ) -> Callable[[str], Sample | Drop]:
        """What turns one of the names into a sample or a drop."""

        def look(name: str) -> Sample | Drop:
            try:
                open_image(folder / name)
            except UnusableImage as error:
                return Drop(name, error.reason, encodable(error.detail))
            return Sample(name, ImageRef(name, sha256(folder / name)), self.prompt)

        return lambda name: kept(lambda: look(name))

    def _draw(self, listing: Listing, seed: int | None) -> DrawnOrder:
        return draw(listing.names, self.samples, seed, f"data.{self.kind}.draw")

    def _folder(self, where: str) -> Path:
        return existing_folder(f"{where}.path", self.required_path(where))


def _in_utf8(name: str) -> str | None:
    """The name, if its bytes are UTF-8."""
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return None
