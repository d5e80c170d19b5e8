"""What the explained answers of a benchmark come to: metrics, as a benchmark has them, on the words
of the measured ones. Both models look at the same words, so that changes are paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seva_exp.benchmarks.base import Metric, ratio
from seva_exp.core.records import ALIGNED, BASE, Prediction
from seva_exp.grounding.rows import ExplainedSample
from seva_exp.grounding.spec import Explain

SPLIT = "words"
"""The split that the metrics' names have."""
_PARTS = ((SPLIT,),)
METRICS = (
    Metric(SPLIT, "on_picture", ratio("rest", "words"), _PARTS, "neutral"),
    Metric(SPLIT, "g", ratio("g", "words", 1.0), _PARTS, "neutral", share=False),
    Metric(SPLIT, "g_view", ratio("g_view", "view_words", 1.0), _PARTS, "neutral", share=False),
    Metric(SPLIT, "agreement", ratio("agreement", "agreed"), _PARTS, "neutral"),
)
"""``on_picture``: words with g above ``explain.rests`` nats, in percent; ``g``, ``g_view``: nats a
word; ``agreement``: the mean of ``Agreeing.agreement``, in percent. None is better higher: a right
answer may rest on what is known of the world."""
VERSION = 1
"""Of how they are counted."""


def metrics(types: Sequence[str] = ()) -> Sequence[Metric]:
    """Those of any explained benchmark."""
    return METRICS


def protocol(how: Explain) -> str:
    """Names what the metrics are counted on."""
    return f"words-v{VERSION}, {how.measured} questions, g > {how.rests:g}"


def counted(
    samples: Iterable[ExplainedSample], groups: dict[str, str], how: Explain
) -> dict[str, list[Prediction]]:
    """By model the counts of each sample, as a benchmark's predictions; ``groups``: by sample what
    is resampled together (the picture)."""
    found: dict[str, list[Prediction]] = {BASE: [], ALIGNED: []}
    for sample in samples:
        for model, rows in found.items():
            rows.append(
                Prediction(
                    *(sample.id, groups[sample.id], SPLIT, sample.question, "", "", ""),
                    score=None,
                    counts=_counts(sample, model, how),
                )
            )
    return found


def _counts(sample: ExplainedSample, model: str, how: Explain) -> dict[str, float]:
    words = [word for answer in sample.answers for word in answer.words if word.is_word]
    seen = [getattr(word, model) for word in words]
    counts = {
        "words": float(len(seen)),
        "rest": float(sum(one.g > how.rests for one in seen)),
        "g": sum(one.g for one in seen),
    }
    views = [one.g_view for one in seen if one.g_view is not None]
    if views:
        counts |= {"view_words": float(len(views)), "g_view": sum(views)}
    if sample.agreement:
        counts |= {"agreed": 1.0, "agreement": getattr(sample.agreement, model).agreement}
    return counts
