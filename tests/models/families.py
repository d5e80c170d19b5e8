"""Checkpoint folders of the families that conf/model names: transformers' real classes with tiny
random weights, in the file layout of the published repositories (written out here, not by
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
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    SmolVLMConfig,
)

from seva_exp.models import HubModel

VICUNA = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
MEAN, STD = [0.4815, 0.4578, 0.4082], [0.2686, 0.2613, 0.2758]
HALF = [0.5, 0.5, 0.5]
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
    template: str
    roles: dict[str, str]
    further: tuple[str, ...] = ()
    begins: bool = False
    """The tokenizer writes the begin-of-sequence token (the template does not)."""
    system_prompt: str | None = None
    pad_to_square: bool = False


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
    core.train_from_iterator([VICUNA, "Describe the image. What is in the picture?"] * 9, trainer)
    core.add_special_tokens(special)
    if family.begins:
        bos = family.roles["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, extra_special_tokens=extra, padding_side="left", **names
    )


def _text(kind: type, tokens: PreTrainedTokenizerFast, **more: Any) -> Any:
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


def _vision(image: int, patch: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image,
        "patch_size": patch,
        **more,
    }


def _llava(tokens: PreTrainedTokenizerFast) -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision(28, 7)),
        text_config=_text(LlamaConfig, tokens),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )


def _llava_next(tokens: PreTrainedTokenizerFast) -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_vision(24, 6)),
        text_config=_text(MistralConfig, tokens, sliding_window=None),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )


def _qwen3_vl(tokens: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    text = _text(LlamaConfig, tokens).to_dict()
    for name in ("model_type", "architectures", "transformers_version"):
        text.pop(name, None)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text |= {"head_dim": 16, "rope_parameters": rope | {"rope_theta": 10000.0}}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    image, video, start, end = tokens.convert_tokens_to_ids([f"<|{name}|>" for name in names])
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )


def _smolvlm(tokens: PreTrainedTokenizerFast) -> SmolVLMConfig:
    return SmolVLMConfig(
        vision_config=_vision(24, 6),
        text_config=_text(LlamaConfig, tokens),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokens.pad_token_id,
        tie_word_embeddings=False,
    )


PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
_CLIP = {
    "crop_size": {"height": 28, "width": 28},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 28},
}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<image>"}
_TEXTS = "{% for c in m['content'] if c['type'] == 'text' %}"
_IMAGES = "{% for c in m['content'] if c['type'] == 'image' %}"

FAMILIES = {
    "llava15": Family(
        _llava,
        "LlavaProcessor",
        {**_CLIP, "image_processor_type": "CLIPImageProcessor"},
        {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": 7,
            "vision_feature_select_strategy": "default",
        },
        "{% for m in messages %}"
        "{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
        + _IMAGES
        + "{{ '<image>\n' }}{% endfor %}"
        + _TEXTS
        + "{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        _LLAMA,
        begins=True,
        system_prompt=VICUNA,
        pad_to_square=True,
    ),
    "llava16_mistral": Family(
        _llava_next,
        "LlavaNextProcessor",
        {
            **_CLIP,
            "aspect_ratio_setting": "anyres",
            "crop_size": {"height": 24, "width": 24},
            "image_grid_pinpoints": PINPOINTS,
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": 24},
        },
        {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": 6,
            "vision_feature_select_strategy": "default",
        },
        "{% for m in messages %}{{ '[INST] ' }}"
        + _IMAGES
        + "{{ '<image>\n' }}{% endfor %}"
        + _TEXTS
        + "{{ c['text'] }}{% endfor %}{{ ' [/INST]' }}{% endfor %}",
        _LLAMA,
        begins=True,
    ),
    "qwen3_vl": Family(
        _qwen3_vl,
        "Qwen3VLProcessor",
        {
            "image_mean": HALF,
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "image_std": HALF,
            "merge_size": 2,
            "patch_size": 8,
            "size": {"longest_edge": 64 * 64, "shortest_edge": 32 * 32},
            "temporal_patch_size": 2,
        },
        {},
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    ),
    "smolvlm2": Family(
        _smolvlm,
        "SmolVLMProcessor",
        {
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": HALF,
            "image_processor_type": "SmolVLMImageProcessor",
            "image_std": HALF,
            "max_image_size": {"longest_edge": 24},
            "resample": 1,
            "rescale_factor": 1 / 255,
            "size": {"longest_edge": 72},
        },
        {"image_seq_len": 4},
        "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
        "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
        "{% for c in m['content'] %}{{ c['text'] if c['type'] == 'text' else '<image>' }}"
        "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        {
            "bos_token": "<|im_start|>",
            "eos_token": "<end_of_utterance>",
            "pad_token": "<|im_end|>",
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
    ),
}


def build(name: str, folder: Path) -> HubModel:
    """Write the checkpoint of family ``name`` and return its spec, set as conf/model sets it."""
    from transformers import AutoModelForImageTextToText

    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer(family)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(family.config(tokens), dtype=torch.float32)
    with torch.no_grad():  # at the usual 0.02 neither image nor order would change an answer
        for key, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.mul_(6.0 if "embed" in key or "lm_head" in key else 4.0)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    for file, values in (
        ("preprocessor_config.json", family.images),
        ("processor_config.json", family.settings),
    ):
        if values:
            _write(folder / file, {**values, "processor_class": family.processor})
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
