"""Plots as Vega-Lite specs. ``charts.js`` fills in the rows that are not filtered out, the chosen
metric and the axis, and hands each spec to Vega-Embed.

Colours are the page's CSS variables (Vega's SVG takes any CSS colour), so that a plot follows
light and dark without being drawn anew.
"""

from __future__ import annotations

from seva_exp.core.spec import Json

PALETTE = [f"var(--series-{i})" for i in range(8)]
HEAT = [f"var(--heat-{i})" for i in range(7)]
MOST_LINES = 8
"""Series that get a colour of their own; more are drawn alike and told apart by pointing."""

CONFIG: Json = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    "view": {"stroke": "transparent"},
    "axis": {
        **{"labelColor": "var(--soft)", "titleColor": "var(--soft)", "titleFontWeight": 500},
        **{"gridColor": "var(--line)", "domainColor": "var(--line)", "tickColor": "var(--line)"},
        **{"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 0, "titleLimit": 0},
    },
    "legend": {
        **{"labelColor": "var(--ink)", "titleColor": "var(--soft)", "labelFontSize": 12},
        **{"orient": "bottom", "direction": "vertical", "labelLimit": 0, "title": None},
    },
    "range": {"category": PALETTE, "heatmap": HEAT},
}

_FIT = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
_TIP = [
    {"field": "label", "title": "run"},
    {"field": "value", "format": ".2f"},
    {"field": "change", "format": "+.2f"},
]
_SCORE = {"field": "value", "type": "quantitative", "scale": {"zero": False}}
_SERIES = {"field": "line", "type": "nominal", "scale": {"range": PALETTE}}


def chart_specs() -> Json:
    """Name -> spec without data. Rows hold ``label`` (the variant), ``value``, ``low``, ``high``,
    ``change``, ``verdict``; for ``scores`` also ``lines`` (the model's number, then its label in
    lines: two models may have one label); for ``against`` also ``x``, ``line`` and ``base``; for
    ``heat`` ``x``, ``y``, ``value``; for ``training`` ``run``, ``step``, ``line``, ``value``."""
    return {"scores": _scores(), "against": _against(), "heat": _heat(), "training": _training()}


def _scores() -> Json:
    """Each run's score with its 95 % interval; the base as a line."""
    models = {
        "field": "lines",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {
            "labelExpr": "slice(split(datum.label, '\\n'), 1)",
            "ticks": False,
            "domain": False,
        },
    }
    colour = {
        "field": "verdict",
        "type": "nominal",
        "legend": None,
        "scale": {
            "domain": ["better", "at a price", "worse", "changed", "not significant", "base"],
            "range": [
                *("var(--accent)", "var(--ink)", "var(--bad)", "var(--ink)"),
                *("var(--idle)", "var(--soft)"),
            ],
        },
    }
    score = {**_SCORE, "title": None}
    return {
        **_FIT,
        "encoding": {"y": models, "color": colour, "tooltip": _TIP},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": {**score, "field": "low"}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"x": score},
            },
        ],
    }


def _against() -> Json:
    """Score against a number of the config: the mean over seeds, with their standard deviation;
    the base, where all have the same, as a dashed line."""
    x = {"field": "x", "type": "quantitative", "scale": {"zero": False, "padding": 12}}
    base = {"field": "base", "aggregate": "mean", "type": "quantitative", "title": None}
    mean = {**_SCORE, "aggregate": "mean", "title": None}
    return {
        **_FIT,
        "height": 260,
        "encoding": {"x": x, "color": _SERIES},
        "layer": [
            {
                "mark": {"type": "rule", "strokeDash": [3, 4], "color": "var(--idle)"},
                "encoding": {"x": None, "color": None, "y": base},
            },
            {
                "mark": {"type": "errorbar", "extent": "stdev", "ticks": True},
                "encoding": {"y": {**_SCORE, "title": None}},
            },
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"y": mean}},
            {
                "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
                "encoding": {"y": mean, "tooltip": _mean_tip()},
            },
        ],
    }


def _mean_tip() -> list[Json]:
    return [
        {"field": "line", "title": "runs"},
        {"field": "x", "title": "at"},
        {"field": "value", "aggregate": "mean", "format": ".2f"},
        {"aggregate": "count", "title": "seeds"},
    ]


def _heat() -> Json:
    """Two fields against each other: the mean over what lies in a cell."""
    value = {"field": "value", "aggregate": "mean", "type": "quantitative"}
    axes = {
        "x": {"field": "x", "type": "ordinal", "axis": {"labelAngle": 0, "grid": False}},
        "y": {"field": "y", "type": "ordinal", "axis": {"grid": False}},
    }
    heat = {
        **value,
        "scale": {"type": "quantize", "range": HEAT, "zero": False, "nice": False},
        "legend": None,
    }
    return {
        **_FIT,
        "encoding": axes,
        "layer": [
            {"mark": {"type": "rect"}, "encoding": {"color": heat}},
            {
                "mark": {"type": "text", "fontSize": 13, "color": "var(--heat-ink)"},
                "encoding": {"text": {**value, "format": ".1f"}},
            },
        ],
    }


def _training() -> Json:
    """Logged steps of all runs, one line a run."""
    return {
        **_FIT,
        "height": 240,
        "mark": {"type": "line", "strokeWidth": 1.6, "clip": True},
        "encoding": {
            "x": {
                **{"field": "step", "type": "quantitative", "title": "optimizer step"},
                "axis": {"tickMinStep": 1},
            },
            "y": {**_SCORE, "title": None},
            "color": _SERIES,
            "detail": {"field": "run"},
            "tooltip": [{"field": "label", "title": "run"}, {"field": "value", "format": ".4f"}],
        },
    }
