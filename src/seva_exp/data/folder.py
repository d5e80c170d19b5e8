"""Any directory of pictures, all asked the same question."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from seva_exp.data.base import (
    NOT_DRAWN,
    REMOVE_PLACEHOLDER,
    DataSource,
    Hasher,
    SampleSet,
    draw_order,
    hash_or_none,
    placeholder_in,
    printable,
    tally,
)
from seva_exp.data.paths import existing_folder, walk
from seva_exp.errors import InputError
from seva_exp.images import UnusableImage, open_image
from seva_exp.records import Drop, ImageRef, Sample
from seva_exp.spec import Json, digest

DRAW = "data.folder.draw"
BAD_NAME = "file name is not UTF-8"


class FolderData(DataSource):
    """The pictures of a folder, sorted by name; a sample's id is the file's relative path.

    Every file is accounted for: it is a sample, or a drop with the reason (hidden files apart).
    Each picture that is used has been decoded once, so that nothing fails hours later.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="the folder; ~ and relative paths are understood")
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
        if token := placeholder_in(self.prompt):
            raise InputError(
                f"data.prompt: {self.prompt!r} holds the image placeholder {token}; "
                f"{REMOVE_PLACEHOLDER}."
            )
        folder = existing_folder("data.path", self.path)
        if next(walk(folder, self.recursive), None) is None:
            raise InputError(f"data.path: there is no file in {self.path!r}.")

    def identity(self, sha256: Hasher, where: str = "data") -> Json:
        folder = existing_folder("data.path", self.path)
        names = self._names(folder)
        contents = [[printable(name), hash_or_none(folder / name, sha256)] for name in names]
        fields = self.model_dump(mode="json", exclude={"path"})
        return fields | {"files": len(names), "contents": digest(contents)}

    def image_root(self, root: Path) -> Path:
        return Path(self.path).expanduser().absolute()

    def build(self, seed: int, root: Path, sha256: Hasher, where: str = "data") -> SampleSet:
        folder = existing_folder("data.path", self.path)
        names = self._names(folder)
        texts = [name for name in names if printable(name) == name]
        wanted = len(texts) if self.samples is None else self.samples
        found: dict[str, Sample] = {}
        drops = {name: Drop(printable(name), BAD_NAME) for name in {*names} - {*texts}}
        for name in draw_order(texts, seed, DRAW) if wanted < len(texts) else texts:
            try:
                if len(found) < wanted:
                    found[name] = self._sample(folder, name, sha256)
                else:
                    drops[name] = Drop(name, NOT_DRAWN)
            except UnusableImage as error:
                drops[name] = Drop(name, error.reason, printable(error.detail))
        if not found:
            raise InputError(self._nothing(list(drops.values())))
        return SampleSet(
            [found[name] for name in names if name in found],
            [drops[name] for name in names if name in drops],
        )

    def _names(self, folder: Path) -> list[str]:
        return sorted(walk(folder, self.recursive))

    def _sample(self, folder: Path, name: str, sha256: Hasher) -> Sample:
        open_image(folder / name)
        return Sample(name, ImageRef(name, sha256(folder / name)), self.prompt)

    def _nothing(self, drops: list[Drop]) -> str:
        why = f"{len(drops)} files: {tally(drops)}" if drops else "no file"
        return f"data.path: there is no usable picture in {self.path!r} ({why})."
