"""Any directory of pictures, all asked the same question."""

from __future__ import annotations

from typing import ClassVar, Literal

from seva_exp.data.files import PictureFiles
from seva_exp.inputs.images import NOT_AN_IMAGE


class FolderData(PictureFiles):
    """The pictures of a folder, sorted by name; hidden files apart, all its files are candidates.
    What is no usable picture is left out and counted."""

    not_broken: ClassVar[frozenset[str]] = PictureFiles.not_broken | {NOT_AN_IMAGE}
    kind: Literal["folder"] = "folder"
