"""The align stage's work: pairs to an adapter and its metrics."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from seva_exp.digests import FileDigests
from seva_exp.images import load_image
from seva_exp.interfaces import Placement, VisionLanguageModel
from seva_exp.records import Adapter, Pair
from seva_exp.spec import Json, canonical
from seva_exp.training.collate import Preference
from seva_exp.training.spec import DpoTraining


def align(
    vlm: VisionLanguageModel,
    pairs: Sequence[Pair],
    root: Path,
    spec: DpoTraining,
    placement: Placement,
    seed: int,
    base_name: str,
    on_step: Callable[[int, Json], None],
) -> Json:
    """Train; write ``adapter/``, ``metrics.jsonl``; return the first and last numbers."""
    from seva_exp.training.dpo import train

    preferences = preferences_of(pairs, root)
    folder, rows = train(vlm, preferences, spec, placement, seed, base_name, on_step)
    lines = "".join(canonical(row) + "\n" for row in rows)
    (placement.work / "metrics.jsonl").write_text(lines, encoding="utf-8")
    shutil.rmtree(placement.work / "trainer", ignore_errors=True)
    weights = FileDigests(placement.work)(folder / "adapter_model.safetensors")
    adapter = Adapter("adapter", base_name, weights)
    return {
        "preferences": len(preferences),
        "steps": len(rows),
        "loss_first": rows[0]["loss"],
        "loss_last": rows[-1]["loss"],
        "reward_accuracy_last": rows[-1].get("rewards/accuracies"),
        "reward_margin_last": rows[-1].get("rewards/margins"),
        "adapter": asdict(adapter),
    }


def preferences_of(pairs: Sequence[Pair], root: Path) -> list[Preference]:
    """One training row per (pair, negative): with several negatives the loss is their mean."""
    return [
        Preference(
            id=f"{pair.sample_id}/{view}",
            prompt=pair.prompt,
            load=partial(load_image, root, pair.image),
            chosen=pair.chosen_tokens,
            rejected=tokens,
        )
        for pair in pairs
        for view, tokens in zip(pair.views, pair.rejected_tokens, strict=True)
    ]
