"""Qwen2.5-VL, Qwen3-VL, and InternVL3, whose language model is Qwen's."""

from __future__ import annotations

from typing import Any

from transformers import (
    InternVLConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3VLConfig,
)

from .checkpoints import HALF, MEAN, STD, Family, text, text_dict, vision

_ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


def _tokens(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": "image_pad",
        "video_token_id": "video_pad",
        "vision_start_token_id": "vision_start",
        "vision_end_token_id": "vision_end",
    }
    return {key: tokens.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def _qwen25(tokens: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    words = text_dict(LlamaConfig, tokens) | {"rope_parameters": _ROPE}
    return Qwen2_5_VLConfig(
        text_config=words,
        vision_config={**_VISION, "window_size": 32, "fullatt_block_indexes": [1]},
        tie_word_embeddings=False,
        **_tokens(tokens),
    )


def _qwen3(tokens: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    rope = _ROPE | {"mrope_interleaved": True}
    more: dict[str, Any] = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    return Qwen3VLConfig(
        text_config=text_dict(LlamaConfig, tokens) | {"head_dim": 16, "rope_parameters": rope},
        vision_config={**_VISION, **more},
        tie_word_embeddings=False,
        **_tokens(tokens),
    )


def _internvl(tokens: PreTrainedTokenizerFast) -> InternVLConfig:
    return InternVLConfig(
        vision_config=vision() | {"image_size": [24, 24], "patch_size": [6, 6]},
        text_config=text(Qwen2Config, tokens),
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )


def _template(image: str, system: str = "") -> str:
    """``system``: what Qwen2.5-VL says for want of a system turn."""
    return (
        "{% for m in messages %}"
        f"{{% if loop.first and m['role'] != 'system' %}}{system}{{% endif %}}"
        "{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        f"{image}"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


_PAD = "<|vision_start|><|image_pad|><|vision_end|>"
_ENDS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_SPECIAL = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

QWENS = {
    "qwen25_vl": Family(
        _qwen25,
        "Qwen2_5_VLProcessor",
        {
            "image_mean": MEAN,
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_std": STD,
            "max_pixels": 64 * 64,
            "merge_size": 2,
            "min_pixels": 32 * 32,
            "patch_size": 8,
            "temporal_patch_size": 2,
        },
        {},
        _template(_PAD, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"),
        _ENDS,
        _SPECIAL,
    ),
    "qwen3_vl": Family(
        _qwen3,
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
        _template(_PAD),
        _ENDS,
        _SPECIAL,
    ),
    "internvl3": Family(
        _internvl,
        "InternVLProcessor",
        {
            "crop_to_patches": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_processor_type": "GotOcr2ImageProcessor",
            "image_std": STD,
            "max_patches": 6,
            "min_patches": 1,
            "resample": 3,
            "size": {"height": 24, "width": 24},
        },
        {"image_seq_length": 4},
        _template("<IMG_CONTEXT>\n"),
        {
            **_ENDS,
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        ("<|im_start|>",),
    ),
}
