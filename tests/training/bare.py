"""transformers' real classes with tiny random weights, fed with made-up pixels and ids: families
whose processors tests/models/families.py does not write out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Gemma2Config,
    Gemma3Config,
    Idefics3Config,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    MistralConfig,
    PaliGemmaConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from seva_exp.interfaces import Encoded, EncodedImage
from seva_exp.models.vlm import Vlm
from seva_exp.training.collate import Preference

WORDS, IMAGE, START, END = 199, 198, 195, 196
TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}


@dataclass(frozen=True)
class Bare:
    """``pixels(rng, number)`` and how many placeholders they take; ``types`` is the name of the
    token types, with their value on image tokens."""

    config: Callable[[], Any]
    pixels: Callable[[torch.Generator, int], tuple[dict[str, torch.Tensor], int]]
    types: tuple[str, int] | None = None


class BareVlm(Vlm):
    """A picture is a number, a prompt some words ``w3 w17``."""

    def __init__(self, model: Any, processor: Any, bare: Bare) -> None:
        self.model, self.processor, self._bare = model.eval(), processor, bare

    @property
    def pad_id(self) -> int:
        return 0

    def encode_image(self, image: Any) -> EncodedImage:
        rng = torch.Generator().manual_seed(1000 + image)
        pixels, count = self._bare.pixels(rng, image)
        types = {self._bare.types[0]: (self._bare.types[1],) * count} if self._bare.types else {}
        return EncodedImage(pixels, (IMAGE,) * count, types)

    def encode(self, image: EncodedImage, prompt: str) -> Encoded:
        words = tuple(int(word[1:]) for word in prompt.split())
        before, after = (*words[:2], START), (END, *words[2:])
        around = (len(before), len(after))
        types = {k: (0,) * around[0] + v + (0,) * around[1] for k, v in image.types.items()}
        return Encoded((*before, *image.placeholders, *after), image, types)


def one_crop(rng: torch.Generator, number: int, tokens: int = 16):
    return {"pixel_values": torch.randn(1, 3, 16, 16, generator=rng)}, tokens


def _onevision(rng: torch.Generator, number: int):
    size, tiles = [((16, 32), 3), ((32, 16), 3), ((32, 32), 5)][number % 3]
    pixels = torch.randn(1, tiles, 3, 16, 16, generator=rng)
    height, width = (side // 4 for side in size)
    tokens = 16 + height * width + height  # a newline after each row
    return {"pixel_values": pixels, "image_sizes": torch.tensor([size])}, tokens


def _qwen(rng: torch.Generator, number: int):
    height, width = [(4, 6), (4, 4), (8, 4)][number % 3]
    pixels = torch.randn(height * width, 3 * 2 * 4 * 4, generator=rng)
    grid = torch.tensor([[1, height, width]])
    return {"pixel_values": pixels, "image_grid_thw": grid}, height * width // 4


def _tiles(rng: torch.Generator, number: int):
    tiles = 1 + number % 3
    return {"pixel_values": torch.randn(1, tiles, 3, 16, 16, generator=rng)}, 4 * tiles


def _patches(rng: torch.Generator, number: int):
    tiles = 1 + number % 3
    return {"pixel_values": torch.randn(tiles, 3, 16, 16, generator=rng)}, 4 * tiles


def _qwen2_5() -> Qwen2_5_VLConfig:
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLConfig(
        text_config=TEXT | {"rope_parameters": rope},
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=197,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=False,
    )


def _gemma3() -> Gemma3Config:
    # The window is shorter than a picture's block of 4 tokens, and cuts it.
    text = TEXT | SLIDING | {"head_dim": 16, "sliding_window": 3, "query_pre_attn_scalar": 16}
    return Gemma3Config(
        text_config=text,
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        image_token_id=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
        tie_word_embeddings=False,
    )


def _paligemma2() -> PaliGemmaConfig:
    text = TEXT | SLIDING | {"head_dim": 16, "sliding_window": 10, "query_pre_attn_scalar": 16}
    return PaliGemmaConfig(
        text_config=Gemma2Config(**text),
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        image_token_index=IMAGE,
        projection_dim=64,
        tie_word_embeddings=False,
    )


BARE = {
    "llava_sliding": Bare(
        lambda: LlavaConfig(
            vision_config=CLIPVisionConfig(**VISION),
            text_config=MistralConfig(**TEXT, sliding_window=8),
            image_token_index=IMAGE,
            image_seq_length=16,
        ),
        one_crop,
    ),
    "llava_onevision": Bare(
        lambda: LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
            text_config=Qwen2Config(**TEXT),
            image_token_index=IMAGE,
            video_token_index=197,
            image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        ),
        _onevision,
    ),
    "qwen2_5_vl": Bare(_qwen2_5, _qwen, ("mm_token_type_ids", 1)),
    "internvl3": Bare(
        lambda: InternVLConfig(
            vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
            text_config=Qwen2Config(**TEXT),
            image_token_id=IMAGE,
            image_seq_length=4,
            downsample_ratio=0.5,
            tie_word_embeddings=False,
        ),
        _patches,
    ),
    "idefics3": Bare(
        lambda: Idefics3Config(
            vision_config=VISION,
            text_config=LlamaConfig(**TEXT),
            image_token_id=IMAGE,
            scale_factor=2,
            pad_token_id=0,
            tie_word_embeddings=False,
        ),
        _tiles,
    ),
    "gemma3": Bare(_gemma3, lambda rng, n: one_crop(rng, n, 4), ("token_type_ids", 1)),
    "paligemma2": Bare(_paligemma2, one_crop, ("token_type_ids", 0)),
}


def build(name: str, processor: Any) -> BareVlm:
    """The model of family ``name``. ``processor`` is TRL's to look at only."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    config = BARE[name].config()
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # so that masks and positions matter
        for weight in model.parameters():
            if not weight.any() and weight.ndim >= 2:
                weight.normal_(std=0.1)  # Gemma3's projection begins at zero: no picture at all
            elif weight.ndim >= 2:
                weight.mul_(3.0)
    return BareVlm(model, processor, BARE[name])


def preferences(n: int, rejected: tuple[int, ...]) -> list[Preference]:
    """Number i has rejected[i] answers; prompts, answers and pictures differ in length."""
    rng = torch.Generator().manual_seed(7)

    def words(low: int, high: int) -> list[int]:
        count = int(torch.randint(low, high, (1,), generator=rng))
        return torch.randint(3, 180, (count,), generator=rng).tolist()

    return [
        Preference(
            f"s{i}",
            " ".join(f"w{word}" for word in words(6, 12)),
            lambda i=i: i,
            tuple(words(1, 14)),
            tuple(tuple(words(1, 14)) for _ in range(rejected[i % len(rejected)])),
        )
        for i in range(n)
    ]
