"""``report.html``: a run as one self-contained page that opens from disk and needs no network."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from seva_exp.core.files import write_whole
from seva_exp.core.records import ALIGNED, BASE, Delta, PairCounts, Report, Score
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.spec import Json
from seva_exp.grounding.metrics import SPLIT
from seva_exp.report import changed, plots
from seva_exp.report import significance as words
from seva_exp.report.gallery import example_card
from seva_exp.report.pages import template
from seva_exp.report.pipeline import pipeline
from seva_exp.report.words import PAGE as WORDS
from seva_exp.report.words import excerpt, write_words
from seva_exp.runs.events import Listener, Outcome, Plan, PlannedStage
from seva_exp.training.spec import HELD_OUT

_CURVES = (
    ("Loss", "loss", (math.log(2), "ln 2: no preference")),
    ("Reward margin", "rewards/margins", (0.0, "no preference")),
    ("Reward accuracy", "rewards/accuracies", (0.5, "chance")),
)
"""Title, the metric's name in a training row (TRL's), the reference level."""

FILES = ("changed.html", WORDS, "pairs.jsonl", "report.json", "metrics.jsonl", "config.yaml")
"""What the page links to in the run's folder, where it is there."""
MADE_WITH = (
    *("device", "dtype", "commit", "python"),
    *("packages.torch", "packages.transformers", "packages.trl", "packages.peft"),
)


class HtmlReport(Listener):
    """Writes ``report.html`` into the run's folder when the run is finished."""

    def __init__(self) -> None:
        self._skipped: dict[str, str] = {}

    def planned(self, plan: Plan) -> None:
        self._skipped = {}

    def stage_skipped(self, stage: PlannedStage, reason: str) -> None:
        """Kept for the page."""
        self._skipped[stage.name] = reason

    def finished(self, outcome: Outcome) -> None:
        """Write the page, and first those that it links to."""
        folder = outcome.plan.dir
        if outcome.explained:
            write_words(folder, outcome.report.name, outcome.explained)
        if outcome.answered:
            write_whole(folder / "changed.html", changed.render(outcome))
        write_whole(folder / "report.html", render(outcome, self._skipped))


def render(outcome: Outcome, skipped: Mapping[str, str] | None = None) -> str:
    """The page's text. Everything that a model or a user wrote is escaped.

    ``skipped`` holds the reason of each stage that had nothing to work on, by the stage's name."""
    import yaml

    report, plan, skipped = outcome.report, outcome.plan, skipped or {}
    tables = _without_words(report) if outcome.explained else report
    return template("report/page.html").render(
        report=report,
        subject=subject(plan),
        headline=headline(report, tuple(skipped)),
        lead=" ".join([*map(_sentence, dict.fromkeys(skipped.values())), lead(report)]).strip(),
        comparisons=len(report.final_deltas),
        unclear=any(map(words.needed, report.final_deltas)),
        changed=bool(outcome.answered),
        explained=excerpt(outcome.explained),
        plan_notes=plan.notes,
        benchmarks=benchmarks(tables),
        plots=_plots(tables.final_deltas),
        curves=curves(outcome.training),
        pairs=pair_counts(report.pairs) if report.pairs else None,
        pairs_stage=outcome.pairs_stage,
        agreement=outcome.stage_metrics.get(outcome.pairs_stage, {}).get("agreement"),
        left_out=left_out(outcome.stage_metrics.get("samples", {})),
        examples=[example_card(example) for example in outcome.examples],
        pipeline=pipeline(outcome, skipped),
        notes=notes(outcome),
        files=[name for name in FILES if (plan.dir / name).exists()],
        computed=words.duration(sum(s.seconds for s in report.stages if not s.cached)),
        reused=words.duration(sum(s.seconds for s in report.stages if s.cached)),
        config=yaml.safe_dump(without_secrets(plan.config), sort_keys=False, allow_unicode=True),
        command=command(plan.overrides),
        made_with=made_with(outcome.environment),
        environment=list(flatten(without_secrets(outcome.environment))),
        words=words,
        said=words,
    )


def _without_words(report: Report) -> Report:
    """Without the metrics of what words rest on, which have a part of the page to themselves."""
    scores = tuple(one for one in report.scores if one.split != SPLIT)
    deltas = tuple(one for one in report.deltas if one.split != SPLIT)
    return replace(report, scores=scores, deltas=deltas)


def made_with(environment: Json) -> list[tuple[str, str]]:
    """The few facts of the environment that a reader asks for first."""
    known = dict(flatten(without_secrets(environment)))
    return [(name.rpartition(".")[2], known[name]) for name in MADE_WITH if known.get(name)]


def command(overrides: Sequence[str]) -> str:
    """The line that runs this again; secrets are left out."""
    return shlex.join(["python", "-m", "seva_exp", *(hide(text) for text in overrides)])


def subject(plan: Plan) -> str:
    """The report's subject, by the config: ``seva with moco: model tiny, data shapes``."""
    config, augs = plan.config, plan.config.get("aug")
    method = _name(config.get("method")) or plan.name
    views = _and(list(map(str, augs))) if isinstance(augs, dict | list) and augs else ""
    material = [f"{group} {_name(config.get(group))}" for group in ("model", "data")]
    known = ", ".join(text for text in material if not text.endswith(" "))
    return method + (f" with {views}" if views else "") + (f": {known}" if known else "")


