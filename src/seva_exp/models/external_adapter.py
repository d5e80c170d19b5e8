"""A published adapter beside the model that it is to be put on: do they belong together, by names
and shapes alone; and the adapter with today's names of layers."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json
from seva_exp.models.adapter import DOWN, PREFIX, UP
from seva_exp.models.adapter_files import CONFIG, WEIGHTS, AdapterFiles, todays_name
from seva_exp.models.checkpoint import Checkpoint
from seva_exp.models.weights import not_finite, refuse_faults

SHOWN = 3
"""Names in a message."""


def without_numbers(spec: Checkpoint) -> Any:
    """The model with the shapes of its weights and no numbers (torch's meta device)."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(
        spec.location(), revision=spec.revision, trust_remote_code=False
    )
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def names_in_model(files: AdapterFiles, spec: Checkpoint) -> dict[str, str]:
    """By the name of each of the adapter's tensors: what it is called by today. Raises InputError
    for one that is no factor of LoRA's and no parameter of the model, for a layer that the model
    does not have, and for one of another shape."""
    model = without_numbers(spec)
    layers = {n: tuple(m.weight.shape) for n, m in model.named_modules() if _is_linear(m)}
    weights = {name: tuple(one.shape) for name, one in model.named_parameters()}
    with safe_open(files.weights, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    _whole(shapes)
    found: dict[str, str] = {}
    unknown, others = [], []
    for name, shape in sorted(shapes.items()):
        inner = name.removeprefix(PREFIX)
        end = next((end for end in (DOWN, UP) if inner.endswith(end)), "")
        known = layers if end else weights
        today = todays_name(inner.removesuffix(end), known)
        if today is None:
            unknown.append(inner.removesuffix(end))
            continue
        found[name] = PREFIX + today + end
        out, *rest = known[today]
        wanted = {DOWN: (files.rank, *rest), UP: (out, files.rank), "": (out, *rest)}[end]
        if shape != wanted:
            others.append(f"{today}{end}: {list(shape)}, not {list(wanted)}")
    if unknown or others:
        raise InputError(_no_match(files, spec, list(dict.fromkeys(unknown)), others))
    return found


def _whole(names: Collection[str]) -> None:
    """InputError where there is nothing, or of a layer one factor alone."""
    layers = {name.removesuffix(end) for name in names for end in (DOWN, UP) if name.endswith(end)}
    missing = sorted({layer + end for layer in layers for end in (DOWN, UP)} - {*names})
    if missing or not names:
        lacks = f"lacks {missing[0].removeprefix(PREFIX)}" if missing else "holds no weights"
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"{WEIGHTS} is not whole: it {lacks}{more}. Get the file again.")


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear)


def _no_match(files: AdapterFiles, spec: Checkpoint, unknown: list[str], others: list[str]) -> str:
    base = f" It says that it was trained on {files.base}." if files.base else ""
    what = f"no {', no '.join(unknown[:SHOWN])}" if unknown else f"another {others[0]}"
    number = len(unknown or others)
    more = f" (and {number - SHOWN} more)" if unknown and number > SHOWN else ""
    return (
        f"is not an adapter of model.path={spec.location()}, which has {what}{more}.{base} Give "
        "the model that it was trained on, in transformers' layout."
    )


def write_adapter(files: AdapterFiles, names: dict[str, str], folder: Path, base: str) -> Json:
    """The adapter in ``folder`` in PEFT's layout, by today's ``names``: the same numbers. For the
    manifest: how many tensors it has, and whether it changes anything. Raises StageError for
    numbers that are not finite."""
    folder.mkdir(parents=True, exist_ok=True)
    with safe_open(files.weights, framework="pt") as file:
        tensors = {new: file.get_tensor(old).contiguous() for old, new in names.items()}
    refuse_faults(str(files.weights), {"not finite": not_finite(tensors.items())})
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    layers = {new.removeprefix(PREFIX).removesuffix(DOWN) for new in tensors if new.endswith(DOWN)}
    config = json.loads(files.config.read_text(encoding="utf-8"))
    config |= {"target_modules": sorted(layers), "base_model_name_or_path": base}
    config |= {"init_lora_weights": True, "eva_config": None}  # how it began
    config |= {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    changes = any(not name.endswith(DOWN) and bool(one.any()) for name, one in tensors.items())
    return {"tensors": len(tensors), "adapter_changed": changes}
