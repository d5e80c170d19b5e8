"""Scores of a sample's candidate answers (``method=best_of_k``), one a file. What is put here is
found. No heavy import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seva_exp.core.modules import classes_of
from seva_exp.core.spec import kinds, one_of
from seva_exp.scores.base import CandidateScore

SCORES: dict[str, type[CandidateScore]] = kinds(classes_of(__name__, CandidateScore))  # type: ignore[type-abstract]  # those without a kind are bases
"""kind -> class."""

globals().update({cls.__name__: cls for cls in SCORES.values()})

if TYPE_CHECKING:  # a checker does not look into the folder
    AnyScore = CandidateScore

    def __getattr__(name: str) -> Any: ...
else:
    AnyScore = one_of(SCORES)
    """The field type of a config that holds a score."""
