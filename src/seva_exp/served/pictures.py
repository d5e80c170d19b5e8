"""A question about a picture in the wire format of OpenAI-compatible servers."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL.Image import Image

from seva_exp.core.spec import Json


def about_picture(picture: Image, text: str) -> list[Json]:
    """The content of a user's turn: the picture (PNG, its own size) before the text."""
    return [
        {"type": "image_url", "image_url": {"url": data_url(picture)}},
        {"type": "text", "text": text},
    ]


def data_url(picture: Image) -> str:
    """The picture without loss, as text."""
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
