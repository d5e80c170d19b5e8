"""Weights of tokens and pairs: each is the formula of its paper, written out here token by token;
they enter a loss as that says, on both ways of the forward pass; and the stage that keeps them."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from seva_exp.core.errors import InputError
from seva_exp.core.machine import Machine
from seva_exp.experiment.preflight import _check_head
from seva_exp.training import DpoTraining
from seva_exp.training import reference as reference_module
from seva_exp.training.collate import AnswerWeights, Preference, ReferenceLogps
from seva_exp.training.dpo import trainer_for
from seva_exp.training.losses import OURS
from seva_exp.training.preferences import PairSet
from seva_exp.training.spec import LOSSES, TRL_LOSSES
from seva_exp.training.weighing import read_weights, score_weights, sentences_of
from seva_exp.training.weight import Said
from seva_exp.training.weights import WEIGHTS

from .steps import assert_equal, step
from .test_losses import mean, nll, sigma
from .test_reference import pairs
from .tools import job, logprob, next_logits, picture, placement, preferences, tiny, trained

BETA = 0.3
TPO, ASPO, DA, UE = (WEIGHTS[kind]() for kind in ("tpo", "aspo", "da_dpo", "ue_dpo"))
SHAPE = {"n": 3, "rejected": (1, 2), "views": (2, 0, 1)}


def tpo(said: Said) -> list[float]:
    sign = 1 if said.chosen else -1
    return [
        0.5 + sigma(sign * (own.item() - mean([worse[t].item() for worse in said.worse])))
        for t, own in enumerate(said.logits)
    ]


def quantile(values: list[float], share: float) -> float:
    """Linear between the two next ones."""
    ranked, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])


def ue(said: Said) -> list[float]:
    """a = 0.3, tau = 0.4; the mean over the worse pictures."""
    found = []
    own = said.logits.tolist()
    for worse, mistaken in zip(said.worse, said.mistaken, strict=True):
        depends = [a - b for a, b in zip(own, worse.tolist(), strict=True)]
        unsure = [b - a for a, b in zip(own, mistaken.tolist(), strict=True)]
        spread = statistics.pstdev(unsure) or 1.0
        low, high = quantile(depends, 0.4), quantile(depends, 0.6)
        weights = []
        for d, u in zip(depends, unsure, strict=True):
            strength = 0.3 * sigma((u - mean(unsure)) / spread)
            if said.chosen:
                weights.append(1 + strength * (d < low))
            else:
                weights.append(1 - strength * (d >= high))
        found.append(weights)
    return [mean(list(column)) for column in zip(*found, strict=True)]


def aspo(said: Said) -> list[float]:
    if not said.chosen:
        return [1.0] * len(said.log_probs)
    numbers, values = said.sentences.tolist(), said.log_probs.tolist()
    perplexity = {
        s: math.exp(-mean([v for v, n in zip(values, numbers, strict=True) if n == s]))
        for s in set(numbers)
    }
    low, high = min(perplexity.values()), max(perplexity.values())
    raw = [1 + (high - perplexity[s]) / (high - low) for s in numbers]
    return [weight / mean(raw) for weight in raw]


FORMULAS = {"tpo": tpo, "aspo": aspo, "ue_dpo": ue}


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize("kind", FORMULAS)
def test_token_weights_are_their_formula_to_1e_6(kind, chosen):
    rng = torch.Generator().manual_seed(len(kind))
    for length in (7, 30):
        some = [3 * torch.randn(length, generator=rng, dtype=torch.float64) for _ in range(6)]
        sentences = torch.arange(length) * 3 // length
        said = Said(
            chosen, -some[0].abs(), sentences, some[1], (some[2], some[3]), (some[4], some[5])
        )
        assert WEIGHTS[kind]()(said).tolist() == pytest.approx(FORMULAS[kind](said), abs=1e-6)
        if (kind, chosen) != ("aspo", False):
            assert len(set(FORMULAS[kind](said))) > 2, "they differ from token to token"


def test_a_pair_s_factor_is_its_formula():
    gap = torch.tensor([-2.0, 0.0, 0.5], dtype=torch.float64)
    assert WEIGHTS["da_dpo"](alpha=0.5)(gap).tolist() == pytest.approx([1.5, 0.5, 0.75], abs=1e-9)


@pytest.mark.parametrize("weights", [TPO, UE])
def test_an_answer_whose_source_changes_no_picture_has_weights_of_1(weights):
    logits = torch.randn(4, generator=torch.Generator().manual_seed(0))
    assert weights(Said(False, logits, None, logits)).tolist() == [1.0] * 4


def test_an_answer_of_one_sentence_or_of_equal_ones_has_weights_of_1():
    flat = torch.full((4,), -0.5)
    for numbers in ([0, 0, 0, 0], [0, 0, 1, 1]):
        assert ASPO(Said(True, flat, torch.tensor(numbers))).tolist() == pytest.approx([1.0] * 4)


def test_a_sentence_beyond_a_float_s_perplexity_is_the_least_fluent():
    said = Said(True, torch.tensor([-200.0, -200.0, -1.0, -1.0]), torch.tensor([0, 0, 1, 1]))
    assert ASPO(said).tolist() == pytest.approx([2 / 3, 2 / 3, 4 / 3, 4 / 3])


def test_sentences_are_told_apart():
    vlm = tiny()
    text = "The image shows a red star. A blue moon is left of it! Is it?"
    ids = vlm.answer_ids("Describe the image.", text)
    numbers = sentences_of(vlm, ids)
    parts = [[t for t, n in zip(ids, numbers, strict=True) if n == s] for s in range(3)]
    assert [vlm.decode(part) for part in parts] == [
        "The image shows a red star.", "A blue moon is left of it!", "Is it?",
    ]  # fmt: skip
    assert max(numbers) == 2 and len(numbers) == len(ids)
    assert set(sentences_of(vlm, vlm.answer_ids("How many?", "two"))) == {0}


# In a loss, through the real model.


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    recipe = DpoTraining(batch_size=6, epochs=2, learning_rate=1e-3, warmup_ratio=0.0)
    return trained(tmp_path_factory.mktemp("policy") / "x", recipe)[0]


def seen(vlm, row: Preference, answer, chosen: bool, pictures) -> Said:
    """An answer as the model sees it, one sequence at a time."""
    ids = torch.tensor(answer)[:, None]
    logits = next_logits(vlm, row, answer)
    worse, mistaken = [], []
    for picture_of in pictures:
        other = next_logits(vlm, row, answer, picture_of)
        worse.append(other.gather(1, ids)[:, 0])
        mistaken.append(logits.gather(1, other.argmax(1, keepdim=True))[:, 0])
    said = logits.log_softmax(1).gather(1, ids)[:, 0]
    numbers = torch.tensor(sentences_of(vlm, answer))
    own = logits.gather(1, ids)[:, 0]
    return Said(chosen, said, numbers, own, tuple(worse), tuple(mistaken))


def answers_as_seen(vlm, row: Preference) -> list[Said]:
    """The chosen one with all of its views' pictures, each rejected one with those of the views
    that gave it."""
    images = [make() for make in row.images]
    made = [seen(vlm, row, row.chosen, True, images)]
    for k, ids in enumerate(row.rejected):
        own = [i for i, given in zip(images, row.image_rejected, strict=True) if given == k]
        made.append(seen(vlm, row, ids, False, own))
    return made


def weighted(weights: list[float], values: torch.Tensor) -> float:
    return sum(w * v for w, v in zip(weights, values.tolist(), strict=True))


def loss_of(tmp_path, spec: DpoTraining, rows, adapter: Path) -> float:
    vlm = tiny()
    trainer = trainer_for(
        job(vlm, spec, placement(tmp_path), start=adapter, reference="base"), rows(vlm)
    )
    batches, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, "cpu")
    return trainer.compute_loss(trainer.model, batches[0]).item()


def test_the_policy_s_own_weights_are_on_log_pi_alone(adapter, tmp_path):
    spec = DpoTraining(weights=UE, beta=BETA, batch_size=3)
    rows = partial(preferences, **SHAPE, crossed=True)
    found = loss_of(tmp_path, spec, rows, adapter)
    policy, base, values = tiny(adapter), tiny(), []
    for row in rows(policy):
        scores = []
        for said, ids in zip(
            answers_as_seen(policy, row), (row.chosen, *row.rejected), strict=True
        ):
            weights = ue(said) if said.worse else [1.0] * len(ids)
            scores.append(BETA * (weighted(weights, said.log_probs) - logprob(base, row, ids)))
        values += [nll(scores[0] - other) for other in scores[1:]]
    assert found == pytest.approx(mean(values), rel=2e-4)


def test_a_pair_s_factor_is_on_beta(adapter, tmp_path):
    spec = DpoTraining(weights=WEIGHTS["da_dpo"](alpha=0.7), beta=BETA, batch_size=3)
    rows = partial(preferences, **SHAPE)
    found = loss_of(tmp_path, spec, rows, adapter)
    policy, base, values = tiny(adapter), tiny(), []
    for row in rows(policy):
        before = logprob(base, row, row.chosen)
        chosen = logprob(policy, row, row.chosen) - before
        for ids in row.rejected:
            other = logprob(base, row, ids)
            factor = 0.7 * (1 + abs(before / len(row.chosen) - other / len(ids)))
            margin = chosen - (logprob(policy, row, ids) - other)
            values.append(nll(BETA * factor * margin))
    assert found == pytest.approx(mean(values), rel=2e-4)


def with_weights(vlm, crossed: bool = False) -> list[Preference]:
    """Preferences with weights and weighted sums of the reference, drawn."""
    rng = torch.Generator().manual_seed(7)

    def some(count: int) -> tuple[float, ...]:
        return tuple((0.5 + torch.rand(count, generator=rng)).tolist())

    def made(row: Preference) -> Preference:
        views = some(len(row.images))
        sums = ReferenceLogps(-some(1)[0], some(len(row.rejected)), views, views)
        rejected = tuple(some(len(ids)) for ids in row.rejected)
        return replace(row, weights=AnswerWeights(some(len(row.chosen)), rejected, sums))

    return [made(row) for row in preferences(vlm, **SHAPE, crossed=crossed)]


def test_kept_weights_are_on_both_and_the_reference_s_sums_are_taken(adapter, tmp_path):
    found = loss_of(
        tmp_path, DpoTraining(weights=TPO, beta=BETA, batch_size=3), with_weights, adapter
    )
    policy, values = tiny(adapter), []
    for row in with_weights(policy):
        each = zip(
            (row.weights.chosen, *row.weights.rejected), (row.chosen, *row.rejected), strict=True
        )
        sums = [weighted(w, seen(policy, row, ids, True, []).log_probs) for w, ids in each]
        before = row.weights.reference
        chosen = sums[0] - before.chosen
        for own, other in zip(sums[1:], before.rejected, strict=True):
            values.append(nll(BETA * (chosen - (own - other))))
    assert found == pytest.approx(mean(values), rel=2e-4)


WEIGHED = {"sigmoid": 1.0, "image": 0.5, "ordered_images": 0.5, "symmetric": 0.5}


@pytest.mark.parametrize(
    ("weights", "loss", "rows"),
    [
        (UE, WEIGHED, partial(preferences, **SHAPE, crossed=True)),
        (TPO, WEIGHED, partial(with_weights, crossed=True)),
        (DA, {"sigmoid": 1.0, "apo_down": 0.5}, partial(preferences, **SHAPE)),
    ],
    ids=["ue_dpo", "tpo", "da_dpo"],
)
def test_the_packed_sequence_and_plain_rows_weigh_alike(weights, loss, rows, tmp_path):
    fast, plain = (
        step(
            tiny,
            rows,
            DpoTraining(loss=loss, weights=weights, beta=BETA, batch_size=3, lora_rank=4, fast=way),
            tmp_path / way,
        )
        for way in ("on", "off")
    )
    assert_equal(fast, plain)


def test_weights_of_1_are_no_weights(adapter, tmp_path):
    """Value and all."""

    def ones(vlm) -> list[Preference]:
        base = tiny()
        rows = preferences(vlm, 3)
        return [
            replace(
                row,
                weights=AnswerWeights(
                    (1.0,) * len(row.chosen),
                    tuple((1.0,) * len(ids) for ids in row.rejected),
                    ReferenceLogps(
                        logprob(base, row, row.chosen),
                        tuple(logprob(base, row, ids) for ids in row.rejected),
                    ),
                ),
            )
            for row in rows
        ]

    one = loss_of(tmp_path, DpoTraining(weights=TPO, beta=BETA, batch_size=3), ones, adapter)
    other = loss_of(tmp_path, DpoTraining(beta=BETA, batch_size=3), ones, adapter)
    assert one == pytest.approx(other, rel=1e-5)


# Where they are not defined.


def test_weights_are_refused_by_name_where_they_are_not_defined():
    def refused(weights) -> set[str]:
        found = set()
        for name in LOSSES:
            smoothing = 0.1 if name in ("exo_pair", "robust") else 0.0
            try:
                DpoTraining(loss=name, weights=weights, label_smoothing=smoothing)
            except ValueError as error:
                assert f"kind={weights.kind} is not defined in the loss {name}, which" in str(error)
                found.add(name)
        return found

    for weights in (TPO, ASPO, UE):
        assert refused(weights) == {"ipo", "sigmoid_norm", "sft", "chip"}
    unlike = {"ipo", "sigmoid_norm", "sft", "sppo_hard", "aot", "aot_unpaired"}
    assert refused(DA) == unlike | OURS.keys() and unlike < set(TRL_LOSSES)


def test_a_shared_out_head_is_refused_where_logits_are_looked_at():
    machine = Machine(accelerate="fsdp")
    for dpo, said in (
        (DpoTraining(loss="chip"), "its term 'chip' looks at logits"),
        (DpoTraining(weights=UE), "dpo.weights looks at logits"),
    ):
        with pytest.raises(InputError, match=said + ".*machine.accelerate=fsdp"):
            _check_head(dpo, machine)
    for dpo in (DpoTraining(), DpoTraining(weights=TPO), DpoTraining(weights=DA)):
        _check_head(dpo, machine)


def test_only_weights_that_are_there_enter_the_key():
    assert "weights" not in DpoTraining().identity()
    one, other = (DpoTraining(weights=WEIGHTS["ue_dpo"](alpha=a)).identity() for a in (0.2, 0.3))
    assert one["weights"] == {"kind": "ue_dpo", "alpha": 0.2, "tau": 0.4} != other["weights"]


# The stage.


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(5):
        picture(i).save(folder / f"{i}.png")
    return folder


def several_sentences(vlm, crossed: bool = False) -> list[Preference]:
    """Five preferences, whose chosen answers have three sentences."""
    text = "The image shows a red star. A blue moon is left of it. There is a ring."
    made = preferences(vlm, 5, (1, 2), (2, 0, 1), crossed)
    return [replace(row, chosen=vlm.answer_ids(row.prompt, text)) for row in made]


@pytest.fixture
def shown(monkeypatch) -> None:
    """Pairs are preferences with views' pictures, as the stage would make them."""

    def made(vlm, pair_set: PairSet) -> list[Preference]:
        return several_sentences(vlm, pair_set.crossed)

    monkeypatch.setattr(reference_module, "preferences_of", made)


