"""A tiny CLIP in transformers' own layout, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

WORDS = [
    *("the", "image", "shows", "a", "an", "red", "blue", "green", "yellow"),
    *("star", "ring", "cube", "cross", "yes", "no", "and", "one", "two"),
]
SIDE = 32


def tiny_clip(folder: Path, seed: int = 0, context: int = 12) -> Path:
    """Two layers, words as tokens, a context of 12 of them."""
    vocabulary = {word: number for number, word in enumerate(["<s>", "</s>", "<?>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<?>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<?>"
    )
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
              "num_attention_heads": 2}  # fmt: skip
    config = CLIPConfig(
        text_config={**layers, "vocab_size": len(vocabulary), "max_position_embeddings": context,
                     "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config={**layers, "image_size": SIDE, "patch_size": 8},
        projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    CLIPProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return folder
