"""Why a stage of two runs has another key: the fields of its spec that differ, or those of an input
of an input, followed to where the difference comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from pydantic import ValidationError

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, suggest
from seva_exp.core.manifest import Fault, read_manifest
from seva_exp.core.printable import ends, one_line
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import KEY_LENGTH
from seva_exp.experiment.graph import graph
from seva_exp.experiment.value import Experiment
from seva_exp.inputs.user_paths import data_root
from seva_exp.runs.links import followed
from seva_exp.runs.listing import RunFolder
from seva_exp.stages import Stage

ABSENT = "(absent)"
MOST = 12
"""Fields that are told of one stage."""


@dataclass(frozen=True)
class Node:
    """What a key was made of. ``inputs``: label -> key, in their order."""

    version: int
    spec: Json
    inputs: dict[str, str]


@dataclass(frozen=True)
class Root:
    """Where two stages begin to differ: ``path`` are the labels from the asked stage down (of the
    first run, with the second's where that is another), ``fields`` the dotted fields of the spec
    with both values."""

    path: tuple[str, ...]
    fields: tuple[tuple[str, Any, Any], ...]


@dataclass(frozen=True)
class Why:
    """Empty ``roots``: the keys are equal."""

    stage: str
    a: str
    b: str
    keys: tuple[str, str]
    roots: tuple[Root, ...]

    def to_json(self) -> Json:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For a person."""
        first, second = (key[:12] for key in self.keys)
        if not self.roots:
            yield f"{self.stage}: the same in both ({first}): made once, read by both"
            return
        yield f"{self.stage}: {first} in A ({self.a}), {second} in B ({self.b})"
        for root in self.roots:
            yield f"because of {' <- '.join(reversed(root.path))}:"
            for name, a, b in root.fields[:MOST]:
                yield f"  {name}"
                yield f"    A: {_shown(a)}"
                yield f"    B: {_shown(b)}"
            if len(root.fields) > MOST:
                yield f"  and {len(root.fields) - MOST} fields more (--json has all)"


def _shown(value: Any) -> str:
    return str(value) if value == ABSENT else one_line(ends(canonical(value)))


def why(label: str, a: RunFolder, b: RunFolder) -> Why:
    """Raises InputError for a stage that a run does not have, and where what a key was made of
    cannot be told any more."""
    one, two = _Made(a), _Made(b)
    keys = (one.key(label), two.key(label))
    roots = tuple(_roots(one, two, (label, label), (), set())) if keys[0] != keys[1] else ()
    return Why(label, a.path.name, b.path.name, keys, roots)


def _roots(
    a: _Made, b: _Made, labels: tuple[str, str], above: tuple[str, ...], seen: set[tuple[str, str]]
) -> Iterator[Root]:
    """Depth first, in the order of the inputs; each pair of stages once."""
    if labels in seen:
        return
    seen.add(labels)
    first, second = a.node(labels[0]), b.node(labels[1])
    path = (*above, labels[0] if labels[0] == labels[1] else f"{labels[0]} (B: {labels[1]})")
    versions = {"version": first.version}, {"version": second.version}
    fields = [*differing(*versions), *differing(first.spec, second.spec)]
    unequal = []
    for left, right in zip_longest(first.inputs.items(), second.inputs.items()):
        if left is None or right is None:
            label = (left or right or ("",))[0]
            fields.append((f"input {label}", left is not None, right is not None))
        elif left[1] != right[1]:
            unequal.append((left[0], right[0]))
    if fields:
        yield Root(path, tuple(fields))
    for pair in unequal:
        yield from _roots(a, b, pair, path, seen)


def differing(a: Any, b: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """The plain values that differ, by dotted field, in the fields' order; a list as a whole where
    its length differs, of values of two kinds the kinds alone: other fields follow from that."""
    if isinstance(a, dict) and isinstance(b, dict):
        if canonical(a.get("kind")) != canonical(b.get("kind")):
            field = f"{name}.kind" if name else "kind"
            return [(field, a.get("kind", ABSENT), b.get("kind", ABSENT))]
        found = []
        for key in dict.fromkeys([*a, *b]):
            field = f"{name}.{key}" if name else str(key)
            found += differing(a.get(key, ABSENT), b.get(key, ABSENT), field)
        return found
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        both = enumerate(zip(a, b, strict=True))
        return [row for n, (x, y) in both for row in differing(x, y, f"{name}.{n}")]
    return [] if canonical(a) == canonical(b) else [(name, a, b)]


class _Made:
    """What a run's keys were made of: by the artifacts' manifests, and where these are gone or not
    there yet, by the run's config anew."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def key(self, label: str) -> str:
        if label not in self._run.keys:
            known = suggest(label, self._run.keys)
            raise InputError(f"{one_line(label)}: {self._run.path.name} has no such stage.{known}")
        return self._run.keys[label]

    def node(self, label: str) -> Node:
        key = self.key(label)
        artifact = followed(self._run.path / label)
        try:
            found = read_manifest(artifact)
            if found.key == key:
                return Node(found.version, found.spec, self._labelled(found.inputs))
        except (Fault, InputError):
            pass
        stage = self._stages.get(label)
        if stage is None or stage.key != key:
            raise InputError(
                f"{self._run.path.name}: what the key of {label} ({key[:KEY_LENGTH]}) was made of "
                "cannot be told: its artifact is gone, and this version of seva_exp makes another "
                "key of the run's config."
            )
        inputs = {one.label: one.key for one in stage.inputs.values()}
        return Node(stage.version, json.loads(canonical(stage.spec())), inputs)

    def _labelled(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """An artifact that another run made knows its inputs by that run's labels."""
        own = {key: label for label, key in self._run.keys.items()}
        return {own.get(key, label): key for label, key in inputs.items()}

    @cached_property
    def _stages(self) -> dict[str, Stage]:
        """By label. Looks at files of data; loads no model."""
        config, known = self._run.config, Experiment.model_fields
        try:
            fields = {name: value for name, value in config.items() if name in known}
            experiment = Experiment.model_validate_json(json.dumps(fields))
            digests = FileDigests(self._run.store or self._run.path)
            root = data_root(config.get("data_root"))
            return {one.label: one for one in graph(experiment, digests, root)}
        except (InputError, ValidationError, OSError):
            return {}
