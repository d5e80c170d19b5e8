"""The reference stage's work: log pi_ref of every answer, batch by batch, resumable. Scored on the
same path as the policy's (forward.py), and independent of every number of ``dpo``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
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
from seva_exp.training.collate import Preference, ReferenceLogps, rows_of
from seva_exp.training.forward import Forward, forward_for, scored
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


Measure = Callable[[Any, Forward, dict[str, Any], Sequence[Preference]], list[Json]]
"""What a stage wants to know of a batch: the model, its forward pass, the collated batch and its
preferences in, a line for each of these out."""


def score_reference(
    vlm: VisionLanguageModel,
    pair_set: PairSet,
    fast: Fast,
    placement: Placement,
    start: Path | None = None,
    sharing: Sharing | None = None,
) -> Json:
    """Write ``reference.jsonl``, as ``score_pairs`` does."""

    def measure(model: Any, forward: Forward, rows: Any, batch: Sequence[Preference]) -> list[Json]:
        scores, _ = scored(forward, model, rows, placement, vlm.model.dtype)
        found = zip(batch, references_of(batch, scores), strict=True)
        return [{"sample_id": p.id, **as_line(reference)} for p, reference in found]

    return score_pairs(vlm, pair_set, fast, placement, measure, FILE, start, sharing)


def score_pairs(
    vlm: VisionLanguageModel,
    pair_set: PairSet,
    fast: Fast,
    placement: Placement,
    measure: Measure,
    file: str,
    start: Path | None = None,
    sharing: Sharing | None = None,
) -> Json:
    """Score the pairs that no other process takes, into a journal; return the counts of all. A pair
    that cannot be trained on, or does not fit the model's context, is left out by name. The
    reference is the base model ``vlm``, or the adapter in ``start`` on it. With views in
    ``pair_set`` the chosen answer is scored with each view's picture too, and where it is
    ``crossed`` what that view said. Without ``sharing`` all is done here, ``file`` too.
    """
    label, alone = Path(file).stem, sharing is None
    pairs, dropped = usable(vlm, pair_set.pairs)
    if not pairs:
        raise StageError(f"{label}: no answer can be trained on: {dropped[0].detail}")
    made_of = preferences_of(vlm, replace(pair_set, pairs=pairs))
    preferences, too_long, lengths = fitting(vlm, made_of, label)
    if sharing is None:
        (sharing := Sharing(placement.work)).begin()
    with scoring(vlm, start) as model:
        way = partial(forward_for, vlm, model, fast=fast, placement=placement)
        description = _score(label, way, partial(measure, model), preferences, placement, sharing)
    counts = {"preferences": len(preferences), "answers": len(rows_of(preferences))}
    if alone:
        conclude(placement.work, [preference.id for preference in preferences], file)
    return {**counts, "forward": description, **lengths, **left_out([*dropped, *too_long])}


def _score(
    label: str,
    way: Callable[[Sequence[Preference]], Forward],
    measure: Callable[[Forward, dict[str, Any], Sequence[Preference]], list[Json]],
    preferences: Sequence[Preference],
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
        bar = stack.enter_context(placement.progress(label, count, "pair"))
        while (taken := sharing.take(sizes)).pieces:
            done |= {row["sample_id"] for row in sharing.inherited(taken)}
            mine = [batches[number] for number in taken.pieces]
            todo = [batch for batch in mine if any(preferences[i].id not in done for i in batch)]
            bar.update(sum(preferences[i].id in known for batch in mine for i in batch))
            if not todo:
                continue
            if forward is None:  # which way is chosen by the same batch, whoever scores the others
                forward = way(preferences[:size])
                stack.enter_context(closing(forward))
                collate = forward.collator(preferences)
            made = (collate([{"row": i} for i in batch]) for batch in todo)
            with closing(ahead(made, torch.device(placement.device), AHEAD)) as ready:
                for batch, rows in zip(todo, ready, strict=True):
                    journal.append(measure(forward, rows, [preferences[i] for i in batch]))
                    bar.update(sum(preferences[i].id not in done for i in batch))
    return forward.description if forward else NOTHING


def conclude(work: Path, samples: Iterable[str], file: str) -> int:
    """When everything is scored: ``file``, a line per pair that was not left out, in the order of
    ``samples``; their number."""
    by_id = {row["sample_id"]: row for row in Sharing(work).rows()}
    found = [canonical(by_id[sample]) + "\n" for sample in samples if sample in by_id]
    write_whole(work / file, "".join(found))
    return len(found)


def read_reference(artifact: Path) -> dict[str, ReferenceLogps]:
    """The pairs' references, by sample; none of a pair that was left out."""
    rows = map(json.loads, (artifact / FILE).read_text(encoding="utf-8").splitlines())
    return {row.pop("sample_id"): of_line(row) for row in rows}


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


def references_of(batch: Sequence[Preference], scores: Tensor) -> list[ReferenceLogps]:
    """The R rows' scores, preference by preference."""
    left = iter(scores.tolist())
    chosen = [next(left) for _ in batch]
    rejected = [tuple(next(left) for _ in p.rejected) for p in batch]
    views = [tuple(next(left) for _ in p.images) for p in batch]
    crossed = [tuple(next(left) for _ in p.images if p.crossed) for p in batch]
    return list(map(ReferenceLogps, chosen, rejected, views, crossed))


def as_line(reference: ReferenceLogps) -> Json:
    """For a file. ``crossed`` stands there where it is looked at: older artifacts have none."""
    return {k: v for k, v in asdict(reference).items() if v or k != "crossed"}


def of_line(row: Json) -> ReferenceLogps:
    """What ``as_line`` made."""
    several = {name: tuple(values) for name, values in row.items() if name != "chosen"}
    return ReferenceLogps(row["chosen"], **several)
