"""Sources of rejected answers: negative views (augmentations) and others, one a file. What is put
here is found. No heavy import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seva_exp.augment.base import (
    AnswerEdit,
    Augmentation,
    ImageAugmentation,
    PixelAugmentation,
    PromptAugmentation,
    Source,
    TextSource,
)
from seva_exp.core.modules import classes_in, modules_of
from seva_exp.core.spec import kinds, one_of

SOURCES: dict[str, type[Source]] = kinds(classes_in(modules_of(__name__), Source))
"""kind -> class."""
AUGMENTATIONS: dict[str, type[Augmentation]] = {
    kind: cls for kind, cls in SOURCES.items() if issubclass(cls, Augmentation)
}
"""Those that are negative views."""

if TYPE_CHECKING:
    AnySource = Source
    AnyText = TextSource
else:
    AnySource = one_of(SOURCES)
    AnyText = one_of({kind: cls for kind, cls in SOURCES.items() if not cls.asks})
"""The field types of a config that holds a source, and one that asks no model."""


def __getattr__(name: str) -> Any:
    """The classes of ``SOURCES``: ``from seva_exp.augment import DiffusionNoise``."""
    for cls in SOURCES.values():
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "AnswerEdit",
    "AnySource",
    "AnyText",
    "Augmentation",
    "ImageAugmentation",
    "PixelAugmentation",
    "PromptAugmentation",
    "Source",
    "TextSource",
]
