"""The names that an override may have, of every run and of this one; which of them a wrong one
means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from seva_exp.benchmarks import Mode
from seva_exp.command.config import MANY_OF, MAYBE, ONE_OF, OTHERS, PLAIN, SHARED, part_of
from seva_exp.core.spec import Json, Spec
from seva_exp.core.synonyms import ours
from seva_exp.data import DATA
from seva_exp.decoding import CONTRASTS
from seva_exp.experiment import Options, SweepOptions
from seva_exp.scores import SCORES

TOLD = 3
"""The most fields that are named where several may be meant."""


def _names(path: str, cls: type[Spec]) -> list[str]:
    """Dotted names of a class's fields, with those of the configs inside it."""
    found = []
    for name in cls.model_fields:
        part = part_of(cls, name)
        found += [f"{path}.{name}", *(_names(f"{path}.{name}", part) if part else [])]
    return found


def _top() -> list[str]:
    groups = (*ONE_OF, *PLAIN, *MAYBE, "instructions", *MANY_OF)
    shared = (f"benchmark.{field}" for field in (*Mode.model_fields, *SHARED))
    return [
        *Options.model_fields, *OTHERS, "experiment", *groups,
        *_names("sweep", SweepOptions), *shared,
    ]  # fmt: skip


def known_fields() -> list[str]:
    """Every dotted field name that an override may have, for suggestions."""
    plain = {name: {"": cls} for name, cls in {**PLAIN, **MAYBE}.items()}
    groups = {**ONE_OF, **plain, "instructions": DATA}
    names = _top()
    for group, classes in groups.items():
        for cls in classes.values():
            names += _names(group, cls)
    for group, classes in MANY_OF.items():
        for kind, cls in classes.items():
            names += [f"{group}.{kind}.{field}" for field in cls.model_fields]
    names += [f"generation.contrast.{f}" for cls in CONTRASTS.values() for f in cls.model_fields]
    names += [
        f"method.scores.{k}.{field}" for k, cls in SCORES.items() for field in cls.model_fields
    ]
    return sorted(set(names))


def fields_of(config: Json) -> list[str]:
    """Those of a composed config: of what it chose in each group, in the groups' order."""
    return list(dict.fromkeys([*_top(), *_chosen(config)]))


def _chosen(config: Json) -> Iterator[str]:
    order = ("dpo", "generation", "data", "benchmark", "aug", "model", "method", "machine")
    for group in (*order, *(name for name in config if name not in order)):
        node = config.get(group)
        if not isinstance(node, dict):
            continue
        for name, one in (node if group in MANY_OF else {"": node}).items():
            path = f"{group}.{name}".rstrip(".")
            if isinstance(one, dict) and (cls := _class_of(group, one)):
                yield from _names(path, cls)


def _class_of(group: str, node: Json) -> type[Spec] | None:
    plain = {**PLAIN, **MAYBE}.get(group)
    classes = {**ONE_OF, **MANY_OF, "instructions": DATA}.get(group, {})
    return plain or classes.get(str(node.get("kind")))


def meant(key: str, here: Iterable[str], known: Iterable[str]) -> list[str]:
    """The fields that ``key``, which is none, may mean, the likeliest first: those of ``here``,
    the run's own, before all that are ``known``."""
    for names in (list(here), list(known)):
        if found := _same(key, names) or _near(key, names):
            return found[:TOLD]
    return []


def _same(key: str, names: list[str]) -> list[str]:
    """By another word for it, or by its last part; in its own group where it is there."""
    group, _, _ = key.rpartition(".")
    last = key.rpartition(".")[2]
    found = ours(last, set(names)) if last not in names else [last]
    found += [name for name in names if name.endswith(f".{last}") and name not in found]
    top = group.split(".")[0]
    inside = [name for name in found if top and name.split(".")[0] == top]
    return inside or found


def _near(key: str, names: list[str]) -> list[str]:
    """By spelling: of the whole, or of the last part alone."""
    if whole := get_close_matches(key, names, n=1, cutoff=0.6):
        return whole
    if "." in key:
        return []
    last = {name.rpartition(".")[2]: name for name in reversed(names)}
    return [last[one] for one in get_close_matches(key, last, n=1, cutoff=0.7)]
