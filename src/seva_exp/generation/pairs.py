"""The pairs stage's work: clean and augmented answers to preferences. SeVa 1.1 and 1.2: the
answer to the clean image is preferred; equal answers are dropped and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from seva_exp.records import Answer, Drop, Pair, Sample


def make_pairs(
    samples: Iterable[Sample], clean: Sequence[Answer], negatives: Mapping[str, Sequence[Answer]]
) -> tuple[list[Pair], list[Drop]]:
    """One pair per sample of which at least one negative view's answer differs. Answers are found
    by sample id, never by their order; the views are called as in this run, whatever they were
    called when the answers were made."""
    by_id = {answer.sample_id: answer for answer in clean}
    negative_by_id = {
        view: {answer.sample_id: answer for answer in answers}
        for view, answers in negatives.items()
    }
    pairs: list[Pair] = []
    drops: list[Drop] = []
    for sample in samples:
        chosen = by_id[sample.id]
        rejected = {view: answers[sample.id] for view, answers in negative_by_id.items()}
        different = {view: a for view, a in rejected.items() if a.text != chosen.text}
        if different:
            pairs.append(_pair(sample, chosen, different))
        else:
            drops.append(Drop(sample.id, "equal", chosen.text))
    return pairs, drops


def _pair(sample: Sample, chosen: Answer, rejected: Mapping[str, Answer]) -> Pair:
    return Pair(
        sample_id=sample.id,
        image=sample.image,
        prompt=sample.prompt,
        chosen=chosen.text,
        rejected=tuple(answer.text for answer in rejected.values()),
        views=tuple(rejected),
        chosen_tokens=chosen.tokens,
        rejected_tokens=tuple(answer.tokens for answer in rejected.values()),
    )
