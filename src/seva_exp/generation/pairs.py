"""The pairs stage's work: clean and augmented answers to preferences. SeVa 1.1 and 1.2: the answer
to the clean image is preferred; what the filters remove is counted with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from seva_exp.generation.filters import Candidate, Filter, Removal
from seva_exp.generation.spec import Newlines
from seva_exp.records import Answer, Drop, Pair, Sample
from seva_exp.spec import Json

RemovedByView = dict[str, dict[str, int]]
"""view -> reason -> how many of its answers make no pair."""


def make_pairs(
    samples: Iterable[Sample],
    clean: Sequence[Answer],
    negatives: Mapping[str, Sequence[Answer]],
    filters: Sequence[Filter],
    seed: int,
    newlines: Newlines = "keep",
) -> tuple[list[Pair], list[Drop], RemovedByView]:
    """One pair per sample of which the filters leave at least one negative answer. A view may have
    answered some of the samples only; each sample needs one negative answer at least. Answers are
    found by sample id, never by their order; the views are called as in this run, whatever they
    were called when the answers were made."""
    samples = list(samples)
    candidates = _candidates(samples, clean, negatives)
    removals = _filtered(candidates.values(), filters, seed)
    pairs: list[Pair] = []
    drops: list[Drop] = []
    for sample in samples:
        group = candidates[sample.id]
        kept = [one for one in group if (sample.id, one.view) not in removals]
        if kept:
            pairs.append(_pair(sample, kept, newlines))
        else:
            drops.append(_drop(sample, {c.view: removals[sample.id, c.view] for c in group}))
    return pairs, drops, _by_view(removals, negatives)


def summarize(pairs: Sequence[Pair], drops: Sequence[Drop], removed: RemovedByView) -> Json:
    """The pairs stage's summary. ``sampled`` = ``kept`` + the sum of ``dropped`` (samples by
    reason); an answer of a view is in ``kept_by_view`` or once in ``removed_by_view``."""
    return {
        "sampled": len(pairs) + len(drops),
        "kept": len(pairs),
        "dropped": dict(Counter(drop.reason for drop in drops)),
        "kept_by_view": {view: sum(view in pair.views for pair in pairs) for view in removed},
        "removed_by_view": removed,
    }


def _candidates(
    samples: Sequence[Sample], clean: Sequence[Answer], negatives: Mapping[str, Sequence[Answer]]
) -> dict[str, list[Candidate]]:
    """By sample id, in the order of the views."""
    chosen = {answer.sample_id: answer for answer in clean}
    rejected = {view: {a.sample_id: a for a in answers} for view, answers in negatives.items()}
    found = {}
    for sample in samples:
        id = sample.id
        found[id] = [
            Candidate(id, view, chosen[id], answers[id])
            for view, answers in rejected.items()
            if id in answers
        ]
        assert found[id], f"no negative view answered sample {id}"
    return found


def _filtered(
    candidates: Iterable[list[Candidate]], filters: Sequence[Filter], seed: int
) -> dict[tuple[str, str], Removal]:
    """(sample id, view) of every candidate that is removed, and why; in the filters' order."""
    removals: dict[tuple[str, str], Removal] = {}
    left = [one for group in candidates for one in group]
    for filter in filters:
        for one, removal in zip(left, filter.removals(left, seed), strict=True):
            if removal:
                removals[one.sample_id, one.view] = removal
        left = [one for one in left if (one.sample_id, one.view) not in removals]
    return removals


def _by_view(removals: Mapping[tuple[str, str], Removal], views: Iterable[str]) -> RemovedByView:
    table: RemovedByView = {view: {} for view in views}
    for (_, view), removal in removals.items():
        table[view][removal.reason] = table[view].get(removal.reason, 0) + 1
    return table


def _edited(answer: Answer, newlines: Newlines) -> Answer:
    """With the text that is trained on, and the tokens that were generated."""
    if newlines == "keep":
        return answer
    return replace(answer, text=answer.text.replace("\n", ""))


def _pair(sample: Sample, kept: Sequence[Candidate], newlines: Newlines) -> Pair:
    texts, tokens = [], []
    for answer in (kept[0].chosen, *(one.rejected for one in kept)):
        text = _edited(answer, newlines).text
        texts.append(text)
        tokens.append(answer.tokens if text == answer.text else ())
    return Pair(
        sample_id=sample.id,
        image=sample.image,
        prompt=sample.prompt,
        chosen=texts[0],
        rejected=tuple(texts[1:]),
        views=tuple(one.view for one in kept),
        chosen_tokens=tokens[0],
        rejected_tokens=tuple(tokens[1:]),
    )


def _drop(sample: Sample, removals: Mapping[str, Removal]) -> Drop:
    """For the first view's reason; where others were removed for another, the detail tells each."""
    first, *rest = removals.values()
    if all(removal == first for removal in rest):
        return Drop(sample.id, first.reason, first.detail)
    told = (f"{view}: {removal.reason} ({removal.detail})" for view, removal in removals.items())
    return Drop(sample.id, first.reason, "; ".join(told))
