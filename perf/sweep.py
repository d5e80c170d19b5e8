"""How much a sweep saves by sharing stages: its wall-clock against the sum of its runs, each made
alone in an empty store.

    python perf/sweep.py [-cn seva_diffusion_steps] [--json FILE] [OVERRIDE ...]

Exit code 1 when the sweep takes more than 60 % of the sum.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AT_MOST = 0.6
"""Share of the sum that a whole sweep may take."""


def timed(words: list[str], folder: Path) -> float:
    """Seconds of one command in a folder of its own, and so with a store of its own."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "seva_exp", *words]
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - start


def stage_seconds(folder: Path) -> float:
    """What the stages themselves took, each counted where it was computed."""
    reports = [json.loads(f.read_text()) for f in (folder / "runs").glob("2*/report.json")]
    return sum(s["seconds"] for r in reports for s in r["stages"] if not s["cached"])


def measure(name: str, overrides: list[str], scratch: Path) -> dict:
    """The sweep in one store, then every job of it alone."""
    whole = timed(["-cn", name, "tracker=none", *overrides], scratch / "whole")
    print(f"{'the whole sweep':60} {whole:8.1f} s", flush=True)
    files = sorted(
        (scratch / "whole/runs/multirun").glob("*/jobs/*.json"), key=lambda f: int(f.stem)
    )
    jobs = [json.loads(file.read_text())["overrides"] for file in files]
    alone = []
    for number, words in enumerate(jobs):
        alone.append(timed(words, scratch / f"alone-{number}"))
        print(f"{' '.join(words[2:])[:60]:60} {alone[-1]:8.1f} s", flush=True)
    work = sum(stage_seconds(scratch / f"alone-{number}") for number in range(len(jobs)))
    return {
        "sweep": name,
        "runs": len(jobs),
        "whole_s": round(whole, 1),
        "alone_s": round(sum(alone), 1),
        "ratio": round(whole / sum(alone), 3),
        "stages_ratio": round(stage_seconds(scratch / "whole") / work, 3),
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("-cn", "--config-name", default="seva_diffusion_steps")
    parser.add_argument("--json", type=Path, help="write the row here")
    parser.add_argument("overrides", nargs="*", help="such as data.samples=100")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        row = measure(given.config_name, ["model=tiny", *given.overrides], Path(scratch))
    print(
        f"{row['runs']} runs: {row['whole_s']} s together, {row['alone_s']} s alone: "
        f"{100 * row['ratio']:.0f} % (stages alone, without starting Python: "
        f"{100 * row['stages_ratio']:.0f} %)"
    )
    if given.json:
        given.json.write_text(json.dumps({"rows": [row]}, indent=1) + "\n")
    return int(row["ratio"] > AT_MOST)


if __name__ == "__main__":
    sys.exit(main())
