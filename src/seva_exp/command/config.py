"""The composed config becomes an Experiment, a Machine, Options and a tracker: strictly.

Unknown keys, wrong types and values out of range are refused with the field's path and the
nearest known name.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from seva_exp import plugins
from seva_exp.augment import SOURCES
from seva_exp.benchmarks import BENCHMARKS, Judge, Mode
from seva_exp.core.errors import InputError, nearest, suggest
from seva_exp.core.field_docs import field_docs
from seva_exp.core.machine import Machine
from seva_exp.core.paths import options_of, sweeps_dir
from seva_exp.core.printable import ends
from seva_exp.core.redact import hide, texts
from seva_exp.core.spec import Json, Spec
from seva_exp.data import DATA
from seva_exp.decoding import CONTRASTS, GENERATION
from seva_exp.experiment import Experiment, Options
from seva_exp.grounding.spec import Explain
from seva_exp.methods import METHODS
from seva_exp.models import MODELS
from seva_exp.preferences import FILTERS
from seva_exp.preferences.ambiguity import Ambiguity
from seva_exp.scores import SCORES
from seva_exp.tracking import TRACKERS, AnyTracker
from seva_exp.training import DpoTraining, SftTraining

Classes = Mapping[str, type[Spec]]

ONE_OF: dict[str, Classes] = {
    "method": METHODS,
    "model": MODELS,
    "data": DATA,
    "generation": GENERATION,
    "tracker": TRACKERS,
}
"""Groups that hold one value; its class is told by ``kind``."""
MANY_OF: dict[str, Classes] = {"aug": SOURCES, "benchmark": BENCHMARKS}
"""Groups that hold values by name."""
PLAIN: dict[str, type[Spec]] = {"dpo": DpoTraining, "machine": Machine}
"""Groups of one class."""
MAYBE: dict[str, type[Spec]] = {
    "sft": SftTraining,
    "judge": Judge,
    "ambiguity": Ambiguity,
    "explain": Explain,
}
"""Groups of one class that may be left out."""
OTHERS = ("seed", "instructions", "filters")
"""What else a config has: a second data source (a package of the group data), a list of rules."""
SHARED = ("protocol", "without_judge")
"""Fields beside the benchmarks that are for all of them, besides those of ``Mode``."""
NO_GROUPS = ("sweep", "sweeps")
"""What people take for a config group."""
_CONTENT = re.compile(r"[!-.0-~]{256,}|[!-~]{4096,}")
"""What is no path on any system: a part of more than 255 characters, or too much as a whole."""

_NO_UTF8 = re.compile("[\ud800-\udfff]")
"""What stands for a byte of the command line that is not UTF-8."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that one command asks for."""

    experiment: Experiment
    machine: Machine
    options: Options
    tracker: AnyTracker


def parse(config: Json) -> RunConfig:
    """Validate a composed config. Raises InputError naming the first wrong field."""
    config = _without_missing(config)
    for field, text in texts(config):
        if _NO_UTF8.search(text):
            raise InputError(
                f"{field}={ends(hide(text))}: is not UTF-8 text. Rename it, or give a link to it "
                "(ln -s) whose name is."
            )
        if _CONTENT.search(text):
            raise InputError(
                f"{field}={ends(hide(text))}: this is longer than a file's name can be. Give the "
                "name of a file, not its content (base64, say)."
            )
    options = {name: config[name] for name in Options.model_fields if name in config}
    plugins.load(_validate("", {"plugins": options.get("plugins", ())}, Options).plugins)
    known = {*ONE_OF, *MANY_OF, *PLAIN, *MAYBE, *OTHERS, *Options.model_fields}
    for name, node in config.items():
        if name not in known or (name in NO_GROUPS and not isinstance(node, dict)):
            raise InputError(_unknown_top_level(name, known))
    parts: dict[str, Any] = {}
    for name, classes in ONE_OF.items():
        parts[name] = _one_of(name, config.get(name), classes)
    parts["aug"] = _many_of("aug", config.get("aug"), SOURCES)
    benchmarks = benchmarks_of(config.get("benchmark"))
    for name, cls in PLAIN.items():
        parts[name] = _plain(name, config.get(name), cls)
    for name, cls in MAYBE.items():
        node = config.get(name)
        parts[name] = None if node is None else _plain(name, node, cls)
    parts["benchmark"], parts["left_out"] = _without_judge(
        benchmarks, config.get("benchmark"), parts["judge"] is None
    )
    if config.get("instructions") is not None:
        parts["instructions"] = _one_of("instructions", config["instructions"], DATA)
    if "filters" in config:
        parts["filters"] = _filters(config["filters"])
    machine, tracker = parts.pop("machine"), parts.pop("tracker")
    if isinstance(options.get("force"), str):
        options["force"] = [options["force"]]
    checked = _validate("", options, Options)
    try:
        experiment = Experiment(seed=config.get("seed", 0), **parts)
    except ValidationError as error:
        raise InputError("\n".join([*_faults(parts), _message("", Experiment, error)])) from None
    # So that a run's config tells what its stage 2 learns from.
    resolved = experiment.model_copy(update={"instructions": experiment.instruction_data()})
    return RunConfig(resolved if experiment.sft else experiment, machine, checked, tracker)


