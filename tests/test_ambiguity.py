"""Ambiguity on the embedded model: answers under weak views, and what their agreement decides."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch

from seva_exp import InputError, Machine, Options, run
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import Answer, Drop, Pair, Report, to_line
from seva_exp.experiment.graph import graph
from seva_exp.preferences.filters import AmbiguousFilter, Candidate
from seva_exp.training import DpoTraining
from seva_exp.training.spec import TRL_LOSSES
from seva_exp.training.weights import WEIGHTS

from .command.test_config import composed
from .test_methods import manifest, rows
from .training.steps import assert_equal, step
from .training.tools import preferences, tiny

SMALL = ["data.samples=40", "benchmark=none", "tracker=none", "dpo.warmup_ratio=0"]
WEAK = ["+aug=diffusion_noise", "ambiguity=weak"]


def go(store: Path, folder: Path, *words: str, **options) -> Report:
    machine = Machine(store=str(store), runs=str(folder / "runs"), progress="off")
    return run(parse(composed(*SMALL, *words)).experiment, machine, Options(**options))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ambiguity") / "store"


@pytest.fixture(scope="module")
def done(store, tmp_path_factory) -> Report:
    words = [*WEAK, "filters=[equal,{kind: ambiguous, min: 0.8}]", "dpo=agreement"]
    return go(store, tmp_path_factory.mktemp("done"), *words)


def likeness(one: str, other: str, whole: bool) -> float:
    """Written out: equal but for case and punctuation, or F1 of the words."""
    first, second = (
        [w for w in "".join(c if c.isalnum() else " " for c in text.lower()).split()
         if w not in ("a", "an", "the")]
        for text in (one, other)
    )  # fmt: skip
    if whole or first == second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def agreements(report: Report) -> dict[str, float]:
    """The mean over the pairs of K answers."""
    said: dict[str, list[str]] = {}
    for label in ("clean", "weak_blur", "weak_crop", "weak_jitter"):
        for one in rows(report, f"answers.{label}/answers.jsonl", Answer):
            said.setdefault(one.sample_id, []).append(one.text)
    found = {}
    for sample, texts in said.items():
        drop = ("a", "an", "the")
        words = [[w for w in text.lower().split() if w not in drop] for text in texts]
        whole = all(len(one) <= 5 for one in words)
        each = [likeness(*two, whole) for two in combinations(texts, 2)]
        found[sample] = sum(each) / len(each)
    return found


def test_the_agreement_is_the_mean_over_pairs_of_answers_and_stands_in_pairs_and_report(done):
    expected = agreements(done)
    pairs = rows(done, "pairs.jsonl", Pair)
    assert len(set(expected.values())) > 2 and pairs
    for pair in pairs:
        assert pair.agreement == pytest.approx(expected[pair.sample_id], abs=1e-9)
    mean = manifest(done, "pairs")["summary"]["agreement"]
    assert mean == pytest.approx(sum(p.agreement for p in pairs) / len(pairs), abs=1e-6)
    page = (Path(done.dir) / "report.html").read_text()
    assert f"agree by {mean:.2f} on average" in page
    assert f"agreement {pairs[0].agreement:.2f}</span>" in page


def test_ambiguous_samples_are_left_out_by_name(done):
    expected, drops = agreements(done), rows(done, "pairs/drops.jsonl", Drop)
    ambiguous = {drop.sample_id for drop in drops if drop.reason == "ambiguous"}
    equal = {drop.sample_id for drop in drops if drop.reason == "equal"}
    assert ambiguous == {id for id, value in expected.items() if value < 0.8} - equal != set()
    assert done.pairs.dropped["ambiguous"] == len(ambiguous)
    assert all(pair.agreement >= 0.8 for pair in rows(done, "pairs.jsonl", Pair))


def test_the_loss_is_weighed_by_the_agreement(done):
    lines = (Path(done.dir) / "align/metrics.jsonl").read_text().splitlines()
    found = [json.loads(line)["weights/loss"] for line in lines]
    assert found and all(0.8 <= value <= 1 for value in found) and min(found) < 1


def test_another_filter_asks_nothing_anew(done, store, tmp_path):
    again = go(store, tmp_path, *WEAK, "filters=[equal]", stop_after="pairs")
    cached = {stage.name: stage.cached for stage in again.stages}
    assert cached.pop("pairs") is False and all(cached.values())


def stages(folder: Path, *words: str) -> dict[str, str]:
    experiment = parse(composed(*SMALL, *words)).experiment
    return {stage.label: stage.key for stage in graph(experiment, FileDigests(folder))}


@pytest.mark.parametrize(
    "words",
    [["+aug=diffusion_noise"], ["method=best_of_k", "+score=mean_logprob"],
     ["method=stic", "~aug.color_jitter"]],
    ids=["seva", "best_of_k", "stic"],
)  # fmt: skip
def test_without_ambiguity_all_keys_are_those_before_and_with_it_only_later_ones_differ(
    tmp_path, words
):
    plain, weak = stages(tmp_path, *words), stages(tmp_path, *words, "ambiguity=weak")
    changed = {label for label, key in plain.items() if weak[label] != key}
    assert changed == {"pairs", "reference", "align"}
    made = {f"answers.weak_{name}" for name in ("blur", "crop", "jitter")} | {"scores.ambiguity"}
    assert weak.keys() - plain.keys() - {"answers.clean"} == made
    order = [*weak]
    assert order.index("scores.ambiguity") > max(map(order.index, made - {"scores.ambiguity"}))
    assert order.index("answers.clean") < order.index("scores.ambiguity") < order.index("pairs")


def test_weak_views_are_asked_as_the_clean_view_asks(tmp_path):
    experiment = parse(composed(*SMALL, "method=stic", "ambiguity=weak")).experiment
    found = {one.label: one for one in graph(experiment, FileDigests(tmp_path))}
    assert found["answers.weak_crop"].asking == found["answers.clean"].asking is not None


def test_a_line_of_a_pair_without_agreement_is_as_ever():
    pair = Pair("a", None, "?", "x", ("y",), ("v",), (), ((),))
    assert "agreement" not in to_line(pair)
    assert json.loads(to_line(replace(pair, agreement=0.0)))["agreement"] == 0.0


def test_the_filter_keeps_what_is_at_its_bound():
    one = Candidate("a", "v", Answer("a", "clean", "?", "x", (), "eos"),
                    Answer("a", "v", "?", "y", (), "eos"), 0.5)  # fmt: skip
    judge = AmbiguousFilter(min=0.5).rule_for(lambda: iter(()), 0)
    assert judge(one) is None and judge(replace(one, agreement=None)) is None
    removal = judge(replace(one, agreement=0.49))
    assert (removal.reason, removal.detail) == ("ambiguous", "agreement 0.49 < 0.5")


# The weight in the loss

GIVEN = (0.25, 1.0, 0.5)


def agreeing(vlm, given=GIVEN):
    made = preferences(vlm, 3, rejected=(1, 2), views=(1,))
    return [replace(row, agreement=value) for row, value in zip(made, given, strict=True)]


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "image"])
def test_the_gradient_is_that_of_the_weighted_mean(loss, tmp_path):
    """Loop: each preference alone, its gradient times its weight and its share of the mean."""
    spec = partial(DpoTraining, loss=loss, lora_rank=4, fast="off")
    found = step(tiny, agreeing, spec(weights=WEIGHTS["agreement"]()), tmp_path / "all")
    assert found.metrics["weights/loss"] == [pytest.approx(sum(GIVEN) / 3)]
    total: dict[str, torch.Tensor] = {}
    pairs = [1, 2, 1]
    for i, weight in enumerate(GIVEN):
        share = 1 / 3 if loss == "image" else pairs[i] / sum(pairs)
        one = step(tiny, lambda vlm, i=i: agreeing(vlm)[i : i + 1], spec(), tmp_path / str(i))
        for name, gradient in one.gradients.items():
            total[name] = total.get(name, 0) + weight * share * gradient
    assert total and total.keys() == found.gradients.keys()
    for name, expected in total.items():
        assert (found.gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name


def test_the_packed_sequence_and_plain_rows_weigh_alike(tmp_path):
    fast, plain = (
        step(tiny, agreeing,
             DpoTraining(weights=WEIGHTS["agreement"](), lora_rank=4, fast=way,
                         loss={"sigmoid": 1.0, "image": 0.5}), tmp_path / way)
        for way in ("on", "off")
    )  # fmt: skip
    assert_equal(fast, plain)


# What is refused

REFUSED = {
    "filters.0: kind=ambiguous": ["+aug=moco", "filters=[ambiguous]"],
    "dpo.weights: kind=agreement": ["+aug=moco", "dpo=agreement"],
    "ambiguity.views.more": [
        "+aug=moco", "ambiguity=weak",
        "+ambiguity.views.more={kind: another_candidate, temperature: null}",
    ],
    "kind=swap_words asks no model": [
        "+aug=moco", "ambiguity=weak", "+ambiguity.views.w={kind: swap_words}",
    ],
    "kind=plain_prompt asks another question": [
        "+aug=moco", "ambiguity=weak", "+ambiguity.views.w={kind: plain_prompt}",
    ],
    "aug.weak_crop": ["+aug@aug.weak_crop=moco", "ambiguity=weak"],
    "method.scores.ambiguity": [
        "method=best_of_k", "+score@method.scores.ambiguity=agreement", "ambiguity=weak",
    ],
    "loss sft": ["+aug=moco", "ambiguity=weak", "dpo=agreement", "dpo.loss=sft"],
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_refused_by_name(said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        parse(composed(*SMALL, *REFUSED[said]))


def test_the_weight_is_refused_where_a_loss_is_no_mean_over_pairs():
    refused = {n for n in TRL_LOSSES if WEIGHTS["agreement"]().refusal(n, None)}
    assert refused == {"aot", "aot_unpaired", "sft"}
