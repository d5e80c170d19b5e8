"""What the pages of a run show of its stages, beside numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from seva_exp.core.records import Pair


@dataclass(frozen=True)
class PairExample:
    """A pair with its pictures: the clean image file and, per negative view, what it showed."""

    pair: Pair
    clean_image: Path
    view_images: dict[str, Path]


@dataclass(frozen=True)
class Answered:
    """Base's and final model's answers to one benchmark: two files of predictions in one order.
    ``pictures`` tells, of some sample ids, how each one's picture is loaded."""

    benchmark: str
    protocol: str
    base: Path
    aligned: Path
    pictures: Callable[[Collection[str]], Iterator[tuple[str, Callable[[], Image]]]]


@dataclass(frozen=True)
class Explained:
    """What the words of base's and final model's answers to one benchmark rest on: the folder of an
    ``ExplainArtifact``. A word rests on the picture from ``rests`` nats of g; ``view`` is the name
    of the negative view beside (empty: none)."""

    benchmark: str
    artifact: Path
    rests: float
    view: str
