"""Names of weights as vLLM knows them. transformers 5 saves a LLaVA that was made in it with
``vision_tower.X``; vLLM 0.32 finds only ``vision_tower.vision_model.X``, as published checkpoints
have it (transformers 5 loads both)."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from seva_exp.core.spec import Json

FAMILIES = ("llava", "llava_next", "llava_onevision")
"""``model_type`` of the models that are meant."""
TOWER, INNER = "vision_tower.", "vision_tower.vision_model."
INDEX = "model.safetensors.index.json"
COPIED = 1 << 24
"""Bytes that are copied at a time."""


def older(name: str) -> str:
    """The name that vLLM knows."""
    new = name.startswith(TOWER) and not name.startswith(INNER)
    return INNER + name.removeprefix(TOWER) if new else name


def needs_older(folder: Path) -> bool:
    """Whether vLLM would not find the weights in this folder by their names."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") not in FAMILIES:
        return False
    return any(older(name) != name for file in _files(folder) for name in _header(file)[0])


def write_older(folder: Path, out: Path) -> None:
    """The checkpoint in ``folder`` with older names in ``out``: the same bytes of weights."""
    out.mkdir(parents=True, exist_ok=True)
    weights = _files(folder)
    for file in sorted(folder.iterdir()):
        if file in weights:
            _write_weights(file, out / file.name)
        elif file.name == INDEX:
            _write_index(file, out / INDEX)
        elif file.is_file() and file.suffix in (".json", ".jinja", ".txt", ".model"):
            shutil.copyfile(file, out / file.name)


def rename_to_older(folder: Path) -> None:
    """The same in the folder itself, a file of weights after the other. Killed in the middle, it
    leaves a folder that no program can load: for one that nobody knows of yet."""
    for file in _files(folder):
        new = file.with_name(f"{file.name}.tmp")
        _write_weights(file, new)
        new.replace(file)
    if (index := folder / INDEX).is_file():
        _write_index(index, index)


def _write_index(file: Path, out: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content["weight_map"] = _renamed(content["weight_map"])
    out.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def _renamed(header: Mapping[str, object]) -> Json:
    return {older(name): value for name, value in header.items()}


def _header(file: Path) -> tuple[Json, int]:
    """What a file of weights says of them (it begins with the header's length, 8 bytes), and where
    they begin."""
    with file.open("rb") as content:
        return _read_header(content)


def _read_header(content: IO[bytes]) -> tuple[Json, int]:
    (size,) = struct.unpack("<Q", content.read(8))
    return json.loads(content.read(size)), 8 + size


def _write_weights(file: Path, out: Path) -> None:
    with file.open("rb") as content, out.open("wb") as new:
        header, _ = _read_header(content)
        text = json.dumps(_renamed(header)).encode()
        text += b" " * (-len(text) % 8)  # where tensors begin is aligned
        new.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(content, new, COPIED)
