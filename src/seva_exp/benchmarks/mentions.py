"""CHAIR's counts and metrics (Rohrbach et al. 2018, arXiv:1809.02156), whatever an object is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from seva_exp.benchmarks.base import Better, Formula, Metric, ratio
from seva_exp.benchmarks.guards import Guards

DESCRIBE = "describe"
"""The type of the questions that ask for a description."""


MENTION_GUARDS: Guards = dict.fromkeys(("chair_i", "chair_s"), ("recall", "words"))
"""A model that says less makes up less."""


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
    """CHAIRi and CHAIRs, with recall and length beside them (``MENTION_GUARDS``)."""

    def described(name: str, formula: Formula, better: Better, share: bool = True) -> Metric:
        return Metric(split, name, formula, ((DESCRIBE,),), better, share=share)

    return [
        described("chair_i", ratio("wrong", "mentions"), "lower"),
        described("chair_s", ratio("any_wrong"), "lower"),
        described("recall", ratio("found", "present"), "higher"),
        described("words", ratio("words", scale=1.0), "neutral", share=False),
    ]
