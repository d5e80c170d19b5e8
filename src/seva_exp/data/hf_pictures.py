"""Pictures in the rows of a data set of the `datasets` library become files."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from seva_exp.core.records import ImageRef
from seva_exp.data.rows import REMEMBERED
from seva_exp.inputs.fields import BadRow, only, picture_path
from seva_exp.inputs.images import (
    NO_FILE,
    SUFFIXES_OF_FORMAT,
    UNREADABLE,
    UnusableImage,
    open_image,
)
from seva_exp.inputs.packed import stored

if TYPE_CHECKING:
    from datasets import Dataset


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
        content = self._bytes(stored(only(value, self.field)))
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
            return (self.base / picture_path(found, self.field)).read_bytes()
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
    with Image.open(BytesIO(content)) as image:
        return SUFFIXES_OF_FORMAT[str(image.format)][0]


def path_stored(value: object) -> str | None:
    """The path of a row's picture that is stored nowhere else."""
    try:
        found = stored(only(value, ""))
    except BadRow:
        return None
    return found if isinstance(found, str) else None


def undecoded(feature: Any) -> Any:
    """An Image feature, or a list of them, that gives pictures as they are stored; None for another
    kind of column."""
    from datasets import Image, List

    if isinstance(feature, Image):
        return Image(decode=False)
    inner = undecoded(feature.feature) if isinstance(feature, List) else None
    return List(inner) if inner else None


def holds_pictures(feature: Any) -> bool:
    """Whether a column that is no Image feature holds pictures' bytes or paths, or a list of
    them."""
    from datasets import List, Value

    if isinstance(feature, List):
        return holds_pictures(feature.feature)
    if isinstance(feature, dict):
        return {"bytes", "path"} >= feature.keys() != set()
    return isinstance(feature, Value) and re.search("string|binary", feature.dtype) is not None


def any_by_path(table: Dataset, field: str) -> bool:
    """Whether a row's picture may lie outside the data set. Of an Image column no bytes are
    read."""
    from datasets import Image, Value

    feature = table.features[field]
    if isinstance(feature, Image):
        return any(chunk.field("bytes").null_count for chunk in table.data.column(field).chunks)
    return not (isinstance(feature, Value) and "binary" in feature.dtype)
