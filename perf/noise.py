"""What the noise of a sampled decode step costs: by counters on the device (decoding/noise.py),
and drawn on the CPU from a generator a row, as it was before.

    python perf/noise.py [--device cuda] [--rows 32]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from seva_exp.decoding.noise import gumbel

VOCABULARY, ROUNDS = 32064, 20


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of process CPU time on a CPU; else wall-clock time until the device is done."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(ROUNDS):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (clock() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    generators = [torch.Generator().manual_seed(i) for i in range(given.rows)]
    seeds = torch.randint(2**62, (given.rows,), device=device)
    steps = torch.zeros_like(seeds)

    def drawn() -> torch.Tensor:
        numbers = torch.stack([torch.rand(VOCABULARY, generator=g) for g in generators])
        return -torch.log(-torch.log(numbers.clamp_(min=2.0**-25).to(device)))

    before = milliseconds(drawn, device)
    now = milliseconds(lambda: gumbel(seeds, steps, VOCABULARY), device)
    print(f"{given.rows} rows of {VOCABULARY}, {device}: {before:.1f} ms -> {now:.1f} ms a step")


if __name__ == "__main__":
    main()