def _name(group: Any) -> str:
    """The shortest telling name of a config group: its name, its path's last part, its kind."""
    if isinstance(group, dict):
        for key in ("name", "path", "kind"):
            if isinstance(group.get(key), str) and group[key]:
                return group[key].rstrip("/").rsplit("/", 1)[-1]
        return ""
    return group if isinstance(group, str) else ""


def headline(report: Report, skipped: Sequence[str] = ()) -> str:
    """One plain sentence: what came out. ``skipped`` names stages that had nothing to work on."""
    if void := next((one for one in report.findings if one.no_result), None):
        return f"There is no result of {void.stage}: {void.text}."
    trained = {s.model for s in report.scores} - {BASE}
    if skipped and report.pairs and not report.pairs.kept and not trained:
        measured = "; only the base model was measured" if report.scores else ""
        return f"No pair was left: nothing was aligned{measured}."
    if skipped:
        return f"Not everything was done: {_and(skipped)} {_were(len(skipped))} skipped."
    if report.final_deltas:
        return _compared(report.final_deltas)
    if report.scores:
        models = " and ".join(dict.fromkeys(s.model for s in report.scores))
        return f"The {models} model was measured; there is nothing to compare it with."
    if report.pairs and report.pairs.kept:
        kept, sampled = report.pairs.kept, report.pairs.sampled
        return f"{kept} of {sampled} samples gave a preference pair; nothing was measured."
    if report.pairs:
        return f"None of {report.pairs.sampled} samples gave a preference pair."
    return "The run stopped before preference pairs were made."


def _compared(deltas: Sequence[Delta]) -> str:
    found = [words.verdict(d) for d in deltas if words.has_direction(d)]
    total, ways = len(found), {"better": "", "at a price": " better at a price", "worse": ""}
    counts = {word: found.count(word) for word in ways if word in found}
    if not counts:
        return "Training changed no score significantly."
    of = f" of {total} {'score' if total == 1 else 'scores'}"
    said = [
        f"{count}{'' if i else of} {_are(count)}{ways[word] or f' {word}'}"
        for i, (word, count) in enumerate(counts.items())
    ]
    parts, rest = _and(said), total - sum(counts.values())
    others = f"; the other {rest} did not change significantly" if rest else ""
    return f"After training, {parts}{others}."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def lead(report: Report) -> str:
    """The significant changes by name: scores with a good direction first, then the clearest."""
    moved = sorted(filter(words.is_significant, report.final_deltas), key=_clarity, reverse=True)
    if not moved:
        return ""
    several = len({d.benchmark for d in report.final_deltas}) > 1
    text = "; ".join(words.change(d, with_benchmark=several) for d in moved[:5])
    more = f"; {len(moved) - 5} more below" if len(moved) > 5 else ""
    return f"{text}{more}."


def _clarity(delta: Delta) -> tuple[bool, float]:
    return words.has_direction(delta), abs(delta.value) / max(delta.high - delta.low, 1e-12)


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def benchmarks(report: Report) -> list[Json]:
    """One table per (benchmark, protocol); splits of one family (``pope_...``) form a group."""
    deltas = {(d.benchmark, d.split, d.metric): d for d in report.final_deltas}
    tables: dict[tuple[str, str], dict[tuple[str, str], dict[str, Score]]] = {}
    for s in report.scores:
        rows = tables.setdefault((s.benchmark, s.protocol), {})
        rows.setdefault((s.split, s.metric), {})[s.model] = s
    return [
        {
            "name": name,
            "protocol": protocol,
            "aligned": any(ALIGNED in models for models in rows.values()),
            "way": _way(rows.values()),
            "rounds": _over_rounds(_way(rows.values()), rows),
            "rows": [
                _score_row(models, deltas.get((name, split, metric)), first=i == 0)
                for _, family in groupby(rows.items(), key=lambda item: item[0][0].split("_")[0])
                for i, ((split, metric), models) in enumerate(family)
            ],
        }
        for (name, protocol), rows in tables.items()
    ]


def _over_rounds(way: list[str], rows: Mapping[tuple[str, str], dict[str, Score]]) -> list[Json]:
    """Each metric as a curve over rounds, the base model as round 0; none where there are no
    rounds, or more than them (STIC's stages)."""
    between = way[1:-1]
    if not between or any(not model.startswith("round") for model in between):
        return []
    found = []
    for (split, metric), models in rows.items():
        values = [models[model].value if model in models else math.nan for model in way]
        title = words.label(split, metric)
        level = (values[0], "base") if words.is_number(values[0]) else None
        svg = plots.curve(title, list(enumerate(values)), level, "round")
        found += [{"title": title, "svg": svg}] if svg else []
    return found


def _way(rows: Collection[dict[str, Score]]) -> list[str]:
    """The models in the order of work, where more than the base and the final one were measured."""
    models = list(dict.fromkeys(model for row in rows for model in row))
    return [] if set(models) <= {BASE, ALIGNED} else models


