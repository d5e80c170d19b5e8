"""An adapter's files, before anything heavy is imported or weights are read: a LoRA in PEFT's
layout that can be loaded here, or refused by name. No heavy import."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from seva_exp.core.errors import InputError
from seva_exp.core.spec import Json
from seva_exp.models.checkpoint import check_weights, no_weights, read_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PLAIN = {
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal", "mica"),
    "alora_invocation_tokens": (None, []),
    "layer_replication": (None, []),
    "use_qalora": (False, None),
    "use_bdlora": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
}
"""Fields of PEFT's ``LoraConfig`` that change what an adapter computes, with the values that are
known here. Other beginnings (``init_lora_weights`` pissa, olora, loftq ...) take the factors out of
the base model's weights, beside which the adapter then does not fit."""
RENAMED = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("vision_tower.", "model.vision_tower."),
    ("model.layers.", "model.language_model.layers."),
    ("visual.", "model.visual."),
)
"""How names of modules began in transformers 4, and begin in 5."""


@dataclass(frozen=True)
class AdapterFiles:
    """A LoRA adapter's folder, looked at."""

    folder: Path
    rank: int
    alpha: float
    base: str
    """The model that it says it was trained on; empty where it does not say."""

    @property
    def config(self) -> Path:
        """Its config."""
        return self.folder / CONFIG

    @property
    def weights(self) -> Path:
        """Its file of weights."""
        return self.folder / WEIGHTS

    def identity(self, sha256: Callable[[Path], str]) -> Json:
        """All that decides what it computes: the weights' bytes, and their scale."""
        return {"weights": sha256(self.weights), "rank": self.rank, "alpha": self.alpha}


def is_adapter(folder: Path) -> bool:
    """Whether the folder says that it holds an adapter."""
    return (folder / CONFIG).is_file()


def read_adapter(folder: Path, where: str) -> AdapterFiles:
    """Raises InputError, which begins with ``where``, for what is no LoRA that is known here."""
    config = read_object(folder / CONFIG, where)
    if (kind := config.get("peft_type")) != "LORA":
        raise InputError(f"{where}: {CONFIG}: peft_type={reprlib.repr(kind)}: LORA is needed.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise InputError(
            f"{where}: {CONFIG}: r={reprlib.repr(rank)}: a whole number above 0 is needed."
        )
    if type(alpha) not in (int, float) or not math.isfinite(alpha):  # type: ignore[arg-type]
        raise InputError(
            f"{where}: {CONFIG}: lora_alpha={reprlib.repr(alpha)}: a number is needed."
        )
    for name, known in PLAIN.items():
        if name in config and config[name] not in known:
            raise InputError(
                f"{where}: {CONFIG}: {name}={reprlib.repr(config[name])} is not known here "
                f"({name}={known[0]} is). Merge it into its base model with PEFT "
                "(merge_and_unload, save_pretrained), and give the checkpoint."
            )
    if not (folder / WEIGHTS).is_file():
        raise no_weights(folder, where, WEIGHTS)
    check_weights(folder / WEIGHTS, where)
    base = config.get("base_model_name_or_path")
    return AdapterFiles(folder, rank, float(alpha), str(base or ""))  # type: ignore[arg-type]


def todays_name(name: str, known: Iterable[str]) -> str | None:
    """A module's or parameter's name as the model has it: itself, or with its older beginning
    replaced; None where the model has neither."""
    if name in known:
        return name
    for old, new in RENAMED:
        if name.startswith(old) and (renamed := new + name.removeprefix(old)) in known:
            return renamed
    return None
