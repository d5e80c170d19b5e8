"""``compare.html``: finished runs as one self-contained page that opens from disk and needs no
network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from seva_exp.compare.charts import CONFIG, MOST_LINES, chart_specs
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.costs import COSTS, known_costs
from seva_exp.compare.deltas import Column, CorrectedDelta, Measured
from seva_exp.compare.differences import Value
from seva_exp.compare.evidence import Evidence, SharedPairs
from seva_exp.compare.tables import latex, markdown, tables
from seva_exp.core.printable import printable
from seva_exp.core.records import BASE, Score
from seva_exp.core.spec import Json
from seva_exp.report import plots
from seva_exp.report import significance as words
from seva_exp.report.pages import asset, template

SHOWN = 6
"""Metrics that the table shows before the reader chooses."""
FIELDS = 5
"""Fields of the config that it shows before the reader chooses."""
CHOICES = 12
"""A field of at most this many values has a list to filter by."""


def render(c: Comparison, evidence: Evidence, left_out: Sequence[str], out: Path) -> str:
    """The page's text, as it is read from ``out``. What a model or a user wrote is escaped."""
    visible, data = shown(c.columns), _data(c, evidence.training)
    drawn = bool(c.columns or data["training"]["options"])
    several = len(c.families) > 1
    return template("compare/page.html").render(
        title=_title(c),
        runs=len(c.runs),
        variants=len(c.variants),
        together=_together(c, [c.columns[j] for j in sorted(visible)]),
        reference=c.reference_name,
        fields=_fields(c),
        costs={name: COSTS[name] for name in known_costs(c.costs)},
        columns=[_head(column, j in visible, several) for j, column in enumerate(c.columns)],
        rows=[_row(c, i, page, out) for i, page in enumerate(evidence.reports)],
        pairs=_pairs(evidence.pairs),
        samples=evidence.samples,
        changed=evidence.changed,
        data=_for_script(data),
        markdown=markdown(c),
        latex=latex(c),
        stem=out.stem,
        left_out=left_out,
        findings=c.findings,
        words=words,
        vega=_vega() if drawn else "",
        script=asset("compare/table.js") + (asset("compare/charts.js") if drawn else ""),
    )


def _title(c: Comparison) -> str:
    count = "One run" if len(c.runs) == 1 else f"{len(c.runs)} runs"
    by = list(c.short.values())
    if not by:
        return count if len(c.runs) == 1 else f"{count} of one config"
    more = f" and {len(by) - 4} more" if len(by) > 4 else ""
    return f"{count} that differ in {', '.join(by[:4])}{more}"


def shown(measured: Sequence[Column]) -> set[int]:
    """Which columns the table shows at first: of every benchmark's families of splits the first
    judged metric, then the second, and so on."""
    ranks: dict[tuple[str, str, str], int] = {}
    order = []
    for j, column in enumerate(measured):
        if column.better in ("higher", "lower"):
            family = (column.benchmark, column.protocol, column.split.split("_")[0])
            ranks[family] = ranks.get(family, -1) + 1
            order.append((ranks[family], j))
    return {j for _, j in sorted(order)[:SHOWN]} or set(range(min(SHOWN, len(measured))))


def _head(column: Column, visible: bool, with_benchmark: bool) -> Json:
    return {
        "label": column.label,
        "benchmark": column.benchmark,
        "protocol": column.protocol,
        "small": f"{column.benchmark} ({column.protocol})" if with_benchmark else "",
        "direction": words.direction(column.better),
        "visible": visible,
    }


def _together(c: Comparison, columns: Sequence[Column]) -> list[Json]:
    """A table a benchmark of the variants, where they have several seeds: each cell's change apart
    from the price that it has."""
    if len(c.variants) == len(c.runs) or not columns:
        return []
    chosen = [f"{column.split}/{column.metric}" for column in columns]
    return [
        {
            "title": table.title,
            "header": table.header,
            "rows": [[cell.removesuffix(")").split(" (at the ") for cell in r] for r in table.rows],
            "note": table.note,
        }
        for table in tables(c, chosen, cost=True)
    ]


def _fields(c: Comparison) -> list[Json]:
    """The columns of the config. Where there are many, those that tell most runs apart are shown
    at first; the seed always."""
    counts = {name: len({v for v in values if v is not None}) for name, values in c.fields.items()}
    first = sorted(c.fields, key=lambda name: (name != "seed", -counts[name]))[:FIELDS]
    return [
        {
            "place": i,
            "name": name,
            "label": c.short[name],
            "small": "" if c.short[name] == name else name,
            "visible": name in first,
            "choices": _choices(c.fields[name]),
        }
        for i, name in enumerate(c.fields)
    ]


