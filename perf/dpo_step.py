"""What a DPO step costs, ours against stock TRL, side by side in one process.

    python perf/dpo_step.py                     every case, a table (under 10 minutes on 2 cores)
    python perf/dpo_step.py --json rows.json    and the rows for machines
    python perf/dpo_step.py --case light-4      one case: VISION-BATCH[-checkpointing][-NEGATIVES]

Random weights in LLaVA-1.5's proportions: 576 image tokens, prompt 40, answers 60; a light vision
tower (5 % of the language model, as LLaVA-1.5's) and a heavy one (as Qwen2.5-VL-3B's). The baseline
is TRL's own ``_compute_loss`` on its own rows, its LM head on answers' tokens only, as it is on a
GPU (on a CPU TRL scores every position, which would double our ratios). On a CPU: float32, one
thread, process CPU time, since other work on the machine would blur the clock; cases run in two
processes. On a GPU: bfloat16, LLaVA-1.5-7B's shapes, wall-clock time.

A case runs stock, ours, stock, ours ...; its ratio is the median over the pairs, with the range.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpo_cases import CASES, MORE, Case, build, operations

SAME = 1e-4
"""How far the gradients of ours and stock may be apart, of their length, in float32."""


@contextmanager
def compact_head() -> Iterator[None]:
    """TRL's head scores answers' tokens only, as on a GPU. For the baseline alone."""
    from trl.trainer import utils

    real = utils._use_triton
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = real


class Bench:
    """Stock and ours on one model object."""

    def __init__(self, case: Case, device: str, work: Path) -> None:
        import torch

        from seva_exp.core.interfaces import Placement
        from seva_exp.core.progress import progress
        from seva_exp.training import DpoTraining
        from seva_exp.training.collate import PreferenceCollator
        from seva_exp.training.dpo import trainer_for
        from seva_exp.training.driver import TrainingJob

        torch.set_num_threads(1)
        self.torch, self.case, self.device = torch, case, device
        vlm, self.preferences = build(case, device)
        self.place = Placement(
            device, 8, case.batch_size, case.checkpointing,
            lambda *a: progress("off", *a), work, vision_cache=2**34,
        )  # fmt: skip
        spec = DpoTraining(lora_rank=16, lora_alpha=32, batch_size=case.batch_size, fast="off")
        job = TrainingJob(vlm, spec, self.place, 0, "base", lambda *_: None)
        self.trainer = trainer_for(job, self.preferences)
        self.trainer._starts_equal = False
        self.model, self.vlm = self.trainer.model, vlm
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        self.model.train()
        if case.checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        pairs = [
            self._pair(p, k) for k in range(case.negatives) for p in self.preferences
        ]  # K pairs with one prompt each are K rows of TRL's
        rows = PreferenceCollator(vlm, pairs)([{"row": i} for i in range(len(pairs))])
        self.stock_rows = self._placed({k: v for k, v in rows.items() if "owner" not in k})

    def _pair(self, preference: Any, number: int) -> Any:
        from dataclasses import replace

        return replace(preference, rejected=(preference.rejected[number],))

    def _placed(self, batch: Any) -> Any:
        return {k: v.to(self.device) for k, v in batch.items()}

    def stock(self, reference: Any = None, features: Any = None, backward: bool = True) -> Any:
        """TRL's own step, with its reference computed on the way, or given."""
        from trl import DPOTrainer

        inputs = dict(self.stock_rows)
        if features is not None:
            inputs.pop("pixel_values")
            inputs["mm_encoder_outputs"] = {"image": features()}
        self.trainer.precompute_ref_logps = reference is not None
        if reference is not None:
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = reference.chunk(2)
        with compact_head():
            loss = DPOTrainer._compute_loss(self.trainer, self.model, inputs, False)
        self.trainer.precompute_ref_logps = True
        if backward:
            loss.backward()
        return loss.item()

    def open(self, budget: int) -> None:
        """From here on the packed sequence, until ``close``."""
        from seva_exp.training.forward import PackedForward
        from seva_exp.training.vision import FeatureCache

        self.trainer.forward = PackedForward(self.vlm, FeatureCache(self.vlm, budget))
        collate = self.trainer.forward.collator(self.preferences)
        self.shared = self._placed(collate([{"row": i} for i in range(len(self.preferences))]))

    def close(self) -> None:
        self.trainer.forward.close()

    def ours(self, reference: Any = None, backward: bool = True) -> Any:
        inputs = dict(self.shared)
        if reference is not None:
            inputs["reference"] = reference
        self.trainer._step = self.trainer.count(inputs)  # a step of one micro-batch
        self.trainer._real = [True]
        loss = self.trainer.compute_loss(self.model, inputs)
        self.trainer._seen.clear()
        if backward:
            loss.backward()
        return loss.item()

    def reference(self) -> Any:
        """log pi_ref of the rows as the stage ``reference`` computes it: the head makes
        log-probabilities and no statistics."""
        from trl.trainer.utils import add_fused_lm_head

        inputs = {k: v for k, v in self.shared.items() if "owner" not in k}
        before = self.vlm.model.forward
        add_fused_lm_head(self.vlm.model)
        try:
            return self.trainer._reference(inputs)
        finally:
            self.vlm.model.forward = before

    def seconds(self, work: Callable[[], Any]) -> tuple[float, Any]:
        self.model.zero_grad()
        gc.collect()
        on_gpu = self.device != "cpu"
        if on_gpu:
            self.torch.cuda.synchronize()
        clock = time.perf_counter if on_gpu else time.process_time
        start = clock()
        value = work()
        if on_gpu:
            self.torch.cuda.synchronize()
        return clock() - start, value

    def saved(self, work: Callable[..., Any], reference: Any) -> int:
        """Bytes that a step keeps for its backward pass, parameters left out."""
        known = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        seen: dict[int, int] = {}

        def pack(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with self.torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            work(reference, backward=False)
        return sum(seen.values())

    def gradients(self) -> Any:
        found = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        return self.torch.cat(found).float()


def measure(case: Case, device: str, rounds: int, parts: bool, work: Path) -> dict[str, Any]:
    """One case: A B A B. The first forward passes, of which the memory is measured, warm up."""
    bench = Bench(case, device, work)
    bench.open(2**34)
    reference = bench.reference()
    memory = [bench.saved(bench.ours, reference)]
    bench.close()
    chosen, *rejected = reference.split(case.batch_size)
    pairs = bench.torch.cat([chosen] * case.negatives + rejected)  # as stock's rows lie
    memory.insert(0, bench.saved(bench.stock, pairs))
    times: dict[str, list[float]] = {"stock": [], "ours": [], "reference": [], "tower": []}
    apart = 0.0
    for _ in range(rounds):
        times["stock"].append(bench.seconds(bench.stock)[0])
        gradient = bench.gradients()
        bench.open(2**34)
        images = bench.shared["shared"].pictures
        vision = bench.trainer.forward._vision
        times["tower"].append(bench.seconds(lambda v=vision, i=images: v.features(i))[0])
        times["ours"].append(bench.seconds(lambda: bench.ours(reference))[0])
        apart = max(apart, ((bench.gradients() - gradient).norm() / gradient.norm()).item())
        times["reference"].append(bench.seconds(bench.reference)[0])
        bench.close()
    if device == "cpu" and apart > SAME:
        raise SystemExit(f"{case.name}: ours is another gradient than stock's, by {apart:.1e}")
    result = summary(case, times, memory, device != "cpu")
    result["gradient_difference"] = apart
    if device != "cpu":
        result["peak_memory_gib"] = bench.torch.cuda.max_memory_allocated() / 2**30
    if parts:
        result["alone"] = alone(bench, rounds)
    return result


def summary(
    case: Case, times: dict[str, list[float]], memory: list[int], big: bool
) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(times["stock"], times["ours"], strict=True)]
    epochs = [stock / sum(rest) for stock, *rest in zip(*(times[n] for n in times), strict=True)]
    ideal = operations(case, big)
    return {
        **asdict(case),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "epoch_ratio": statistics.median(epochs),
        "memory_ratio": memory[1] / memory[0],
        "ideal_ratio": ideal["stock"] / ideal["ours"],
        "ideal_epoch_ratio": ideal["stock"] / (ideal["ours"] + ideal["once"]),
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "saved_mib": [size / 2**20 for size in memory],
    }


