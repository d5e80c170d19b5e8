"""One run, shown: what of its config differs from the defaults, its stages with their keys, what it
took, its scores, and where it is tracked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from seva_exp.core.machine import Machine
from seva_exp.core.printable import ends, one_line
from seva_exp.core.records import TRACKED_ID, Report
from seva_exp.core.spec import Json, canonical
from seva_exp.experiment.options import Options
from seva_exp.experiment.past import duration
from seva_exp.experiment.value import Experiment
from seva_exp.experiment.why import ABSENT, differing
from seva_exp.runs.holdings import Holdings
from seva_exp.runs.listing import RunFolder
from seva_exp.runs.scores import main_scores
from seva_exp.runs.tables import size, table
from seva_exp.stages.labels import kind_of

UNTOLD = ("machine.store", "machine.runs", "dry_run", "force", "name")
"""Fields that tell of the command rather than of the run."""


@dataclass(frozen=True)
class Shown:
    """``changed``: dotted field, its value, its default. ``stages``: label, key, whether this run
    made it, seconds, bytes, whether it is there. ``tracked``: the places of trackers' runs."""

    run: str
    name: str
    state: str
    message: str
    began: str
    seconds: float | None
    seed: int | None
    tags: tuple[str, ...]
    command: str
    changed: tuple[tuple[str, Any, Any], ...]
    stages: tuple[Json, ...]
    pairs: Json | None
    scores: tuple[Json, ...]
    scores_text: str
    findings: tuple[str, ...]
    tracked: tuple[str, ...]

    def to_json(self) -> Json:
        return {name: value for name, value in asdict(self).items() if name != "scores_text"}

    def lines(self) -> Iterator[str]:
        """For a person, in 80 columns."""
        took = f", {duration(self.seconds)}" if self.seconds is not None else ""
        seed = "" if self.seed is None else f", seed {self.seed}"
        yield f"{one_line(self.name)}: {self.state}{seed}, began {self.began}{took}"
        yield self.run
        if self.message:
            yield f"stopped by: {one_line(ends(self.message))}"
        if self.tags:
            yield f"tags: {', '.join(map(one_line, self.tags))}"
        if self.command:
            yield f"command: {one_line(self.command)}"
        yield from (f"tracked: {place}" for place in self.tracked)
        if self.changed:
            changed = [(name, _told(value), _told(was)) for name, value, was in self.changed]
            yield f"\n{table(('config', 'value', 'default'), changed, narrow=(1, 2))}"
        else:
            yield "\nconfig: all defaults"
        rows = [
            (
                row["name"],
                row["key"][:12],
                _how(row),
                "" if row["seconds"] is None else duration(row["seconds"]),
                size(row["bytes"]) if row["there"] else "",
            )
            for row in self.stages
        ]
        yield f"\n{table(('stage', 'key', '', 'took', 'size'), rows, (3, 4), (0,))}"
        if self.pairs:
            dropped = ", ".join(f"{n} {why}" for why, n in self.pairs["dropped"].items())
            kept = f"{self.pairs['kept']} of {self.pairs['sampled']}"
            yield f"\npairs: {kept} kept; dropped: {dropped or 'none'}"
        if self.scores_text:
            yield f"scores: {self.scores_text}"
        yield from (f"warning: {one_line(text)}" for text in self.findings)


def _how(row: Json) -> str:
    if not row["there"]:
        return "gone" if row["seconds"] is not None else "not made"
    return "reused" if row["cached"] else "made"


def _told(value: Any) -> str:
    if value == ABSENT:
        return ""
    return value if isinstance(value, str) else canonical(value)


def shown_run(run: RunFolder, store: Path) -> Shown:
    """Raises InputError where its config or plan is damaged."""
    report, told = run.report, run.told
    end = told.ended if told else None
    return Shown(
        run=str(run.path),
        name=run.name,
        state=run.state,
        message=told.message if told else "",
        began=run.began.isoformat(" "),
        seconds=round(end - told.began, 1) if told and end else None,
        seed=run.config.get("seed"),
        tags=tuple(run.tags),
        command=shlex.join(run.command),
        changed=tuple(from_defaults(run.config)),
        stages=tuple(_stages(run, report, run.store or store)),
        pairs=asdict(report.pairs) if report and report.pairs else None,
        scores=tuple(asdict(score) for score in report.scores) if report else (),
        scores_text=", ".join(one.text for one in main_scores(report)) if report else "",
        findings=tuple(f"{one.stage}: {one.text}" for one in report.findings) if report else (),
        tracked=tuple(_tracked(run, run.store or store)),
    )