@pytest.mark.parametrize("fast", ["on", "off"])
@pytest.mark.parametrize("weights", [TPO, ASPO], ids=["tpo", "aspo"])
def test_the_stage_keeps_each_token_s_weight_and_the_reference_s_sums(
    weights, fast, root, tmp_path, shown
):
    place = placement(tmp_path, train_batch_size=2)
    score_weights(weights, tiny(), PairSet(pairs(root), root, crossed=weights.logits), fast, place)
    vlm, found = tiny(), read_weights(tmp_path)
    assert list(found) == [f"s{i}" for i in range(5)]
    for row in several_sentences(vlm):
        kept = found[row.id]
        each = zip((kept.chosen, *kept.rejected), answers_as_seen(vlm, row), strict=True)
        sums = []
        for own, said in each:
            weighed = bool(said.worse) or weights.kind == "aspo"
            expected = FORMULAS[weights.kind](said) if weighed else [1.0] * len(own)
            assert own == pytest.approx(expected, abs=1e-3)
            sums.append(weighted(own, said.log_probs))
        assert (kept.reference.chosen, *kept.reference.rejected) == pytest.approx(sums, abs=1e-3)
        for make, value in zip(row.images, kept.reference.views, strict=True):
            ids = torch.tensor(row.chosen)[:, None]
            logits = next_logits(vlm, row, row.chosen, make()).log_softmax(1)
            assert value == pytest.approx(
                weighted(kept.chosen, logits.gather(1, ids)[:, 0]), abs=1e-3
            )
        assert len(kept.reference.crossed) == (len(row.images) if weights.logits else 0)


def test_a_killed_stage_goes_on_and_gives_the_same(root, tmp_path, monkeypatch, shown):
    made = PairSet(pairs(root), root, crossed=True)
    whole = placement(tmp_path / "whole", train_batch_size=2)
    score_weights(TPO, tiny(), made, "auto", whole)
    place = placement(tmp_path / "cut", train_batch_size=2)
    real, calls = type(TPO).__call__, []

    def dies(self, said):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(self, said)

    with monkeypatch.context() as patch:
        patch.setattr(type(TPO), "__call__", dies)
        with pytest.raises(KeyboardInterrupt):
            score_weights(TPO, tiny(), made, "auto", place)
    score_weights(TPO, tiny(), made, "auto", place)
    one, other = (
        [json.loads(line) for line in (p.work / "weights.jsonl").read_text().splitlines()]
        for p in (whole, place)
    )
    assert one == other and len(one) == 5
    first = read_weights(place.work)["s0"]
    assert asdict(first)["reference"]["chosen"] == one[0]["reference"]["chosen"]
