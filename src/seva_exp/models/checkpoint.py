"""A checkpoint's files, before anything heavy is imported or read: no pickles, no code of its own,
whole weight files, a layout that transformers loads; else refused by name. No heavy import."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

from seva_exp.core.errors import InputError
from seva_exp.core.printable import ends, error_text
from seva_exp.core.spec import Json

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
LARGEST_JSON = 1 << 26
"""Bytes of a config, and of the header of a weight file (safetensors' own bound is 100 MB)."""
LARGEST_SIDE = 1 << 14
"""Pixels of a side to which an image processor brings pictures."""
BOUNDS = {
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "depth"), 2_000),
    **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 10_000_000),
}
"""Largest numbers that a config may hold, far above any model's; the least is 1."""
OWN_LAYOUT = {
    "llava_llama": "llava-hf/llava-1.5-7b-hf (model=llava15_7b), llava-hf/llava-1.5-13b-hf "
    "(model=llava15_13b) or llava-hf/llava-v1.6-vicuna-7b-hf (model=llava16_vicuna_7b)",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf (model=llava16_mistral_7b)",
    "llava_qwen": "llava-hf/llava-onevision-qwen2-7b-ov-hf (model=llava_onevision_7b)",
    "internvl_chat": "OpenGVLab/InternVL3-8B-hf (model=internvl3_8b)",
}
"""model_type of checkpoints in their authors' own layout -> the same models in transformers'."""
OWN_CLASSES = {"LlavaLlama": "llava_llama", "LlavaMistral": "llava_mistral"}
"""How names of such models' classes begin; older ones call their model_type llava."""


class Checkpoint(Protocol):
    """Which checkpoint, and how it is asked: ``models.spec`` has the kinds."""

    ours: ClassVar[bool]

    @property
    def revision(self) -> str: ...

    @property
    def system_prompt(self) -> str | None: ...

    @property
    def max_pixels(self) -> int | None: ...

    def location(self) -> str: ...


def check_files(folder: Path, where: str, whole: bool = True) -> None:
    """Raises InputError, which begins with ``where``, for a folder that cannot be a model. Where it
    is not ``whole``, weights may be missing: the hub's cache, before they are fetched."""
    config = read_object(folder / "config.json", where)
    _check_config(config, where)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            _check_sizes(read_object(folder / name, where), f"{where}: {name}")
    if (folder / "generation_config.json").is_file():
        _check_ids(read_object(folder / "generation_config.json", where), config, where)
    files = [file for file in _weight_files(folder, where) if whole or file.exists()]
    tensors = sum(check_weights(file, where) for file in files)
    if not files and whole:
        raise no_weights(folder, where)
    if files and (layers := _largest(config, "num_hidden_layers")) > tensors and whole:
        raise InputError(f"{where}: config.json tells {layers} layers, its weights are {tensors}.")


def read_object(file: Path, where: str) -> Json:
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError(f"more than {LARGEST_JSON >> 20} MB")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = error_text(error)
        raise InputError(f"{where}: {file.name} cannot be read: {problem}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{where}: {file.name}: a JSON object {{...}} is needed.")
    return content


def _check_config(config: Json, where: str) -> None:
    kind = str(config.get("model_type", ""))
    classes = config.get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    own = next((kind_ for name, kind_ in OWN_CLASSES.items() if first.startswith(name)), kind)
    if own in OWN_LAYOUT:
        raise InputError(
            f"{where}: weights in their authors' own layout (model_type {kind}), which "
            "transformers does not load. Take the same model in transformers' layout: "
            f"{OWN_LAYOUT[own]}; weights of one's own are converted by transformers' "
            "convert_*_weights_to_hf.py."
        )
    for name, most in BOUNDS.items():
        for value in _values(config, name):
            if not 1 <= value <= most:
                raise InputError(f"{where}: config.json: {name}={value}: 1 to {most} is possible.")
    if auto := config.get("auto_map"):
        named = ", ".join(sorted(map(str, auto.values()))) if isinstance(auto, dict) else auto
        raise InputError(
            f"{where}: config.json names code of its own (auto_map: {ends(str(named))}), which is "
            "not run. Take a checkpoint of transformers' own classes; if this is one, take "
            "auto_map out of its config.json."
        )


