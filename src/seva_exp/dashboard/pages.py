"""The workspace and the report, as wandb-workspaces has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from seva_exp.core.spec import Json
from seva_exp.dashboard.overview import LoggedMetric, Overview

HEADLINES = 4
"""Scores that are drawn against what differs."""
WIDE = wr.Layout(w=24, h=12)


def workspace(overview: Overview, entity: str, project: str, group: str | None) -> ws.Workspace:
    """A saved view of the project: what differs and what came of it first."""
    filters = [ws.Metric("Group") == group] if group else []
    pinned = [f"config:{_key(field)}" for field in list(overview.fields)[:4]]
    pinned += [f"summary:{metric.name}/delta" for metric in overview.headlines(HEADLINES)]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=group or "seva_exp",
        sections=[
            ws.Section(name=title, panels=panels, is_open=True, pinned=place == 0)
            for place, (title, _, panels) in enumerate(chapters(overview))
        ],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(filters=filters, pinned_columns=pinned),
    )


def report(overview: Overview, entity: str, project: str, group: str | None) -> wr.Report:
    """The report: the workspace's panels, with a line on how each is to be read."""
    filters = [ws.Metric("Group") == group] if group else []
    blocks: list[Any] = [wr.TableOfContents()]
    for title, text, panels in chapters(overview):
        runs = wr.Runset(name=group or "all runs", filters=filters)
        blocks += [wr.H1(title), wr.P(text), wr.PanelGrid(runsets=[runs], panels=panels)]
    named = f": {group}" if group else ""
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{project}{named}"[:128],
        description="Base and aligned models side by side; written by python -m seva_exp.dashboard",
        blocks=blocks,
        width="fluid",
    )


def as_json(workspace: ws.Workspace, report: wr.Report) -> Json:
    """The page as it would be sent. (The library has no public way to its own JSON.)"""
    pages = {"workspace": workspace._to_model(), "report": report._to_model()}
    return {
        name: page.model_dump(mode="json", by_alias=True, exclude_none=True)
        for name, page in pages.items()
    }


def chapters(overview: Overview) -> Iterator[tuple[str, str, list[Any]]]:
    """Title, how to read it, panels; without those that have nothing to show."""
    headlines = overview.headlines(HEADLINES)
    if headlines:
        yield (
            "What differs, and what came of it",
            "Each line is a run: its settings on the left, the change of its scores on the right, "
            "in points. Drag over an axis to choose runs.",
            list(_against(overview, headlines)),
        )
    for name, metrics in groupby(overview.metrics, lambda metric: metric.benchmark):
        yield (
            name,
            "Scores of the aligned model and its change from the base; where one field differs, "
            "averaged over seeds, with the standard deviation. Intervals and p are columns of the "
            "run table.",
            [panel for metric in metrics for panel in _bars(metric, overview)],
        )
    if overview.training:
        yield (
            "Training",
            "Over the steps of each training stage.",
            [_curve(name) for name in overview.training],
        )
    if overview.dropped:
        names = ["pairs/kept", *(f"pairs/dropped/{reason}" for reason in overview.dropped)]
        yield (
            "Pairs",
            "How many answers became pairs, and why others did not.",
            [wr.BarPlot(title=name, metrics=[name]) for name in names],
        )
    if overview.views:
        names = [f"examples/{name}" for name in ("clean", *overview.views)]
        yield (
            "Examples",
            "The same samples as the model saw them, clean and in each negative view.",
            [wr.MediaBrowser(title=n, media_keys=[n], num_columns=4, layout=WIDE) for n in names],
        )


def _against(overview: Overview, headlines: Sequence[LoggedMetric]) -> Iterator[Any]:
    """Scores against the fields that differ."""
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(f)) for f in overview.fields]
    columns += [
        wr.ParallelCoordinatesPlotColumn(
            metric=wr.SummaryMetric(f"{metric.name}/delta"), inverted=metric.better == "lower"
        )
        for metric in headlines
    ]
    yield wr.ParallelCoordinatesPlot(columns=columns, layout=WIDE)
    if overview.fields:
        yield wr.ParameterImportancePlot(with_respect_to=f"{headlines[0].name}/delta")
    for metric in headlines:
        for field in (name for name, numeric in overview.fields.items() if numeric):
            name = f"{metric.name}/delta"
            yield wr.ScatterPlot(title=name, x=wr.Config(field), y=wr.SummaryMetric(name))


def _bars(metric: LoggedMetric, overview: Overview) -> list[Any]:
    """Where one field differs, and the seed, the seeds are one bar; otherwise a run is."""
    grouped: Json = {}
    if len(overview.fields) == 1:
        field = wr.Config(next(iter(overview.fields)))
        grouped = {"groupby": field, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    names = [f"{metric.name}/{which}" for which in ("aligned", "delta")]
    return [wr.BarPlot(title=name, metrics=[name], **grouped) for name in names]


def _curve(name: str) -> Any:
    return wr.LinePlot(title=name, x=f"{name.split('/')[0]}/step", y=[name])


def _key(field: str) -> str:
    """``dpo.beta`` as the run table names it: W&B keeps a group as one value."""
    first, _, rest = field.partition(".")
    return f"{first}.value.{rest}" if rest else f"{first}.value"
