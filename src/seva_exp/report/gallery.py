"""The report page's gallery: pairs with their pictures, differing words marked."""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from markupsafe import Markup, escape
from PIL.Image import Image

from seva_exp.core.printable import printable
from seva_exp.core.spec import Json
from seva_exp.inputs.images import UnusableImage, open_image
from seva_exp.runs.events import PairExample

SIDE = 336
"""Largest side of an inlined picture, in pixels."""
SMALL = 112
"""Pictures up to this side keep their pixels: lossless, and enlarged without smoothing."""


def example_card(example: PairExample) -> Json:
    """One pair: the clean answer, and per view what it showed and what was said of it."""
    pair = example.pair
    return {
        "id": pair.sample_id,
        "question": pair.question,
        "agreement": None if pair.agreement is None else f"{pair.agreement:.2f}",
        "clean": picture(example.clean_image),
        "chosen": marked(pair.chosen, pair.rejected),
        "views": [
            {
                "name": view,
                "picture": picture(example.view_images.get(view)),
                "rejected": marked(text, (pair.chosen,)),
            }
            for view, text in zip(pair.views, pair.rejected, strict=True)
        ],
    }


def marked(text: str, others: Sequence[str]) -> Markup:
    """``text``, escaped, with the words that one of ``others`` has not in ``<mark>``."""
    text = printable(text)
    pieces = re.findall(r"\s+|\w+|[^\w\s]", text)
    keep = [True] * len(pieces)
    for other in others:
        common = [False] * len(pieces)
        matcher = difflib.SequenceMatcher(
            None, pieces, re.findall(r"\s+|\w+|[^\w\s]", printable(other)), autojunk=False
        )
        for start, _, size in matcher.get_matching_blocks():
            common[start : start + size] = [True] * size
        keep = [a and b for a, b in zip(keep, common, strict=True)]
    for i, piece in enumerate(pieces):
        if piece.isspace():
            keep[i] = i in (0, len(pieces) - 1) or keep[i - 1] or keep[i + 1]
    parts = []
    for same, group in groupby(zip(keep, pieces, strict=True), key=lambda item: item[0]):
        run = "".join(piece for _, piece in group)
        parts.append(escape(run) if same else Markup("<mark>{}</mark>").format(run))
    return Markup("").join(parts)


def picture(path: Path | None, side: int = SIDE) -> Json | None:
    """A picture file as the model saw it, ``inlined``; None when there is none."""
    if path is None:
        return None
    try:
        return inlined(open_image(path), side)
    except (UnusableImage, OSError):
        return None


def inlined(image: Image, side: int = SIDE) -> Json:
    """A picture as a data URI, with its size in pixels, at most ``side``."""
    image.thumbnail((side, side))
    small = max(image.size) <= SMALL
    data = io.BytesIO()
    if small:
        image.save(data, "PNG", optimize=True)
    else:
        image.save(data, "JPEG", quality=85)
    uri = f"data:image/{'png' if small else 'jpeg'};base64,"
    uri += base64.b64encode(data.getvalue()).decode()
    return {"uri": uri, "width": image.width, "height": image.height, "small": small}
