"""What a model weighs, by its config alone: no weights are read and no torch is loaded.

The config is that of the folder or of the hub's local cache; where neither has it, the sizes of
published models are packaged (published.yaml).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from seva_exp.core.spec import Json
from seva_exp.models.families import families, is_proven
from seva_exp.models.family import Family
from seva_exp.models.spec import TINY_CHECKPOINT, HubModel, TinyModel

PUBLISHED = Path(__file__).with_name("published.yaml")
NF4 = 0.5 + 0.127 / 8
"""Bytes of a weight of 4 bits with its doubly quantized constants (arXiv 2305.14314, section 3)."""
TEXT_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)
TEXT_DEFAULTS = {
    "llama": (4096, 11008, 32, 32, 32000),
    "mistral": (4096, 14336, 32, 32, 32000),
    "qwen2": (4096, 22016, 32, 32, 151936),
    "gemma2": (2304, 9216, 26, 8, 256000),
    "gemma3_text": (2304, 9216, 26, 8, 262208),
}
"""What a config.json leaves out, as transformers has it: TEXT_FIELDS by ``model_type``."""
KEY_HEADS = {"mistral": 8, "gemma2": 4, "gemma3_text": 4}
HEAD_WIDTH = {"gemma2": 256, "gemma3_text": 256}
TIED = ("gemma2", "gemma3_text")
"""LM head and embeddings are one, unless the config says otherwise."""
VISION_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "image_size",
    "patch_size",
)
VISION_DEFAULTS = {
    "clip_vision_model": (768, 3072, 12, 224, 32),
    "siglip_vision_model": (768, 3072, 12, 224, 16),
    "internvl_vision": (1024, 4096, 24, 448, 14),
    "idefics3_vision": (1152, 3072, 12, 224, 32),
    "smolvlm_vision": (1152, 3072, 12, 224, 32),
}
"""VISION_FIELDS, likewise."""


@dataclass(frozen=True)
class Footprint:
    """Sizes of a model. The language model: ``width`` of its residual stream, ``middle`` of its
    MLPs; ``norms`` a layer, ``head_norms``: of queries and keys. The tower: ``patches`` of a
    picture. ``frozen``: parameters of tower and projector."""

    name: str
    width: int
    middle: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    norms: int
    head_norms: bool
    tower_width: int
    tower_middle: int
    patches: int
    frozen: int
    projector: int
    image_tokens: int
    packs: bool
    """Whether packed sequences are proven for its family."""

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Width in and out of a layer's linear modules."""
        query, key = self.heads * self.head_width, self.key_heads * self.head_width
        return {
            "q_proj": (self.width, query),
            "k_proj": (self.width, key),
            "v_proj": (self.width, key),
            "o_proj": (query, self.width),
            "gate_proj": (self.width, self.middle),
            "up_proj": (self.width, self.middle),
            "down_proj": (self.middle, self.width),
        }

    @property
    def linear_parameters(self) -> int:
        """Of all layers: what is quantized."""
        return self.layers * sum(a * b for a, b in self.linears.values())

    @property
    def parameters(self) -> int:
        """Of the whole model, but for biases."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        norms = self.width * (1 + self.norms * self.layers)
        return self.linear_parameters + embeddings + norms + self.frozen

    def weights(self, item: int, quantized: bool = False) -> float:
        """Bytes, of ``item`` each; ``quantized``: those of the layers in 4 bits."""
        of_layers = self.linear_parameters
        return item * (self.parameters - of_layers) + of_layers * (NF4 if quantized else item)

    def adapter(self, rank: int, modules: Collection[str] = ()) -> int:
        """Parameters of LoRA on these linear modules (none: on all)."""
        sizes = (size for name, size in self.linears.items() if not modules or name in modules)
        return self.layers * rank * sum(a + b for a, b in sizes)

    def kept(self, item: int) -> int:
        """Bytes of a token's keys and values in all layers."""
        return 2 * self.layers * self.key_heads * self.head_width * item


def footprint_of(model: HubModel | TinyModel) -> tuple[Footprint | None, str]:
    """A model's sizes, and where they are from, or why they are not known."""
    config, source = config_of(model)
    if config is None:
        return None, source
    try:
        return _read(model, config), source
    except (KeyError, TypeError, ValueError) as error:
        return None, f"its config.json ({source}) has no {error}, which an estimate needs"


def config_of(model: HubModel | TinyModel) -> tuple[Json | None, str]:
    """A model's config.json, and where it is from, or why it is not known."""
    if isinstance(model, TinyModel):
        return json.loads((TINY_CHECKPOINT / "config.json").read_text(encoding="utf-8")), "embedded"
    file = Path(model.path).expanduser() / "config.json"
    if not file.is_file():
        cached = _cached(model)
        if cached is None:
            if found := published().get(model.path):
                return found, f"as {model.path} was published"
            return None, (
                f"its config.json is not here (hf download {model.path} config.json), and its "
                "sizes are not packaged"
            )
        file = cached
    try:
        return json.loads(file.read_text(encoding="utf-8")), str(file)
    except (OSError, ValueError) as error:
        return None, f"{file} cannot be read: {error}"


