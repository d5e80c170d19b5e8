"""Trains the embedded model: `python -m seva_exp.models.tiny_training [--out DIR] [--seed 0]`.

Two stages: the vision tower alone, on what each patch shows; then everything, on all questions of
an image at once behind one shared prefix. A second run on the same machine gives the same bytes.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seva_exp.models import tiny, tiny_data
from seva_exp.world import BIASED, UNBIASED

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

CHECKPOINT = Path(__file__).parent / "tiny_checkpoint"
"""The checkpoint that the package ships."""
THREADS = 2
ENVIRONMENT = {
    # glibc would hand every large activation back to the system: page faults dominate then.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
    # Waiting threads sleep: spinning ones slow a second job on the same cores.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "OMP_NUM_THREADS": str(THREADS),
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class TrainingPhase:
    """One training stage; the learning rate warms up, then falls to 3 % along a cosine."""

    name: str
    steps: int
    batch: int
    """Images a step."""
    peak_lr: float
    warmup: int
    """Steps."""

    def lr(self, step: int) -> float:
        """The learning rate of `step`, which counts from 1."""
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.peak_lr * min(1.0, step / self.warmup) * (0.03 + 0.97 * decay)


VISION = TrainingPhase("vision", steps=1200, batch=64, peak_lr=2e-3, warmup=100)
JOINT = TrainingPhase("joint", steps=550, batch=32, peak_lr=2.5e-3, warmup=40)


class Progress:
    """Prints step, mean loss, rate and time left, every `every` steps."""

    def __init__(self, stage: TrainingPhase, every: int = 50) -> None:
        self._stage, self._every = stage, every
        self._sum, self._start = 0.0, time.monotonic()

    def step(self, step: int, loss: float) -> None:
        self._sum += loss
        if step % self._every and step != self._stage.steps:
            return
        seen = (step - 1) % self._every + 1
        rate = step / (time.monotonic() - self._start)
        left = (self._stage.steps - step) / rate
        print(
            f"{self._stage.name} {step}/{self._stage.steps} loss {self._sum / seen:.4f} "
            f"{rate * self._stage.batch:.0f} images/s {left:.0f} s left",
            flush=True,
        )
        self._sum = 0.0


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Runs torch on THREADS threads: their number changes the order of sums, hence the bytes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _optimizer(modules: list[nn.Module], stage: TrainingPhase) -> Optimizer:
    """AdamW, with weight decay on matrices only."""
    import torch

    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.peak_lr, betas=(0.9, 0.98), fused=True)


def _update(loss: Tensor, optimizer: Optimizer, lr: float) -> float:
    """One clipped step at `lr`; the loss as a number."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


