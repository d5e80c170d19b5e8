"""A finished run of the embedded model: the one that the tests of ship have."""

from ..ship.conftest import copy, trained

__all__ = ["copy", "trained"]
