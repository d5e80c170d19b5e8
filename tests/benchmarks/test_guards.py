"""A better score that is bought with collapse is not called better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.benchmarks.guards import priced
from seva_exp.benchmarks.mentions import DESCRIBE
from seva_exp.core.records import Delta, Prediction, Report, from_json
from seva_exp.report.significance import change, in_full, verdict
from seva_exp.stages import paired

SHAPES = ShapesBenchmark(images=40)


def described(says) -> list[Prediction]:
    """The benchmark's own questions for a description, answered as ``says(target)``."""
    asked = [q for q in SHAPES.questions() if q.type == DESCRIBE]
    return [SHAPES.predict(q, says(q.target)) for q in asked]


def invented(target: str) -> str:
    return f"{target} There is a red star. There is a blue ring."


def verdicts(after) -> dict[str, str]:
    found = paired(SHAPES, "shapes", described(invented), described(after))
    return {delta.metric: in_full(delta) for delta in found}


def test_a_model_that_says_nothing_is_not_better():
    assert verdicts(lambda target: "") == {
        "chair_s": "better, at the price of recall and words",
        "recall": "worse",
        "words": "changed",
    }, "CHAIRi of nothing is no number"


def test_a_model_that_says_as_much_and_invents_less_is_better():
    found = verdicts(lambda target: f"{target} That is all that can be seen in this picture.")
    assert (found["chair_s"], found["chair_i"]) == ("better", "better")
    assert found["recall"] == "not significant"


def test_a_model_that_gets_worse_has_no_price():
    found = paired(SHAPES, "shapes", described(lambda t: t), described(lambda t: "A red star."))
    worse = {d.metric: (verdict(d), d.price) for d in found}
    assert worse["chair_s"] == ("worse", ())


def delta(metric, value, p=0.01, better="higher", **more) -> Delta:
    return Delta("b", "all", metric, value, value - 1, value + 1, p, better, **more)


GUARDED = {"chair": ("recall", "words"), "precision": ("recall", "unparsed")}


@pytest.mark.parametrize(
    ("guard", "price"),
    [
        (delta("recall", -3.0), ("recall",)),
        (delta("recall", -3.0, p=0.2), ()),
        (delta("recall", 3.0), ()),
        (delta("words", -3.0, better="neutral"), ("words",)),
        (delta("words", 3.0, better="neutral"), ()),
        (delta("unparsed", -3.0, better="lower"), ()),
        (replace(delta("recall", -3.0), split="other"), ()),
        (replace(delta("recall", -3.0), model="round1"), ()),
        (delta("another", -3.0), ()),
    ],
)
def test_only_a_guard_of_the_same_split_and_model_that_fell_significantly_counts(guard, price):
    gain = delta("chair", -2.0, better="lower")
    first, second = priced([gain, guard], GUARDED)
    assert (first.price, second.price) == (price, ())
    assert verdict(first) == ("at a price" if price else "better")


def test_the_parsed_share_is_a_guard_that_rises():
    gain, fewer = delta("precision", 2.0), delta("unparsed", 4.0, better="lower")
    assert priced([gain, fewer], GUARDED)[0].price == ("unparsed",)


def test_every_guard_is_a_metric_of_its_benchmark():
    from seva_exp.benchmarks import OFFICIAL, PopeBenchmark
    from seva_exp.benchmarks.pope import SPLITS

    known = [(ShapesBenchmark(), ()), (PopeBenchmark(), SPLITS)]
    known += [(OFFICIAL[kind](kind=kind), (DESCRIBE,)) for kind in ("chair", "shr")]
    known.append((OFFICIAL["object_halbench"](kind="object_halbench"), (DESCRIBE,)))
    known.append((OFFICIAL["amber"](kind="amber"), (DESCRIBE, "existence")))
    for benchmark, types in known:
        by_split: dict[str, set[str]] = {}
        for metric in benchmark.metrics(types):
            by_split.setdefault(metric.split, set()).add(metric.name)
        assert benchmark.guards, benchmark
        for metric, guards in benchmark.guards.items():
            for guard in guards:
                assert any({metric, guard} <= names for names in by_split.values()) or (
                    guard == "unparsed"
                ), (metric, guard)


def test_the_price_is_told_in_words_and_kept_in_the_report():
    [gain, _] = priced([delta("chair", -2.0, better="lower"), delta("recall", -3.0)], GUARDED)
    assert change(gain) == "chair fell by 2.0 (better, at the price of recall)"
    report = Report("k", "n", 0, ".", (), deltas=(gain,))
    assert Report.from_json(report.to_json() | {"stages": []}).deltas == (gain,)
    old = {name: value for name, value in vars(gain).items() if name != "price"}
    assert from_json(Delta, old).price == ()