def _stages(run: RunFolder, report: Report | None, store: Path) -> Iterator[Json]:
    known = {one.name: one for one in report.stages} if report else {}
    holdings = Holdings(store, [], strict=False) if (store / "locks").is_dir() else None
    cached = {row["name"]: row.get("cached", False) for row in run.planned}
    for label, key in run.keys.items():
        whole = list(holdings.whole([key[:20]])) if holdings else []
        made, one = known.get(label), next(iter(whole), None)
        seconds = made.seconds if made else one.told.get("seconds") if one else None
        yield {
            "name": label,
            "kind": kind_of(label),
            "key": key,
            "cached": made.cached if made else cached.get(label, False),
            "there": one is not None,
            "seconds": seconds,
            "bytes": one.size if one else 0,
        }


def _tracked(run: RunFolder, store: Path) -> Iterator[str]:
    """The address of a W&B run, or how to upload what was written offline; other trackers' places.
    Each tracker's marker in the store names the folders that it wrote into: W&B's lie in the run's
    (under an agent its id is not of the key), of others the key tells which is the run's."""
    key = run.report.key[:TRACKED_ID] if run.report else ""
    for file in sorted((store / "tracking").glob("*/*.json")):
        try:
            row = json.loads(file.read_bytes())
            places = [Path(place) for place in row.get("dirs", ())]
        except (OSError, ValueError, AttributeError, TypeError):
            continue
        if file.parent.name != "wandb":
            if file.stem == key:
                yield f"{file.parent.name}: {row.get('url') or ', '.join(map(str, places))}"
            continue
        for place in places:
            if not place.is_relative_to(run.path):
                continue
            if place.name.startswith("offline"):
                yield f"W&B, offline: {shlex.join(['wandb', 'sync', str(place)])}"
            else:
                who = "/".join(str(row[name]) for name in ("entity", "project") if row.get(name))
                yield f"https://wandb.ai/{who}/runs/{file.stem}"


def from_defaults(config: Json) -> list[tuple[str, Any, Any]]:
    """The fields of a run's config that are not the default's, with that. Of a group whose kind is
    another, those that differ from the kind's own defaults."""
    defaults = {**_defaults(Experiment), **_defaults(Options), "machine": _defaults(Machine)}
    own = _experiment_of(config)
    found: list[tuple[str, Any, Any]] = []
    for name, value in config.items():
        default = defaults.get(name, ABSENT)
        if name in ("aug", "benchmark") and isinstance(value, dict):
            found += _named(name, value, default, own)
        elif _kind(value) != _kind(default):
            found.append((f"{name}.kind", _kind(value), _kind(default) or ABSENT))
            found += _of_kind(name, value, getattr(own, name, None))
        else:
            found += differing(value, default, name)
    return [row for row in found if row[0] not in UNTOLD]


def _named(group: str, value: Json, default: Any, own: Any) -> Iterator[tuple[str, Any, Any]]:
    """Of a group that holds several by name."""
    mine = getattr(own, group, None) or {}
    default = default if isinstance(default, dict) else {}
    for name, one in value.items():
        if name not in default:
            yield f"{group}.{name}", _kind(one) or one, ABSENT
            yield from _of_kind(f"{group}.{name}", one, mine.get(name))
        else:
            yield from differing(one, default[name], f"{group}.{name}")
    yield from ((f"{group}.{name}", ABSENT, "there") for name in default if name not in value)


def _of_kind(name: str, value: Any, made: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs from the defaults of the value's own class; a field without one counts."""
    if not isinstance(value, Mapping) or not isinstance(made, BaseModel):
        return
    fields, defaults = type(made).model_fields, _defaults(type(made))
    for field, one in value.items():
        if field == "kind" or field not in fields:
            continue
        if fields[field].is_required():
            yield f"{name}.{field}", one, ABSENT
        else:
            yield from differing(one, defaults[field], f"{name}.{field}")


def _defaults(kind: type[BaseModel]) -> Json:
    """The plain values of its fields' defaults."""
    found: Json = {}
    for name, field in kind.model_fields.items():
        if not field.is_required():
            found[name] = field.get_default(call_default_factory=True)
    plain: Json = json.loads(json.dumps(to_jsonable_python(found)))
    return plain


def _kind(value: Any) -> str:
    return str(value.get("kind", "")) if isinstance(value, Mapping) else ""


def _experiment_of(config: Json) -> Experiment | None:
    """None for the config of another version."""
    fields = {name: value for name, value in config.items() if name in Experiment.model_fields}
    try:
        return Experiment.model_validate_json(json.dumps(fields))
    except ValidationError:
        return None
