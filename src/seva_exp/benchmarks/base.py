"""What every benchmark is: questions, a score per answer, and metrics on summed counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from seva_exp.benchmarks.describe import Mode
from seva_exp.benchmarks.guards import Guards
from seva_exp.benchmarks.judging import Judging
from seva_exp.benchmarks.question import Question
from seva_exp.core.randomness import seed_for
from seva_exp.core.records import Prediction
from seva_exp.core.spec import Json

if TYPE_CHECKING:
    from numpy import ndarray as Values
else:
    Values = Any

Better = Literal["higher", "lower", "neutral"]
Hasher = Callable[[Path], str]
"""A file's SHA-256 (hex)."""


class Totals(Protocol):
    """The counts of some answers, added up over resampled groups; every value is ``[R]``."""

    def __call__(self, count: str) -> Values:
        """The sum of a count of ``Prediction.counts`` (0 where no answer has it)."""
        ...

    def whole(self, count: str) -> Values:
        """Number of groups with this count 1 in each of their answers."""
        ...

    def groups(self) -> Values:
        """Number of groups with an answer."""
        ...

    def whole_subgroups(self, kind: str) -> Values:
        """Number of sub-groups of a kind (``subgroup``) all of whose answers are right."""
        ...

    def subgroups(self, kind: str) -> Values:
        """Number of sub-groups of a kind with an answer."""
        ...


OF, RIGHT = "=", ": right"
"""In the counts of sub-groups: between kind and label, and behind those of right answers."""
Formula = Callable[[Totals], Values]
"""A metric's value from summed counts; 0 / 0 is no value."""


@dataclass(frozen=True)
class Metric:
    """A metric: ``formula`` on the counts of each part's answers (a part is some question types,
    added up), and the mean over the parts, or their ``total``. ``unit`` is what ``n`` counts:
    answers, groups, or a kind of sub-groups; ``share``: from 0 to 100, both ends within reach;
    ``empty``: the value of a part that was asked and whose formula is 0 / 0 (None: it has no
    value)."""

    split: str
    name: str
    formula: Formula
    parts: tuple[tuple[str, ...], ...]
    better: Better = "higher"
    total: bool = False
    unit: str = "answer"
    share: bool = True
    empty: float | None = None


def ratio(above: str, below: str = "asked", scale: float = 100.0) -> Formula:
    """``scale * sum(above) / sum(below)``."""
    return lambda sums: scale * sums(above) / sums(below)


accuracy = ratio("correct")
"""Right answers in percent."""


def subgroup(kind: str, label: str, correct: float) -> dict[str, float]:
    """The counts of an answer that belongs to the sub-group ``label`` of its group: of all answers
    on one figure, say, where a group has several figures."""
    return {f"{kind}{OF}{label}": 1.0, f"{kind}{OF}{label}{RIGHT}": correct}


def whole(kind: str) -> Formula:
    """Sub-groups of a kind all of whose answers are right, in percent."""
    return lambda sums: 100 * sums.whole_subgroups(kind) / sums.subgroups(kind)


class Benchmark(Mode):
    """Base of the benchmarks: questions that are asked as they are, or behind the model's own
    description of the picture (``describe_and_respond``). ``root`` is the data root, where a run
    reads official files; a benchmark that makes its questions needs none."""

    guards: ClassVar[Guards] = {}
    """What its metrics can be bought with."""
    needs_judge: ClassVar[bool] = False
    """Whether a judge scores its answers: without one there are no scores."""

    @property
    def judged(self) -> bool:
        """Whether a judge, where there is one, is asked about answers that no rule reads."""
        return False

    def judging(self, root: Path | None, own: bool = False) -> Judging | None:
        """How a judge is asked about its answers, where it is ``judged``; ``own``: in words of this
        package. Raises InputError for what is wrong with the files that tell it."""
        return None

    @property
    @abstractmethod
    def plain_protocol(self) -> str:
        """Names prompt, extraction and scoring rule, the questions asked as they are."""

    @property
    def protocol_name(self) -> str:
        """The protocol's name: numbers of two protocols are never put in one column."""
        mode = self.describe_and_respond
        split = "" if self.split == "all" else f"+{self.split}"
        return self.plain_protocol + (mode.suffix(self.described) if mode else "") + split

    @property
    def protocol_judged(self) -> str:
        """The protocol's name where a judge scores, before who that is."""
        return self.protocol_name

    def lacking(self, root: Path | None) -> str | None:
        """What must still be given before work can start; None when everything is."""
        return None

    def check(self, root: Path | None) -> None:
        """Check the files before anything runs: structure, ids, that pictures exist. Raises
        InputError naming file and row. Never called while something is lacking."""

    def identity(self, sha256: Hasher, root: Path | None) -> Json:
        """All that decides questions and scores: fields and the contents of files, by hash. Never a
        path of this machine. While something is lacking: the fields."""
        return self.to_json()

    def to_json(self) -> Json:
        """Without a split that takes nothing away."""
        fields = super().to_json()
        if self.split == "all":
            del fields["split"]
        return fields

    def chosen(self, root: Path | None = None) -> list[Question]:
        """The questions of the split, in order. A picture's half depends on its name alone."""
        questions = self.questions(root)
        if self.split == "all":
            return list(questions)
        half = ("selection", "test").index(self.split)
        return [q for q in questions if seed_for(0, "benchmark.split", q.group) % 2 == half]

    @abstractmethod
    def questions(self, root: Path | None = None) -> Iterator[Question]:
        """Every question, in a fixed order."""

    @property
    def table_name(self) -> str:
        """The benchmark's name in VLMEvalKit; its ``kind`` where VLMEvalKit has none."""
        return str(self.to_json()["kind"])

    def table_rows(self, root: Path | None = None) -> Iterator[tuple[str, Json]]:
        """Every question's id and its row of VLMEvalKit's result file, without picture and
        prediction, in the order of ``questions``."""
        for question in self.questions(root):
            row = {"index": question.id, "question": question.prompt, "answer": question.target}
            yield question.id, row | {"category": question.type}

    @abstractmethod
    def predict(self, question: Question, text: str) -> Prediction:
        """Extract the answer from what the model said and score it."""

    @abstractmethod
    def metrics(self, types: Sequence[str] = ()) -> Sequence[Metric]:
        """The metrics, in the order in which a table shows them, of predictions of these types
        (sorted)."""
