"""What a GPU would hold, compute and wait for, counted on a CPU.

    python perf/gpu_tables.py                       every table (some minutes on one core)
    python perf/gpu_tables.py --table training      one: training, generation or memory
    python perf/gpu_tables.py --json rows.json      and the rows for machines

LLaVA-1.5 in its true sizes, without values, goes through this package's own classes on a CUDA
device that is none (tests/fake_gpu, which needs a C++ compiler): each operator's storage, matrix
operations by number format and kernels are counted, and each moment in which the host waits.
Questions of 60 tokens and 576 of the picture, answers of 150. Nothing is timed: kernels' numerics,
the allocator's fragmentation and NCCL are not seen.

training: the weights, the adapter in float32; then the peaks of the first batch's comparison with
plain rows (which takes less where there is less), of a micro-step (with AdamW's moments beside it,
as from the second step on) and of the optimizer's step; whether that fits a card with 0.6 GiB for
CUDA's context; a checkpoint's size; of the second micro-step its matrix operations, the share of
them in float32, kernels, and waits of the host.
generation: tokens of keys and values that the engine allows itself, the most rows that ran at once,
the peak; kernels of a decode step, the share of steps that were played from a CUDA graph, and the
host's waits. memory: what is held after each part of a run, and
what torch keeps of the GPU for later.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

GIB = 2**30
CONTEXT = 0.6
"""GiB of a CUDA context and cuBLAS, which a card's memory must have room for too."""
ROOMY = 1000.0
"""GiB of a device on which everything fits."""
CARDS = (24, 80)
ANSWER = 150

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A training: ``micro`` preferences a forward pass."""

    size: str
    rank: int
    micro: int
    checkpointing: bool = True
    answer: int = ANSWER
    fast: str = "auto"

    @property
    def name(self) -> str:
        said = f"{self.size} r={self.rank} micro {self.micro}"
        said += ", checkpointing" * self.checkpointing
        said += f", answers of {self.answer}" * (self.answer != ANSWER)
        return said + ", plain rows" * (self.fast == "off")


TRAININGS = [
    *(Case("7b", 1024, micro) for micro in (1, 4, 16)),
    Case("7b", 1024, 4, answer=512),
    Case("7b", 1024, 4, fast="off"),
    *(Case("7b", 128, micro) for micro in (1, 4)),
    *(Case("7b", 128, micro, checkpointing=False) for micro in (1, 4, 16)),
    Case("13b", 128, 1),
    Case("13b", 256, 4),
    Case("13b", 1024, 1),
]
GENERATIONS = [("7b", 24, 30), ("7b", 80, 180), ("13b", 40, 24), ("13b", 80, 90)]
"""Size, GiB of the card, questions."""
SHORT = "7b, 2 layers"
ADAPTER = 128
"""Rank of the adapter of which an aligned model is made."""


@contextmanager
def model(size: str, gib: float) -> Iterator[Any]:
    """Shapes on a device of their own."""
    from fake_gpu.meta import MetaDevice
    from fake_gpu.shapes import SIZES, Shapes

    gc.collect()
    with tempfile.TemporaryDirectory() as folder, MetaDevice(gib) as gpu:
        made = Shapes(gpu, SIZES[size], Path(folder))
        with made.loadable():
            yield made


def training(case: Case) -> Row:
    """Memory, operations, kernels and waits of one optimizer step of two micro-batches. From the
    second step on AdamW's two moments lie beside a micro-step (tests/fake_gpu/test_memory.py)."""
    with model(case.size, ROOMY) as made:
        done = made.trained(
            case.rank, case.micro, case.checkpointing, answer=case.answer, fast=case.fast
        )
    step = done.micro_steps[-1]
    peak = done.peak + 2 * done.adapter
    most = max(peak, done.optimizer_step.peak) / GIB + CONTEXT
    return {
        "case": case.name,
        "weights": done.weights / GIB,
        "adapter": done.adapter / GIB,
        "comparison": done.made.peak / GIB,
        "micro-step": peak / GIB,
        "optimizer": done.optimizer_step.peak / GIB,
        **{f"{card} GB": "yes" if most <= card else "no" for card in CARDS},
        "checkpoint": 3 * done.adapter / GIB,
        "TFLOP": sum(step.flop.values()) / 1e12,
        "float32": f"{step.float32_share:.1%}",
        "kernels": step.kernels,
        "waits": sum(step.waits.values()),
        "rows": done.said,
    }


