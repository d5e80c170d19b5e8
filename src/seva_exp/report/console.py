"""What a person sees in the terminal: the plan, the stages as they go, the table, examples."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence

from seva_exp.core.printable import COLUMNS, indented, one_line, printable
from seva_exp.core.records import ALIGNED, BASE, CLEAN, Delta, Report, Score, StageResult
from seva_exp.core.spec import Json
from seva_exp.core.terminal import raw
from seva_exp.report import words
from seva_exp.report.significance import arrow, finding_text, label, row_decimals, verdict
from seva_exp.runs.events import Listener, Outcome, PairExample, Plan, PlannedStage

EXAMPLES = 3
DETAILS = {"longest_rows"}
"""Parts of a stage's summary that have a line of their own."""
_COLOURS = {"plain": 0, "dim": 2, "bold": 1, "green": 32, "red": 31}
_FIRST = 0xF0000 + secrets.randbelow(0xFF00)
_MARKS = {style: chr(_FIRST + code) for style, code in _COLOURS.items()}
"""What stands for a colour until it is printed: characters for private use that no data can know,
so that a colour's own code in an answer is told from ours."""
_CODES = {ord(_MARKS[style]): f"\x1b[{code}m" for style, code in _COLOURS.items()}


class Console(Listener):
    """Plain lines on standard output; colour only on a terminal."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._longest: Json = {}

    def planned(self, plan: Plan) -> None:
        """The plan: stages, cached or not."""
        self._plan = plan
        todo = sum(not row.cached for row in plan.stages)
        say(f"{paint('bold', 'seva_exp')}  {plan.name}  seed {plan.seed}")
        say(f"plan: {len(plan.stages)} stages, {todo} to do, {len(plan.stages) - todo} cached")
        rows = [(row.name, row.key[:12], _state(row)) for row in plan.stages]
        say(table(("stage", "key", ""), rows))
        for note in plan.notes:
            say(wrapped(f"  {indented(note)}", "      "))
        say("")
        for title, found in plan.obstacles.items():
            say(f"{title}:")
            for one in found:
                say(f"  {indented(one)}")

    def stage_started(self, stage: PlannedStage) -> None:
        say(paint("dim", f"{stage.name} ..."))

    def waiting(self, stage: PlannedStage) -> None:
        say(f"{stage.name}: another process is computing this; waiting for its result")

    def warned(self, text: str) -> None:
        say(f"{paint('red', 'warning')}: {indented(text)}")

    def noted(self, text: str) -> None:
        """What a stage is about to do."""
        say(paint("dim", f"  {text}"))

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        say(f"{stage.name}: {paint('red', 'skipped')}: {indented(reason)}")

    def stage_finished(self, result: StageResult, metrics: Json) -> None:
        """A stage is done; cached ones stood in the plan already."""
        if not result.cached:
            facts = [f"{name} {short(value)}" for name, value in facts_of(metrics)]
            more = f"  ({', '.join(facts)})" if facts else ""
            say(wrapped(f"{result.name}: {result.seconds:.1f} s{more}", "  ", ", "))
        longest = metrics.get("longest_rows")
        if longest and longest != self._longest and not result.cached:
            self._longest = longest  # reference and align have the same
            rows = ", ".join(f"{name} {tokens}" for name, tokens in longest.items())
            context = f"(context: {metrics['context'] or 'unknown'})"
            say(wrapped(f"  longest rows in tokens: {rows} {context}", "    ", ", "))
        for line in metrics.get("left_out", []):
            say(f"  left out: {one_line(line)}")
        for line in metrics.get("remarks", []):
            say(f"  {indented(line)}")

    def finished(self, outcome: Outcome) -> None:
        """Pairs, examples, scores, what must be known of them, and where the report lies."""
        report = outcome.report
        say("")
        if report.pairs:
            say(pair_line(report, outcome.pairs_stage or "pairs"))
        for example in outcome.examples[:EXAMPLES]:
            say(example_text(example))
        if report.scores:
            say("")
            say(score_table(report.scores, report.final_deltas))
            if way := way_tables(report.scores):
                say(f"\n{way}")
        for finding in report.findings:
            say(f"\n{paint('red', 'warning')}: {indented(finding_text(finding))}")
        folder = os.path.relpath(report.dir)
        say("")
        if outcome.explained:
            say(f"words: {words.line(outcome.explained)}: {folder}/{words.PAGE}")
        say(f"report: {folder}/report.html   numbers: {folder}/report.json")


def say(text: str) -> None:
    """Print now, also into a pipe, printably but for our own colours. Where nobody listens (a
    closed pipe, no standard output, a full disk) the run goes on: its folder has all of it."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text).translate(_CODES), file=raw(sys.stdout), flush=True)


