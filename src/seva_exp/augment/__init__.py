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
    Rewrite,
    Source,
    TextSource,
)
from seva_exp.core.modules import classes_of
from seva_exp.core.spec import kinds, one_of

SOURCES: dict[str, type[Source]] = kinds(classes_of(__name__, Source))
"""kind -> class."""
AUGMENTATIONS: dict[str, type[Augmentation]] = {
    kind: cls for kind, cls in SOURCES.items() if issubclass(cls, Augmentation)
}
"""Those that are negative views."""

globals().update({cls.__name__: cls for cls in SOURCES.values()})

if TYPE_CHECKING:  # a checker does not look into the folder
    AnySource = Source
    AnyText = TextSource
    AnyRewrite = Rewrite

    def __getattr__(name: str) -> Any: ...
else:
    AnySource = one_of(SOURCES)
    AnyText = one_of({kind: cls for kind, cls in SOURCES.items() if issubclass(cls, TextSource)})
    AnyRewrite = one_of({kind: cls for kind, cls in SOURCES.items() if issubclass(cls, Rewrite)})
"""The field types of a config that holds a source, one that asks no model, and one that has the
model rewrite an answer."""
