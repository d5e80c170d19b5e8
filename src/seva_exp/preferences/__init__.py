"""Preference pairs: every view's answers, and which pairs are kept."""

from seva_exp.preferences.filters import (
    FILTERS,
    AnyFilter,
    EqualFilter,
    Filter,
    LengthRatioFilter,
    named_filter,
)