def _image_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Pixels `[B, 3, 72, 72]` -> projected features `[B, 36, 128]`."""
    import torch

    return torch.stack(list(model.get_image_features(pixels).pooler_output))


def _word_vectors(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, words: tuple[str, ...]
) -> Tensor:
    """The mean embedding of each word's tokens, `[words, 128]`, without a gradient."""
    import torch

    table = model.get_input_embeddings().weight.detach()
    ids = [processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    return torch.stack([table[i].mean(0) for i in ids])


def _free_heads() -> nn.ModuleDict:
    """One linear layer for every patch label, on the tower's features."""
    from torch import nn

    words = {name: len(words) for name, words in tiny_data.PATCH_WORDS.items()}
    classes = words | tiny_data.PATCH_NUMBERS
    return nn.ModuleDict({name: nn.Linear(tiny.WIDTH, 1 + n) for name, n in classes.items()})


def _word_heads(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> nn.ModuleDict:
    """As above, on the projected features, with fixed weights: the embeddings of the words.

    So a patch with a red star comes to resemble the words "red" and "star", and looking for a
    thing is the same act for every kind and color.
    """
    import torch
    from torch import nn

    heads = {}
    for name, words in tiny_data.PATCH_WORDS.items():
        vectors = _word_vectors(model, processor, words)
        nothing = torch.zeros_like(vectors[:1])
        heads[name] = nn.Linear(tiny.WIDTH, 1 + len(words))
        heads[name].weight = nn.Parameter(torch.cat([nothing, vectors]), requires_grad=False)
    return nn.ModuleDict(heads)


def _patch_loss(heads: nn.ModuleDict, features: Tensor, labels: dict[str, Tensor]) -> Tensor:
    """Sum over labels of the mean cross-entropy of features `[B, 36, 128]`."""
    import torch
    from torch.nn import functional

    losses = [
        functional.cross_entropy(head(features).float().flatten(0, 1), labels[name].flatten())
        for name, head in heads.items()
    ]
    return torch.stack(losses).sum()


def train_vision(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, stage: TrainingPhase, seed: int
) -> None:
    """Trains tower and projector to tell what each patch shows, with heads that are dropped.

    Its scenes come from both worlds by turns: the tower should see what is rare, too.
    """
    import torch

    torch.manual_seed(seed + 1)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    free, words = _free_heads(), _word_heads(model, processor)
    optimizer = _optimizer([tower, projector, free, words], stage)
    rng, progress = random.Random(f"vision {seed}"), Progress(stage)
    for step in range(1, stage.steps + 1):
        scenes = tiny_data.sample_scenes(rng, stage.batch, (UNBIASED, BIASED))
        labels = tiny_data.patch_labels(scenes)
        pixels = tiny_data.pixel_values(scenes, processor)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
            loss = _patch_loss(free, hidden, labels)
            loss = loss + _patch_loss(words, projector(hidden), labels)
        progress.step(step, _update(loss, optimizer, stage.lr(step)))


def joint_loss(model: LlavaForConditionalGeneration, batch: tiny_data.PackedBatch) -> Tensor:
    """Weighted mean cross-entropy of all answers' tokens, a scalar."""
    from torch.nn import functional

    features = _image_features(model, batch.pixel_values).flatten(0, 1)
    embeds = model.get_input_embeddings()(batch.input_ids)
    is_image = (batch.input_ids == model.config.image_token_id).unsqueeze(-1)
    hidden = model.model.language_model(
        inputs_embeds=embeds.masked_scatter(is_image, features.to(embeds.dtype)),
        attention_mask=batch.mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    known = batch.labels != tiny_data.IGNORED
    logits = model.lm_head(hidden[known]).float()
    losses = functional.cross_entropy(logits, batch.labels[known], reduction="none")
    weights = batch.weights[known]
    return (losses * weights).sum() / weights.sum()


def train_joint(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, stage: TrainingPhase, seed: int
) -> None:
    """Trains projector and language model on the biased world; the tower stays, as in LLaVA."""
    import torch

    model.model.vision_tower.requires_grad_(False)
    optimizer = _optimizer([model], stage)
    rng, progress = random.Random(f"joint {seed}"), Progress(stage)
    batches = tiny_data.sample_batches(tiny_data.Packer(processor), rng, stage.batch)
    for step, batch in zip(range(1, stage.steps + 1), batches, strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            loss = joint_loss(model, batch)
        progress.step(step, _update(loss, optimizer, stage.lr(step)))
    model.requires_grad_(True)


def train(
    out: Path, seed: int = 0, vision: TrainingPhase = VISION, joint: TrainingPhase = JOINT
) -> None:
    """Trains a model from nothing and writes weights (bf16), configs, processor and tokenizer."""
    import torch

    with fixed_threads():
        processor = tiny.build_processor()
        model = tiny.build_model(processor.tokenizer, seed).train()
        train_vision(model, processor, vision, seed)
        train_joint(model, processor, joint, seed)
    model.eval().to(torch.bfloat16).save_pretrained(out)
    processor.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)


def _enter_environment() -> None:
    """Starts this command anew with ENVIRONMENT, which is read only when a process starts."""
    if all(os.environ.get(name) == value for name, value in ENVIRONMENT.items()):
        return
    command = [sys.executable, "-m", "seva_exp.models.tiny_training", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | ENVIRONMENT)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model (CPU, 2 cores).")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    _enter_environment()
    start, busy = time.monotonic(), time.process_time()
    train(args.out, args.seed)
    size = (args.out / "model.safetensors").stat().st_size
    print(
        f"wrote {args.out} ({size} bytes of weights) in {time.monotonic() - start:.0f} s, "
        f"{time.process_time() - busy:.0f} s of CPU time",
        flush=True,
    )


if __name__ == "__main__":
    main()
