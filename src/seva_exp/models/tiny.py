"""The embedded model: a LLaVA of 1.74 M parameters for the synthetic world, built from nothing.

72 x 72 pixels, patches of 12, hence 36 image tokens; CLIP tower and Llama of 4 layers, width 128.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from seva_exp.world import language, questions, scene

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

IMAGE_SIDE = 72
"""Pixels; pictures drawn at this size are not resized by the processor."""
PATCH = 12
GRID = IMAGE_SIDE // PATCH
IMAGE_TOKENS = GRID * GRID
WIDTH = 128
LAYERS = 4
HEADS = 4
VOCABULARY = 512
MAX_POSITIONS = 512
EMBEDDING_SCALE = 10.0
"""Word embeddings start with a standard deviation of 10 * 0.02."""
RESIDUAL_GAIN = 0.35
"""Start scale of what an MLP adds, relative to a unit gain."""
COPY_GAIN = 0.7
"""Start scale of what an attention head copies."""
IMAGE_TOKEN = "<image>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}USER:"
    "{% if m['content'] is string %} {{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %} <image>{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %} {{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% elif m['role'] == 'assistant' %} ASSISTANT: "
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
"""Ends a generation prompt without a space: the answer's first token carries it."""


def _corpus(n: int = 1000) -> Iterator[str]:
    """Sentences on which the tokenizer is trained: `n` scenes' descriptions and questions."""
    rng = random.Random(0)
    prompts = language.PLAIN_PROMPTS + language.CAREFUL_PROMPTS + language.IMAGINE_PROMPTS
    words = " ".join(f"{word} {word.lower()}" for word in scene.WORDS)
    for _ in range(n):
        sample = scene.sample_scene(rng, scene.UNBIASED)
        parts = ["USER: ASSISTANT:", language.describe(sample), rng.choice(prompts), words]
        pairs = [ask(sample, rng) for ask in questions.QUESTIONS.values()]
        pairs.append(questions.existence(sample, rng, rng.random() < 0.5))
        parts += [f"{qa.question} {qa.answer}" for qa in pairs if qa is not None]
        parts.append("Image description:")
        yield " " + " ".join(parts)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 512 tokens: any text can be encoded, the world's words are short."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>", IMAGE_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """Tokenizer, chat template and image processor; the chat template holds `<s>` already.

    `num_additional_image_tokens` counts the class token that the "default" strategy drops:
    without it a prompt would hold 35 image tokens for 36 features.
    """
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIDE},
            crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        ),
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> LlavaForConditionalGeneration:
    """An untrained model in float32, its weights fixed by `seed`.

    `vision_feature_layer=-1`: the default, -2, would leave the tower's last layer untrained.
    """
    import torch
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            image_size=IMAGE_SIDE,
            patch_size=PATCH,
            projection_dim=WIDTH,
            hidden_act="gelu",
            **shape,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            num_key_value_heads=HEADS,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=False,
            **shape,
            **special,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    _initialise_language_model(model)
    return model


def _initialise_language_model(model: LlavaForConditionalGeneration) -> None:
    """Start values with which attention looks up and copies, so that little data is enough.

    Half of the heads start with equal query and key projections (they look for tokens like the
    asking one), every head writes back about what it reads, and the output layer starts as a
    copy of the word embeddings (what was fetched can be said).
    """
    import torch

    with torch.no_grad():
        for layer in model.model.language_model.layers:
            for name, weight in layer.named_parameters():
                if weight.ndim == 2:
                    gain = RESIDUAL_GAIN if name == "mlp.down_proj.weight" else 1.0
                    weight.normal_(0.0, gain * weight.shape[1] ** -0.5)
            attention = layer.self_attn
            half = WIDTH // 2
            attention.k_proj.weight[:half] = attention.q_proj.weight[:half]
            attention.o_proj.weight.copy_(COPY_GAIN * attention.v_proj.weight.T)
        words = model.get_input_embeddings().weight.mul_(EMBEDDING_SCALE)
        model.lm_head.weight.copy_(words / 4)
