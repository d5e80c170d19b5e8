"""Any directory of pictures, all asked the same question."""

from __future__ import annotations

from typing import Literal

from seva_exp.data.files import PictureFiles


class FolderData(PictureFiles):
    """The pictures of a folder, sorted by name; hidden files apart, all its files are candidates.
    What is no usable picture is left out and counted."""

    kind: Literal["folder"] = "folder"
