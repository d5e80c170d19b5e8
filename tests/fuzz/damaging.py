"""Damage for files: bytes changed anywhere, and JSON values put where others are expected.

Choices are derandomized: the same inputs at every run (hypothesis, ``derandomize``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK, LARGE = 40, 1000
"""Examples a reader, in `make test` and behind the marker ``slow``."""
PIECES = (
    b"", b"\0", b"\n", b"\r", b"\t", b'"', b"'", b"[", b"]", b"{", b"}", b",", b":", b"\\", b"-",
    b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\x1b[31m",
    "\u2028".encode(), "\u0085".encode(), "\u202e".encode(), "😀".encode(), b"<image>", b"null",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"[" * 100_000,
    b"x" * 3000, b"&a [*a, *a]", b"*a", b"!!python/object/apply:os.system [id]", b"? [a]\n: b",
    b"2001-99-99", b"0x", b"true", b"{{", b"%", b"../" * 9, b"/etc/passwd", b"\x1f\x8b", b"PAR1",
)  # fmt: skip
TEXTS = st.sampled_from(
    ["", " ", "x", "\ud800", "a\0b", "<image>", "None", "nan", "../x", "/", ".", "\n", "x" * 3000]
) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """``content`` after one to four changes: a piece put in, taken out, written over or twice, or
    the end cut off."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 2, 9, 99, 10**9])))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
        twice = content[start:end] if draw(st.booleans()) else b""
        content = content[:start] + piece + twice + content[end:]
    return content


@st.composite
def changed(draw: Any, value: Any) -> Any:
    """A JSON value of which one part is another value, is gone, or has another name."""
    value = json.loads(json.dumps(value))
    part = value
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        if not keys:
            return draw(VALUES)
        key = draw(st.sampled_from(keys))
        inner = part[key]
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
            part = inner
            continue
        how = draw(st.sampled_from(["other", "other", "list", "gone", "named"]))
        if how == "other":
            part[key] = draw(VALUES)
        elif how == "list":
            part[key] = [inner] * draw(st.integers(0, 2))
        else:
            del part[key]
            if how == "named" and isinstance(part, dict):
                part[draw(TEXTS)] = inner
        return value


def as_json(value: Any) -> bytes:
    """As a file holds it; halves of surrogate pairs as escapes."""
    return json.dumps(value).encode()


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in rows)


def damaged_json(value: Any, write: Callable[[Any], bytes] = as_json) -> Any:
    """Bytes of a file that held ``value``: its text damaged, or a part of it changed."""
    if write is as_lines:
        rows = changed(value).map(lambda v: write(v) if isinstance(v, list) else as_json(v))
        return damaged(write(value)) | rows
    return damaged(write(value)) | changed(value).map(write)


def examples(strategy: Any, check: Callable[[Any], None], count: int) -> None:
    """``check`` on ``count`` values."""
    silent = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    run = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[*silent, HealthCheck.filter_too_much],
    )
    run(given(strategy)(check))()
