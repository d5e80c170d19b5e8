"""The cases of dpo_step.py: models in LLaVA's proportions, preferences, counted operations."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any

IMAGE, PROMPT, ANSWER, VOCABULARY = 576, 40, 60, 32000
VISION = {
    "light": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6},
    "heavy": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8},
}
TEXT = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
BIG_VISION = {
    "light": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24},
    "heavy": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 24},
}
BIG_TEXT = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
HEAD = {512: 64, 128: 32, 1024: 64, 4096: 128}
"""Width of an attention head, by hidden size."""


@dataclass(frozen=True)
class Case:
    vision: str
    batch_size: int
    checkpointing: bool = False
    negatives: int = 1

    @property
    def name(self) -> str:
        parts = [self.vision, str(self.batch_size)]
        parts += ["checkpointing"] * self.checkpointing
        return "-".join(parts + [f"{self.negatives}neg"] * (self.negatives > 1))


CASES = [
    *(Case(v, b, c) for v in VISION for b in (1, 4) for c in (False, True)),
    Case("light", 1, negatives=3),
]
MORE = [Case("heavy", 1, negatives=3)]
"""Run by name only."""


def operations(case: Case, big: bool) -> dict[str, float]:
    """Multiply-adds times 2 of one preference's step: ``stock``, what is needed for ``ours``, and
    what comes ``once`` (reference and picture).

    Frozen weights: the backward pass costs as much as the forward in linear layers, twice as much
    in attention and, since the fused head computes its logits again, in the head. Checkpointing
    adds a forward pass. Stock TRL encodes the picture for each row and each of policy and
    reference, and with checkpointing also goes back through the frozen tower. Needed of the last
    layer is what answers' places need: their queries, outputs and MLP.
    """
    text, vision = (BIG_TEXT, BIG_VISION) if big else (TEXT, VISION)
    tower = vision[case.vision]
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    square, mlp = 2 * width * width, 6 * width * text["intermediate_size"]
    head = 2 * width * VOCABULARY * ANSWER
    again = 1 + case.checkpointing

    def cost(tokens: float, seen: float, last: tuple[float, float], rows: int) -> tuple[float, ...]:
        """Forward alone, forward and backward. ``seen``: pairs of query and key in a layer;
        ``last``: places and pairs that the last layer computes."""
        places, pairs = last
        flat = (layers - 1) * tokens * (4 * square + mlp)
        flat += 2 * tokens * square + places * (2 * square + mlp)
        attention = 4 * width * ((layers - 1) * seen + pairs)
        forward = flat + attention + rows * head
        back = flat + 2 * attention + 2 * rows * head
        return forward, forward + back + (again - 1) * (flat + attention)

    prompt = IMAGE + PROMPT + 1
    rows, fed = 2 * case.negatives, 1 + case.negatives  # stock TRL: K pairs
    length = prompt + ANSWER - 1
    all_seen = rows * triangle(length)
    stock = sum(cost(rows * length, all_seen, (rows * length, all_seen), rows))
    picture = operations_of_picture(tower)
    stock += 2 * again * rows * picture
    answers = fed * ((ANSWER - 1) * prompt + triangle(ANSWER - 1))
    last = (1 + fed * (ANSWER - 1), prompt + answers)
    forward, ours = cost(prompt + fed * (ANSWER - 1), triangle(prompt) + answers, last, fed)
    return {"stock": stock, "ours": ours, "once": forward + picture}


def operations_of_picture(tower: dict[str, int]) -> float:
    """The vision tower's forward pass."""
    patches, width = IMAGE + 1, tower["hidden_size"]
    linear = 2 * (4 * width * width + 2 * width * tower["intermediate_size"])
    return tower["num_hidden_layers"] * (patches * linear + 4 * patches * patches * width)


def triangle(n: int) -> float:
    """Pairs of a query and a key not after it."""
    return n * (n + 1) / 2


def build(case: Case, device: str) -> tuple[Any, Any]:
    """The model with a real processor, and the preferences."""
    from seva_exp.models import HubModel
    from seva_exp.models.vlm import Vlm

    vlm = Vlm(random_model(case, device), processor(), HubModel(path="random"))
    return vlm, preferences(case)


def processor() -> Any:
    """LLaVA-1.5's, over a vocabulary of made-up words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = {word: i for i, word in enumerate(special)}
    words |= {f"w{i}": i for i in range(len(special), VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=core, extra_special_tokens={"image_token": "<image>"}, **names
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
        ),
        tokenizer=tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{{ '<image> ' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endfor %}",
    )


def random_model(case: Case, device: str) -> Any:
    """Weights drawn by a fixed seed: float32 on a CPU, else bfloat16 and LLaVA-1.5-7B's shapes."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    big = device != "cpu"
    text, vision = (BIG_TEXT, BIG_VISION) if big else (TEXT, VISION)
    tower = vision[case.vision]
    heads = text["hidden_size"] // HEAD[text["hidden_size"]]
    torch.manual_seed(0)
    with torch.device(device):
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(
                image_size=336,
                patch_size=14,
                num_attention_heads=tower["hidden_size"] // HEAD[tower["hidden_size"]],
                **tower,
            ),
            text_config=LlamaConfig(
                vocab_size=VOCABULARY,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                max_position_embeddings=4096,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                **text,
            ),
            image_token_index=4,
            image_seq_length=IMAGE,
        )
        dtype = torch.bfloat16 if big else torch.float32
        return LlavaForConditionalGeneration._from_config(config, dtype=dtype)


def preferences(case: Case) -> list[Any]:
    """Random answers to random prompts on noise."""
    from seva_exp.training.collate import Preference

    rng = random.Random(0)

    def answer() -> tuple[int, ...]:
        return tuple(rng.randrange(100, VOCABULARY) for _ in range(ANSWER))

    return [
        Preference(
            f"s{i}",
            " ".join(f"w{rng.randrange(100, VOCABULARY)}" for _ in range(PROMPT)),
            partial(noise, i),
            answer(),
            tuple(answer() for _ in range(case.negatives)),
        )
        for i in range(case.batch_size)
    ]


def noise(number: int) -> Any:
    """A picture of the usual size."""
    import numpy as np
    from PIL import Image

    values = np.random.RandomState(number).randint(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((640, 480), Image.Resampling.BICUBIC)
