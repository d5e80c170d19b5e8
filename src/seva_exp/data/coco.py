"""Pictures of a folder by a list of names, without duplicates: STIC's part of MSCOCO."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from seva_exp.core.errors import InputError
from seva_exp.core.printable import ends
from seva_exp.core.records import Drop, Sample
from seva_exp.core.spec import Json
from seva_exp.data.base import Hasher, hash_or_none
from seva_exp.data.files import BAD_NAME, Listing, PictureFiles
from seva_exp.data.kept import Kept
from seva_exp.inputs.fields import encodable
from seva_exp.inputs.images import NO_FILE, NOT_AN_IMAGE
from seva_exp.inputs.json_rows import elements, is_list, lines
from seva_exp.inputs.user_paths import existing_file, inside

DUPLICATE_NAME = "duplicate name"
DUPLICATE_PICTURE = "duplicate picture"
NOT_A_NAME = "not a name"
OUTSIDE = "outside the folder"


class CocoData(PictureFiles):
    """The pictures that ``names`` lists, in its order; without it, the folder's, sorted by name.

    A name that occurs again is left out and counted, and so is a picture that was taken already
    under another name (equal bytes). STIC: 6k of train2014; its list has 6,275 names, 6,099 of
    them different.
    """

    not_broken: ClassVar[frozenset[str]] = PictureFiles.not_broken | {
        DUPLICATE_NAME,
        DUPLICATE_PICTURE,
    }
    kind: Literal["coco"] = "coco"
    names: str | None = Field(
        None,
        min_length=1,
        description="a file of names relative to the folder, one a line or a JSON list; "
        "null: all of the folder",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop",
        description="what a listed name without a usable picture does: end the run, or be left out "
        "and counted; without a list, files that are no pictures are always left out",
    )

    def check(self, where: str = "data") -> None:
        """Looks at the paths and at the list; of its pictures only at the first."""
        super().check(where)
        if self.names is None:
            return
        folder = self._folder(where)
        existing_file(f"{where}.names", self.names)
        listing = self._listing(folder, where)
        if not listing.names:
            raise InputError(f"{where}.names: there is no usable name in {self.names!r}.")
        if not os.path.exists(folder / listing.names[0]):
            self._refuse(where, Drop(listing.names[0], NO_FILE, listing.places[listing.names[0]]))

    def is_broken(self, drop: Drop) -> bool:
        unlisted = self.names is None and drop.reason == NOT_AN_IMAGE
        return super().is_broken(drop) and not unlisted

    def identity(self, sha256: Hasher, where: str = "data", seed: int | None = None) -> Json:
        fields = super().identity(sha256, where, seed)
        if self.path is None or self.names is None:
            return fields
        return fields | {"names": sha256(existing_file(f"{where}.names", self.names))}

    def _listing(self, folder: Path, where: str) -> Listing:
        if self.names is None:
            return super()._listing(folder, where)
        listing = Listing()
        for place, item in self._entries(where, self.names):
            name, fault = _name(item, os.path.abspath(folder))
            if not fault and name in listing.places:
                drop = Drop(name, DUPLICATE_NAME, f"{place}, as in {listing.places[name]}")
            elif fault:
                drop = self._refuse(where, Drop(name, fault, place))
            else:
                listing.places[name] = place
                listing.names.append(name)
                continue
            listing.drops.append(drop)
        return listing

    def _entries(self, where: str, names: str) -> Iterator[tuple[str, object]]:
        """(place such as "line 7", content) of the list's entries; blank lines are none."""
        file = existing_file(f"{where}.names", names)
        if is_list(file, f"{where}.names"):
            for number, item in elements(file, f"{where}.names"):
                yield f"entry {number}", item
        else:
            for number, line in lines(file, f"{where}.names"):
                yield f"line {number}", line.decode("utf-8", "surrogateescape").strip()

    def _maker(
        self, folder: Path, listing: Listing, sha256: Hasher, where: str, kept: Kept
    ) -> Callable[[str], Sample | Drop]:
        look = super()._maker(folder, listing, sha256, where, kept)
        taken: dict[str, str] = {}

        def make(name: str) -> Sample | Drop:
            content = hash_or_none(folder / name, sha256)
            if content in taken:
                return Drop(name, DUPLICATE_PICTURE, f"the same bytes as {taken[content]!r}")
            made = look(name)
            if isinstance(made, Sample):
                taken[made.image.sha256] = name
            elif name in listing.places:
                detail = f"{listing.places[name]}: {made.detail}".removesuffix(": ")
                made = self._refuse(where, Drop(name, made.reason, detail))
            return made

        return make

    def _refuse(self, where: str, drop: Drop) -> Drop:
        """The drop of a listed name; raises InputError where such a name ends the run."""
        if self.on_error == "skip":
            return drop
        name = ends(repr(drop.sample_id))
        raise InputError(
            f"{where}.names: {self.names!r} {drop.detail}: {drop.reason}: {name} "
            f"(looked for in {self.path!r}). Mend the list, or leave such names out with "
            f"{where}.on_error=skip."
        )


def _name(item: object, root: str) -> tuple[str, str]:
    """The name relative to ``root``, and what is wrong with it ("" if nothing)."""
    if not isinstance(item, str) or not item.strip() or "\0" in item:
        return encodable(reprlib.repr(item)), NOT_A_NAME
    if encodable(item) != item:
        return encodable(item), BAD_NAME
    name = inside(root, item)
    return (name, "") if name else (item, OUTSIDE)
