"""In which fields of their config runs differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seva_exp.core.spec import Json, canonical
from seva_exp.report.significance import is_number

Value = str | int | float
ABSENT = object()
"""Stands for a field that a run's config has not."""


def differing(configs: Sequence[Json]) -> dict[str, list[Value | None]]:
    """Dotted field -> its value in each config, None where it is absent. A field that only some
    have, with the same value in all of those, is told by the name that brings it: of a run with
    the views ``moco`` and ``byol`` the column ``aug`` says ``byol+moco``."""
    return dict(_walk("", list(configs)))


def _walk(path: str, nodes: list[object]) -> Iterable[tuple[str, list[Value | None]]]:
    there = [node for node in nodes if node is not ABSENT]
    groups = [node for node in there if isinstance(node, dict)]
    if len(groups) < len(there) or not groups:
        if len({canonical(_name(node)) for node in there}) > 1:
            yield path, [None if node is ABSENT else text(_name(node)) for node in nodes]
        if len(groups) < 2:
            return
    names = list(dict.fromkeys(name for group in groups for name in group))
    if path and not any("kind" in group for group in groups) and _members_differ(groups):
        yield (
            path,
            ["+".join(sorted(node)) if isinstance(node, dict) else None for node in nodes],
        )
    for name in names:
        below = [node.get(name, ABSENT) if isinstance(node, dict) else ABSENT for node in nodes]
        yield from _walk(f"{path}.{name}" if path else name, below)


def _members_differ(groups: Sequence[Json]) -> bool:
    return len({frozenset(group) for group in groups}) > 1


def _name(node: object) -> object:
    """A group beside plain values counts by its kind alone: what is in it has its own fields."""
    return node.get("kind", "given") if isinstance(node, dict) else node


def text(node: object) -> Value:
    """A value as a cell shows it: numbers stay numbers, in six digits."""
    if node is None or isinstance(node, bool):
        return {None: "none", True: "true", False: "false"}[node]
    if isinstance(node, float) and is_number(node):
        return float(f"{node:.6g}")
    if isinstance(node, int | str):
        return node
    if isinstance(node, dict):
        if list(node) == ["kind"] or "kind" not in node:
            return str(node.get("kind", "given"))
        rest = ", ".join(f"{k}={text(v)}" for k, v in node.items() if k != "kind")
        return f"{node['kind']}({rest})"
    if isinstance(node, list):
        return ", ".join(str(text(item)) for item in node) or "none"
    return str(node)


def short_names(fields: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted field, or as many parts as tell it from the others."""
    fields = list(fields)
    found = {}
    for field in fields:
        parts = field.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[-count:])
            if sum(("." + other).endswith("." + name) for other in fields) == 1:
                break
        found[field] = name
    return found


def in_words(fields: dict[str, Value]) -> str:
    """``step=300, beta=0.1``."""
    return ", ".join(f"{name}={value}" for name, value in fields.items())