def paint(style: str, text: str) -> str:
    """Coloured by ``say``, on a terminal (and not where NO_COLOR is set)."""
    if not sys.stdout or sys.stdout.closed or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"{_MARKS[style]}{text}{_MARKS['plain']}"


def _state(row: PlannedStage) -> str:
    if row.forced:
        return "forced"
    return "cached" if row.cached else "to do"


def facts_of(metrics: Json) -> list[tuple[str, object]]:
    """The flat, non-empty numbers of a stage's summary, for one line."""
    out: list[tuple[str, object]] = []
    for name, value in metrics.items():
        if name in DETAILS:
            continue
        if isinstance(value, dict):
            counts = [f"{n} {key}" for key, n in value.items() if isinstance(n, int)]
            out += [(name, " ".join(counts))] if counts else []
        elif isinstance(value, int | float):
            out.append((name, value))
    return [(name.replace("_", " "), value) for name, value in out]


def short(value: object) -> str:
    """A number in as many digits as a reader wants."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Columns as wide as their cells; those in ``right`` are aligned to the right."""
    cells = [tuple(map(one_line, row)) for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  " + "  ".join(parts).rstrip()

    return "\n".join(
        [line(cells[0]), "  " + "-" * (sum(widths) + 2 * len(widths) - 2)]
        + [line(row) for row in cells[1:]]
    )


def wrapped(text: str, indent: str, between: str = " ") -> str:
    """``text`` in lines of at most ``COLUMNS`` characters, the further ones behind ``indent``,
    broken only behind ``between``. What is a command to copy stays on its line."""
    lines: list[str] = []
    for line in text.split("\n"):
        if len(line) <= COLUMNS or "python -m" in line:
            lines.append(line)
            continue
        own = line[: len(line) - len(line.lstrip())]
        head = ""
        for part in re.findall(rf".+?(?:{re.escape(between)}|$)", line):
            if head.strip() and len(f"{head}{part}".rstrip()) > COLUMNS:
                lines.append(head.rstrip())
                head = indent or own
            head += part
        lines.append(head.rstrip())
    return "\n".join(lines)


def pair_line(report: Report, label: str = "pairs") -> str:
    """The number of pairs kept, and the reasons of drops."""
    pairs = report.pairs
    assert pairs is not None
    share = 100 * pairs.kept / max(1, pairs.sampled)
    why = ", ".join(f"{n} {reason}" for reason, n in pairs.dropped.items()) or "none"
    return f"{label}: {pairs.kept} of {pairs.sampled} kept ({share:.0f} %); dropped: {why}"


def example_text(example: PairExample) -> str:
    """Question, chosen and rejected side by side where the terminal is wide enough."""
    pair = example.pair
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, 140))
    half = (width - 7) // 2
    left = textwrap.wrap(pair.chosen, half) or ["(empty)"]
    lines = [
        "",
        f"  {one_line(pair.sample_id)}  {clip(pair.question, width - len(pair.sample_id) - 4)}",
    ]
    for view, rejected in zip(pair.views, pair.rejected, strict=True):
        right = textwrap.wrap(rejected, half) or ["(empty)"]
        lines.append(f"  {f'chosen ({CLEAN})':{half}}   rejected ({view})")
        for i in range(max(len(left), len(right))):
            a = left[i] if i < len(left) else ""
            b = right[i] if i < len(right) else ""
            lines.append(f"  {a:{half}}   {b}".rstrip())
    return "\n".join(lines)


def clip(text: str, width: int) -> str:
    """One line of at most ``width`` characters, cut between words where there are any."""
    flat = " ".join(text.split())
    if len(flat) <= width:
        return flat
    kept = flat[: max(1, width - 1)]
    between = kept.rpartition(" ")[0] if flat[len(kept)] != " " else kept
    return f"{(between or kept).rstrip()}…"


