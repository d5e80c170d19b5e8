"""What a contrast adds to the stages that answer: the view that it looks at, and its share of the
key."""

from __future__ import annotations

from seva_exp.augment import AnySource
from seva_exp.core.spec import Json
from seva_exp.decoding import HfGeneration
from seva_exp.decoding.contrast import AnyContrast
from seva_exp.decoding.spec import Generation
from seva_exp.inputs.views import View

BESIDE = "beside"
"""The name of what stands beside a question."""


def contrast_of(generation: Generation | None) -> AnyContrast | None:
    """The contrast by which answers are decoded; mostly none."""
    return generation.contrast if isinstance(generation, HfGeneration) else None


def contrasts(generation: Generation | None) -> bool:
    """Whether answers are decoded by a contrast."""
    return contrast_of(generation) is not None


def rows_each(generation: Generation | None) -> int:
    """Rows of an answer."""
    contrast = contrast_of(generation)
    return 2 if contrast and contrast.paired else 1


def against(generation: Generation | None, source: AnySource | None) -> Json:
    """What a stage's spec says of the view that the contrast looks at; nothing where nothing stands
    beside."""
    if rows_each(generation) == 1:
        return {}
    return {"against": source.keyed() if source else None}


def view_against(generation: Generation | None, source: AnySource | None) -> View | None:
    """The view that the contrast looks at, with the contrast's seed; None: no picture."""
    contrast = contrast_of(generation)
    return View(BESIDE, source, contrast.seed) if contrast and source else None
