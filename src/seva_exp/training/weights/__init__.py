"""The weights of tokens and pairs, one a file; a file that is put here is found. No heavy
import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seva_exp.core.modules import classes_of
from seva_exp.core.spec import kinds, one_of
from seva_exp.training.weight import Weights

WEIGHTS: dict[str, type[Weights]] = kinds(classes_of(__name__, Weights))
"""kind -> class."""

if TYPE_CHECKING:  # a checker does not look into the folder
    AnyWeights = Weights
else:
    AnyWeights = one_of(WEIGHTS)
"""The field type of a config that holds weights."""
