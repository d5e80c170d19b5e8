"""Whether what the store holds is what was written: every file is read, and its digest compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seva_exp.benchmarks.replies import damaged_replies
from seva_exp.core.errors import InputError
from seva_exp.core.manifest import PICTURES, Fault, file_faults, read_manifest
from seva_exp.core.records import Sample, read_jsonl
from seva_exp.core.store import Store
from seva_exp.inputs.images import is_as_it_was
from seva_exp.runs.reader import FinishedRun


@dataclass
class Verdict:
    """What was looked at, and what is wrong with it, a line each."""

    artifacts: int = 0
    files: int = 0
    bytes: int = 0
    by_size: int = 0
    """Artifacts from before digests were kept: their files' sizes alone are known."""
    faults: list[str] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)
    """What was set aside before: damaged, or a newer version's."""

    def text(self) -> str:
        """For a person."""
        old = f" (of {self.by_size} of them sizes alone are known)" if self.by_size else ""
        size = self.bytes / 2**20
        lines = [
            *self.faults,
            f"{self.artifacts} artifacts{old}, {self.files} files, {size:.1f} MiB: "
            + (f"{len(self.faults)} faults" if self.faults else "all is what was written"),
        ]
        if self.faults:
            lines.append("What is damaged is made again when a run's command is given again.")
            lines.append("What may not be read is not: its owner can change that (chmod).")
        lines += [f"set aside before, may be deleted: {path}" for path in self.aside]
        return "\n".join(lines)


def verify_store(store: Store) -> Verdict:
    """Everything in it. Raises InputError where there is no store."""
    if not store.root.is_dir():
        raise InputError(f"--store {store.root}: no such folder.")
    found = _verdict(store.artifacts())
    found.faults += damaged_replies(store.root)
    found.aside = sorted([*store.root.glob("*/*.damaged-*"), *store.root.glob("*/*.newer-*")])
    return found


def verify_runs(folders: Sequence[Path]) -> Verdict:
    """What finished runs stand on: the artifacts of their stages. Raises InputError for a folder
    that holds no finished run."""
    artifacts: dict[Path, None] = {}
    gone = []
    for run in map(FinishedRun.read, folders):
        list(run.training())
        for stage in run.report.stages:
            path = run.artifact(stage.name)
            if path.is_dir():
                artifacts[path] = None
            else:
                gone.append(f"{path}: is gone. {run.again}")
    found = _verdict(artifacts)
    found.faults += gone
    return found


def _verdict(artifacts: Iterable[Path]) -> Verdict:
    found = Verdict()
    for artifact in artifacts:
        found.artifacts += 1
        try:
            manifest = read_manifest(artifact)
        except (Fault, InputError) as fault:
            found.faults.append(f"{artifact}: {fault}")
            continue
        found.by_size += not manifest.sha256
        found.files += len(manifest.files)
        found.bytes += sum(manifest.files.values())
        found.faults += [f"{artifact}: {fault}" for fault in file_faults(artifact, manifest)]
        found.faults += [f"{artifact}: {fault}" for fault in _pictures(artifact, found)]
    return found


def _pictures(artifact: Path, found: Verdict) -> Iterator[str]:
    """Of the pictures that an artifact of samples drew."""
    samples = artifact / "samples.jsonl"
    if not (root := artifact / PICTURES).is_dir() or not samples.is_file():
        return
    try:
        refs = {one.image.path: one.image for one in read_jsonl(samples, Sample)}
    except (ValueError, TypeError):  # told already
        return
    for path, ref in refs.items():
        found.files += 1
        if not is_as_it_was(root, ref):
            yield f"{PICTURES}/{path} is damaged or gone"
