"""The artifacts of a run on the CPU and of one on a fake GPU: how far apart they are."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

CLOSE = 1e-5
"""Absolute, or of the number itself: rounding in float32."""
RESULTS = ("answers", "predictions", "reference", "metrics", "pairs", "scores", "deltas")
"""Files that depend on the key alone."""


def without(store: Path, copy: Path, *stages: str) -> Path:
    """A copy of a store in which these stages are still to be done."""
    shutil.copytree(store, copy)
    for stage in stages:
        shutil.rmtree(copy / stage, ignore_errors=True)
    return copy


def compare(one: Path, other: Path) -> list[str]:
    """What differs by more than rounding; raises AssertionError where nothing was compared."""
    files = [file for name in RESULTS for file in sorted(one.glob(f"*/*/{name}.jsonl"))]
    adapters = sorted(one.glob("*/*/adapter/adapter_model.safetensors"))
    assert files
    found = [text for file in files for text in compare_rows(file, other / file.relative_to(one))]
    found += [
        text for file in adapters for text in compare_weights(file, other / file.relative_to(one))
    ]
    return found


def compare_rows(one: Path, other: Path) -> Iterator[str]:
    """Of two files of JSON lines."""
    rows = [[json.loads(line) for line in f.read_text().splitlines()] for f in (one, other)]
    if len(rows[0]) != len(rows[1]):
        yield f"{one}: {len(rows[0])} rows, {len(rows[1])}"
    for number, pair in enumerate(zip(*rows, strict=False)):
        for where, a, b in unlike(*pair):
            yield f"{one.parent.parent.name}/{one.name}:{number + 1}{where}: {a} is not {b}"


def unlike(a: Any, b: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Numbers that are apart, and all else that is not equal, with their place in the value."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        even = abs(a.get("rewards/margins", 1.0)) <= CLOSE  # its sign is rounding
        for key in a:
            if not (even and key == "rewards/accuracies"):
                yield from unlike(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, pair in enumerate(zip(a, b, strict=True)):
            yield from unlike(*pair, f"{where}[{number}]")
    elif isinstance(a, float) and isinstance(b, float):
        if not math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE):
            yield where, a, b
    elif a != b:
        yield where, a, b


def compare_weights(one: Path, other: Path) -> Iterator[str]:
    """Of two adapters."""
    a, b = load_file(one), load_file(other)
    if a.keys() != b.keys():
        yield f"{one}: other weights"
    for name in a.keys() & b.keys():
        if (far := float(abs(a[name] - b[name]).max())) > CLOSE:
            yield f"{one.parent.parent.parent.name}: {name} is {far:.1e} off"
