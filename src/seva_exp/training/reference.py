"""The reference stage's work: log pi_ref of every answer, batch by batch, resumable. Scored on the
same path as the policy's (forward.py), and independent of every number of ``dpo``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from seva_exp.core.errors import StageError
from seva_exp.core.files import write_whole
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.spec import Json, canonical
from seva_exp.core.store import Journal, read_journal
from seva_exp.models.adapter import check_adapter
from seva_exp.training.collate import Preference, ReferenceLogps
from seva_exp.training.forward import forward_for, scored
from seva_exp.training.lengths import fitting, left_out
from seva_exp.training.precision import keep_in_float32
from seva_exp.training.preferences import PairSet, preferences_of, usable
from seva_exp.training.prefetch import ahead
from seva_exp.training.spec import Fast
from seva_exp.training.trl_private import add_fused_lm_head

FILE = "reference.jsonl"
AHEAD = 2
"""Batches that are made ready while one is scored on a GPU."""


def score_reference(
    vlm: VisionLanguageModel,
    pair_set: PairSet,
    fast: Fast,
    placement: Placement,
    start: Path | None = None,
) -> Json:
    """Write ``reference.jsonl``, a line per pair in the pairs' order; return the counts. A pair
    that cannot be trained on, or does not fit the model's context, is left out by name. The
    reference is the base model ``vlm``, or the adapter in ``start`` on it. With views in
    ``pair_set`` the chosen answer is scored with each view's picture too.
    """
    pairs, dropped = usable(vlm, pair_set.pairs)
    if not pairs:
        raise StageError(f"reference: no answer can be trained on: {dropped[0].detail}")
    made_of = preferences_of(vlm, replace(pair_set, pairs=pairs))
    preferences, too_long, lengths = fitting(vlm, made_of, "reference")
    journal = Journal(placement.work)
    known = {row["sample_id"]: row for row in read_journal(journal.path)}
    size = placement.train_batch_size
    count = len(preferences)
    batches = [range(i, min(i + size, count)) for i in range(0, count, size)]
    todo = [batch for batch in batches if any(preferences[i].id not in known for i in batch)]
    description = "nothing left to score"
    with scoring(vlm, start) as model, placement.progress("reference", count, "pair") as bar:
        bar.update(count - sum(map(len, todo)))
        if todo:
            first = [preferences[i] for i in todo[0]]
            forward = forward_for(vlm, model, first, fast, placement)
            description = forward.description
            collate = forward.collator(preferences)
            made = (collate([{"row": i} for i in batch]) for batch in todo)
            with (
                closing(forward),
                closing(ahead(made, torch.device(placement.device), AHEAD)) as ready,
            ):
                for batch, rows in zip(todo, ready, strict=True):
                    scores, _ = scored(forward, model, rows, placement, vlm.model.dtype)
                    found = _references([preferences[i] for i in batch], scores)
                    journal.append(found)
                    known |= {row["sample_id"]: row for row in found}
                    bar.update(len(batch))
    lines = "".join(canonical(known[preference.id]) + "\n" for preference in preferences)
    write_whole(placement.work / FILE, lines)
    answers = sum(1 + len(p.rejected) + len(p.images) for p in preferences)
    counts = {"preferences": len(preferences), "answers": answers, "forward": description}
    return {**counts, **lengths, **left_out([*dropped, *too_long])}


def read_reference(artifact: Path) -> dict[str, ReferenceLogps]:
    """The pairs' references, by sample; none of a pair that was left out."""
    rows = map(json.loads, (artifact / FILE).read_text(encoding="utf-8").splitlines())
    return {
        row["sample_id"]: ReferenceLogps(row["chosen"], tuple(row["rejected"]), tuple(row["views"]))
        for row in rows
    }


@contextmanager
def scoring(vlm: VisionLanguageModel, start: Path | None) -> Iterator[Any]:
    """The model with TRL's fused head, and with the adapter in ``start``; then as it was."""
    vlm.model.requires_grad_(False)
    model = vlm.model
    if start is not None:
        check_adapter(start, vlm.model)
        model = PeftModel.from_pretrained(vlm.model, str(start))
        keep_in_float32(model)
    add_fused_lm_head(vlm.model)
    try:
        yield model.eval()
    finally:
        del vlm.model.forward
        if start is not None:
            model.unload()


def _references(batch: Sequence[Preference], scores: Tensor) -> list[Json]:
    """The R rows' scores, preference by preference."""
    left = iter(scores.tolist())
    chosen = [next(left) for _ in batch]
    rejected = [tuple(next(left) for _ in p.rejected) for p in batch]
    views = [tuple(next(left) for _ in p.images) for p in batch]
    found = zip(batch, map(ReferenceLogps, chosen, rejected, views), strict=True)
    return [{"sample_id": p.id, **asdict(reference)} for p, reference in found]
