"""LLaVA-1.5, LLaVA-NeXT (LLaVA-1.6) and LLaVA-OneVision."""

from __future__ import annotations

from dataclasses import replace

from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from .checkpoints import HALF, MEAN, STD, VICUNA, Family, text, vision

PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]


def _llava(tokens: PreTrainedTokenizerFast) -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**vision(28, 7)),
        text_config=text(LlamaConfig, tokens),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )


def _sliding(tokens: PreTrainedTokenizerFast) -> LlavaConfig:
    """A window shorter than a prompt."""
    config = _llava(tokens)
    config.text_config = text(MistralConfig, tokens, sliding_window=8)
    return config


def _next(tokens: PreTrainedTokenizerFast) -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(**vision()),
        text_config=text(MistralConfig, tokens, sliding_window=None),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )


def _next_vicuna(tokens: PreTrainedTokenizerFast) -> LlavaNextConfig:
    config = _next(tokens)
    config.text_config = text(LlamaConfig, tokens)
    return config


def _onevision(tokens: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**vision(), vision_use_head=False),
        text_config=text(Qwen2Config, tokens),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        video_token_index=tokens.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


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
_ANYRES = {
    **_CLIP,
    "aspect_ratio_setting": "anyres",
    "crop_size": {"height": 24, "width": 24},
    "image_grid_pinpoints": PINPOINTS,
    "image_processor_type": "LlavaNextImageProcessor",
    "size": {"shortest_edge": 24},
}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<image>"}
_TEXTS = "{% for c in m['content'] if c['type'] == 'text' %}"
_IMAGES = "{% for c in m['content'] if c['type'] == 'image' %}"
_VICUNA = (
    "{% for m in messages %}"
    "{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    + _IMAGES
    + "{{ '<image>\n' }}{% endfor %}"
    + _TEXTS
    + "{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def _sizes(patch: int) -> dict[str, str | int]:
    return {
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": patch,
        "vision_feature_select_strategy": "default",
    }


LLAVAS = {
    "llava15": Family(
        _llava,
        "LlavaProcessor",
        {**_CLIP, "image_processor_type": "CLIPImageProcessor"},
        _sizes(7),
        _VICUNA,
        _LLAMA,
        begins=True,
        system_prompt=VICUNA,
        pad_to_square=True,
    ),
    "llava16_vicuna": Family(
        _next_vicuna,
        "LlavaNextProcessor",
        _ANYRES,
        _sizes(6),
        _VICUNA,
        _LLAMA,
        begins=True,
        system_prompt=VICUNA,
    ),
    "llava16_mistral": Family(
        _next,
        "LlavaNextProcessor",
        _ANYRES,
        _sizes(6),
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ '<<SYS>>\n' + m['content'][0]['text'] + '\n<</SYS>>\n\n' }}{% else %}{{ '[INST] ' }}"
        + _IMAGES
        + "{{ '<image>\n' }}{% endfor %}"
        + _TEXTS
        + "{{ c['text'] }}{% endfor %}{{ ' [/INST]' }}{% endif %}{% endfor %}",
        _LLAMA,
        begins=True,
    ),
    "llava_onevision": Family(
        _onevision,
        "LlavaOnevisionProcessor",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_grid_pinpoints": PINPOINTS,
            "image_mean": HALF,
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "image_std": HALF,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": 24, "width": 24},
        },
        {
            "image_token": "<image>",
            "num_image_tokens": 16,
            "video_token": "<video>",
            "vision_aspect_ratio": "anyres_max_9",
            "vision_feature_select_strategy": "full",
        },
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
        + _IMAGES
        + "{{ '<image>' }}{% endfor %}"
        + _TEXTS
        + "{{ '\n' + c['text'] }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ("<|im_start|>", "<image>", "<video>"),
    ),
}
SLIDING = replace(LLAVAS["llava15"], config=_sliding)