def _check_sizes(settings: Json, where: str) -> None:
    """Of pictures, as the image processor makes them. Sides are bounded; a longest edge that stands
    beside a shortest one may be a number of pixels."""
    inner = settings.get("image_processor")
    for values in (settings, inner if isinstance(inner, dict) else {}):
        for name in ("size", "crop_size"):
            size = values.get(name)
            sides = size if isinstance(size, dict) else {"": size}
            if {"shortest_edge", "longest_edge"} <= sides.keys():
                continue
            for side, value in sides.items():
                if isinstance(value, int | float) and not 0 < value <= LARGEST_SIDE:
                    field = f"{name}.{side}".rstrip(".")
                    bounds = f"a picture's side is 1 to {LARGEST_SIDE} pixels"
                    raise InputError(f"{where}: {field}={value}: {bounds}.")


def _check_ids(generation: Json, config: Json, where: str) -> None:
    """Special ids are tokens of the vocabulary."""
    size = _largest(config, "vocab_size")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = generation.get(name)
        for id in (value or [""]) if isinstance(value, list) else [value]:
            whole = type(id) is int and (not size or 0 <= id < size)
            if id is not None and not whole:
                raise InputError(
                    f"{where}: generation_config.json: {name}={ends(str(value))}: a token of the "
                    f"vocabulary is needed (0 to {size - 1})."
                )


def _largest(config: Json, name: str) -> int:
    return max(_values(config, name), default=0)


def _values(config: Json, name: str) -> list[int]:
    """The whole numbers under ``name`` in the config and its parts."""
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    return [part[name] for part in parts if type(part.get(name)) is int]


def _weight_files(folder: Path, where: str) -> Iterator[Path]:
    """The model's files of weights: those that its index names, else all there are."""
    if not (folder / INDEX).is_file():
        yield from sorted(folder.glob("model*.safetensors"))
        return
    names = read_object(folder / INDEX, where).get("weight_map")
    if not isinstance(names, dict):
        raise InputError(f"{where}: {INDEX}: the object 'weight_map' is missing.")
    for name in sorted({*map(str, names.values())}):
        if os.path.basename(name) != name or not name.endswith(".safetensors"):
            raise InputError(f"{where}: {INDEX} names {ends(name)!r}, which is no file of weights.")
        yield folder / name


def check_weights(file: Path, where: str) -> int:
    """How many tensors a file of weights holds, by its header, which its length must bear out."""
    try:
        length = file.stat().st_size if file.is_file() else -1
        if length < 0:
            raise ValueError("there is no such file")
        with file.open("rb") as content:
            start = content.read(8)
            (size,) = struct.unpack("<Q", start) if len(start) == 8 else (length,)
            if size > min(LARGEST_JSON, length - 8):
                raise ValueError("it is no safetensors file, or cut off")
            header = json.loads(content.read(size))
        stops = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
        if max(stops, default=0) + size + 8 != length:
            raise ValueError(f"it is cut off: {length} bytes, not {max(stops) + size + 8}")
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        problem = error_text(error)
        raise InputError(f"{where}: {file.name}: {problem}. Get the file again.") from None
    return len(stops)


def no_weights(folder: Path, where: str, wanted: str = "model.safetensors") -> InputError:
    """For a folder without the file of weights ``wanted``."""
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if not pickles:
        return InputError(f"{where}: holds no weights ({wanted}).")
    return InputError(
        f"{where}: its weights are pickled ({pickles[0]}), and a pickle can run any code when it "
        "is opened. Take a version in safetensors, or convert it where it is trusted "
        "(model.save_pretrained)."
    )
