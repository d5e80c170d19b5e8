"""How far packed sequence and plain rows are apart in bfloat16, by depth, beside mistakes.

    python perf/rounding.py

Random weights in LLaVA's proportions (576 image tokens, answers of 60), width 512, on the CPU, both
ways on the same batches of one pair and of four; logits are given the standard deviation ``spread``
by the LM head's weights (a trained model's is 2 to 4). The numbers are ``apart``
(training/forward.py) in nats per root of a token: the two ways in bfloat16 (the worst batch), plain
rows from float32, and from two mistakes (the batch that shows them least): answers that see each
other, and answers whose positions begin one place too late.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dpo_cases
import torch
from dpo_cases import Case

from seva_exp.training.packed import PackedCollator


def model(layers: int, spread: float, dtype: Any) -> Any:
    from seva_exp.models import HubModel
    from seva_exp.models.vlm import Vlm

    dpo_cases.TEXT = {**dpo_cases.TEXT, "num_hidden_layers": layers}
    made = dpo_cases.random_model(Case("light", 1), "cpu")
    head = made.lm_head.weight.data
    with torch.no_grad():  # behind the last norm a hidden state has the length of its width's root
        head *= spread / (head.std() * head.shape[1] ** 0.5)
    return Vlm(made.to(dtype), dpo_cases.processor(), HubModel(path="random"))


@contextlib.contextmanager
def mistaken(name: str) -> Iterator[None]:
    """``sees``: answers see each other; ``late``: their positions begin one place too late."""
    from seva_exp.training import packed_attention as shared_attention
    from seva_exp.training.packed import PackedSequence

    mask, pack = shared_attention.answer_mask, PackedCollator._pack

    def late(self: Any, prompts: Any, *more: Any) -> PackedSequence:
        row = pack(self, prompts, *more)
        starts = [len(encoded.ids) for encoded, _ in prompts]
        at = row.positions
        shifted = at + (at >= torch.tensor(starts).min()).long()
        return replace(row, positions=shifted)

    def sees(prompt: Any, window: Any, device: Any) -> Any:
        whole = prompt.length + prompt.fed
        return torch.ones(whole, whole, dtype=torch.bool, device=device).tril()[prompt.length :]

    if name == "sees":
        shared_attention.answer_mask = sees
    else:
        PackedCollator._pack = late
    try:
        yield
    finally:
        shared_attention.answer_mask, PackedCollator._pack = mask, pack


def scores(vlm: Any, rows: Any, fast: str, size: int) -> list[Any]:
    """Log-probabilities and lengths of each batch of so many pairs."""
    from seva_exp.core.interfaces import Placement
    from seva_exp.core.progress import progress
    from seva_exp.training.forward import PackedForward, PlainForward, scored
    from seva_exp.training.reference import scoring
    from seva_exp.training.vision import FeatureCache

    place = Placement(
        "cpu", 8, size, False, lambda *a: progress("off", *a), Path(tempfile.mkdtemp())
    )
    with scoring(vlm, None) as called:
        packed = fast == "on"
        forward: Any = PackedForward(vlm, FeatureCache(vlm, 2**33)) if packed else PlainForward(vlm)
        collate = forward.collator(rows)
        batches = [range(i, i + size) for i in range(0, len(rows), size)]
        found = [
            scored(forward, called, collate([{"row": i} for i in batch]), place, vlm.model.dtype)
            for batch in batches
        ]
        forward.close()
    return found


def main() -> None:
    from seva_exp.training.forward import apart

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--spread", type=float, nargs="+", default=[3.0])
    parser.add_argument("--pairs", type=int, default=4)
    given = parser.parse_args()
    rows = dpo_cases.preferences(Case("light", given.pairs))[: given.pairs]
    print("| layers | spread | pairs | two ways | from float32 | wrong: sees | wrong: late |")
    print("|---|---|---|---|---|---|---|")
    for layers in given.layers:
        for spread in given.spread:
            half, full = (model(layers, spread, d) for d in (torch.bfloat16, torch.float32))
            for size in (1, 4):
                plain, shared = (scores(half, rows, fast, size) for fast in ("off", "on"))
                others = [shared, scores(full, rows, "on", size)]
                for name in ("sees", "late"):
                    with mistaken(name):
                        others.append(scores(half, rows, "on", size))
                found = [
                    [apart(a, b, n) for (a, n), (b, _) in zip(plain, other, strict=True)]
                    for other in others
                ]
                cells = [f"{max(one):.4f}" for one in found[:2]]
                cells += [f"{min(one):.4f}" for one in found[2:]]
                print(
                    "|",
                    " | ".join([str(layers), f"{spread:g}", str(size), *cells]),
                    "|",
                    flush=True,
                )


if __name__ == "__main__":
    main()
