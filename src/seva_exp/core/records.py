"""What flows between stages: frozen records, one JSON line each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from seva_exp.core.files import whole_file
from seva_exp.core.spec import Json, canonical

TRACKED_ID = 16
"""Characters of a run's key by which trackers know it."""
Select = Literal["best_worst", "majority", "margin"]
"""Which two of a sample's candidate answers make a pair."""
Mix = Literal["sum", "ranks"]
"""How several scores of a candidate become one."""
CLEAN = "clean"
"""Name of the view that changes nothing; its answer is ``chosen``."""
SPARSE = {"sparse": True}
"""Metadata of a field that is left out of a line where it has its default, as older lines are."""
BASE, ALIGNED = "base", "aligned"
"""What scores call the model before the run and the run's final one."""


@dataclass(frozen=True)
class ImageRef:
    """A picture file: ``path`` relative to its data root, ``sha256`` of the file's bytes."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Sample:
    """One image with the question that is asked about it. ``response`` is the answer that
    instruction data holds (STIC's stage 2 trains on it); unlabeled data has none. A preference set
    brings both sides: there it is the chosen one, beside the ``rejected`` ones."""

    id: str
    image: ImageRef
    prompt: str
    response: str = ""
    rejected: tuple[str, ...] = field(default=(), metadata=SPARSE)


@dataclass(frozen=True)
class Answer:
    """A model's answer. ``asked`` is the prompt really sent, ``tokens`` the generated ids
    (end-of-sequence included when it was produced; none from a server), ``stop`` is ``eos``,
    ``length`` or ``too_long`` (the model's context has no room for it); ``logprobs`` are the
    tokens' log-probabilities, where ``generation.logprobs`` kept them."""

    sample_id: str
    view: str
    asked: str
    text: str
    tokens: tuple[int, ...]
    stop: str
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class AnswerGroup:
    """A sample with the different answers that it got, those of nothing left out: each one's text,
    its tokens (none: its text alone is known), and how many candidates gave it."""

    sample: Sample
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CandidateScores:
    """A score of each candidate answer to a sample, in the candidates' order; None where there is
    nothing to score."""

    sample_id: str
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class Choice:
    """Which of a sample's candidates became chosen and rejected, and what each one's scores came
    to."""

    sample_id: str
    chosen: str
    rejected: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Continuations:
    """A clean answer up to its first wrong sentence: ``context`` stands before that, ``rejected``
    is it, ``texts`` are other sentences that the model goes on with behind the same context; each
    with its tokens. ``reason``: why there is nothing to prefer, where that is known."""

    sample_id: str
    reason: str = ""
    context: str = ""
    rejected: str = ""
    texts: tuple[str, ...] = ()
    context_tokens: tuple[int, ...] = ()
    rejected_tokens: tuple[int, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Pair:
    """A preference: on the clean ``image`` and ``prompt``, ``chosen`` over each ``rejected``.

    ``views[k]`` names the negative view, or other source, that gave ``rejected[k]``. The token ids
    are those that were generated, so that training never re-tokenises an answer; ``()`` stands for
    an answer whose text alone is known (edited, read from a file, or a server's): training
    tokenises it.

    ``context``, where there is one, is how the model's turn begins before any of these answers:
    they are continuations of it, it is a part of the prompt, and no loss is taken of it.
    ``context_tokens`` are its ids as they were generated. A line of a file holds both only where
    there is one."""

    sample_id: str
    image: ImageRef
    prompt: str
    chosen: str
    rejected: tuple[str, ...]
    views: tuple[str, ...]
    chosen_tokens: tuple[int, ...]
    rejected_tokens: tuple[tuple[int, ...], ...]
    context: str = field(default="", metadata=SPARSE)
    context_tokens: tuple[int, ...] = field(default=(), metadata=SPARSE)
    agreement: float | None = field(default=None, metadata=SPARSE)
    """Of the answers to the question under weak views (0 to 1), where they were asked."""

    @property
    def question(self) -> str:
        """For a person: what the answers follow."""
        return f"{self.prompt} [{self.context}]" if self.context else self.prompt


@dataclass(frozen=True)
class Drop:
    """Something a stage left out, and why. ``sample_id`` is a sample, a file name or a row."""

    sample_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Adapter:
    """A trained LoRA adapter: a folder in PEFT's layout, the base model, the weights' hash."""

    dir: str
    base: str
    sha256: str


@dataclass(frozen=True)
class Prediction:
    """One answer of a benchmark. ``group`` is the unit that is resampled (the image). ``score`` is
    None, and ``counts`` is empty, until a judge has scored it: then it enters no metric."""

    sample_id: str
    group: str
    type: str
    prompt: str
    text: str
    extracted: str
    target: str
    score: float | None
    counts: dict[str, float] = field(default_factory=dict)
    stop: str = ""
    """As an answer's."""


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict on one answer, the ``repeat``-th time (from 0), and the counts that its
    reply gives. ``reply`` is the last one; ``score`` is None where none could be read."""

    sample_id: str
    repeat: int
    reply: str
    extracted: str
    score: float | None
    counts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A metric over ``n`` answers, with its 95 % bootstrap interval (``low``, ``high``) over
    pictures. ``spread`` is its standard deviation over a judge's repeats, where there are
    several."""

    model: str
    benchmark: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    protocol: str
    better: str = "higher"
    spread: float | None = None


@dataclass(frozen=True)
class Delta:
    """``model`` - base of one metric, by a paired bootstrap; ``p`` is two-sided. ``model`` is
    ``aligned`` for the run's final model, ``round1``, ``stage1`` ... for one on the way to it.
    ``groups`` is how many groups (pictures) the metric rests on, ``groups_needed`` how many would
    show a change of this size (80 % power, level 5 %; None: nothing changed); ``mcnemar_p`` is the
    exact McNemar test's, where it applies. ``price``: the metrics that guard this one
    (``benchmarks/guards.py``) and became significantly worse where it became better."""

    benchmark: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    p: float
    better: str = "higher"
    model: str = "aligned"
    groups: int = 0
    groups_needed: int | None = None
    mcnemar_p: float | None = None
    price: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What a reader must know before the numbers: ``kind`` is a stable word, ``stage`` the label of
    the stage of which it is found. ``no_result``: what the stage made stands for nothing."""

    stage: str
    kind: str
    text: str
    no_result: bool = False


@dataclass(frozen=True)
class StageResult:
    """One stage of a run, and what making the artifact took, whichever run did it: ``seconds``,
    ``answers`` that were generated (verdicts on candidates among them, those to a benchmark not),
    optimizer ``steps``. Reports of before there were the last two have them at 0."""

    name: str
    key: str
    cached: bool
    seconds: float
    answers: int = 0
    steps: int = 0


@dataclass(frozen=True)
class PairCounts:
    """``sampled`` = ``kept`` + the sum of ``dropped``."""

    sampled: int
    kept: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Report:
    """A run's results: the content of ``report.json``."""

    key: str
    name: str
    seed: int
    dir: str
    stages: tuple[StageResult, ...]
    pairs: PairCounts | None = None
    scores: tuple[Score, ...] = ()
    deltas: tuple[Delta, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def final_deltas(self) -> tuple[Delta, ...]:
        """The changes of the run's final model, without those of models on the way to it."""
        return tuple(delta for delta in self.deltas if delta.model == ALIGNED)

    def to_json(self) -> Json:
        """The documented contract of ``report.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Json) -> Report:
        """The inverse of ``to_json``. Raises KeyError, TypeError or AttributeError for what is no
        report."""
        return cls(
            **{name: row[name] for name in ("key", "name", "seed", "dir")},
            stages=tuple(StageResult(**stage) for stage in row["stages"]),
            pairs=PairCounts(**row["pairs"]) if row["pairs"] else None,
            scores=tuple(Score(**score) for score in row["scores"]),
            deltas=tuple(from_json(Delta, delta) for delta in row["deltas"]),
            findings=tuple(Finding(**one) for one in row.get("findings", ())),
        )


Record = TypeVar("Record")


def to_line(record: Any) -> str:
    """A record as one line of canonical JSON, newline included."""
    row = asdict(record)
    for one in fields(record):
        if one.metadata.get("sparse") and row[one.name] == one.default:
            del row[one.name]
    return canonical(row) + "\n"


@contextmanager
def jsonl_writer(path: Path) -> Iterator[Callable[[Any], object]]:
    """A function that writes one record as a line of a ``whole_file``."""
    with whole_file(path) as file:
        yield lambda record: file.write(to_line(record).encode())


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """Write one record a line, atomically."""
    with jsonl_writer(path) as write:
        for record in records:
            write(record)


def read_jsonl(path: Path, kind: type[Record]) -> Iterator[Record]:
    """Read records of one kind, in the file's order."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield from_json(kind, json.loads(line))


def from_json(kind: type[Record], row: Json) -> Record:
    """Build a record of ``kind`` from parsed JSON (lists become tuples, ``image`` an ImageRef)."""
    values = {name: _tuples(value) for name, value in row.items()}
    if isinstance(values.get("image"), dict):
        values["image"] = ImageRef(**values["image"])
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