def generation(size: str, gib: int, asked: int) -> Row:
    """Rows within a card's memory, and what a decode step takes."""
    with model(size, gib) as made:
        found = made.generated(rows=1024, answer=ANSWER, asked=asked)
        weights = made.gpu.ledger.by_kind["weights"]
    return {"model": size, "card": f"{gib} GB", "weights": weights / GIB} | _steps(found)


def aligned(size: str, beside: bool) -> Row:
    """The same for an aligned model: its adapter merged, or ``beside`` the weights."""
    from unittest.mock import patch

    from fake_gpu.shapes import adapter_of

    from seva_exp.models import adapter

    fit, lost = adapter.fit, -1.0 if beside else 1.0
    with (
        model(size, 24) as made,
        patch("seva_exp.models.vlm.merge_adapter", lambda net, folder: fit(net, folder, lost)),
    ):
        folder = adapter_of(made.model(), ADAPTER, made.work / "adapter")
        made.model(folder)
        weights = made.gpu.ledger.live
        found = made.generated(rows=1024, answer=ANSWER, asked=30, adapter=folder)
    name = f"{size} r={ADAPTER}, {'beside' if beside else 'merged'}"
    return {"model": name, "card": "24 GB", "weights": weights / GIB} | _steps(found)


def _steps(found: Any) -> Row:
    looks = found.of("_decode")
    steps = sum(look.steps for look in looks)
    waits = sum(sum(look.work.waits.values()) for look in looks)
    return {
        "budget, tokens": found.budget,
        "rows": found.rows,
        "peak": found.peak / GIB,
        "kernels a step": found.kernels,
        "played": f"{sum(look.played for look in looks) / steps:.0%}",
        "waits a step": waits / steps,
    }


def memory(size: str, rank: int) -> Iterator[Row]:
    """What is held after each part of a run, and what torch keeps for later. Python's own
    collection of cycles is off: what is freed is freed by the code."""
    from fake_gpu.shapes import adapter_of

    with model(size, ROOMY) as made:
        ledger = made.gpu.ledger

        def row(after: str) -> Row:
            held = {"held": ledger.live / GIB, "kept": ledger.reserved / GIB}
            return {"case": f"{size} r={rank}", "after": after, **held}

        yield row("nothing")
        folder = adapter_of(made.model(), rank, made.work / "adapter")
        gc.disable()
        try:
            yield row("the model was loaded")
            made.generated(rows=16, answer=8)
            yield row("answers")
            made.scored(4)
            yield row("reference")
            made.trained(rank, 4, True)
            yield row("align")
            made.context.release()
            yield row("release")
            made.model(folder)
            yield row("the aligned model was loaded")
        finally:
            gc.enable()


Table = Sequence[Callable[[], Row | Iterator[Row]]]


def tables(quick: bool = False) -> dict[str, Table]:
    """What counts their rows; ``quick``: of a model of two layers, and fewer."""
    if quick:
        return {
            "training": [lambda: training(Case(SHORT, 128, 1))],
            "generation": [lambda: generation(SHORT, 24, 4)],
            "memory": [lambda: memory(SHORT, 128)],
        }
    return {
        "training": [lambda case=case: training(case) for case in TRAININGS],
        "generation": [
            *(lambda of=of: generation(*of) for of in GENERATIONS),
            lambda: aligned("7b", beside=False),
            lambda: aligned("7b", beside=True),
        ],
        "memory": [lambda: memory("7b", 128), lambda: memory("7b", 1024)],
    }


def rows_of(table: Table) -> Iterator[Row]:
    """Row by row, as they are counted."""
    for count in table:
        found = count()
        yield from [found] if isinstance(found, dict) else found


def told(row: Row) -> str:
    """A line of Markdown."""
    cells = (f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values())
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", choices=tables(), help="one of them (all)")
    parser.add_argument("--quick", action="store_true", help="few cases, of two layers")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    from fake_gpu.install import build, install, missing

    if reason := missing():
        parser.error(reason)
    with tempfile.TemporaryDirectory() as folder:
        install(build(Path(folder)))
    from seva_exp.core.runtime import settle

    settle()
    found: dict[str, list[Row]] = {}
    chosen = tables(asked.quick)
    for table in [asked.table] if asked.table else chosen:
        print(f"\n{table} (bytes in GiB)\n")
        for row in rows_of(chosen[table]):
            if table not in found:
                print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
            found.setdefault(table, []).append(row)
            print(told(row), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
