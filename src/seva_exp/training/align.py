"""The align stage's work: pairs to an adapter and its metrics."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.records import Adapter, Pair, Sample
from seva_exp.core.spec import Json, canonical
from seva_exp.inputs.views import View
from seva_exp.training.collate import Reference
from seva_exp.training.preferences import preferences_of
from seva_exp.training.spec import DpoTraining

NO_VIEWS: Mapping[str, View] = {}


def align(
    vlm: VisionLanguageModel,
    pairs: Sequence[Pair],
    root: Path,
    spec: DpoTraining,
    placement: Placement,
    seed: int,
    base_name: str,
    on_step: Callable[[int, Json], None],
    *,
    views: Mapping[str, View] = NO_VIEWS,
    samples: Iterable[Sample] = (),
    start: Path | None = None,
    reference: Literal["start", "base"] = "start",
    references: Sequence[Reference] = (),
) -> Json:
    """Train; write ``adapter/``, ``metrics.jsonl``; return the first and last numbers.

    ``vlm`` is the base model. ``views`` (by the names in the pairs) and ``samples`` (of which some
    views draw partners) are looked at only where ``spec.needs_images``. ``start`` is an adapter to
    go on with: the policy begins there, and the reference is that adapter (``start``) or the base
    model (``base``). ``references`` are its log-probabilities of the pairs' answers, where they
    were computed before.
    """
    from seva_exp.training.dpo import train
    from seva_exp.training.lengths import check_lengths
    from seva_exp.training.throughput import summary as throughput

    shown = views if spec.needs_images else None
    preferences = preferences_of(vlm, pairs, root, spec.repeat, shown, samples, references)
    lengths = check_lengths(vlm, preferences, "align")
    folder, rows = train(
        vlm,
        preferences,
        spec,
        placement,
        seed,
        base_name,
        on_step,
        start=start,
        reference=reference,
    )
    return {
        "preferences": len(preferences),
        "rejected": sum(len(preference.rejected) for preference in preferences),
        "steps": len(rows),
        "loss_first": rows[0]["loss"],
        "loss_last": rows[-1]["loss"],
        "reward_accuracy_last": rows[-1].get("rewards/accuracies"),
        "reward_margin_last": rows[-1].get("rewards/margins"),
        **lengths,
        **throughput(placement.work),
        "adapter": left_behind(placement.work, folder, base_name, rows),
    }


def left_behind(work: Path, folder: Path, base_name: str, rows: Sequence[Json]) -> Json:
    """Write ``metrics.jsonl`` (one line a step), take the checkpoints away, and describe
    the adapter in ``folder``."""
    lines = "".join(canonical(row) + "\n" for row in rows)
    (work / "metrics.jsonl").write_text(lines, encoding="utf-8")
    shutil.rmtree(work / "trainer", ignore_errors=True)
    weights = FileDigests(work)(folder / "adapter_model.safetensors")
    return asdict(Adapter(folder.name, base_name, weights))