def alone(bench: Bench, rounds: int) -> dict[str, float]:
    """Each ingredient by itself over stock: median ratio."""
    from seva_exp.training.vision import FeatureCache

    bench.open(0)
    pictures = bench.shared["shared"].pictures
    reference = bench.reference()
    bench.close()
    vision = FeatureCache(bench.vlm, 2**34)
    vision.features(pictures)

    def kept() -> Any:
        return vision.features(pictures * (2 * bench.case.negatives))

    def shared() -> Any:
        bench.open(0)
        try:
            return bench.seconds(bench.ours)[0]
        finally:
            bench.close()

    ways: dict[str, Callable[[], float]] = {
        "reference known": lambda: bench.seconds(lambda: bench.stock(reference))[0],
        "features kept": lambda: bench.seconds(lambda: bench.stock(features=kept))[0],
        "packed sequence": shared,
    }
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        stock = bench.seconds(bench.stock)[0]
        for name, way in ways.items():
            ratios[name].append(stock / way())
    return {name: statistics.median(values) for name, values in ratios.items()}


def run_case(case: Case, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--case", case.name, "--rounds", str(arguments.rounds)]
    command += ["--device", arguments.device, "--raw"]
    command += ["--keep-memory"] * arguments.keep_memory
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each case in a process of its own, two at a time on a CPU; the largest first."""
    todo = sorted(CASES, key=lambda c: (c.batch_size, c.vision == "heavy"), reverse=True)
    waiting, running = list(todo), []
    done: dict[str, dict[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < arguments.parallel:
            case = waiting.pop(0)
            running.append((case, run_case(case, arguments)))
        ended = [job for job in running if job[1].poll() is not None]
        if not ended:
            time.sleep(0.2)
            continue
        running.remove(ended[0])
        case, process = ended[0]
        text, _ = process.communicate()  # its few lines never fill the pipe
        if process.returncode:
            raise SystemExit(f"{case.name} failed with exit code {process.returncode}")
        done[case.name] = json.loads(text.splitlines()[-1])
        print(line(done[case.name]), flush=True)
    return [done[case.name] for case in CASES]


HEADER = (
    f"{'case':24s} {'ratio':>6s} {'range':>13s} {'ideal':>6s} {'epoch':>6s} {'ideal':>6s} "
    f"{'memory':>7s} {'stock s':>8s} {'ours s':>7s}"
)


def line(row: dict[str, Any]) -> str:
    case = Case(row["vision"], row["batch_size"], row["checkpointing"], row["negatives"])
    spread = f"{row['low']:.2f}-{row['high']:.2f}"
    text = (
        f"{case.name:24s} {row['ratio']:6.2f} {spread:>13s} {row['ideal_ratio']:6.2f} "
        f"{row['epoch_ratio']:6.2f} {row['ideal_epoch_ratio']:6.2f} {row['memory_ratio']:7.2f} "
        f"{row['seconds']['stock']:8.2f} {row['seconds']['ours']:7.2f}"
    )
    if "alone" in row:
        parts = ", ".join(f"{name} {ratio:.2f}" for name, ratio in row["alone"].items())
        text += f"\n{'':24s} each alone: {parts}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--case", help="one case only, e.g. light-4, heavy-1-checkpointing")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs per case")
    parser.add_argument("--parallel", type=int, help="cases at once (2 on a CPU, 1 on a GPU)")
    parser.add_argument("--device", help="cpu or cuda; the GPU where there is one")
    parser.add_argument(
        "--keep-memory", action="store_true", help="glibc keeps freed memory, as in our runs"
    )
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from seva_exp.core.runtime import keep_memory

    if arguments.keep_memory:
        keep_memory()
    if arguments.device is None:
        import torch

        arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.parallel is None:
        arguments.parallel = 2 if arguments.device == "cpu" else 1
    if arguments.case:
        by_name = {case.name: case for case in [*CASES, *MORE]}
        if arguments.case not in by_name:
            parser.error(f"--case {arguments.case}: it is one of {', '.join(by_name)}")
        case = by_name[arguments.case]
        with tempfile.TemporaryDirectory() as work:
            parts = case == Case("light", 1)
            rows = [measure(case, arguments.device, arguments.rounds, parts, Path(work))]
        print(json.dumps(rows[0]) if arguments.raw else f"{HEADER}\n{line(rows[0])}")
    else:
        print(HEADER)
        rows = run_all(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
