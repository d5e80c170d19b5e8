"""CHAIR's counts and metrics (Rohrbach et al. 2018, arXiv:1809.02156), whatever an object is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from seva_exp.benchmarks.base import Better, Formula, Metric, ratio

DESCRIBE = "describe"
"""The type of the questions that ask for a description."""


def mention_counts(
    mentions: Sequence[Hashable], there: Sequence[Hashable], text: str
) -> dict[str, float]:
    """Mentions of what is not there (CHAIRi), descriptions with any (CHAIRs), what is found of what
    is there, words."""
    wrong = sum(mention not in there for mention in mentions)
    return {
        "asked": 1.0,
        "mentions": float(len(mentions)),
        "wrong": float(wrong),
        "any_wrong": float(wrong > 0),
        "found": float(len({*there} & {*mentions})),
        "present": float(len({*there})),
        "words": float(len(text.split())),
    }


def mention_metrics(split: str) -> list[Metric]:
    """A model that says less makes up less: recall and length stand beside."""

    def described(name: str, formula: Formula, better: Better, share: bool = True) -> Metric:
        return Metric(split, name, formula, ((DESCRIBE,),), better, share=share)

    return [
        described("chair_i", ratio("wrong", "mentions"), "lower"),
        described("chair_s", ratio("any_wrong"), "lower"),
        described("recall", ratio("found", "present"), "higher"),
        described("words", ratio("words", scale=1.0), "neutral", share=False),
    ]