def _choices(values: Sequence[Value | None]) -> list[Value]:
    """The values in order, where they are few: none otherwise."""
    known = dict.fromkeys(value for value in values if value is not None)
    if not 1 < len(known) <= CHOICES:
        return []
    return sorted(known, key=lambda v: (isinstance(v, str), v))


def _row(c: Comparison, i: int, page: Path | None, out: Path) -> Json:
    one = c.models[i]
    link = Path(os.path.relpath(page, out.absolute().parent)).as_posix() if page else ""
    return {
        "name": c.names[i],
        "base": one.model == BASE,
        "link": quote(link, safe="/=+"),
        "values": [values[i] for values in c.fields.values()],
        "costs": {n: f"{value:g}" for n, value in c.costs[i].items()},
        "cells": [_cell(one, column, c.changes[i].get(column)) for column in c.columns],
    }


def _cell(one: Measured, column: Column, change: CorrectedDelta | None) -> Json | None:
    score = one.scores.get(column)
    if score is None:
        return None
    digits = words.decimals(score.low, score.high)
    cell = {
        "sort": score.value,
        "value": words.number(score.value, digits),
        "interval": words.interval(score.low, score.high, digits),
        "n": score.n,
        "verdict": "",
    }
    if change:
        delta = change.delta
        digits = max(digits, words.decimals(delta.low, delta.high))
        cell |= {
            "verdict": change.verdict.replace(" ", "-"),
            "price": change.verdict_text if change.verdict == "at a price" else "",
            "change": words.number(delta.value, digits, sign=True),
            "change_interval": words.interval(delta.low, delta.high, digits, sign=True),
            "p": words.p_value(change.corrected),
            "plain_p": words.p_value(delta.p),
            "tests": change.tests,
        }
    return cell


def _pairs(shared: Sequence[SharedPairs]) -> list[Json]:
    """What came of the samples, with the same reasons for all."""
    reasons = dict.fromkeys(reason for one in shared for reason in one.counts.dropped)
    return [_pair_row(one, list(reasons)) for one in shared]


def _pair_row(shared: SharedPairs, reasons: Sequence[str]) -> Json:
    counts = shared.counts
    parts = [("kept", counts.kept), *((name, counts.dropped.get(name, 0)) for name in reasons)]
    return {
        "label": shared.label,
        "runs": shared.runs,
        "sampled": counts.sampled,
        "bar": plots.bar(parts),
        "parts": [
            {"name": name.replace("_", " "), "count": n, "share": words.share(n, counts.sampled)}
            for name, n in parts
        ],
    }


def _data(c: Comparison, training: Json) -> Json:
    """What the page's script draws from."""
    several = [name for name in c.fields if name != "seed"]
    return {
        "models": [
            {
                "label": label,
                "base": one.model == BASE,
                "fields": {c.short[name]: values[i] for name, values in c.fields.items()},
            }
            for i, (one, label) in enumerate(zip(c.models, c.labels, strict=True))
        ],
        "columns": [
            {"label": column.label, "group": f"{column.benchmark} ({column.protocol})"}
            for column in c.columns
        ],
        "first": _clearest(c),
        "scores": [
            [i, j, *_score(one.scores[column], c.changes[i].get(column))]
            for i, one in enumerate(c.models)
            for j, column in enumerate(c.columns)
            if column in one.scores
        ],
        "axes": [c.short[name] for name in several if _is_axis(c.fields[name])],
        "heat": [c.short[name] for name in several] if len(several) == 2 else [],
        "training": training,
        "specs": chart_specs(),
        "config": CONFIG,
        "most_lines": MOST_LINES,
    }


def _clearest(c: Comparison) -> int:
    """Of the metrics that the table shows first, the one with the smallest p: it is plotted."""
    found = {
        j: [row[c.columns[j]].corrected for row in c.changes if c.columns[j] in row]
        for j in sorted(shown(c.columns))
    }
    return min(found, key=lambda j: min(found[j], default=1.0), default=0)


def _is_axis(values: Sequence[Value | None]) -> bool:
    numbers = {v for v in values if words.is_number(v)}
    return len(numbers) > 1 and all(v is None or words.is_number(v) for v in values)


def _score(score: Score, change: CorrectedDelta | None) -> list[object]:
    verdict = change.verdict if change else ("base" if score.model == BASE else "not significant")
    numbers = (score.value, score.low, score.high, change.delta.value if change else None)
    return [*(number if words.is_number(number) else None for number in numbers), verdict]


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(one) for one in value]
    return printable(value) if isinstance(value, str) else value


def _for_script(data: Json) -> Markup:
    """JSON that is safe between script tags."""
    text = json.dumps(_printable(data), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks a default
    return Markup(script.replace("</script", "<\\/script"))