@cache
def published() -> dict[str, Json]:
    """By hub id."""
    found: dict[str, Json] = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return found


def _cached(model: HubModel) -> Path | None:
    """config.json in the hub's local cache, by its documented layout: huggingface_hub itself takes
    a second to load."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    folder = hub / f"models--{model.path.replace('/', '--')}"
    name = folder / "refs" / model.revision
    commit = name.read_text().strip() if name.is_file() else model.revision
    file = folder / "snapshots" / commit / "config.json"
    return file if file.is_file() else None


def _read(model: HubModel | TinyModel, config: Json) -> Footprint:
    kind = config.get("model_type", "")
    text = config.get("text_config") or config
    vision = config["vision_config"]
    text_kind = text.get("model_type", "llama")
    known = dict(zip(TEXT_FIELDS, TEXT_DEFAULTS.get(text_kind, ()), strict=False)) | text
    width, middle, layers, heads, vocabulary = (known[name] for name in TEXT_FIELDS)
    head_width = text.get("head_dim") or HEAD_WIDTH.get(text_kind) or width // heads
    key_heads = text.get("num_key_value_heads") or KEY_HEADS.get(text_kind, heads)
    default = text.get("tie_word_embeddings", text_kind in TIED)
    tower = _tower(vision)
    inner = tower.width * _merged(config, vision) ** 2
    projector = _projector(kind, tower.width, inner, width)
    projector *= 1 + len(vision.get("deepstack_visual_indexes", ()))
    family = families().get(kind, Family())
    tiles, tokens = dict(zip(family.model_types, family.pictures, strict=False)).get(
        kind, (1, None)
    )
    if tokens is None:
        tokens = tower.patches // _merged(config, vision) ** 2
    patches = tower.patches * tiles or tokens * _merged(config, vision) ** 2
    if model.max_pixels:
        tokens = min(tokens, model.max_pixels // _pixels(config, vision))
    return Footprint(
        name=kind or "model",
        width=width,
        middle=middle,
        layers=layers,
        heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        vocabulary=vocabulary,
        tied=config.get("tie_word_embeddings", default),
        norms=4 if text_kind.startswith(("gemma2", "gemma3")) else 2,
        head_norms=text_kind.startswith(("qwen3", "gemma3")),
        tower_width=tower.width,
        tower_middle=tower.middle,
        patches=patches,
        frozen=tower.parameters + projector,
        projector=projector,
        image_tokens=tokens,
        packs=bool(family.proven) and is_proven(_text_type(config) or family.proven[0]),
    )


def _text_type(config: Json) -> str | None:
    """As the config has it; old ones do not nest the language model's, and name none."""
    return (config.get("text_config") or {}).get("model_type")


@dataclass(frozen=True)
class _Tower:
    """``patches`` of a tile; 0 where pictures come in their own size."""

    width: int
    middle: int
    patches: int
    parameters: int


def _tower(vision: Json) -> _Tower:
    defaults = VISION_DEFAULTS.get(vision.get("model_type", ""), ())
    known = dict(zip(VISION_FIELDS, defaults, strict=False)) | vision
    own_sizes = "depth" in vision
    width = int(known.get("embed_dim") or known["hidden_size"])
    middle = int(known.get("intermediate_size") or width * known["mlp_ratio"])
    layers = int(known.get("depth") or known["num_hidden_layers"])
    patch = _side(known["patch_size"])
    side = 0 if own_sizes else _side(known["image_size"])
    gated = 3 if "window_size" in vision or vision.get("model_type") == "qwen2_5_vl" else 2
    patches = (side // patch) ** 2
    frames = vision.get("temporal_patch_size", 2) if own_sizes else 1
    parameters = layers * (4 * width * width + gated * width * middle)
    parameters += width * (3 * frames * patch * patch + patches)
    return _Tower(width, middle, patches, parameters)


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)


def _merged(config: Json, vision: Json) -> int:
    """Patches along a side that become one token."""
    if "scale_factor" in config:
        return int(config["scale_factor"])
    if config.get("model_type") == "internvl":
        return round(1 / config.get("downsample_ratio", 0.5))
    return int(vision.get("spatial_merge_size", 1))


def _pixels(config: Json, vision: Json) -> int:
    """Of an image token."""
    return int((_side(vision["patch_size"]) * _merged(config, vision)) ** 2)


def _projector(kind: str, tower: int, inner: int, width: int) -> int:
    """Parameters; ``inner``: what is merged to one token."""
    if kind.startswith("qwen"):
        return inner * inner + inner * width
    if kind.startswith("llava") or kind == "internvl":
        return inner * width + width * width
    return tower * width if kind in ("gemma3", "paligemma") else inner * width
