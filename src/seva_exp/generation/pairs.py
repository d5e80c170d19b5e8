"""The pairs stage's work: clean and augmented answers to preferences. SeVa 1.1 and 1.2: the
answer to the clean image is preferred; equal answers are dropped and counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seva_exp.records import Answer, Drop, Pair, Sample


def make_pairs(
    samples: Iterable[Sample], clean: Sequence[Answer], negatives: Sequence[Sequence[Answer]]
) -> tuple[list[Pair], list[Drop]]:
    """One pair per sample of which at least one negative view's answer differs. Answers are found
    by sample id, never by their order."""
    by_id = {answer.sample_id: answer for answer in clean}
    negative_by_id = [{answer.sample_id: answer for answer in view} for view in negatives]
    pairs: list[Pair] = []
    drops: list[Drop] = []
    for sample in samples:
        chosen = by_id[sample.id]
        rejected = [view[sample.id] for view in negative_by_id]
        different = [answer for answer in rejected if answer.text != chosen.text]
        if different:
            pairs.append(_pair(sample, chosen, different))
        else:
            drops.append(Drop(sample.id, "equal", chosen.text))
    return pairs, drops


def _pair(sample: Sample, chosen: Answer, rejected: Sequence[Answer]) -> Pair:
    return Pair(
        sample_id=sample.id,
        image=sample.image,
        prompt=sample.prompt,
        chosen=chosen.text,
        rejected=tuple(answer.text for answer in rejected),
        views=tuple(answer.view for answer in rejected),
        chosen_tokens=chosen.tokens,
        rejected_tokens=tuple(answer.tokens for answer in rejected),
    )
