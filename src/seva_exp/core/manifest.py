"""An artifact's manifest, and whether the artifact is still what the manifest says."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from stat import S_ISREG

from seva_exp.core.digests import file_sha256
from seva_exp.core.disk import message_of_disk
from seva_exp.core.errors import InputError
from seva_exp.core.files import write_whole
from seva_exp.core.spec import Json

MANIFEST = "manifest.json"
PICTURES = "images"
"""Pictures that a stage drew: thousands, so that they are in no manifest. The samples hold their
digests, and ``load_image`` compares."""
LARGE = 2**30
"""Bytes of a file (an adapter of rank 1024) that is read for its digest only where a stage reads
it, too."""


@dataclass(frozen=True)
class Manifest:
    """Written last into an artifact: everything that its key was made of, and how it was made."""

    stage: str
    version: int
    key: str
    spec: Json
    inputs: dict[str, str]
    environment: Json
    seconds: float
    summary: Json = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    """Sizes in bytes of the artifact's files."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Digests of the same files; none in an artifact from before they were kept."""
    own: str = ""
    """Digest of the rest but ``spec`` (the key is made of it) and ``environment`` (no result is):
    what a run reports and checks."""

    @cached_property
    def whole(self) -> bool:
        """Whether what is in it is what was written."""
        old = not self.own and not self.sha256
        return old or self.own == self._own()

    def _own(self) -> str:
        told = [self.stage, self.version, self.key, self.inputs, self.seconds, self.summary]
        written = json.loads(json.dumps([*told, self.files, self.sha256]))
        return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()

    def sealed(self, artifact: Path) -> Manifest:
        """With sizes and digests of the artifact's files, each read once."""
        found = list(_files(artifact))
        names = [path.relative_to(artifact).as_posix() for path in found]
        sizes = dict(zip(names, (path.stat().st_size for path in found), strict=True))
        digests = dict(zip(names, map(file_sha256, found), strict=True))
        made = replace(self, files=sizes, sha256=digests)
        return replace(made, own=made._own())

    def write(self, artifact: Path) -> None:
        """Into its folder, whole or not at all."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        write_whole(artifact / MANIFEST, text)


class Fault(ValueError):
    """Why an artifact cannot be used, for a person."""


class Newer(Fault):
    """Its manifest has fields that this version does not know."""


def read_manifest(artifact: Path) -> Manifest:
    """Raises Fault where there is none that can be used, InputError where it cannot be read."""
    file = artifact / MANIFEST
    try:
        if not S_ISREG(file.stat().st_mode):  # a pipe, say, would be waited for
            raise Fault(f"{MANIFEST} is no file")
        row = json.loads(file.read_bytes())
        known = {one.name: one for one in fields(Manifest)}
        needed = {
            name
            for name, one in known.items()
            if one.default is MISSING and one.default_factory is MISSING
        }
        if (unknown := set(row) - set(known)) and needed <= set(row):
            raise Newer(
                f"{MANIFEST} has fields that this version of seva_exp does not know "
                f"({', '.join(sorted(unknown))}): a newer one made it"
            )
        found = Manifest(**row)
        if not isinstance(found.files, dict) or not isinstance(found.sha256, dict):
            raise TypeError
        if not found.whole:
            raise Fault(f"{MANIFEST} is damaged (its contents have another digest)")
        return found
    except OSError as error:
        raise _of_system(artifact, MANIFEST, error) from error
    except Fault:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Fault(f"{MANIFEST} is damaged ({type(error).__name__})") from None


def is_there(artifact: Path, name: str = "") -> bool:
    """Whether the artifact, or a file of it, is there. Raises InputError where that cannot be
    seen."""
    try:
        return (artifact / name).exists()
    except OSError as error:
        if isinstance(found := _of_system(artifact, name, error), Fault):
            return True  # a disk that does not say is looked at again
        raise found from error


def check_size(artifact: Path, manifest: Manifest, name: str) -> None:
    """Raises Fault for a file that is gone or has another size, and InputError for one that may not
    be looked at."""
    try:
        found = (artifact / name).stat().st_size
    except OSError as error:
        raise _of_system(artifact, name, error) from error
    if found != manifest.files[name]:
        raise Fault(f"{name} is damaged ({found} bytes, not {manifest.files[name]})")


def check_bytes(artifact: Path, manifest: Manifest, name: str) -> None:
    """Raises Fault for a file that is gone or whose bytes are not those that were written, and
    InputError for one that may not be read."""
    check_size(artifact, manifest, name)
    try:
        found = file_sha256(artifact / name)
    except OSError as error:
        raise _of_system(artifact, name, error) from error
    if found != manifest.sha256.get(name, found):
        raise Fault(f"{name} is damaged (its bytes have another digest)")


def check(artifact: Path, large: bool = True) -> Manifest:
    """The manifest of a whole artifact; without ``large`` its LARGE files are not read. Raises
    Fault, and InputError for what may not be read."""
    found = read_manifest(artifact)
    for name in found.files:
        check_size(artifact, found, name)
    for name, size in found.files.items():
        if large or size < LARGE:
            check_bytes(artifact, found, name)
    return found


def file_faults(artifact: Path, manifest: Manifest) -> Iterator[Exception]:
    """What is wrong with each of its files."""
    for name in manifest.files:
        try:
            check_bytes(artifact, manifest, name)
        except (Fault, InputError) as fault:
            yield fault


def check_file(artifact: Path, name: str) -> None:
    """One file of an artifact, if both are there. Raises Fault for what is damaged, InputError for
    what may not be read."""
    if not is_there(artifact, name) or not is_there(artifact, MANIFEST):
        return
    try:
        found = read_manifest(artifact)
    except Newer:
        return
    if name in found.files:
        check_bytes(artifact, found, name)


def _of_system(artifact: Path, name: str, error: OSError) -> Fault | InputError:
    """A file that is gone, or that the disk does not give back any more, is damage; one that may
    not be read, or cannot just now, is not."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Fault(f"{name} is gone")
    if error.errno in (errno.EIO, errno.ELOOP):
        return Fault(f"{name} is damaged ({error.strerror})")
    if isinstance(error, PermissionError):
        return InputError(
            f"{artifact / name}: may not be read ({error.strerror}). Its owner can change that: "
            f"chmod -R a+rX {artifact}"
        )
    return InputError(message_of_disk(error, artifact))


def _files(artifact: Path) -> Iterator[Path]:
    """All of an artifact but its pictures and what only the work needed."""
    for path in sorted(artifact.iterdir()):
        if path.is_dir() and path.name not in (PICTURES, "parts", "trainer"):
            yield from (file for file in sorted(path.rglob("*")) if file.is_file())
        elif path.is_file() and path.name not in (MANIFEST, "journal.jsonl"):
            yield path
