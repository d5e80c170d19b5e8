"""Every option as Markdown, a page a config group:

    python -m seva_exp.options [GROUP]
    python -m seva_exp.options --schema > seva_exp.schema.json      # for editors

What can be set is read off the pydantic classes, what a choice sets off ``conf/`` and ``sweeps/``,
so that no page can tell of a field that is not there. The site's build calls ``pages``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from seva_exp import plugins
from seva_exp.benchmarks import Mode
from seva_exp.command.config import MANY_OF, MAYBE, ONE_OF, PLAIN
from seva_exp.command.hydra_plugins import FIELD, named
from seva_exp.command.schema import config_schema
from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.paths import config_dir, sweeps_dir
from seva_exp.core.printable import tell
from seva_exp.core.spec import Json, Spec
from seva_exp.decoding import CONTRASTS, GENERATION
from seva_exp.experiment import Experiment, Options
from seva_exp.preferences import FILTERS
from seva_exp.scores import SCORES
from seva_exp.training import DpoTraining
from seva_exp.training.weights import WEIGHTS

CLASSES: dict[str, Mapping[str, type[Spec]]] = {
    **ONE_OF,
    **MANY_OF,
    **{name: {"": cls} for name, cls in {**PLAIN, **MAYBE}.items()},
    "filters": FILTERS,
    "dpo": {"": DpoTraining, **WEIGHTS},
    "generation": {**GENERATION, **CONTRASTS},
    "score": SCORES,
}
"""The classes that a group's values may be of, by their kind."""
HOW = {
    "aug": "`+aug=NAME` adds a view, `aug.NAME.FIELD=VALUE` sets a field of it.",
    "benchmark": "`benchmark=NAME` or `'benchmark=[NAME,NAME]'` chooses, "
    "`benchmark.NAME.FIELD=VALUE` sets a field.",
    "dpo": "`dpo=NAME` chooses, `dpo.FIELD=VALUE` sets a field; the kinds are those of "
    "`dpo.weights`, whose fields are `dpo.weights.FIELD=VALUE`.",
    "filters": "A list of rules, one after the other: `'filters=[equal, {kind: KIND, FIELD: 3}]'`.",
    "generation": "`generation=NAME` chooses, `generation.FIELD=VALUE` sets a field; "
    "`generation/contrast=NAME` adds contrastive decoding to `kind: hf`; its fields (the kinds "
    "behind `vllm`) are `generation.contrast.FIELD=VALUE`.",
    "score": "`method=best_of_k +score=NAME` adds a score of candidates, "
    "`method.scores.NAME.FIELD=VALUE` sets a field of it.",
    "experiment": "Presets: `experiment=NAME`. A preset states only what differs.",
    "sweeps": "One primary config for each question: `python -m seva_exp -cn NAME`.",
    "hydra": "Hydra's own groups.",
}
"""How a value is chosen, where it is not as in most groups."""
MOSTLY = "`{0}=NAME` chooses, `{0}.FIELD=VALUE` sets a field."
SWEEPS = "sweeps"


def pages() -> dict[str, str]:
    """Markdown by the page's name: ``config`` for what is in no group, then a page a group."""
    folders = sorted(path.name for path in config_dir().iterdir() if path.is_dir())
    groups = dict.fromkeys([*CLASSES, *folders, SWEEPS])
    return {"config": overview(), **{group: page(group) for group in groups}}


def overview() -> str:
    """The fields that stand in no group, and the primary config."""
    plain = {k: v for k, v in fields(Experiment).items() if k.split(".")[0] not in CLASSES}
    shared = {f"benchmark.{name}": text for name, text in fields(Mode).items()}
    return "\n".join(
        [
            "## Outside the groups",
            "",
            *_table({**fields(Options), **plain, **shared}),
            "",
            "## The primary config",
            "",
            *_file(config_dir() / "config.yaml"),
            "",
        ]
    )


def page(group: str) -> str:
    """One group: the fields of its classes, then its files."""
    lines = [f"# `{group}`", "", HOW.get(group, MOSTLY.format(group)), ""]
    fitted = by_model(group)
    if fitted:
        lines += ["Some defaults are model-specific: `model=tiny` and all others differ.", ""]
    for kind, cls in CLASSES.get(group, {}).items():
        lines += [f"## Fields of `kind: {kind}`" if kind else "## Fields", "", _about(cls), ""]
        rows = {
            name: (value, _by_model(default, fitted.get((kind, name))), what)
            for name, (value, default, what) in fields(cls).items()
        }
        lines += [*_table(rows), ""]
    root = sweeps_dir() if group == SWEEPS else config_dir() / group
    for file in sorted(root.rglob("*.yaml"), key=lambda file: (len(file.parts), file)):
        lines += [f"## {_title(file)}", "", *_file(file), ""]
    return "\n".join(lines)


def by_model(group: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, field) -> what it is with the embedded model, and with any other, as YAML writes them:
    of the fields that ``conf/GROUP/fit/tiny.yaml`` sets, in the primary config's choice."""
    file = config_dir() / group / "fit" / "tiny.yaml"
    primary = yaml.safe_load((config_dir() / "config.yaml").read_text(encoding="utf-8"))
    chosen = [one[group] for one in primary["defaults"] if isinstance(one, dict) and group in one]
    if not (chosen and file.is_file() and (config_dir() / group / f"{chosen[0]}.yaml").is_file()):
        return {}
    tiny = yaml.safe_load(file.read_text(encoding="utf-8"))
    text = (config_dir() / group / f"{chosen[0]}.yaml").read_text(encoding="utf-8")
    other = yaml.safe_load(text)
    kind = str(other.get("kind", ""))
    return {
        (kind, name): (_code(value), _code(other[name]))
        for name, value in tiny.items()
        if name in other and other[name] != value
    }