def _score_row(models: dict[str, Score], delta: Delta | None, first: bool) -> Json:
    one = next(iter(models.values()))
    digits = max(words.decimals(s.low, s.high) for s in models.values())
    return {
        "first": first,
        "label": words.label(one.split, one.metric),
        "n": " / ".join(dict.fromkeys(str(s.n) for s in models.values())),
        "direction": words.direction(one.better),
        "arrow": words.arrow(one.better),
        "models": models,
        "digits": digits,
        "delta": delta,
        "delta_digits": max(digits, words.decimals(delta.low, delta.high)) if delta else 1,
        "verdict": words.verdict(delta) if delta else "",
        "said": words.in_full(delta) if delta else "",
    }


def _plots(deltas: Sequence[Delta]) -> list[Json]:
    """One plot of the scores, and one per neutral metric: lengths and rates have other units."""
    judged = list(filter(words.has_direction, deltas))
    neutral = sorted((d for d in deltas if not words.has_direction(d)), key=_metric)
    found = [_plot("Change by alignment", judged)] if judged else []
    found += [_plot(f"For context: {m}", list(group)) for m, group in groupby(neutral, key=_metric)]
    return found


def _plot(title: str, deltas: Sequence[Delta]) -> Json:
    scale = plots.Scale.around(deltas)
    several = len({d.benchmark for d in deltas}) > 1
    rows = [
        {
            "label": words.label(d.split, d.metric),
            "benchmark": d.benchmark if several else "",
            "direction": words.direction(d.better),
            "arrow": words.arrow(d.better),
            "svg": plots.whisker(d, scale),
            "text": words.number(d.value, words.decimals(d.low, d.high), sign=True),
            "verdict": words.verdict(d),
        }
        for d in deltas
    ]
    return {"title": title, "rows": rows, "axis": plots.axis(scale)}


def _metric(delta: Delta) -> str:
    return delta.metric


def curves(training: Sequence[Json]) -> list[Json]:
    """The training plots whose metric the rows really have, stage by stage."""
    stages = list(dict.fromkeys(row.get("stage", "") for row in training))
    found = []
    for stage in stages:
        rows = [row for row in training if row.get("stage", "") == stage]
        before = f"{stage}: " if len(stages) > 1 else ""
        found += [curve for plot in _CURVES if (curve := _curve(before, plot, rows))]
    return found


def _curve(
    before: str, plot: tuple[str, str, tuple[float, str]], rows: Sequence[Json]
) -> Json | None:
    title, name, reference = plot
    points, held = _points(rows, name), _points(rows, HELD_OUT + name)
    if not points:
        return None
    other_loss = name == "loss" and abs(points[0][1] - math.log(2)) > 0.02
    # another loss than the sigmoid one starts elsewhere
    svg = plots.curve(title, points, None if other_loss else reference, held_out=held)
    found = {"title": before + title, "name": name, "svg": svg, "held_out": bool(held)}
    return found if svg else None


def _points(rows: Sequence[Json], name: str) -> list[plots.Point]:
    """(step, value)."""
    return [
        (float(row.get("step", i + 1)), float(row[name]))
        for i, row in enumerate(rows)
        if words.is_number(row.get(name))
    ]


def pair_counts(pairs: PairCounts) -> Json:
    """Kept and dropped samples as a bar and its legend; the most frequent reason first."""
    dropped = sorted(pairs.dropped.items(), key=lambda item: (-item[1], item[0]))
    parts = [("kept", pairs.kept), *dropped]
    total = max(1, pairs.sampled)
    legend = [
        {"name": name.replace("_", " "), "count": count, "share": words.share(count, total)}
        for name, count in parts
    ]
    return {"sampled": pairs.sampled, "legend": legend, "bar": plots.bar(parts)}


def left_out(samples: Json) -> Json | None:
    """The input that the samples stage could not use: counts per reason, and the lines that name
    it."""
    reasons: dict[str, int] = samples.get("unusable") or {}
    if not reasons:
        return None
    counted = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return {
        "total": sum(reasons.values()),
        "reasons": [{"name": name, "count": count} for name, count in counted],
        "lines": samples.get("left_out") or [],
    }


def notes(outcome: Outcome) -> list[tuple[str, str]]:
    """Each stage's notes from its summary."""
    found = [(s.name, _notes(outcome.stage_metrics.get(s.name, {}))) for s in outcome.report.stages]
    return [(name, text) for name, text in found if text]


def _notes(metrics: Json) -> str:
    shown = {name: value for name, value in metrics.items() if name != "left_out"}
    return " · ".join(f"{name} {value}" for name, value in flatten(without_secrets(shown)))


def flatten(values: Json, before: str = "") -> Iterable[tuple[str, str]]:
    """Nested values as (dotted name, text); lists are joined."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{before}{key}.")
        elif isinstance(value, float):
            yield f"{before}{key}", f"{value:.4g}"
        elif isinstance(value, list | tuple):
            yield f"{before}{key}", ", ".join(map(str, value))
        else:
            yield f"{before}{key}", str(value)
