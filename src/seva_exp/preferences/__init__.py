"""Preference pairs: every view's answers, and which pairs are kept."""

from seva_exp.preferences.filters import (
    FILTERS,
    AmbiguousFilter,
    AnyFilter,
    EqualFilter,
    Filter,
    LengthRatioFilter,
    named_filter,
)
