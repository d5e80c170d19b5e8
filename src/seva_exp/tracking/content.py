"""What a tracked run shows, whatever the tracker: name, tags, config, scores, pictures, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image

from seva_exp.benchmarks import BENCHMARKS
from seva_exp.core.records import ALIGNED, Report, Score
from seva_exp.core.redact import without_secrets
from seva_exp.core.spec import Json
from seva_exp.grounding.metrics import protocol as of_words
from seva_exp.grounding.spec import Explain
from seva_exp.inputs.images import UnusableImage, open_image
from seva_exp.report.word_pictures import explanation
from seva_exp.runs.events import Explained, Outcome, PairExample, Plan
from seva_exp.runs.links import followed
from seva_exp.stages.artifacts import ExplainArtifact
from seva_exp.tracking.spec import TAG_LENGTH

PICTURE_SIDE = 672
"""Largest side of a picture that is sent, in pixels."""
JOB_TYPES = ("finetune", "align", "pairs", "answers", "evaluate", "samples")
"""The first of these stages that a run has is its job type: what it was for."""


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture with what is to be read below it."""

    image: Image.Image
    caption: str


Gallery = Mapping[str, Sequence[CaptionedPicture]]
"""Name -> pictures, such as ``examples/moco``."""


@dataclass(frozen=True)
class Table:
    """Named columns of plain values."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class StageFile:
    """A file or folder of a stage. ``used``: the stage came from the store, so an earlier run made
    it and this one takes it as its input."""

    name: str
    type: str
    path: Path
    key: str
    used: bool
    metadata: Json


def job_type(plan: Plan) -> str:
    """The job type in W&B: the run's furthest kind of stage."""
    kinds = {stage.kind for stage in plan.stages}
    return next((kind for kind in JOB_TYPES if kind in kinds), "run")


def tags(config: Json) -> tuple[str, ...]:
    """Method, views and model of the run."""
    model = config.get("model") or {}
    found = [
        (config.get("method") or {}).get("kind"),
        *sorted(config.get("aug") or {}),
        Path(str(model.get("path") or model.get("kind") or "")).name,
    ]
    return tuple(dict.fromkeys(str(tag)[:TAG_LENGTH] for tag in found if tag))


def columns_of(config: Json) -> Json:
    """The whole config without secrets, with every value a column of its own: trackers flatten
    groups (``dpo.beta``) but not lists of groups, which get numbers for names. ``views`` has the
    negative views' names, so that runs can be told apart and coloured by them."""
    values = _groups(without_secrets(config))
    return {**values, "views": "+".join(sorted(values.get("aug") or {}))}


def _groups(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _groups(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        if any(isinstance(one, Mapping) for one in value):
            return {str(place): _groups(one) for place, one in enumerate(value)}
        return list(value)
    return value


def score_summary(report: Report, config: Json) -> Json:
    """``benchmark/<name>/<split>/<metric>/{base,aligned,delta}``, each with ``/low`` and ``/high``,
    the delta with ``/p``; models on the way have their own name, their delta ``delta_<model>``."""
    values: Json = {}
    columns = {
        (s.benchmark, s.split): column(s.benchmark, s.protocol, config) for s in report.scores
    }
    for s in report.scores:
        name = f"benchmark/{columns[s.benchmark, s.split]}/{s.split}/{s.metric}/{s.model}"
        values |= {name: s.value, f"{name}/low": s.low, f"{name}/high": s.high}
    for d in report.deltas:
        which = "delta" if d.model == ALIGNED else f"delta_{d.model}"
        name = f"benchmark/{columns[d.benchmark, d.split]}/{d.split}/{d.metric}/{which}"
        values |= {name: d.value, f"{name}/low": d.low, f"{name}/high": d.high, f"{name}/p": d.p}
    if report.pairs:
        values |= {"pairs/sampled": report.pairs.sampled, "pairs/kept": report.pairs.kept}
        values |= {f"pairs/dropped/{reason}": n for reason, n in report.pairs.dropped.items()}
    return values


def column(benchmark: str, protocol: str, config: Json) -> str:
    """The benchmark's name; with ``@protocol`` where that is not the benchmark's own default, as
    two protocols' numbers are never one column of runs."""
    kind = ((config.get("benchmark") or {}).get(benchmark) or {}).get("kind")
    usual: Any = BENCHMARKS[kind]() if kind in BENCHMARKS else None
    same = usual is not None and protocol in (usual.protocol_name, of_words(Explain()))
    return benchmark if same else f"{benchmark}@{protocol}"


def score_table(report: Report) -> Table | None:
    """Every score with its interval, count and protocol."""
    rows = tuple(tuple(asdict(score).values()) for score in report.scores)
    return Table("scores", tuple(one.name for one in fields(Score)), rows) if rows else None


def pictures(examples: Sequence[PairExample]) -> Gallery:
    """``examples/clean`` and one list per view; each caption names the sample."""
    lists: dict[str, list[CaptionedPicture]] = {}
    for example in examples:
        pair = example.pair
        caption = f"{pair.sample_id}: {pair.question}\nchosen: {pair.chosen}\n"
        answers = zip(pair.views, pair.rejected, strict=True)
        rejected = [(view, f"rejected ({view}): {text}") for view, text in answers]
        clean = picture(example.clean_image, caption + "\n".join(text for _, text in rejected))
        lists.setdefault("examples/clean", []).append(clean)
        for view, text in rejected:
            if view in example.view_images:
                image = picture(example.view_images[view], caption + text)
                lists.setdefault(f"examples/{view}", []).append(image)
    return lists


def explanations(explained: Sequence[Explained]) -> Gallery:
    """``words/<benchmark>``: of each explained sample a picture of what its words rest on."""
    lists: dict[str, list[CaptionedPicture]] = {}
    for one in explained:
        made = ExplainArtifact(one.artifact)
        files = made.pictures()
        for sample in made.samples():
            seen = files.get(sample.id, (None, None))
            drawn = explanation(sample, seen, one.rests, one.view)
            shown = CaptionedPicture(drawn.image, drawn.caption)
            lists.setdefault(f"words/{one.benchmark}", []).append(shown)
    return lists


def picture(path: Path, caption: str) -> CaptionedPicture:
    """The picture as the model saw it; where it can't be read, a gray one with the reason."""
    try:
        image = open_image(path)
    except (UnusableImage, OSError) as error:
        image = Image.new("RGB", (72, 72), "gray")
        caption += f"\n(no picture: {error})"
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return CaptionedPicture(image, caption)


def made(outcome: Outcome) -> list[StageFile]:
    """The run's pairs and adapter, in the order in which they were made."""
    stages = {stage.name: stage for stage in outcome.report.stages}
    config = outcome.plan.config
    fields = {"tags": list(tags(config)), "base_model": without_secrets(config.get("model"))}
    found: list[StageFile] = []
    for name, kind, link, label in (
        ("pairs", "dataset", "pairs.jsonl", outcome.pairs_stage),
        ("adapter", "model", "adapter", outcome.adapter_stage),
    ):
        path = followed(outcome.plan.dir / label / link)
        if label and path.exists():
            stage = stages[label]
            inputs = {one.name: one.key for one in found}
            metadata = {"stage": stage.name, "key": stage.key, "inputs": inputs, **fields}
            found.append(StageFile(name, kind, path, stage.key, stage.cached, metadata))
    return found
