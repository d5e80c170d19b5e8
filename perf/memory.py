"""What runs need of a GPU's or a CPU's memory: the tables of docs/performance.md.

    python perf/memory.py                 presets and models on two GPUs, as dry runs estimate them
    python perf/memory.py --measure       estimates against peaks that stages reach on this CPU
    python perf/memory.py --measure --only 0,2

The first takes seconds and no torch. The second lets random models of several sizes through the
package's own stages, each in a process of its own, and looks at its resident memory (Linux).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
for folder in ("perf", "src"):
    sys.path.insert(0, str(ROOT / folder))

from memory_cases import GIB, Case, measured  # noqa: E402

MACHINES = ("gpu_24gb", "gpu_80gb")
PRESETS = (
    "seva_7b_paper",
    "seva_7b_released",
    "seva_13b_paper",
    "stic_v15_7b_paper",
    "stic_v16_7b_paper",
    "stic_v16_7b_released",
)
MODELS = ("llava15_7b", "llava16_mistral_7b", "qwen25_vl_7b", "qwen3_vl_8b")
RANK = ("dpo.lora_rank=128", "dpo.lora_alpha=256")
STAGES = ("answers", "reference", "align", "finetune", "evaluate")
CASES = (
    Case(samples=16, micro=8, rows=16),
    Case(checkpointing=True),
    Case(samples=16, micro=8, rows=16, fast="off"),
    Case(samples=16, micro=4, rows=16, rank=512),
    Case(samples=16, micro=8, rows=16, width=1024, layers=4, middle=2752, heads=16, key_heads=16),
    Case(samples=16, micro=8, rows=16, key_heads=2, vocabulary=16000),
)

Row = dict[str, Any]


def composed(words: list[str]) -> Any:
    """The run of these words."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from seva_exp.command.config import parse
    from seva_exp.core.paths import config_dir

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=words), resolve=True)
    assert isinstance(config, dict)
    return parse({key: value for key, value in config.items() if key != "hydra"})


def dry(name: str, words: list[str]) -> Row:
    """The most that each kind of stage needs, in GiB, and what to change."""
    from seva_exp.experiment.fits import Fit

    wanted = composed(["tracker=none", *words])
    fit = Fit(wanted.experiment, wanted.machine, planned=True)
    most = {kind: [one for one in fit.needs if one.name == kind] for kind in STAGES}
    rows = min(one.rows for one in fit.needs if one.rows)
    return {
        "run": name,
        "GB": wanted.machine.memory_gb,
        **{kind: max((n.bytes / GIB for n in of), default="-") for kind, of in most.items()},
        "rows": rows,
        "fits": "no" if fit.too_large else "yes",
        "what fits": "; or ".join(f"`{words}`" for words, _ in fit.changes())
        if fit.too_large
        else "",
    }


def dry_runs() -> Iterator[Row]:
    for machine in MACHINES:
        for preset in PRESETS:
            yield dry(preset, [f"experiment={preset}", f"machine={machine}"])
    for machine in MACHINES:
        for model in MODELS:
            words = ["experiment=seva_7b_paper", f"model={model}", f"machine={machine}", *RANK]
            yield dry(f"SeVa, r=128, {model}", words)


def cases(only: list[int]) -> Iterator[Row]:
    """In MiB."""
    for number, case in enumerate(CASES):
        if only and number not in only:
            continue
        for label, found in measured(case).items():
            if label in ("answers.clean", "reference", "align"):
                yield {
                    "case": case.name,
                    "stage": label,
                    "measured": f"{found['measured'] / 2**20:.0f}",
                    "estimated": f"{found['estimated'] / 2**20:.0f}",
                    "off by": f"{found['estimated'] / found['measured'] - 1:+.1%}",
                }


def line(row: Row) -> str:
    """A line of Markdown."""
    cells = (f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values())
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measure", action="store_true", help="on this CPU")
    parser.add_argument("--only", default="", help="numbers of cases, such as 0,2")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    arguments = parser.parse_args()
    only = [int(number) for number in arguments.only.split(",") if number]
    found: list[Row] = []
    for row in cases(only) if arguments.measure else dry_runs():
        if not found:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        found.append(row)
        print(line(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