def _without_missing(values: Any) -> Any:
    """``???`` means that a field must be set: leave it out, so that validation names it."""
    if isinstance(values, dict):
        return {k: _without_missing(v) for k, v in values.items() if v != "???"}
    return values


def _faults(parts: dict[str, Any]) -> list[str]:
    """What is wrong with data and model, so that a person sees all at once."""
    found = []
    for name in ("data", "model"):
        try:
            if name == "model" or not parts[name].lacking():
                parts[name].check()
        except InputError as error:
            found.append(str(error))
    return found


def _unknown_top_level(name: str, known: set[str]) -> str:
    if name in NO_GROUPS:
        return how_to_sweep(name)
    return f"{name}: no such config group or field.{suggest(name, known)}"


def how_to_sweep(name: str) -> str:
    """For one who takes sweeps for a config group."""
    names = ", ".join(sorted(file.stem for file in sweeps_dir().glob("*.yaml")))
    return (
        f"{name}: no such config group. A sweep is a config of its own: python -m seva_exp -cn "
        f"NAME. Known: {names}."
    )


def _one_of(path: str, node: Any, classes: Classes) -> Spec:
    if not isinstance(node, dict):
        known = options_of(path.split(".")[0]) or sorted(classes)
        raise InputError(f"{path}={node}: not a config of this group.{suggest(str(node), known)}")
    kind = str(node.get("kind"))
    if kind not in classes:
        raise InputError(f"{path}.kind={kind}: no such kind.{suggest(kind, classes)}")
    return _with_scores(path, node, classes[kind])


def _with_scores(path: str, node: Json, cls: type[Spec]) -> Spec:
    """A method's scores are configs of their own: each is validated under its own path."""
    if "scores" not in cls.model_fields:
        return _validate(path, node, cls)
    scores = _many_of(f"{path}.scores", node.get("scores"), SCORES)
    rest = {name: value for name, value in node.items() if name != "scores"}
    return _validate(path, rest, cls).model_copy(update={"scores": scores})


def _plain(path: str, node: Any, cls: type[Spec]) -> Any:
    if not isinstance(node, dict):
        raise InputError(
            f"{path}={_shown(node)}: a config of this group is needed."
            f"{suggest('', options_of(path))}"
        )
    return _validate(path, node, cls)


def _filters(node: Any) -> tuple[Spec, ...]:
    """A list of rules; a bare name stands for the rule with its defaults."""
    if not isinstance(node, list):
        raise InputError(f"filters={_shown(node)}: a list is needed, e.g. filters=[equal,empty].")
    wanted = [{"kind": one} if isinstance(one, str) else one for one in node]
    return tuple(_one_of(f"filters.{i}", one, FILTERS) for i, one in enumerate(wanted))


def _many_of(path: str, node: Any, classes: Classes) -> dict[str, Spec]:
    if node is None:
        return {}
    if not isinstance(node, dict):
        known = options_of(path)
        raise InputError(f"{path}={node}: not a config of this group.{suggest(str(node), known)}")
    return {str(name): _member(path, name, child, classes) for name, child in node.items()}


def benchmarks_of(node: Any) -> dict[str, Spec]:
    """``benchmark.NAME`` holds the benchmarks; a field of ``Mode`` beside them
    (``benchmark.describe_and_respond``) is for all of them, null for each one's own.
    ``benchmark.protocol`` is that of each official one that names none itself."""
    if not isinstance(node, dict):
        return _many_of("benchmark", node, BENCHMARKS)
    shared = {name: node[name] for name in Mode.model_fields if node.get(name) is not None}
    _validate("benchmark", shared, Mode)
    protocol = node.get("protocol")
    known = {*Mode.model_fields, *SHARED}
    named = {name: child for name, child in node.items() if name not in known}
    for name, child in named.items():
        if isinstance(child, dict) and "kind" in child:
            own = {key: value for key, value in child.items() if (key, value) != ("protocol", None)}
            default = {"protocol": protocol} if protocol and _takes_protocol(child) else {}
            named[name] = default | own | shared
        elif match := nearest(str(name), known):
            raise InputError(
                f"benchmark.{name}: no such benchmark or field. Did you mean '{match}'?"
            )
    return _many_of("benchmark", named, BENCHMARKS)


def _takes_protocol(node: Json) -> bool:
    """Whether a benchmark is asked and scored by a protocol."""
    cls = BENCHMARKS.get(str(node["kind"]))
    return cls is not None and "protocol" in cls.model_fields


