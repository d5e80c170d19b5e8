"""What is given to crews in tests: jobs that load no model, and commands whose answers take long
enough to kill those who give them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from seva_exp.core.sharing import Sharing
from seva_exp.stages import Inputs, StageContext

ROOT = Path(__file__).parents[1]
NOISE = "answers.diffusion_noise"
WORDS = [
    "+aug=diffusion_noise", "aug.diffusion_noise.step=600", "generation.max_new_tokens=16",
    "generation.temperature=0.7", "tracker=none", "machine.device=cpu", "machine.batch_size=2",
    "machine.train_batch_size=4", "benchmark.shapes.images=8", "dpo.warmup_ratio=0",
]  # fmt: skip
"""Answers in small batches."""
ANSWERS = ["data.samples=150", f"stop_after={NOISE}"]
WHOLE = ["data.samples=100"]


@dataclass
class Telling:
    """Tells how its rank was started."""

    label: str = "align"

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> dict:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
        placement = context.placement(work)
        return {name: os.environ[name] for name in names} | {"neighbours": placement.neighbours}


@dataclass
class Pieces:
    """Forty pieces, shared; rank 1 is killed at its second. The others begin when it has some, or
    it would find nothing left where it starts late."""

    label: str = "answers.x"

    def run(self, work: Path, inputs: Inputs, context: StageContext) -> dict:
        sharing, done = Sharing(work, context.rank, context.ranks), 0
        with context.progress(self.label, 40, "piece") as meter:
            while context.rank != 1 and not sharing.latest(1):
                time.sleep(0.05)
            while (taken := sharing.take(dict.fromkeys(range(40), 1))).pieces:
                journal = sharing.journal()
                had = {row["piece"] for row in sharing.inherited(taken)}
                for piece in (piece for piece in taken.pieces if piece not in had):
                    if context.rank == 1 and done == 1:
                        os.kill(os.getpid(), signal.SIGKILL)
                    journal.append([{"piece": piece}])
                    meter.update(1)
                    done += 1
                    time.sleep(0.05)
        return {"done": done}


def started(folder: Path, words: list[str], **variables: str) -> subprocess.Popen:
    """The command, in a process group of its own; what it says lies in a file."""
    folder.mkdir(exist_ok=True)
    name = "-".join(["said", *(v for k, v in variables.items() if k.startswith("SLURM"))])
    with (folder / f"{name}.log").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "seva_exp", *WORDS, *words],
            cwd=folder,
            stdout=said,
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            start_new_session=True,
        )


def done(folder: Path, words: list[str]) -> Path:
    """The folder of the command, which was done by one process."""
    process = started(folder, words)
    assert process.wait() == 0, (folder / "said.log").read_text()
    return folder


def artifact(folder: Path, label: str) -> dict[str, bytes]:
    """The files of the latest run's artifact by name, without the manifest."""
    path = (folder / "runs" / "latest" / label).resolve()
    found = {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}
    assert not any(name.startswith("parts") for name in found)
    return {name: content for name, content in found.items() if name != "manifest.json"}


def journaled(folder: Path, rank: int | str = "*") -> int:
    """Batches in journals of those who answer."""
    files = folder.glob(f"runs/store/answers/*.partial/parts/journal-{rank}.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def wait_for(done: Callable[[], object], process: subprocess.Popen, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def below(process: subprocess.Popen) -> list[psutil.Process]:
    """Processes that this one started, and theirs."""
    return psutil.Process(process.pid).children(recursive=True)
