"""What every benchmark is: questions, a score per answer, and metrics that are ratios of sums."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from seva_exp.benchmarks.describe import Mode
from seva_exp.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

Better = Literal["higher", "lower", "neutral"]


@dataclass(frozen=True)
class Question:
    """One question of a benchmark. ``group`` names its picture; ``max_new_tokens`` bounds the
    answer."""

    id: str
    group: str
    type: str
    prompt: str
    target: str
    max_new_tokens: int
    load: Callable[[], Image]


@dataclass(frozen=True)
class Ratio:
    """``100 * sum(numerator) / sum(denominator)`` over the predictions of ``types``; both name a
    count of ``Prediction.counts``. ``scale`` replaces the 100."""

    types: tuple[str, ...]
    numerator: str
    denominator: str
    scale: float = 100.0


@dataclass(frozen=True)
class Metric:
    """A metric: the mean of one or several ratios."""

    split: str
    name: str
    terms: tuple[Ratio, ...]
    better: Better = "higher"


class Benchmark(Mode):
    """Base of the benchmarks: questions that are asked as they are, or behind the model's own
    description of the picture (``describe_and_respond``)."""

    @property
    @abstractmethod
    def plain_protocol(self) -> str:
        """Names prompt, extraction and scoring rule, the questions asked as they are."""

    @property
    def protocol(self) -> str:
        """The protocol's name: numbers of two protocols are never put in one column."""
        mode = self.describe_and_respond
        return self.plain_protocol + (mode.suffix(self.described) if mode else "")

    def check(self) -> None:
        """Cheap checks before anything runs. Raises InputError naming the field."""

    @abstractmethod
    def questions(self) -> Iterator[Question]:
        """Every question, in a fixed order."""

    @abstractmethod
    def predict(self, question: Question, text: str) -> Prediction:
        """Extract the answer from what the model said and score it."""

    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """The metrics of the benchmark, in the order in which a table shows them."""