def _by_model(default: str, values: tuple[str, str] | None) -> str:
    return f"{default} (`model=tiny`: {values[0]}; others: {values[1]})" if values else default


def _title(file: Path) -> str:
    """The words that choose a file."""
    if file.parent == sweeps_dir():
        return f"`-cn {file.stem}`"
    root = sweeps_dir() if sweeps_dir() in file.parents else config_dir()
    group = file.parent.relative_to(root).as_posix()
    if file.parent.name == "fit":
        return f"`{group}/{file.stem}`, taken by itself"
    return f"`{'+' if group == 'aug' else ''}{group}={file.stem}`"


def _about(cls: type[Spec]) -> str:
    """The first paragraph of a class's docstring."""
    return _plain((cls.__doc__ or "").strip().split("\n\n")[0])


def _plain(docstring: str) -> str:
    """One line of Markdown."""
    return " ".join(docstring.split()).replace("``", "`")


def _file(file: Path) -> list[str]:
    """A config file as it is: its opening comment tells what it is, each value has its own."""
    text = file.read_text(encoding="utf-8").rstrip("\n")
    root = sweeps_dir() if sweeps_dir() in file.parents else config_dir()
    return [f'```yaml title="{file.relative_to(root.parent).as_posix()}"', text, "```"]


def _table(fields: Mapping[str, tuple[str, str, str]]) -> list[str]:
    if not fields:
        return ["No fields."]
    rows = [
        f"| `{name}` | {kind} | {default} | {what} |"
        for name, (kind, default, what) in fields.items()
    ]
    return ["| field | value | default | what |", "|---|---|---|---|", *rows]


def fields(cls: type[Spec]) -> dict[str, tuple[str, str, str]]:
    """Value, default and meaning of each field, those of a config inside it under dotted names."""
    schema = cls.model_json_schema()
    return dict(_walk(schema, schema.get("$defs", {}), ""))


def _walk(schema: Json, parts: Json, prefix: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    for name, field in schema.get("properties", {}).items():
        default = _default(name, field, schema)
        if field.get("const") is None:  # `kind` is told by the heading
            what = _plain(field.get("description", ""))
            yield prefix + name, (_cell(_value(field, parts)), _cell(default), _cell(what))
        for part in _parts(field, parts):
            yield from _walk(part, parts, f"{prefix}{name}.")


def _default(name: str, field: Json, schema: Json) -> str:
    if name in schema.get("required", ()):
        return "must be set"
    return "" if "$ref" in field else _code(field.get("default", ""))


def _parts(field: Json, parts: Json) -> list[Json]:
    """The one config that a field may hold; of several, each has a page of its own."""
    branches = [field, *field.get("anyOf", [])]
    names = [branch["$ref"].rsplit("/", 1)[1] for branch in branches if "$ref" in branch]
    return [parts[name] for name in names if "properties" in parts[name]]


def _value(field: Json, parts: Json) -> str:
    """What a field takes, in words: its type, its choices, its bounds."""
    if "$ref" in field:
        part = parts[field["$ref"].rsplit("/", 1)[1]]
        return _value(part, parts) if "enum" in part else "fields below"
    if "discriminator" in field:
        return "a config with a `kind`"
    if branches := field.get("anyOf", field.get("oneOf")):
        return ", or ".join(dict.fromkeys(_value(branch, parts) for branch in branches))
    if "const" in field:
        return _code(field["const"])
    if "enum" in field:
        return ", ".join(_code(value) for value in field["enum"])
    return " ".join([_type(field, parts), *_bounds(field)])


def _type(field: Json, parts: Json) -> str:
    kind = str(field.get("type", "any value"))
    if kind == "array":
        inside = field.get("items") or (field.get("prefixItems") or [{}])[0]
        return f"list of {_value(inside, parts)}" if inside else "list"
    if kind == "object":
        inside = field.get("additionalProperties")
        return f"by name: {_value(inside, parts)}" if isinstance(inside, dict) else "by name"
    return {"boolean": "`true`, `false`", "null": "`null`", "string": "text"}.get(kind, kind)


def _bounds(field: Json) -> list[str]:
    signs = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "minLength": "of length ≥",
        "pattern": "matching",
    }
    bounds = [(sign, field[name]) for name, sign in signs.items() if name in field]
    return [f"{sign} {_code(v) if isinstance(v, str) else f'{v:g}'}" for sign, v in bounds]


def _code(value: Any) -> str:
    """A value as YAML writes it on a command line."""
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
    return f"`{value}`" if value != "" else "empty"


def _cell(text: str) -> str:
    """Text that stays within its cell; in code a bar is one as it is."""
    escaped = re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or "\\|", text)
    return escaped.replace("\n", "↵")


def main(words: Sequence[str] | None = None) -> int:
    """Print the pages of the groups among the ``words``, or all; with ``--schema`` the JSON schema
    of a config. The exit code. ``plugins=[...]`` among them brings their classes."""
    parser = command_parser("options", __doc__, laid_out=True)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="or plugins=[MODULE]")
    parser.add_argument("--schema", action="store_true", help="the config's JSON schema instead")
    args = parser.parse_args(words)
    groups = args.groups
    plugins.load_installed()
    try:
        plugins.load(named(groups))
    except InputError as error:
        tell(str(error))
        return 2
    groups = [word for word in groups if not word.lstrip("+").startswith(FIELD)]
    if args.schema and groups:
        tell(f"--schema: is of the whole config. Leave {groups[0]} out.")
        return 2
    if args.schema:
        print(json.dumps(config_schema(), indent=1, ensure_ascii=False))
        return 0
    found = pages()
    for name in groups or found:
        if name not in found:
            tell(f"{name}: no such group.{suggest(name, found)}")
            return 2
        print(found[name])
    return 0
