"""The losses that TRL does not have, one a file; a file that is put here is found. No heavy
import."""

from __future__ import annotations

from seva_exp.core.modules import by_name, classes_of
from seva_exp.training.loss import Loss

_FOUND = classes_of(__name__, Loss)  # type: ignore[type-abstract]  # none is a base
OURS: dict[str, Loss] = by_name((cls.name, cls()) for cls in _FOUND)
"""Each loss by its name."""