def score_table(scores: Sequence[Score], deltas: Sequence[Delta]) -> str:
    """A table a benchmark and protocol, one row a metric: base, aligned, delta with its interval,
    and whether it is significant; at most ``COLUMNS`` wide. The scores' own intervals stand in the
    report, and what a table has no room for: how many answers each score is of."""
    tables = []
    for name, protocol in dict.fromkeys((s.benchmark, s.protocol) for s in scores):
        mine = [s for s in scores if (s.benchmark, s.protocol) == (name, protocol)]
        changes = {(d.split, d.metric): d for d in deltas if d.benchmark == name}
        rows = [
            _score_row(key, {s.model: s for s in mine if (s.split, s.metric) == key}, changes)
            for key in dict.fromkeys((s.split, s.metric) for s in mine)
        ]
        lines = [f"{name} ({protocol})", _fitted(rows)]
        priced = {d.price for d in changes.values() if verdict(d) == "at a price"}
        lines += [f"  {PRICED}: at the price of {' and '.join(price)}" for price in sorted(priced)]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


PRICED = "better*"


def _fitted(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows as a table; where it is too wide without the number of answers, or else with shorter
    names."""
    header: tuple[str, ...] = ("", "base", "aligned", "delta [95 %]", "p", "n", "")
    text = table(header, rows, right=range(1, 6))
    if _width(text) > COLUMNS:
        header, rows = (*header[:5], ""), [(*row[:5], row[6]) for row in rows]
        text = table(header, rows, right=range(1, 5))
    if (more := _width(text) - COLUMNS) > 0:
        room = max(12, max(len(row[0]) for row in rows) - more)
        text = table(header, [(clip(row[0], room), *row[1:]) for row in rows], right=range(1, 5))
    return text


def _width(text: str) -> int:
    return max(len(line) for line in text.translate(dict.fromkeys(_CODES)).splitlines())


def way_tables(scores: Sequence[Score]) -> str:
    """Where models on the way were measured (rounds, stages): a table a benchmark and protocol,
    one column a model."""
    tables = []
    for name, protocol in dict.fromkeys((s.benchmark, s.protocol) for s in scores):
        mine = [s for s in scores if (s.benchmark, s.protocol) == (name, protocol)]
        models = list(dict.fromkeys(s.model for s in mine))
        if set(models) <= {BASE, ALIGNED}:
            continue
        cells: dict[tuple[str, str], dict[str, Score]] = {}
        for score in mine:
            cells.setdefault((score.split, score.metric), {})[score.model] = score
        rows = [
            (
                f"{label(*key)} {arrow(next(iter(found.values())).better)}".strip(),
                *(f"{found[model].value:.1f}" if model in found else "" for model in models),
            )
            for key, found in cells.items()
        ]
        columns = range(1, len(models) + 1)
        tables.append(f"{name}, step by step\n" + table(("", *models), rows, right=columns))
    return "\n\n".join(tables)


def _score_row(
    key: tuple[str, str], by_model: dict[str, Score], changes: dict[tuple[str, str], Delta]
) -> tuple[str, ...]:
    delta = changes.get(key)
    base, aligned = by_model.get(BASE), by_model.get(ALIGNED)
    any_score = next(iter(by_model.values()))
    digits = row_decimals((s.value for s in by_model.values()), [delta] if delta else [])
    return (
        f"{label(*key)} {arrow(any_score.better)}".strip(),
        _value(base, digits) if base else "",
        _value(aligned, digits) if aligned else "",
        _change(delta, digits) if delta else "",
        (f"{delta.p:.3f}" if delta.p >= 0.001 else "<.001") if delta else "",
        str(any_score.n),
        _mark(delta) if delta else "",
    )


def _change(delta: Delta, digits: int) -> str:
    low, high = f"{delta.low:+z.{digits}f}", f"{delta.high:+z.{digits}f}"
    return f"{delta.value:+z.{digits}f} [{low}, {high}]"


def _value(score: Score, digits: int) -> str:
    spread = "" if score.spread is None else f" ± {score.spread:.{digits}f}"
    return f"{score.value:.{digits}f}{spread}"


def _mark(delta: Delta) -> str:
    word = {"not significant": "n.s.", "at a price": PRICED}.get(verdict(delta), verdict(delta))
    style = {"better": "green", "worse": "red"}.get(verdict(delta))
    return paint(style, word) if style else word
