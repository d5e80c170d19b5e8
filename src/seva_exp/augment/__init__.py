"""Augmentations: the bad ways to ask, one module each. A file that is put here is found; its class
can be imported from here."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from seva_exp.augment.base import (
    Augmentation,
    ImageAugmentation,
    PixelAugmentation,
    PromptAugmentation,
)
from seva_exp.core.modules import classes_of
from seva_exp.core.spec import BY_KIND

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    cls.model_fields["kind"].default: cls
    for cls in classes_of(__name__, Augmentation)
    if isinstance(cls.model_fields["kind"].default, str)  # else it is the base of some
}
"""kind -> class."""
globals().update({cls.__name__: cls for cls in AUGMENTATIONS.values()})

if TYPE_CHECKING:  # a checker does not look into the folder
    AnyAugmentation = Augmentation

    def __getattr__(name: str) -> Any: ...
else:
    AnyAugmentation = Annotated[reduce(or_, AUGMENTATIONS.values()), BY_KIND]
    """The field type of a config that holds an augmentation."""
