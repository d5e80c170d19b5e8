"""What of the official benchmarks is there, and what is missing and where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seva_exp.benchmarks import OFFICIAL
from seva_exp.benchmarks.official import Official
from seva_exp.benchmarks.protocols import packaged_protocols
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.interfaces import Progress

SHOWN = 5
"""Pictures that cannot be opened and are told by name."""


@dataclass(frozen=True)
class Entry:
    """One benchmark: ``state`` is found, missing or damaged; ``detail`` tells the rest."""

    name: str
    state: str
    detail: str


def inventory(root: Path | None, deep: Progress | None = None) -> Iterator[Entry]:
    """Every official benchmark below ``root``. ``deep`` opens every picture, and is how that is
    watched."""
    for kind, cls in sorted(OFFICIAL.items()):
        benchmark = cls(kind=kind)
        if root is None or not benchmark.present(root):
            goes = benchmark.goes(root or Path("DATA_ROOT"))
            yield Entry(kind, "missing", f"put\n{goes}")
            continue
        try:
            yield Entry(kind, "found", _found(benchmark, root, deep))
        except InputError as error:
            yield Entry(kind, "damaged", str(error))


def _found(benchmark: Official, root: Path, deep: Progress | None) -> str:
    """Rows, pictures, protocols. Raises InputError for what is wrong."""
    loaded = benchmark.load(root)
    pictures = list(dict.fromkeys(item.picture for item in loaded.items if item.picture))
    if deep:
        broken = []
        with deep(benchmark.kind, len(pictures), "picture") as meter:
            for picture in pictures:
                try:
                    picture.load()
                except StageError as error:
                    broken.append(str(error))
                meter.update(1)
        if broken:
            more = f" And {len(broken) - SHOWN} more." if len(broken) > SHOWN else ""
            raise InputError(
                f"{len(broken)} of {len(pictures)} pictures cannot be opened: "
                f"{' '.join(broken[:SHOWN])}{more}"
            )
    files = ", ".join(sorted({path.relative_to(root).parts[0] for path in loaded.files}))
    state = "opened" if deep else "present"
    protocols = ", ".join(packaged_protocols(benchmark.kind))
    waiting = ""
    try:
        benchmark.judging(root)
    except InputError as error:
        waiting = f"\n  no judge can be asked yet: {error}"
    return (
        f"{len(loaded.items)} questions, {len(pictures)} pictures {state}, in {files}; "
        f"protocols: {protocols}{waiting}"
    )
