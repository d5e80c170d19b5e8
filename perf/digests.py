"""What knowing artifacts by digest costs a run: the default command, with digests and without.

    python perf/digests.py                       A B A B ..., three pairs of the default run
    python perf/digests.py --samples 200         a shorter run
    python perf/digests.py --json digests.json   and the figures for machines

A: as it is. B: files are not read for their digests. Each run has an empty store and this process's
loaded libraries; the first, which loads them, is not counted. CPU seconds of the process; the
figure is the median of A / B over the pairs, with the bytes that were read for digests and the CPU
seconds that this took. Exit code 1 where the digests' own seconds are more than 2 % of a run's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

ALLOWED = 0.02


class Counted:
    """``file_sha256``, with what it read and how long it took; or nothing at all."""

    def __init__(self, real, on: bool) -> None:
        self._real, self._on = real, on
        self.bytes, self.files, self.seconds = 0, 0, 0.0

    def __call__(self, path: Path) -> str:
        if not self._on:
            return ""
        from seva_exp.core import digests

        known, start = len(digests._READ), time.process_time()
        value = self._real(path)
        self.seconds += time.process_time() - start
        if len(digests._READ) > known:
            self.files, self.bytes = self.files + 1, self.bytes + path.stat().st_size
        return value


def measured(samples: int | None, on: bool) -> tuple[float, Counted]:
    """CPU seconds of a run from an empty store."""
    from seva_exp import Experiment, Machine
    from seva_exp.augment import DiffusionNoise
    from seva_exp.core import manifest
    from seva_exp.data import ShapesData
    from seva_exp.experiment import run
    from seva_exp.report.html import HtmlReport

    data = ShapesData() if samples is None else ShapesData(samples=samples)
    experiment = Experiment(aug={"diffusion_noise": DiffusionNoise()}, data=data)
    counted = Counted(manifest.file_sha256, on)
    with tempfile.TemporaryDirectory() as folder, patch.object(manifest, "file_sha256", counted):
        start = time.process_time()
        run(experiment, Machine(runs=folder, progress="off"), listeners=[HtmlReport()])
        return time.process_time() - start, counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--samples", type=int)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    measured(100, True)  # imports; fewer make one step, whose learning rate is 0
    ratios, shares, last = [], [], None
    for number in range(given.pairs):
        (a, last), (b, _) = measured(given.samples, True), measured(given.samples, False)
        ratios.append(a / b)
        shares.append(last.seconds / a)
        print(f"pair {number + 1}: {a:.2f} s with digests, {b:.2f} s without: {a / b:.3f}")
    assert last is not None
    figures = {
        "ratio": statistics.median(ratios),
        "share": statistics.median(shares),
        "files": last.files,
        "bytes": last.bytes,
        "seconds": last.seconds,
    }
    print(
        f"median ratio {figures['ratio']:.3f}; digests: {last.files} files, "
        f"{last.bytes / 2**20:.1f} MiB, {last.seconds:.3f} CPU seconds, "
        f"{figures['share']:.2%} of a run"
    )
    if given.json:
        given.json.write_text(json.dumps(figures) + "\n")
    return 1 if figures["share"] > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