def _without_judge(
    found: dict[str, Any], node: Any, nobody: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The benchmarks, and the names of those that are left out: with
    ``benchmark.without_judge=leave_out`` (the suites') those that need a judge where there is
    none."""
    wanted = node.get("without_judge") if isinstance(node, dict) else None
    if wanted not in (None, "refuse", "leave_out"):
        raise InputError(
            f"benchmark.without_judge={_shown(wanted)}: 'refuse' or 'leave_out' is needed."
        )
    out = [
        name for name, one in found.items() if nobody and wanted == "leave_out" and one.needs_judge
    ]
    return {name: one for name, one in found.items() if name not in out}, tuple(sorted(out))


def _member(path: str, name: Any, node: Any, classes: Classes) -> Spec:
    """``aug.NAME``: a whole config; anything else means that the group's file was not added."""
    where, name = f"{path}.{name}", str(name)
    if not isinstance(node, dict) or "kind" not in node:
        known = options_of("score" if classes is SCORES else path)
        if name in known:
            fields = classes[name].model_fields if name in classes else {}
            wrong = [key for key in node if key not in fields] if isinstance(node, dict) else []
            raise InputError(
                f"{where}: fields of it are set, but this {path} is not in the config. "
                f"{how_to_add(path, name)}"
                + "".join(f" {key}: no such field.{suggest(key, fields)}" for key in wrong)
            )
        raise InputError(f"{where}: no such {path}.{suggest(name, known)}")
    return _one_of(where, node, classes)


def how_to_add(group: str, name: str) -> str:
    """The words that add a view, a score or a benchmark to the config: benchmarks are a list."""
    if group == "benchmark":
        return f"Choose it: benchmark=[shapes,{name}], say."
    return f"Add +{'aug' if group == 'aug' else 'score'}={name}."


def _validate(path: str, node: Any, cls: type[Spec]) -> Any:
    try:
        # From JSON text: lists may fill tuples, but "0.1" is not a number, nor is 1 a text.
        return cls.model_validate_json(json.dumps(node))
    except ValidationError as error:
        raise InputError(_message(path, cls, error)) from None


def _message(path: str, cls: type[BaseModel], error: ValidationError) -> str:
    """One line per wrong field. A list that is too short for its wrong items' sake has none."""
    found = error.errors(include_url=False)
    wrong = {detail["loc"][:-1] for detail in found}
    said = [one for one in found if one["type"] != "too_short" or one["loc"] not in wrong]
    return "\n".join(_line(path, cls, detail) for detail in said)


def _line(path: str, cls: type[BaseModel], detail: Any) -> str:
    inner = _without_kinds(cls, [str(part) for part in detail["loc"]])
    where = ".".join(part for part in (path, *inner) if part)
    while len(inner) > 1 and (part := part_of(cls, inner[0]) or _contrast(inner, detail)):
        cls, inner = part, inner[1:]
    if detail["type"] == "extra_forbidden":
        return f"{where}: no such field.{suggest(inner[-1], cls.model_fields)}"
    if detail["type"] == "missing":
        return f"{where}: must be set ({where}=VALUE).{_described(cls, inner)}"
    if detail["type"] == "value_error" and not inner:
        message = str(detail["ctx"]["error"])
        return f"{path}: {message}" if path else message
    message = detail["msg"]
    if detail["type"] == "value_error":
        message = str(detail["ctx"]["error"])
    message = (message[0].lower() + message[1:]).rstrip(".")
    hint = "" if "Did you mean" in message else _nearest_choice(cls, inner, detail["input"])
    if detail["type"] == "string_type" and isinstance(detail["input"], int | float):
        typed = "..." if isinstance(detail["input"], float) else json.dumps(detail["input"])
        hint = f" YAML reads a number or truth value; as a text: \"{where}='{typed}'\"."
    return f"{where}={_shown(detail['input'])}: {message}.{hint}{_described(cls, inner)}"


def _without_kinds(cls: type[BaseModel], loc: list[str]) -> list[str]:
    """A location without the kind that pydantic puts behind the name of a contrast."""
    kinds = CONTRASTS if "contrast" in cls.model_fields and loc[:1] == ["contrast"] else {}
    return [loc[0], *loc[2:]] if len(loc) > 1 and loc[1] in kinds else loc


def _contrast(loc: list[str], detail: Any) -> type[Spec] | None:
    """The class of a contrast, of whose field an error tells."""
    tags = [str(part) for part in detail["loc"][:2]]
    return CONTRASTS.get(tags[1]) if loc[0] == "contrast" and len(tags) > 1 else None


def part_of(cls: type[BaseModel], name: str) -> type[Spec] | None:
    """The class of a field that is a config of its own (``machine.server``)."""
    field = cls.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, Spec) else None


def _shown(value: Any) -> str:
    return ends(hide(value) if isinstance(value, str) else json.dumps(value, default=str))


def _described(cls: type[BaseModel], loc: list[str]) -> str:
    text = field_docs(cls).get(loc[0]) if loc else None
    # A docstring has line breaks, a message is one line.
    return f" ({' '.join(text.split())})" if text else ""


def _nearest_choice(cls: type[BaseModel], loc: list[str], value: Any) -> str:
    """For a field with fixed choices, the one nearest to the value given."""
    field: FieldInfo | None = cls.model_fields.get(loc[0]) if loc else None
    choices = _literals(field.annotation) if field else []
    match = nearest(str(value), [str(choice) for choice in choices])
    return f" Did you mean '{match}'?" if match else ""


def _literals(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        return [c for part in typing.get_args(annotation) for c in _literals(part)]
    return []
