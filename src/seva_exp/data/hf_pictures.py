"""Pictures in the rows of a data set of the `datasets` library become files."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

from seva_exp.core.records import ImageRef
from seva_exp.data.rows import REMEMBERED
from seva_exp.inputs.fields import BadRow, as_text
from seva_exp.inputs.images import (
    NO_FILE,
    SUFFIXES_OF_FORMAT,
    UNREADABLE,
    UnusableImage,
    open_image,
)


class Written:
    """Pictures that become files of ``folder``, named by content: of the last ones each is written
    and decoded once."""

    def __init__(self, folder: Path, base: Path, field: str) -> None:
        self.folder = folder
        self.base = base
        self.field = field
        self.seen: dict[str, ImageRef | UnusableImage] = {}

    def ref(self, value: object) -> ImageRef:
        """The picture of a row; raises BadRow if there is none."""
        content = self._bytes(stored(value))
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self.seen:
            self.seen[sha256] = self._write(content, sha256)
        result = self.seen[sha256]
        if len(self.seen) > REMEMBERED:
            del self.seen[next(iter(self.seen))]
        if isinstance(result, UnusableImage):
            raise BadRow(result.reason, result.detail or f"{len(content)} bytes", self.field)
        return result

    def _bytes(self, found: bytes | str | None) -> bytes:
        if found is None:
            raise BadRow("missing", "there is no picture", self.field)
        if isinstance(found, bytes):
            return found
        try:
            return (self.base / as_text(found, self.field)).read_bytes()
        except FileNotFoundError as error:
            raise BadRow(NO_FILE, repr(found), self.field) from error
        except OSError as error:
            raise BadRow(UNREADABLE, f"{found!r} ({error.strerror})", self.field) from error

    def _write(self, content: bytes, sha256: str) -> ImageRef | UnusableImage:
        file = self.folder / sha256
        file.write_bytes(content)
        try:
            open_image(file)
        except UnusableImage as error:
            file.unlink()
            return error
        named = file.rename(file.with_suffix(_suffix(content)))
        return ImageRef(named.name, sha256)


def _suffix(content: bytes) -> str:
    """The usual end of a file name for a picture of this format."""
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return SUFFIXES_OF_FORMAT[str(image.format)][0]


def stored(value: object) -> bytes | str | None:
    """A row's picture as it is stored: the file's bytes, else its path."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, bytes | str) else None
