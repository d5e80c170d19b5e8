"""Which model: a hub id or a folder, or the embedded one. No heavy import."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from PIL.Image import Image
from pydantic import Field

from seva_exp.core.errors import InputError, nearest
from seva_exp.core.paths import MARKER
from seva_exp.core.printable import error_text
from seva_exp.core.runtime import hush, settle
from seva_exp.core.spec import Json, Spec
from seva_exp.inputs.images import IMAGE_SUFFIXES
from seva_exp.models.checkpoint import check_files
from seva_exp.models.padding import squared
from seva_exp.models.processor import load_processor

NO_PART = IMAGE_SUFFIXES | {".md"}
"""Endings (lower case) of files in a checkpoint folder that only people read."""


class HubModel(Spec):
    """A model of the Hugging Face hub, or a folder in the same layout."""

    ours: ClassVar[bool] = False
    """Whether its files are this package's own."""
    kind: Literal["hub"] = "hub"
    path: str
    """Hub id (``organisation/name``) or a folder that holds ``config.json``."""
    revision: str = "main"
    """Branch, tag or commit of a hub id. A commit makes the run repeatable for ever."""
    system_prompt: str | None = None
    """Text of the system turn; none sends no system turn."""
    pad_to_square: bool = False
    """Pad the picture to a square in the processor's mean colour before it, as LLaVA-1.5 does."""
    quantization: Literal["nf4"] | None = None
    """``nf4``: the language model's frozen weights in 4 bits (QLoRA, arXiv 2305.14314), double
    quantization, computing in ``machine.dtype``; vision tower, projector and LM head stay whole.
    Needs bitsandbytes and a CUDA device. None: every weight in ``machine.dtype``."""
    max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Larger pictures are made smaller by the processor (height x width, aspect ratio kept). Only
    for models of native resolution: Qwen2.5-VL spends a token on 28x28 pixels, Qwen3-VL on 32x32.
    None: the checkpoint's own bound."""

    def check(self) -> None:
        """Cheap checks that need no network. Raises InputError naming ``model.path``."""
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise InputError(f"model.path={self.path}: this folder has no config.json.")
            check_files(folder, f"model.path={self.path}")
        elif not re.fullmatch(r"[\w.-]+/[\w.-]+", self.path):
            near = nearest(folder.name, _folders(folder.parent))
            hint = f" Did you mean '{folder.parent / near}'?" if near else ""
            raise InputError(
                f"model.path={self.path}: no such folder, nor a hub id like 'organisation/name'."
                f"{hint}"
            )

    def prepare(self) -> None:
        """Make sure that the model can be had, before any work starts. Raises InputError."""
        if self.quantization:
            check_quantization(self.quantization)
        if not Path(self.path).expanduser().is_dir():
            self._fetch_config()
        settle()
        hush()
        load_processor(self)

    def _fetch_config(self) -> None:
        """Raises InputError where the hub's config cannot be had, or is none of ours."""
        import huggingface_hub as hub
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        faults = (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError, ValueError)
        name, version = "config.json", self.revision
        try:
            if not isinstance(hub.try_to_load_from_cache(self.path, name, revision=version), str):
                # Looked up once: a download would try again for half a minute.
                hub.get_hf_file_metadata(hub.hf_hub_url(self.path, name, revision=version))
            config = hub.hf_hub_download(self.path, name, revision=version)
        except faults as error:
            raise InputError(
                f"model.path={self.path} (revision {self.revision}): neither in the local cache "
                f"nor to be had from the hub ({error_text(error, first_line=True)}). Download it "
                "where there is a network (`hf download ID`), or give a folder."
            ) from None
        check_files(Path(config).parent, f"model.path={self.path}", whole=False)

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        """All that decides the model's answers: the id and revision, or the folder's contents."""
        folder = Path(self.path).expanduser()
        values = self.to_json()
        for later in ("quantization", "max_pixels"):  # unset, it keeps the key it had before them
            if values[later] is None:
                del values[later]
        if folder.is_dir():
            values["path"] = checkpoint_digest(folder, sha256)
            del values["revision"]
        return values

    def squared(self, image: Image) -> Image:
        """The picture as it goes to the processor: with ``pad_to_square`` on a square."""
        return squared(image, self.location(), self.revision) if self.pad_to_square else image

    def location(self) -> str:
        """The argument of ``from_pretrained``."""
        folder = Path(self.path).expanduser()
        return str(folder) if folder.is_dir() else self.path


class TinyModel(Spec):
    """The embedded 1.7 M-parameter LLaVA of the synthetic world (docs/tiny_world.md)."""

    ours: ClassVar[bool] = True
    kind: Literal["tiny"] = "tiny"

    @property
    def system_prompt(self) -> str | None:
        return None

    @property
    def pad_to_square(self) -> bool:
        return True

    @property
    def revision(self) -> str:
        return "main"

    @property
    def quantization(self) -> None:
        return None

    @property
    def max_pixels(self) -> None:
        return None

    def check(self) -> None:
        """Raises InputError when the package lost its checkpoint."""
        if not (TINY_CHECKPOINT / "model.safetensors").is_file():
            raise InputError(f"model=tiny: {TINY_CHECKPOINT} holds no weights; run `make tiny`.")

    def prepare(self) -> None:
        """Nothing to fetch."""

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        """The contents of the checkpoint's files."""
        return {"kind": self.kind, "path": checkpoint_digest(TINY_CHECKPOINT, sha256)}

    def squared(self, image: Image) -> Image:
        """The picture as it goes to the processor: on a square."""
        return squared(image, self.location(), self.revision)

    def location(self) -> str:
        """The checkpoint's folder in the package."""
        return str(TINY_CHECKPOINT)


def check_quantization(name: str) -> None:
    """Raises InputError where weights of 4 bits cannot be computed with."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"model.quantization={name}: the package bitsandbytes is not installed. "
            "pip install bitsandbytes, or take model.quantization=null."
        )
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            f"model.quantization={name}: this machine has no CUDA device, which its arithmetic "
            "needs. Take model.quantization=null."
        )


TINY_CHECKPOINT = Path(__file__).parent / "tiny_checkpoint"


def checkpoint_digest(folder: Path, sha256: Callable[[Path], str]) -> dict[str, str]:
    """Path in the folder -> SHA-256 of each file that may decide the answers: all but hidden
    files, pictures, Markdown, compiled code and the outputs of runs."""
    digests = {}
    for name, file in sorted(_parts(folder)):
        try:
            digests[name] = sha256(file)
        except OSError as error:
            raise InputError(
                f"model.path: {str(file)!r} cannot be read: {error.strerror or error}."
            ) from error
    return digests


def _parts(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of the parts of a checkpoint. Links are followed, each folder is visited once;
    by which of its paths depends on names alone."""
    pending, seen = [(folder, "")], set()
    while pending:
        current, prefix = pending.pop()
        if (real := os.path.realpath(current)) in seen:
            continue
        seen.add(real)
        for file in sorted(_entries(current)):
            name = prefix + file.name.encode("utf-8", "backslashreplace").decode()
            if file.name.startswith(".") or file.name == "__pycache__":
                continue
            if os.path.isfile(file):
                if file.suffix.lower() not in NO_PART:
                    yield name, file
            elif os.path.isdir(file) and not os.path.lexists(file / MARKER):
                pending.append((file, f"{name}/"))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"model.path: {str(folder)!r} cannot be read: {error.strerror}."
        ) from error


def _folders(parent: Path) -> list[str]:
    return [file.name for file in _entries(parent) if file.is_dir()] if parent.is_dir() else []
