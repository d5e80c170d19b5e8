"""Drawing by the seed: which candidates are tried, which are not, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Drop
from seva_exp.data.base import NOT_DRAWN, NOT_REACHED

Made = TypeVar("Made")


@dataclass(frozen=True)
class DrawnOrder:
    """``tried``: in this order, until ``wanted`` are usable. ``rest``: never looked at, so their
    contents decide nothing."""

    wanted: int
    tried: list[str]
    rest: list[str]


def draw(
    names: Sequence[str], samples: int | None, seed: int | None, purpose: str, spares: bool = True
) -> DrawnOrder:
    """``samples`` of ``names`` (None: all of them, in their order).

    ``spares``: whether others take the place of those that turn out to be unusable. Their number
    is bounded (as ``tries`` says), so that a key can hold the contents of everything that is
    tried without reading a folder of which a few pictures are drawn. Without a ``seed`` all are
    tried: what any seed might draw.
    """
    wanted = len(names) if samples is None else min(samples, len(names))
    if seed is None or wanted == len(names):
        return DrawnOrder(wanted, list(names), [])
    order = draw_order(names, seed, purpose)
    end = tries(wanted) if spares else wanted
    return DrawnOrder(wanted, order[:end], order[end:])


def tries(wanted: int) -> int:
    """The most names that are tried for ``wanted`` usable ones: two thirds may be unusable."""
    return 3 * wanted + 100


def draw_order(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """``names`` in random order. Each name's rank is its own: taking one name away leaves the
    others in the order they had."""
    return sorted(names, key=lambda name: (seed_for(seed, purpose, name), name))


def collect(
    drawn: DrawnOrder, make: Callable[[str], Made | Drop]
) -> tuple[dict[str, Made], dict[str, Drop]]:
    """The results of ``make`` for the names that were drawn, and why each other one was left
    out."""
    found: dict[str, Made] = {}
    drops: dict[str, Drop] = {}
    for name in drawn.tried:
        made = make(name) if len(found) < drawn.wanted else Drop(name, NOT_DRAWN)
        if isinstance(made, Drop):
            drops[name] = made
        else:
            found[name] = made
    reason = NOT_DRAWN if len(found) == drawn.wanted else NOT_REACHED
    return found, drops | {name: Drop(name, reason) for name in drawn.rest}


def in_order(
    names: Iterable[str], drawn: DrawnOrder, make: Callable[[str], Made | Drop]
) -> Iterator[Made | Drop]:
    """The result or drop of each of ``names``, in their order. Where all are wanted, each is made
    when its turn comes; else what was drawn is held."""
    if drawn.wanted == len(drawn.tried) and not drawn.rest:
        yield from map(make, names)
        return
    found, drops = collect(drawn, make)
    yield from (found[name] if name in found else drops[name] for name in names)
