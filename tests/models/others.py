"""Idefics3, SmolVLM2, Gemma 3, PaliGemma 2."""

from __future__ import annotations

from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3Config,
    Idefics3Config,
    LlamaConfig,
    PaliGemmaConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SmolVLMConfig,
)

from .checkpoints import HALF, LAYERS, Family, text, text_dict, vision

_WINDOWED: dict[str, Any] = {
    "layer_types": ["sliding_attention", *["full_attention"] * (LAYERS - 2), "sliding_attention"],
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
}


def _smolvlm(tokens: PreTrainedTokenizerFast, kind: type = SmolVLMConfig) -> Any:
    return kind(
        vision_config=vision(),
        text_config=text(LlamaConfig, tokens),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokens.pad_token_id,
        tie_word_embeddings=False,
    )


def _idefics3(tokens: PreTrainedTokenizerFast) -> Any:
    return _smolvlm(tokens, Idefics3Config)


def _gemma3(tokens: PreTrainedTokenizerFast) -> Gemma3Config:
    # The window is shorter than a picture's block of 4 tokens, and cuts it.
    begin, image, end = tokens.convert_tokens_to_ids(
        ["<start_of_image>", "<image_soft_token>", "<end_of_image>"]
    )
    return Gemma3Config(
        text_config=text_dict(LlamaConfig, tokens) | _WINDOWED | {"sliding_window": 3},
        vision_config=vision(),
        mm_tokens_per_image=4,
        image_token_index=image,
        image_token_id=image,
        boi_token_index=begin,
        eoi_token_index=end,
        tie_word_embeddings=False,
    )


def _paligemma2(tokens: PreTrainedTokenizerFast) -> PaliGemmaConfig:
    return PaliGemmaConfig(
        text_config=text(Gemma2Config, tokens, **_WINDOWED, sliding_window=10),
        vision_config=SiglipVisionConfig(**vision(), vision_use_head=False),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        tie_word_embeddings=False,
    )


def _tiles(kind: str) -> dict[str, Any]:
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": HALF,
        "image_processor_type": kind,
        "image_std": HALF,
        "max_image_size": {"longest_edge": 24},
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": 72},
    }


def _square(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": HALF,
        "image_processor_type": kind,
        "image_std": HALF,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": 24, "width": 24},
        **more,
    }


def _turns(begin: str) -> str:
    return (
        begin + "{% for m in messages %}{{ m['role'] | capitalize }}"
        "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
        "{% for c in m['content'] %}{{ c['text'] if c['type'] == 'text' else '<image>' }}"
        "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )


_PLACES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
_MARKS = ("<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>")

OTHERS = {
    "idefics3": Family(
        _idefics3,
        "Idefics3Processor",
        _tiles("Idefics3ImageProcessor"),
        {"image_seq_len": 4},
        _turns("<|begin_of_text|>"),
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|end_of_text|>",
            "pad_token": "<|finetune_right_pad_id|>",
        },
        (*_MARKS, *_PLACES),
        begins=True,
        ends=("<end_of_utterance>", "<|end_of_text|>"),
    ),
    "smolvlm2": Family(
        _smolvlm,
        "SmolVLMProcessor",
        _tiles("SmolVLMImageProcessor"),
        {"image_seq_len": 4},
        _turns("<|im_start|>"),
        {
            "bos_token": "<|im_start|>",
            "eos_token": "<end_of_utterance>",
            "pad_token": "<|im_end|>",
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        _PLACES,
    ),
    "gemma3": Family(
        _gemma3,
        "Gemma3Processor",
        _square("Gemma3ImageProcessor", do_convert_rgb=None, do_pan_and_scan=None),
        {"image_seq_length": 4},
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{% set first = messages[0]['content'][0]['text'] + '\n\n' %}{% set turns = messages[1:] %}"
        "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}"
        "{{ '<start_of_turn>' + m['role'] + '\n' + (first if loop.first else '') }}"
        "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<start_of_image>' }}"
        "{% else %}{{ c['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        {
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        ("<start_of_turn>", "<end_of_turn>"),
        begins=True,
        ends=("<end_of_turn>", "<eos>"),
    ),
    "paligemma2": Family(
        _paligemma2,
        "PaliGemmaProcessor",
        _square("SiglipImageProcessor", image_seq_length=16),
        {},
        None,
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        ("<image>",),
        begins=True,
    ),
}
