"""The reference stage's work: log pi_ref of every answer, batch by batch, resumable. Scored on the
same path as the policy's (forward.py), and independent of every number of ``dpo``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from seva_exp.core.errors import StageError
from seva_exp.core.files import write_whole
from seva_exp.core.interfaces import Placement, VisionLanguageModel
from seva_exp.core.sharing import Sharing
from seva_exp.core.spec import Json, canonical
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
NOTHING = "nothing left to score"


def score_reference(
    vlm: VisionLanguageModel,
    pair_set: PairSet,
    fast: Fast,
    placement: Placement,
    start: Path | None = None,
    sharing: Sharing | None = None,
) -> Json:
    """Score the pairs that no other process takes, into a journal; return the counts of all. A pair
    that cannot be trained on, or does not fit the model's context, is left out by name. The
    reference is the base model ``vlm``, or the adapter in ``start`` on it. With views in
    ``pair_set`` the chosen answer is scored with each view's picture too. Without ``sharing`` all
    is done here, ``reference.jsonl`` too.
    """
    alone = sharing is None
    if sharing is None:
        (sharing := Sharing(placement.work)).begin()
    pairs, dropped = usable(vlm, pair_set.pairs)
    if not pairs:
        raise StageError(f"reference: no answer can be trained on: {dropped[0].detail}")
    made_of = preferences_of(vlm, replace(pair_set, pairs=pairs))
    preferences, too_long, lengths = fitting(vlm, made_of, "reference")
    with scoring(vlm, start) as model:
        description = _score(vlm, model, preferences, fast, placement, sharing)
    answers = sum(1 + len(p.rejected) + len(p.images) for p in preferences)
    counts = {"preferences": len(preferences), "answers": answers, "forward": description}
    if alone:
        conclude(placement.work, [preference.id for preference in preferences])
    return {**counts, **lengths, **left_out([*dropped, *too_long])}


def _score(
    vlm: VisionLanguageModel,
    model: Any,
    preferences: Sequence[Preference],
    fast: Fast,
    placement: Placement,
    sharing: Sharing,
) -> str:
    """Score batches, cut as one process cuts them, until all are done; which forward pass did."""
    size, count = placement.train_batch_size, len(preferences)
    batches = [range(i, min(i + size, count)) for i in range(0, count, size)]
    sizes = {number: len(batch) for number, batch in enumerate(batches)}
    journal, done = sharing.journal(), {row["sample_id"] for row in sharing.before()}
    known, forward = set(done), None
    with ExitStack() as stack:
        bar = stack.enter_context(placement.progress("reference", count, "pair"))
        while (taken := sharing.take(sizes)).pieces:
            done |= {row["sample_id"] for row in sharing.inherited(taken)}
            mine = [batches[number] for number in taken.pieces]
            todo = [batch for batch in mine if any(preferences[i].id not in done for i in batch)]
            bar.update(sum(preferences[i].id in known for batch in mine for i in batch))
            if not todo:
                continue
            if forward is None:  # which way is chosen by the same batch, whoever scores the others
                forward = forward_for(vlm, model, preferences[:size], fast, placement)
                stack.enter_context(closing(forward))
                collate = forward.collator(preferences)
            made = (collate([{"row": i} for i in batch]) for batch in todo)
            with closing(ahead(made, torch.device(placement.device), AHEAD)) as ready:
                for batch, rows in zip(todo, ready, strict=True):
                    scores, _ = scored(forward, model, rows, placement, vlm.model.dtype)
                    journal.append(_references([preferences[i] for i in batch], scores))
                    bar.update(sum(preferences[i].id not in done for i in batch))
    return forward.description if forward else NOTHING


def conclude(work: Path, samples: Iterable[str]) -> int:
    """When everything is scored: ``reference.jsonl``, a line per pair that was not left out, in the
    order of ``samples``; their number."""
    by_id = {row["sample_id"]: row for row in Sharing(work).rows()}
    found = [canonical(by_id[sample]) + "\n" for sample in samples if sample in by_id]
    write_whole(work / FILE, "".join(found))
    return len(found)


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
