"""What a W&B run shows of a finished run: scores, deltas, example pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from seva_exp.events import Example
from seva_exp.images import UnusableImage, open_image
from seva_exp.records import ALIGNED, Report, Score
from seva_exp.spec import Json

PICTURE_SIDE = 672
"""Largest side of a picture that is sent, in pixels."""


def score_summary(report: Report) -> Json:
    """``score/<benchmark>@<protocol>/<split>/<metric>/<model>``, ``delta/...`` of the final model
    (others with ``/<model>``), with ``/low`` etc.: two protocols are never one column of runs."""
    values: Json = {}
    column = {s.benchmark: f"{s.benchmark}@{s.protocol}" for s in report.scores}
    for s in report.scores:
        name = f"score/{column[s.benchmark]}/{s.split}/{s.metric}/{s.model}"
        values |= {name: s.value, f"{name}/low": s.low, f"{name}/high": s.high}
    for d in report.deltas:
        way = "" if d.model == ALIGNED else f"/{d.model}"
        name = f"delta/{column[d.benchmark]}/{d.split}/{d.metric}{way}"
        values |= {name: d.value, f"{name}/low": d.low, f"{name}/high": d.high, f"{name}/p": d.p}
    if report.pairs:
        values |= {"pairs/sampled": report.pairs.sampled, "pairs/kept": report.pairs.kept}
        values |= {f"pairs/dropped/{reason}": n for reason, n in report.pairs.dropped.items()}
    return values


def score_table(report: Report) -> Json:
    import wandb

    rows = [list(asdict(score).values()) for score in report.scores]
    columns: list[str | int] = [column.name for column in fields(Score)]
    return {"scores": wandb.Table(columns=columns, data=rows)} if rows else {}


def pictures(examples: Sequence[Example]) -> Json:
    """``examples/clean`` and one list per view; each caption names the sample."""
    lists: dict[str, list[Any]] = {}
    for example in examples:
        pair = example.pair
        asked = f"{pair.sample_id}: {pair.prompt}\nchosen: {pair.chosen}\n"
        answers = zip(pair.views, pair.rejected, strict=True)
        rejected = {view: f"rejected ({view}): {text}" for view, text in answers}
        clean = _picture(example.clean_image, asked + "\n".join(rejected.values()))
        lists.setdefault("examples/clean", []).append(clean)
        for view, text in rejected.items():
            if view in example.view_images:
                image = _picture(example.view_images[view], asked + text)
                lists.setdefault(f"examples/{view}", []).append(image)
    return lists


def _picture(path: Path, caption: str) -> Any:
    """The picture as the model saw it; where it can't be read, a gray one with the reason."""
    import wandb
    from PIL import Image

    try:
        image = open_image(path)
    except (UnusableImage, OSError) as error:
        image = Image.new("RGB", (72, 72), "gray")
        caption += f"\n(no picture: {error})"
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return wandb.Image(image, caption=caption)


def flatten(values: Json, before: str = "") -> list[tuple[str, Any]]:
    """Nested values as (slashed name, plain value)."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            flat += flatten(value, f"{before}{key}/")
        else:
            flat.append((f"{before}{key}", value))
    return flat
