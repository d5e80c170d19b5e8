"""What merging an adapter into weights of 16 bits loses of it.

    python perf/merging.py RUN                    the adapter of a finished run's folder
    python perf/merging.py                        and changes as large as those of the papers

Weights of 16 bits lie on a grid, and what an adapter adds is rounded to it. Per layer: the size of
the change D against the weights W; by how much of D the rounded sum is off,
||round(W + D) - W - D|| / ||D||; how much of D is in it, <round(W + D) - W, D> / <D, D>; medians
over the layers. Beside the weights: the same of two factors that are rounded each.

Without RUN: W normal with 0.02 (as LLaMA's), A as LoRA begins, B moved by its learning rate in each
of 62 steps of AdamW in one direction (an epoch of 8,000 pairs, 128 a step; half the rate on
average). That is the most that AdamW moves it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch

WIDTH, STEPS = 2048, 62
CASES = {
    "STIC, 1e-7, rank 128": (128, 1e-7),
    "SeVa, 2e-6, rank 1024": (1024, 2e-6),
    "2e-5, rank 128": (128, 2e-5),
    "2e-4, rank 128": (128, 2e-4),
}
Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Weights, A, and B scaled."""


def simulated(rank: int, rate: float) -> Iterator[Layer]:
    """One layer: B has gone one way in eight directions at once."""
    torch.manual_seed(0)
    down = (torch.rand(rank, WIDTH) * 2 - 1) / WIDTH**0.5
    ways = (torch.randn(WIDTH, 8) @ torch.randn(8, rank)).sign()
    yield torch.randn(WIDTH, WIDTH) * 0.02, down, 2 * ways * rate * STEPS / 2


def of_run(run: Path) -> Iterator[Layer]:
    """The layers of the adapter in a run's folder."""
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText

    from seva_exp.runs.trained import read_trained

    found = read_trained(run)
    model = AutoModelForImageTextToText.from_pretrained(
        found.model().location(), dtype=torch.float32
    )
    config = json.loads((found.adapter / "adapter_config.json").read_text())
    weights = load_file(found.adapter / "adapter_model.safetensors")
    for name, down in weights.items():
        if name.endswith(".lora_A.weight"):
            inner = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = weights[name.replace("lora_A", "lora_B")] * config["lora_alpha"] / config["r"]
            yield model.get_submodule(inner).weight.detach(), down, up


def row(layers: Iterator[Layer], dtype: torch.dtype) -> list[float]:
    """Medians: size, off when merged, kept when merged, off beside."""
    found = []
    for weight, down, up in layers:
        before, change = weight.to(dtype).float(), up @ down
        merged = (before + change).to(dtype).float() - before
        beside = up.to(dtype).float() @ down.to(dtype).float()
        size = change.norm()
        found.append(
            [
                float(size / before.norm()),
                float((merged - change).norm() / size),
                float((merged * change).sum() / size**2),
                float((beside - change).norm() / size),
            ]
        )
    return [statistics.median(column) for column in zip(*found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished run")
    given = parser.parse_args()
    cases = {given.run.name: lambda: of_run(given.run)} if given.run else {}
    for name, values in CASES.items():
        cases[name] = lambda values=values: simulated(*values)
    print("| adapter | weights | change / weights | merged: off by | kept | beside: off by |")
    print("|---|---|---|---|---|---|")
    for name, layers in cases.items():
        for dtype in (torch.bfloat16, torch.float16):
            size, off, kept, beside = row(layers(), dtype)
            kind = str(dtype).removeprefix("torch.")
            print(f"| {name} | {kind} | {size:.2g} | {off:.1%} | {kept:.0%} | {beside:.2%} |")


if __name__ == "__main__":
    main()
