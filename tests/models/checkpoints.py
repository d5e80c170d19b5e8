"""How a family's checkpoint folder is made: transformers' real classes with tiny random weights, in
the file layout of the published repositories (written out here, not by
``processor.save_pretrained``), with a tokenizer trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from seva_exp.models import HubModel

VICUNA = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
MEAN, STD = [0.4815, 0.4578, 0.4082], [0.2686, 0.2613, 0.2758]
HALF = [0.5, 0.5, 0.5]
TEXTS = [VICUNA, "Describe the image. What is in the picture?", *("\n" * n for n in (2, 3, 4))]
"""What the tokenizer learns: words, and newlines that melt into one token as Gemma's do."""
LAYERS = 3
"""Seven linear layers each: above the 20 from which on PEFT shortens the list of names."""
VOCABULARY = 400


@dataclass(frozen=True)
class Family:
    """What a folder is made of. ``special`` are the tokenizer's roles and further tokens."""

    config: Callable[[PreTrainedTokenizerFast], Any]
    processor: str
    images: dict[str, Any]
    """preprocessor_config.json"""
    settings: dict[str, Any]
    """processor_config.json"""
    template: str | None
    roles: dict[str, str]
    further: tuple[str, ...] = ()
    begins: bool = False
    """The tokenizer writes the begin-of-sequence token (the template does not)."""
    system_prompt: str | None = None
    pad_to_square: bool = False
    ends: tuple[str, ...] = ()
    """Tokens that end an answer, the first as the template has it; none: the tokenizer's alone."""


def tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text can be encoded."""
    names = {key: value for key, value in family.roles.items() if key[:3] in ("bos", "eos", "pad")}
    extra = {key: value for key, value in family.roles.items() if key not in names}
    special = [*dict.fromkeys((*family.roles.values(), *family.further))]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(TEXTS * 9, trainer)
    core.add_special_tokens(special)
    if family.begins:
        bos = family.roles["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, extra_special_tokens=extra, padding_side="left", **names
    )


def text(kind: type, tokens: PreTrainedTokenizerFast, **more: Any) -> Any:
    return kind(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        tie_word_embeddings=False,
        **more,
    )


def text_dict(kind: type, tokens: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """The same as a dict, for a config that picks the text model's class itself."""
    values = text(kind, tokens, **more).to_dict()
    gone = ("model_type", "architectures", "transformers_version")
    return {key: value for key, value in values.items() if key not in gone}


def vision(image: int = 24, patch: int = 6, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image,
        "patch_size": patch,
        **more,
    }


def checkpoint(family: Family, folder: Path) -> HubModel:
    """Write the family's checkpoint and return its spec, set as conf/model sets it."""
    from transformers import AutoModelForImageTextToText

    folder.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer(family)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(family.config(tokens), dtype=torch.float32)
    with torch.no_grad():  # at the usual 0.02 neither image nor order would change an answer
        for key, weight in model.named_parameters():
            if not weight.any() and weight.ndim >= 2:
                weight.normal_(std=0.3)  # Gemma3's projection begins at zero: no picture at all
            elif weight.ndim >= 2:
                weight.mul_(6.0 if "embed" in key or "lm_head" in key else 4.0)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    for file, values in (
        ("preprocessor_config.json", family.images),
        ("processor_config.json", family.settings),
    ):
        if values:
            _write(folder / file, {**values, "processor_class": family.processor})
    if family.template:
        _write(folder / "chat_template.json", {"chat_template": family.template})
    return HubModel(
        path=str(folder), system_prompt=family.system_prompt, pad_to_square=family.pad_to_square
    )


def _write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2), encoding="utf-8")


def draw(width: int, height: int, turn: int = 0) -> Image.Image:
    """A picture without symmetry, so that a flipped or shuffled one is far from it."""
    colors = ["#d02020", "#20b040", "#2040d0", "#e0c020"]
    picture = Image.new("RGB", (width, height), colors[turn % 4])
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, width // 2, height // 3), fill=colors[(turn + 1) % 4])
    pen.ellipse((width // 2, height // 2, width - 1, height - 1), fill=colors[(turn + 2) % 4])
    pen.rectangle((0, 3 * height // 4, width // 4, height), fill=colors[(turn + 3) % 4])
    return picture
