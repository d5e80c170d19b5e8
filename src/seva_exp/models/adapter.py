"""A trained adapter on a loaded model: merged into its weights where their number format can hold
the change, else beside them in the same format.

Weights of 16 bits lie on a coarse grid (bfloat16: 1/256 apart, relative). Of a change that is
smaller than half a step most is lost by merging: at the papers' learning rates (1e-7, 2e-6) that is
the usual case. So each layer is merged in float32 and rounded once, and kept only if that is near
enough to what was trained; LoRA's two factors lose nothing by their own rounding, however small
their product is. Scores then belong to the adapter that a run leaves behind.
"""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import linear

from seva_exp.core.disk import REMEDIES, message_of_disk
from seva_exp.core.errors import StageError
from seva_exp.core.printable import error_text
from seva_exp.models.adapter_files import CONFIG, PLAIN, WEIGHTS
from seva_exp.models.weights import not_finite, refuse_faults

LOST = 0.05
"""Largest ||rounded(W + D) - W - D|| / ||D|| with which a change D is merged into weights W."""
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class MergedAdapter:
    """The outcome of merging an adapter: how many layers are ``merged`` and ``beside``, and the
    largest share of a layer's change that merging loses (or would lose)."""

    merged: int
    beside: int
    lost: float

    def rounding_note(self, dtype: torch.dtype) -> str:
        """For a person, where not all are merged."""
        kind = str(dtype).removeprefix("torch.")
        return (
            f"the adapter of {self.beside} of {self.merged + self.beside} layers is kept beside "
            f"the {kind} weights: merged into them its change would lose up to {self.lost:.0%} by "
            "rounding (so would a merged checkpoint in this format)"
        )


class Beside(torch.nn.Linear):
    """``linear`` and ``up @ down`` ([out, rank], [rank, in], scaled already) beside it."""

    down: Tensor
    up: Tensor

    def __init__(self, layer: torch.nn.Linear, down: Tensor, up: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] in, [..., out] out."""
        out, low = super().forward(input), linear(input, self.down)
        added = torch.addmm(out.flatten(0, -2), low.flatten(0, -2), self.up.T)
        return added.view_as(out)


class Attached:
    """What ``attach_adapter`` has put on a model: ``detach`` takes it off again."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers: dict[str, torch.nn.Linear] = {}
        self._weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def replace_weight(self, name: str, weight: Tensor) -> None:
        """A parameter's values are others until ``detach``."""
        own = self._model.get_parameter(name)
        self._weights.setdefault(name, own.clone())
        own.copy_(weight)

    def replace_layer(self, name: str, layer: torch.nn.Linear, beside: Beside) -> None:
        """``beside`` stands in the place of ``layer`` until ``detach``."""
        self._layers.setdefault(name, layer)
        self._model.set_submodule(name, beside)

    @torch.no_grad()
    def detach(self) -> None:
        """The model is, to the bit, what it was before."""
        for name, layer in self._layers.items():
            self._model.set_submodule(name, layer)
        for name, weight in self._weights.items():
            self._model.get_parameter(name).copy_(weight)
        self._layers, self._weights = {}, {}


def attach_adapter(model: Any, folder: Path) -> Attached:
    """Put the adapter in ``folder`` beside the weights of ``model``, none of which changes but
    those of a projector that was trained as a whole. Raises StageError as ``merge_adapter``, and
    has then changed nothing."""
    check_adapter(folder, model)
    scaling, attached = _scaling(folder), Attached(model)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = {name for name in file.keys() if not name.endswith(UP)}  # noqa: SIM118
            for name in sorted(names):
                if not name.endswith(DOWN):
                    attached.replace_weight(name.removeprefix(PREFIX), file.get_tensor(name))
                    continue
                inner, layer, down, up = _factors(file, name, model, folder)
                kind = layer.weight.dtype
                factors = (one.to(kind) for one in _balanced(down, up * scaling))
                attached.replace_layer(inner, layer, Beside(layer, *factors))
    except BaseException:
        attached.detach()
        raise
    return attached


@torch.no_grad()
def merge_adapter(model: Any, folder: Path, most: float = LOST) -> MergedAdapter:
    """Put the adapter in ``folder`` on ``model``, layer by layer: of the adapter no more than one
    layer is held in float32. ``most``: share of a change that merging may lose; float32 weights are
    always merged. A projector that was trained as a whole takes the place of the model's. Raises
    StageError for an adapter of another kind than the stages make."""
    check_adapter(folder, model)
    scaling = _scaling(folder)
    beside, shares = 0, []
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = {name for name in file.keys() if not name.endswith(UP)}  # noqa: SIM118
        for name in sorted(names):
            if not name.endswith(DOWN):
                weight = _found(model.get_parameter, name.removeprefix(PREFIX), folder)
                weight.copy_(file.get_tensor(name))
                continue
            inner, layer, down, up = _factors(file, name, model, folder)
            merged, lost = _merged(layer.weight, down, up, scaling)
            shares.append(lost)
            if layer.weight.dtype == torch.float32 or lost <= most:
                layer.weight.copy_(merged)
                continue
            beside += 1
            factors = (one.to(layer.weight.dtype) for one in _balanced(down, up * scaling))
            model.set_submodule(inner, Beside(layer, *factors))
    return MergedAdapter(len(shares) - beside, beside, max(shares, default=0.0))


