"""Training curves of several runs, thinned to what a plot can show."""

from __future__ import annotations

from collections.abc import Sequence

from seva_exp.compare.deltas import Measured
from seva_exp.core.records import BASE
from seva_exp.core.spec import Json
from seva_exp.report.significance import is_number
from seva_exp.training.spec import HELD_OUT

POINTS = 150
"""Most points of one curve on the page."""
METRICS = {
    "loss": "loss",
    "rewards/margins": "reward margin",
    "rewards/accuracies": "reward accuracy",
    "grad_norm": "gradient norm",
    f"{HELD_OUT}loss": "held-out loss",
    f"{HELD_OUT}rewards/margins": "held-out reward margin",
    f"{HELD_OUT}rewards/accuracies": "held-out reward accuracy",
}
"""A training row's names (TRL's), and what the page calls them."""


def training(found: Sequence[Measured]) -> Json:
    """``options``: what can be drawn; ``series``: per option and training its steps and values, and
    the models that share it."""
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    sharing: dict[str, list[int]] = {}  # by the stage's name and key
    for i, one in enumerate(found):
        mine: dict[str, bool] = {}  # by the same: whether this run is the first that shows it
        for row in one.run.training() if one.model != BASE else ():
            stage = row.get("stage", "")
            key = f"{stage} {one.run.key(stage) or one.run.folder}"
            if key not in mine:
                mine[key] = key not in sharing
                sharing.setdefault(key, []).append(i)
            for name in METRICS if mine[key] else ():
                if is_number(row.get(name)) and is_number(row.get("step")):
                    of = curves.setdefault((stage, name), {})
                    of.setdefault(key, []).append((row["step"], row[name]))
    several = len({stage for stage, _ in curves}) > 1
    order = sorted(curves, key=lambda key: list(METRICS).index(key[1]))
    return {
        "options": [f"{stage}: {METRICS[n]}" if several else METRICS[n] for stage, n in order],
        "series": [
            {
                "models": sharing[key],
                "option": number,
                "points": [[x, float(f"{y:.5g}")] for x, y in thinned(points)],
            }
            for number, option in enumerate(order)
            for key, points in curves[option].items()
        ],
    }


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Evenly chosen points, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    stride = (len(points) - 1) / (POINTS - 1)
    return [points[round(i * stride)] for i in range(POINTS)]
