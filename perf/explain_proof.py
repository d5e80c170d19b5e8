"""python perf/explain_proof.py [--scenes N] [--only-runs] [RUN...]: are the maps of words right, on
the embedded world, where it is known which thing is where; and what does alignment change?

The true descriptions of N pictures are read by the embedded model. Pointing: the map's largest cell
is on the thing that the word names; energy: the share of the map that lies in the thing's box; both
also as times what chance gives. Of each finished RUN with the embedded model: g of the words that
name things, under base and aligned model, on the same descriptions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seva_exp import Machine  # noqa: E402
from seva_exp.core.interfaces import VisionLanguageModel  # noqa: E402
from seva_exp.grounding.spec import METHODS  # noqa: E402
from seva_exp.models import TinyModel  # noqa: E402
from seva_exp.models.adapter import attach_adapter  # noqa: E402
from seva_exp.models.vlm import load  # noqa: E402
from seva_exp.runs.reader import FinishedRun  # noqa: E402
from seva_exp.world.scene import COLORS, KINDS  # noqa: E402
from tests.grounding import truth  # noqa: E402

CONTROLS = {
    "another thing's map": truth.of_another_thing,
    "another scene's map": truth.of_another_scene,
    "cells shuffled": truth.shuffled,
}


def line(name: str, words: Sequence[truth.Named]) -> str:
    """A row of the table of maps."""
    cells = [name, str(len(words))]
    for value, chance in (truth.pointing(words), truth.energy(words)):
        cells.append(f"{100 * value:.0f} % ({value / chance:.1f} x)")
    return f"| {' | '.join(cells)} |"


def maps(vlm: VisionLanguageModel, some: Sequence[truth.Scene]) -> None:
    """The three methods, and the controls of occlusion."""
    print("| map | words | pointing | energy in the box |\n|---|---|---|---|")
    for method in METHODS:
        words = truth.things_of(truth.named(vlm, some, method))
        print(line(f"{method}, kinds", [w for w in words if w.word in KINDS]))
        print(line(f"{method}, colours", [w for w in words if w.word in COLORS]), flush=True)
        if method == "occlusion":
            for name, control in CONTROLS.items():
                print(line(f"control: {name}", control(words)))
            random = load(TinyModel(), Machine(device="cpu", dtype="float32"))
            truth.randomize(random)
            blind = truth.things_of(truth.named(random, some, method))
            print(line("control: random weights", blind))
            print(line("random weights, another thing's map", truth.of_another_thing(blind)))
            kept = words[::4]
            ordered, chance = (truth.deletion(vlm, kept, by_map) for by_map in (True, False))
            text = f"{ordered:.2f} nats lost by the map's order, {chance:.2f} by chance"
            print(f"| deletion | {len(kept)} | {text} | |", flush=True)


def words_of(vlm: VisionLanguageModel, some: Sequence[truth.Scene]) -> None:
    """What g tells."""
    found = truth.named(vlm, some, invented=True)
    real, invented = truth.things_of(found), truth.made_up(found)
    functions = [w for w in found if w.is_function]
    print()
    for name, words in (("real", real), ("made-up", invented), ("function", functions)):
        print(f"g of {name} words: {fmean(w.g for w in words):.2f} nats ({len(words)})")
    print(f"AUROC of g, things against function words: {_auroc(real, functions, 'g'):.2f}")
    print(f"AUROC of g, real against made-up things: {_auroc(real, invented, 'g'):.2f}")
    print(f"AUROC of log p, the same: {_auroc(real, invented, 'logp'):.2f}")
    there, gone = truth.counterfactual(vlm, some)
    print(
        f"the thing drawn, and not: g {fmean(w.g for w in there):.2f}, "
        f"{fmean(w.g for w in gone):.2f}; its cell {truth.peak(there):.2f}, "
        f"{truth.peak(gone):.2f} nats ({len(there)} words)",
        flush=True,
    )


def _auroc(high: Sequence[truth.Named], low: Sequence[truth.Named], name: str) -> float:
    return truth.auroc([getattr(w, name) for w in high], [getattr(w, name) for w in low])


def changed(vlm: VisionLanguageModel, some: Sequence[truth.Scene], folder: Path) -> None:
    """g of the things' words, and of made-up ones, before and after a run's alignment."""
    run = FinishedRun.read(folder)
    assert run.adapter, "a run that trained something is needed"
    before = truth.named(vlm, some, invented=True)
    attached = attach_adapter(vlm.model, run.adapter)
    after = truth.named(vlm, some, invented=True)
    attached.detach()
    for name, choose in (("real", truth.things_of), ("made-up", truth.made_up)):
        one, other = choose(before), choose(after)
        change = [b.g - a.g for a, b in zip(one, other, strict=True)]
        error = stdev(change) / len(change) ** 0.5
        numbers = (
            f"{fmean(w.g for w in one):.2f}",
            f"{fmean(w.g for w in other):.2f}",
            f"{fmean(change):+.3f} ± {error:.3f}",
            f"{fmean(w.logp for w in one):.2f} -> {fmean(w.logp for w in other):.2f}",
        )
        print(f"| {run.report.name} | {name} | {len(change)} | {' | '.join(numbers)} |", flush=True)


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--only-runs", action="store_true", help="no maps")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    args = parser.parse_args()
    vlm = load(TinyModel(), Machine(device="cpu", dtype="float32"))
    some = truth.scenes(args.scenes)
    if not args.only_runs:
        maps(vlm, some)
        words_of(vlm, some)
    if args.runs:
        print("\n| run | things | words | g, base | g, aligned | change | log p |")
        print("|---|---|---|---|---|---|---|")
    for folder in args.runs:
        changed(vlm, some, folder)


if __name__ == "__main__":
    main()
