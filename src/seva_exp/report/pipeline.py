"""The run's stages as a drawing: one row a stage, arcs from what it reads, bars for the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from seva_exp.core.spec import Json
from seva_exp.report.significance import duration
from seva_exp.runs.events import Outcome

ROW, WIDTH, NODE = 48, 76, 66
"""Height of a row (as in style.css), width of the drawing, where its nodes stand; in pixels."""


def pipeline(outcome: Outcome, skipped: Mapping[str, str]) -> Json:
    """The drawing and its rows; stages that had nothing to work on are drawn where they would have
    worked."""
    done = {stage.name: stage for stage in outcome.report.stages}
    reads = {stage.name: stage.inputs for stage in outcome.plan.stages}
    names = [name for name in reads if name in done or name in skipped]
    names += [name for name in (*done, *skipped) if name not in reads]
    longest = max((stage.seconds for stage in done.values()), default=0) or 1
    rows = [
        {"name": name, "key": "", "result": "skipped", "share": 0, "took": "–"}
        if name not in done
        else {
            "name": name,
            "key": done[name].key,
            "result": "cached" if done[name].cached else "computed",
            "share": round(100 * done[name].seconds / longest, 1),
            "took": duration(done[name].seconds),
        }
        for name in names
    ]
    place = {name: i for i, name in enumerate(names)}
    edges = [(place[i], place[n]) for n in names for i in reads.get(n, ()) if i in place]
    return {"rows": rows, "svg": drawing([str(row["result"]) for row in rows], edges)}


def drawing(results: Sequence[str], edges: Sequence[tuple[int, int]]) -> Markup:
    """Nodes below each other and their edges (from, to): to the next one straight, to others in an
    arc, the wider the farther. What it shows stands beside it as text."""
    farthest = max((abs(b - a) for a, b in edges), default=1)
    paths = []
    for a, b in edges:
        y1, y2 = _middle(a), _middle(b)
        reach = 0.0 if abs(b - a) == 1 else (NODE - 4) * (abs(b - a) / farthest) ** 0.6
        x = NODE - 4 / 3 * reach  # a Bezier curve reaches 3/4 of the way to its control points
        paths.append(f'<path class="edge" d="M{NODE} {y1}C{x:.1f} {y1} {x:.1f} {y2} {NODE} {y2}"/>')
    nodes = [
        f'<circle class="node {result}" cx="{NODE}" cy="{_middle(i)}" r="5"/>'
        for i, result in enumerate(results)
    ]
    size = f'width="{WIDTH}" height="{ROW * len(results)}"'
    return Markup(f'<svg {size} aria-hidden="true">{"".join(paths + nodes)}</svg>')


def _middle(row: int) -> int:
    return ROW * row + ROW // 2
