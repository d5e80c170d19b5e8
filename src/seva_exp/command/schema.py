"""The JSON schema of a config, from the pydantic classes: by it editors complete and check a
preset, a sweep's fields, or a run's ``config.yaml``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from seva_exp.benchmarks import Mode
from seva_exp.core.machine import Machine
from seva_exp.core.spec import Json
from seva_exp.experiment import Experiment, Options
from seva_exp.tracking import AnyTracker

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PARTS = ("Experiment", "Options", "Mode")
"""The classes whose fields stand in no group."""


class _Whole(BaseModel):
    """All that one config holds, in one schema, so that equal names are told apart."""

    experiment: Experiment
    options: Options
    mode: Mode
    machine: Machine
    tracker: AnyTracker


def config_schema() -> Json:
    """A config may state a part of its fields, so none is required; unknown ones are refused."""
    whole = _Whole.model_json_schema()
    parts: Json = whole["$defs"]
    experiment, options, mode = (parts.pop(name)["properties"] for name in PARTS)
    experiment.pop("left_out", None)
    benchmark = experiment.pop("benchmark")
    benchmark["properties"] = mode | {
        "protocol": {"type": ["string", "null"]},
        "without_judge": {"enum": ["refuse", "leave_out", None]},
    }
    named = {"type": "string", "description": "a rule with its defaults"}
    filters = experiment["filters"]
    filters["items"] = {"anyOf": [named, filters["items"]]}
    own = {name: whole["properties"][name] for name in ("machine", "tracker")}
    hydra: Json = {"defaults": {"type": "array"}, "hydra": {"type": "object"}}
    schema: Json = {
        "$schema": DIALECT,
        "title": "A config of seva_exp",
        "type": "object",
        "properties": {**options, **experiment, "benchmark": benchmark, **own, **hydra},
        "additionalProperties": False,
        "$defs": parts,
    }
    return _partial(schema)


def _partial(node: Any) -> Any:
    """With no field required: a part of one of several configs may fit more than one of them."""
    if isinstance(node, list):
        return [_partial(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {name: one for name, one in node.items() if name not in ("required", "discriminator")}
    return {("anyOf" if name == "oneOf" else name): _partial(one) for name, one in kept.items()}
