"""What SeVa and STIC publish, and finished runs beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import yaml

from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.printable import tell
from seva_exp.core.records import ALIGNED, Delta, Score
from seva_exp.runs.listing import run_folder
from seva_exp.runs.reader import FinishedRun

FILE = Path(__file__).with_name("published.yaml")
ABOUT = """What SeVa and STIC publish of each benchmark, with the command that reproduces it; and,
given finished runs, theirs beside it: python -m seva_exp.published [RUN ...]

Of a run the rows are those of its base model. "inside": the published change lies in the 95 %
interval of the run's change."""


@dataclass(frozen=True)
class PublishedScore:
    """One benchmark's number of one published row, in our metric's unit. ``base``: None where the
    source has none. ``metric`` is split and metric, as ``mean/accuracy``."""

    benchmark: str
    metric: str
    base: float | None
    aligned: float

    @property
    def change(self) -> float | None:
        """Aligned - base."""
        return None if self.base is None else self.aligned - self.base


@dataclass(frozen=True)
class PublishedRow:
    """What one source says of one training: where to find it, and how to do it again."""

    what: str
    preset: str
    model: str
    command: str
    source: str
    protocol: str
    scores: tuple[PublishedScore, ...]

    def is_of(self, location: str) -> bool:
        """Whether the base model is that in ``location``: its hub id, or a folder of its name."""
        return self.model == location or PurePath(self.model).name == PurePath(location).name


def published_rows() -> tuple[PublishedRow, ...]:
    """All rows of ``published.yaml``."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    metrics: Mapping[str, str] = content["metrics"]
    return tuple(
        PublishedRow(
            scores=tuple(
                PublishedScore(name, metrics[name], base, aligned)
                for name, (base, aligned) in row.pop("scores").items()
            ),
            **row,
        )
        for row in content["rows"]
    )


@dataclass(frozen=True)
class Reproduced:
    """A published number beside a run's. ``change`` is the run's, with its interval."""

    published: PublishedScore
    base: Score
    aligned: Score
    change: Delta

    @property
    def difference(self) -> float | None:
        """The run's change - the published one."""
        theirs = self.published.change
        return None if theirs is None else self.change.value - theirs

    @property
    def inside(self) -> bool | None:
        """Whether the published change lies in the interval; None where there is none."""
        theirs = self.published.change
        return None if theirs is None else self.change.low <= theirs <= self.change.high


def is_under(published: str, protocol: str) -> bool:
    """Whether scores under ``protocol`` (with who judged, ``+dar`` ...) are of a published one: not
    those of a half of the questions (``benchmark.split``)."""
    return published in protocol and not {"selection", "test"} & {*protocol.split("+")}


def reproduced(row: PublishedRow, run: FinishedRun) -> Iterator[Reproduced]:
    """The numbers of ``row`` that ``run`` has measured too, by the row's protocol."""
    scores = {(s.model, s.benchmark, s.split, s.metric): s for s in run.report.scores}
    deltas = {(d.benchmark, d.split, d.metric): d for d in run.report.deltas if d.model == ALIGNED}
    for one in row.scores:
        split, metric = one.metric.split("/")
        place = (one.benchmark, split, metric)
        base, aligned = scores.get(("base", *place)), scores.get((ALIGNED, *place))
        if base and aligned and place in deltas and is_under(row.protocol, base.protocol):
            yield Reproduced(one, base, aligned, deltas[place])


def lines_of(row: PublishedRow) -> Iterator[str]:
    """A row as people read it, without a run."""
    yield f"{row.what}: {row.model} ({row.source}; protocol {row.protocol})"
    yield f"  {row.command}"
    for one in row.scores:
        yield f"  {one.benchmark:12} {one.metric:16} {_number(one.base):>8} -> {one.aligned:8.1f}"


def beside(row: PublishedRow, run: FinishedRun) -> Iterator[str]:
    """The run's numbers beside the row's; nothing where they share none."""
    found = list(reproduced(row, run))
    if not found:
        return
    yield f"{row.what} ({row.source}) beside {run.report.name}"
    yield f"  {'':12} {'published':>18}  {'run':>18}  {'change [95 %]':>22}  difference  inside"
    for one in found:
        theirs = f"{_number(one.published.base)} -> {one.published.aligned:.1f}"
        ours = f"{one.base.value:.1f} -> {one.aligned.value:.1f}"
        change = f"{one.change.value:+.1f} [{one.change.low:+.1f}, {one.change.high:+.1f}]"
        off = "-" if one.difference is None else f"{one.difference:+.1f}"
        inside = {True: "yes", False: "no", None: "-"}[one.inside]
        yield (
            f"  {one.published.benchmark:12} {theirs:>18}  {ours:>18}  {change:>22}  {off:>10}  "
            f"{inside}"
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where a run is none, or measured nothing that is published."""
    parser = command_parser("published", ABOUT, laid_out=True)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    folders = parser.parse_args(words).runs
    rows = published_rows()
    if not folders:
        print("\n\n".join("\n".join(lines_of(row)) for row in rows))
        return 0
    code = 0
    for folder in folders:
        try:
            run = FinishedRun.read(run_folder(folder))
            own = [row for row in rows if row.is_of(run.model().location())]
            texts = [text for row in own if (text := "\n".join(beside(row, run)))]
            if not texts:
                raise InputError(_nothing(folder, run, rows))
            print("\n\n".join(texts))
        except InputError as error:
            tell(str(error))
            code = 2
    return code


def _nothing(folder: Path, run: FinishedRun, rows: Sequence[PublishedRow]) -> str:
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    named = (f"{one.benchmark} ({one.protocol})" for one in run.report.scores)
    measured = ", ".join(dict.fromkeys(named)) or "none"
    return (
        f"{folder}: nothing of it is published: its base model is {run.model().location()} (rows "
        f"are of {models}), its benchmarks: {measured}."
    )
