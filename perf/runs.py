"""What the verbs of ``python -m seva_exp.runs`` take over many runs, each in a process of its own:
``python perf/runs.py [--runs 200]``. The runs are made up; their folders and artifacts are real."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from seva_exp.core.store import Store
from tests.runs.made_up import artifact, done

STAGES = ("samples", "answers", "pairs", "reference", "align", "evaluate", "compare")


def make(root: Path, count: int) -> None:
    """Runs of seven stages each, of which a third is shared by all."""
    store = Store(root / "store").create()
    for number in range(count):
        inputs: dict[str, str] = {}
        stages = []
        for place, stage in enumerate(STAGES):
            key = artifact(store, stage, {"n": number if place > 1 else 0}, inputs)
            inputs = {stage: key}
            stages.append((stage, key))
        path = done(root, store, f"diffusion_noise_step={number}", stages)
        began = datetime(2026, 1, 1) + timedelta(hours=number)
        path.rename(root / f"{began:%Y-%m-%d_%H-%M-%S}_diffusion_noise_step={number}")
        if number:
            artifact(store, "answers", {"unnamed": number})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        make(root, wanted.runs)
        names = [f"diffusion_noise_step={number}" for number in (7, 8)]
        verbs = (
            *(["ls"], ["ls", "--json"], ["ls", "--sort", "score"], ["show", names[0]]),
            *(["why", "align", *names], ["du"], ["gc"]),
            *(["tag", names[0], "good"], ["rm", names[0]]),
        )  # fmt: skip
        print(f"{wanted.runs} runs: seconds of the clock, and of the CPU")
        for words in verbs:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            command = [sys.executable, "-m", "seva_exp.runs", *words, "--runs", str(root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            clock = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"{clock:5.2f} {used:5.2f}  {' '.join(words)}")


if __name__ == "__main__":
    main()