def _factors(file: Any, name: str, model: Any, folder: Path) -> tuple[str, Any, Tensor, Tensor]:
    """Of the layer whose factor A is called ``name``: its own name, the layer, and A [rank, in] and
    B [out, rank] in float32. Raises StageError where their shapes are another layer's."""
    inner = name.removeprefix(PREFIX).removesuffix(DOWN)
    layer = _found(model.get_submodule, inner, folder)
    down = file.get_tensor(name).to(layer.weight.device, torch.float32)
    up = file.get_tensor(name.removesuffix(DOWN) + UP).to(down)
    if layer.weight.shape != (len(up), down.shape[1]):
        raise _of_another(folder, f"{inner} of {len(up)} by {down.shape[1]}")
    return inner, layer, down, up


def _merged(weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> tuple[Tensor, float]:
    """The new weights in the format of ``weight``, and the share of the change that they lose."""
    change = (up @ down) * scaling
    before = weight.float()
    merged = (before + change).to(weight.dtype)
    size = change.norm().item()
    lost = (merged.float() - before - change).norm().item()
    return merged, lost / size if size else 0.0


def _balanced(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Of like size, by a power of two, which rounds nothing: B may be so small (1e-6) that float16
    has few digits left for it."""
    large, small = down.abs().max().item(), up.abs().max().item()
    power = round(math.log2(large / small) / 2) if large and small else 0
    return down * 2.0**-power, up * 2.0**power


def check_adapter(folder: Path, model: Any = None) -> None:
    """Raises StageError for an adapter in ``folder`` that lacks a factor of a layer, or holds a
    number that is not finite; and where ``model`` lacks a layer of the adapter's, or the adapter
    one that its config names."""
    config = lora_of(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = set(file.keys())
            broken = not_finite((name, file.get_tensor(name)) for name in names)
    except (OSError, SafetensorError) as error:
        raise _unread(folder / WEIGHTS, error, "cannot be read") from error
    layers = {name.removesuffix(end) for name in names for end in (DOWN, UP) if name.endswith(end)}
    if model is not None:
        for layer in sorted(layers):
            _found(model.get_submodule, layer.removeprefix(PREFIX), folder)
        layers |= {f"{PREFIX}{name}" for name in _targets(model, config)}
    missing = {layer + end for layer in layers for end in (DOWN, UP)} - names
    refuse_faults(str(folder / WEIGHTS), {"missing": missing, "not finite": broken})


def _targets(model: Any, config: Any) -> list[str]:
    """The layers that an adapter of this config changes, by PEFT's rule for lists of names; none
    where it goes by another."""
    ends = config.target_modules
    if isinstance(ends, str) or not ends or config.layers_to_transform or config.exclude_modules:
        return []
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and any(name == end or name.endswith(f".{end}") for end in ends)
    ]


def lora_of(folder: Path) -> Any:
    """The config of the LoRA adapter in ``folder``. Raises StageError, which names the file and the
    field, for what is none."""
    from peft import LoraConfig

    file = folder / CONFIG
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("peft_type") != "LORA":
            raise ValueError("an object with peft_type LORA is needed")
        config = LoraConfig.from_pretrained(str(folder))
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # PEFT raises errors of many types
        raise _unread(file, error, "cannot be read as a LoRA adapter's config") from error
    targets = config.target_modules
    several = isinstance(targets, list | tuple | set)
    names = isinstance(targets, str | None) or (
        several and all(isinstance(one, str) for one in targets)
    )
    for field, fits, needed in (
        ("r", type(config.r) is int and config.r > 0, "a whole number above 0"),
        ("lora_alpha", _is_number(config.lora_alpha), "a number"),
        ("target_modules", names, "names of layers"),
    ):
        if not fits:
            raise StageError(f"{file}: {field}={reprlib.repr(content[field])}: {needed} needed.")
    return config


def _unread(file: Path, error: Exception, words: str) -> StageError:
    """What to tell of a file: of the system's refusal what to do, of another error the error."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return StageError(message_of_disk(error, file))
    return StageError(f"{file}: {words}: {error_text(error)}.")


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # more than a float holds
        return False


def _scaling(folder: Path) -> float:
    config = lora_of(folder)
    for name, known in PLAIN.items():
        if getattr(config, name, None) not in (*known, None):
            raise StageError(f"{folder}: {name}={getattr(config, name)} is not known here.")
    return config.lora_alpha / config.r


def _found(find: Any, name: str, folder: Path) -> Any:
    try:
        return find(name)
    except AttributeError as error:
        raise _of_another(folder, name) from error


def _of_another(folder: Path, lacking: str) -> StageError:
    return StageError(f"{folder}: the model has no {lacking}: is it another model's adapter?")
