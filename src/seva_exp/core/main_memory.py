"""Main memory that is free: what the system has, within what a container or a batch system (Docker,
Kubernetes, SLURM) leaves of it by Linux's control groups, of version 2 and 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class _Files:
    """Of one version, below /sys/fs/cgroup; ``cache``: the line of memory.stat with the file pages
    that are dropped first. They count as free, as in Kubernetes."""

    top: str
    limit: str
    used: str
    cache: str


V2 = _Files("", "memory.max", "memory.current", "inactive_file")
V1 = _Files("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_bytes(root: Path = Path("/")) -> float:
    """Main memory in bytes."""
    import psutil

    return min(psutil.virtual_memory().available, within_groups(root))


def total_bytes(root: Path = Path("/")) -> float:
    """Main memory in bytes, used or not, within what a container or a batch system allows."""
    import psutil

    limits = (_number(group / files.limit) for group, files in _groups(root))
    return min([psutil.virtual_memory().total, *limits])


def within_groups(root: Path) -> float:
    """Of main memory, by the groups that this process is in; infinite where none has a limit, and
    where there are none. ``root`` is that of the file system."""
    return min((_free(group, files) for group, files in _groups(root)), default=inf)


def _groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """Those of this process and all above them. A container may see its own group as the top one,
    and the host's name for it: names that are not there are passed over."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = V1 if controllers else V2
        inner = PurePosixPath(name.lstrip("/"))
        for some in (inner, *inner.parents):
            yield root / "sys/fs/cgroup" / files.top / some, files


def _number(file: Path) -> float:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return inf


def _free(group: Path, files: _Files) -> float:
    try:
        limit, used = (int((group / name).read_text()) for name in (files.limit, files.used))
        stat = (group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return inf
    cache = sum(int(line.split()[1]) for line in stat if line.split()[0] == files.cache)
    return max(0, limit - used + cache)
