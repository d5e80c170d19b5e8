"""The adapter: LoRA on the language model, the projector as a whole, where training starts from,
and what is saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)

from seva_exp.core.errors import StageError
from seva_exp.core.files import write_whole
from seva_exp.core.interfaces import VisionLanguageModel
from seva_exp.core.spec import Json
from seva_exp.models.adapter import check_adapter, lora_of
from seva_exp.training.sharding import adapter_weights
from seva_exp.training.spec import Training

POLICY, REFERENCE = "default", "ref"
"""PEFT's names of the adapters; TRL takes the one named ``ref`` for its reference."""


def lora_config(vlm: VisionLanguageModel, spec: Training, group: str) -> LoraConfig:
    """LoRA on linear layers of the language model only (never the vision tower). The projector, if
    trained, is a copy beside the original, so that the adapter switched off leaves the original."""
    names = vlm.language_modules()
    if spec.lora_modules:
        names = [name for name in names if name.rsplit(".", 1)[-1] in spec.lora_modules]
    if not names:
        raise StageError(
            f"{group}.lora_modules={list(spec.lora_modules)}: this model has none of them."
        )
    return LoraConfig(
        r=spec.lora_rank,
        lora_alpha=spec.lora_alpha,
        lora_dropout=0.0,
        target_modules=names,
        modules_to_save=vlm.projector_modules() if spec.train_projector else None,
        task_type="CAUSAL_LM",
    )


def config_of(start: Path, vlm: VisionLanguageModel, spec: Training) -> LoraConfig:
    """The shape of the adapter in ``start``, with a projector if it has one or one is trained."""
    config = lora_of(start)
    config.inference_mode = False
    config.base_model_name_or_path = None
    if spec.train_projector and not config.modules_to_save:
        config.modules_to_save = vlm.projector_modules()
    return config


def check_start(start: Path, spec: Training, group: str) -> None:
    """An adapter of another shape can't be gone on with. Raises StageError."""
    config = lora_of(start)
    found = (config.r, config.lora_alpha)
    if found != (spec.lora_rank, spec.lora_alpha):
        raise StageError(
            f"{start}: this adapter has LoRA rank {found[0]} and alpha {found[1]}, but "
            f"{group}.lora_rank={spec.lora_rank} and {group}.lora_alpha={spec.lora_alpha}. "
            "Training goes on with an adapter of its own shape only."
        )


def load_adapter(model: PeftModel, start: Path, name: str) -> None:
    """The weights in ``start`` become those of the adapter ``name``. A projector that ``start``
    lacks stays the base model's. Raises StageError where modules or shapes differ."""
    check_adapter(start)
    weights = load_peft_weights(str(start), device="cpu")
    own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    differ = {key for key, value in weights.items() if _shape(own, key) != value.shape}
    differ |= {key for key in own if key not in weights and "lora_" in key}
    if differ:
        raise StageError(
            f"{start}: this adapter is of other modules or shapes than the one to train (for "
            f"example {min(differ)}). Train with the lora_modules, lora_rank and train_projector "
            "that it was made with."
        )
    set_peft_model_state_dict(model, own | weights, adapter_name=name)


def _shape(state: dict[str, torch.Tensor], key: str) -> torch.Size | None:
    return state[key].shape if key in state else None


def add_reference(model: PeftModel, start: Path) -> None:
    """A frozen adapter ``ref`` beside the one that is trained."""
    model.add_adapter(REFERENCE, model.peft_config[POLICY])
    load_adapter(model, start, REFERENCE)
    model.set_adapter(POLICY)


def save_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """One adapter over the base model, in PEFT's layout; a reference is not part of it. Every rank
    must ask for it."""
    model.peft_config[POLICY].base_model_name_or_path = base_name
    write_adapter(model, folder, adapter_weights(model))


def has_changed(folder: Path, start: Path | None, rows: Sequence[Json]) -> bool:
    """Whether training on the logged ``rows`` changed what the adapter in ``folder`` makes of the
    model: a new LoRA does nothing while all its B are zero, one that was gone on with (``start``)
    while it is the same. A projector beside it has changed if there was a gradient."""
    weights = load_peft_weights(str(folder), device="cpu")
    before = load_peft_weights(str(start), device="cpu") if start else {}
    for name, weight in weights.items():
        if "lora_" not in name and name not in before:
            if any(row.get("grad_norm", 0.0) for row in rows):
                return True
        elif name in before:
            if not torch.equal(weight, before[name]):
                return True
        elif "lora_B" in name and weight.any():
            return True
    return False


def write_adapter(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """The policy's part of ``weights`` (by their names in the model) and its config, without PEFT's
    blank model card: ``python -m seva_exp.ship`` writes one that says something."""
    model.save_pretrained(
        str(folder),
        state_dict=weights,
        save_embedding_layers=False,
        selected_adapters=[POLICY],
    )
    (folder / "README.md").unlink(missing_ok=True)
    _sort_modules(folder / "adapter_config.json")


def _sort_modules(file: Path) -> None:
    """PEFT keeps the modules in a set, whose order differs from process to process."""
    config = json.loads(file.read_text(encoding="utf-8"))
    for name in ("target_modules", "modules_to_save", "exclude_modules"):
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    write_whole(file, json.dumps(config, indent=2, sort_keys=True))
