"""A check that fields share: a range's lower end is not above its upper end."""

from __future__ import annotations

from seva_exp.core.spec import Spec


def check_range(spec: Spec, low: str, high: str) -> None:
    """Raises ValueError, naming both fields, unless ``spec.low <= spec.high``."""
    below, above = getattr(spec, low), getattr(spec, high)
    if below > above:
        raise ValueError(f"{low}: {below} is more than {high}, which is {above}")
