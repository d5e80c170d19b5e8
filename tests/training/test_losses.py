"""Every loss is the formula of its paper, written out here over log-probabilities that are computed
one sequence at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from seva_exp.training import DpoTraining
from seva_exp.training.loss import Crossed, Divergence, Scores
from seva_exp.training.losses import OURS
from seva_exp.training.spec import LOSSES, OUR_LOSSES, TRL_LOSSES

from .tools import first_loss, kl, logprob, preferences, tiny, trained

BETA, SMOOTHING, TAU = 0.3, 0.1, 0.05
REJECTED, VIEWS = (1, 2, 3), (2, 0, 1)
"""How many rejected answers and pictures of negative views the preferences have, cyclically."""


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def nll(x: float) -> float:
    """-log sigma(x)."""
    return math.log1p(math.exp(-x))


@dataclass
class Pair:
    """Log-ratios log pi/pi_ref of chosen ``c`` and rejected ``r``; lengths in tokens."""

    c: float
    r: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def margin(self) -> float:
        return BETA * (self.c - self.r)

    @property
    def mean_margin(self) -> float:
        return self.c / self.chosen_tokens - self.r / self.rejected_tokens


@dataclass
class Shown:
    """A negative view's picture: log-ratios with it of the chosen answer ``c`` and of the rejected
    answer ``own`` that the view gave, which is the ``pair`` of this number; what the policy gains
    by the clean picture for the chosen one, and the reference for that rejected one. The last view
    is the weakest."""

    c: float
    own: float
    pair: int
    policy_gain: float = 0.0
    reference_gain: float = 0.0


@dataclass
class Preference:
    """``logprob`` of the chosen answer under the policy; ``views``; KL(pi_ref || pi) summed over
    the chosen answer's tokens and over those of each rejected one."""

    logprob: float
    pairs: list[Pair]
    views: list[Shown]
    chosen_kl: float = 0.0
    rejected_kl: tuple[float, ...] = ()


def exo(p: Pair) -> float:
    """KL of softmax(margin, 0) from (1 - eps, eps)."""
    q = sigma(p.margin)
    return q * math.log(q / (1 - SMOOTHING)) + (1 - q) * math.log((1 - q) / SMOOTHING)


def robust(p: Pair) -> float:
    kept, flipped = (1 - SMOOTHING) * nll(p.margin), SMOOTHING * nll(-p.margin)
    return (kept - flipped) / (1 - 2 * SMOOTHING)


def discopop(p: Pair) -> float:
    share = sigma(p.margin / TAU)
    return nll(p.margin) * (1 - share) + math.exp(-p.margin) * share


def smoothed(x: float) -> float:
    return (1 - SMOOTHING) * nll(x) + SMOOTHING * nll(-x)


BY_PAIR: dict[str, Callable[[Pair], float]] = {
    "sigmoid": lambda p: nll(p.margin),
    "hinge": lambda p: max(0.0, 1 - p.margin),
    "ipo": lambda p: (p.mean_margin - 1 / (2 * BETA)) ** 2,
    "exo_pair": exo,
    "nca_pair": lambda p: nll(BETA * p.c) + 0.5 * nll(-BETA * p.c) + 0.5 * nll(-BETA * p.r),
    "robust": robust,
    "bco_pair": lambda p: nll(BETA * p.c) + nll(-BETA * p.r),
    "sppo_hard": lambda p: (p.c - 0.5 / BETA) ** 2 + (p.r + 0.5 / BETA) ** 2,
    "apo_zero": lambda p: 1 - sigma(BETA * p.c) + sigma(BETA * p.r),
    "apo_down": lambda p: sigma(BETA * p.c) + 1 - sigma(p.margin),
    "discopop": discopop,
    "sigmoid_norm": lambda p: nll(BETA * p.mean_margin),
}
"""Of one pair; the loss is the mean over the pairs."""


def plackett_luce(p: Preference) -> float:
    scores = [BETA * ratio for ratio in (p.pairs[0].c, *(v.c for v in reversed(p.views)))]
    places = range(len(scores) - 1)
    return -sum(scores[i] - math.log(sum(map(math.exp, scores[i:]))) for i in places)


def margins(p: Preference, shown: Shown) -> tuple[float, float]:
    """With the clean picture and with the other one: what each one's own answer is ahead."""
    return p.pairs[0].c - p.pairs[shown.pair].r, shown.own - shown.c


def symmetric(p: Preference, shown: Shown) -> float:
    return sum(nll(BETA * margin) for margin in margins(p, shown))


def margin_gap(p: Preference, shown: Shown) -> float:
    here, there = margins(p, shown)
    return (here - there) ** 2


def calibration(p: Preference, shown: Shown) -> float:
    return nll(BETA * (shown.policy_gain - shown.reference_gain))


def chip(p: Preference) -> float:
    values = []
    for k, pair in enumerate(p.pairs):
        seen = sum(pair.c - shown.c for shown in p.views if shown.pair == k)
        kl = p.rejected_kl[k] - p.chosen_kl
        values.append(nll(BETA * (pair.c - pair.r + seen - 0.1 * kl)))
    return mean(values)


def by_view(formula: Callable[[Preference, Shown], float]) -> Callable[[Preference], float]:
    return lambda p: mean([formula(p, shown) for shown in p.views] or [0.0])


BY_PREFERENCE: dict[str, Callable[[Preference], float]] = {
    "softmax": lambda p: nll(-math.log(sum(math.exp(-pair.margin) for pair in p.pairs))),
    "chosen_nll": lambda p: -p.logprob,
    "image": by_view(lambda p, shown: nll(BETA * (p.pairs[0].c - shown.c))),
    "ordered_images": plackett_luce,
    "calibration": by_view(calibration),
    "symmetric": by_view(symmetric),
    "margin_gap": by_view(margin_gap),
    "view_anchor": by_view(lambda p, shown: nll(BETA * shown.own)),
    "chip": chip,
    "anchor": lambda p: nll(BETA * p.pairs[0].c),
}
"""Of one preference; the loss is the mean over the preferences."""


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def written_out(name: str, made: list[Preference], reference_margins: list[float]) -> float:
    """``reference_margins``: log pi_ref(chosen) - log pi_ref(rejected) of each pair."""
    pairs = [pair for preference in made for pair in preference.pairs]
    if name in BY_PAIR:
        return mean([BY_PAIR[name](pair) for pair in pairs])
    if name in BY_PREFERENCE:
        return mean([BY_PREFERENCE[name](preference) for preference in made])
    if name == "aot":  # quantiles of the policy's margins against those of the reference's
        ours = sorted(p.c - p.r + m for p, m in zip(pairs, reference_margins, strict=True))
        order = zip(ours, sorted(reference_margins), strict=True)
        return mean([smoothed(BETA * (one - other)) for one, other in order])
    if name == "aot_unpaired":
        order = zip(sorted(p.c for p in pairs), sorted(p.r for p in pairs), strict=True)
        return mean([smoothed(BETA * (one - other)) for one, other in order])
    assert name == "sft"  # mean over the chosen answers' tokens, once for each pair
    tokens = sum(pair.chosen_tokens for pair in pairs)
    return -sum(p.logprob * len(p.pairs) for p in made) / tokens


def spec_of(name: str, **more) -> DpoTraining:
    smoothing = SMOOTHING if name in ("exo_pair", "robust", "aot", "aot_unpaired") else 0.0
    return DpoTraining(loss=name, beta=BETA, label_smoothing=smoothing, batch_size=6, **more)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """A policy that differs from the base model."""
    recipe = DpoTraining(batch_size=6, epochs=2, learning_rate=1e-3, warmup_ratio=0.0)
    return trained(tmp_path_factory.mktemp("policy") / "x", recipe)[0]


def measured(policy_folder: Path | None) -> tuple[list[Preference], list[float]]:
    """The numbers of the six preferences, one sequence at a time."""
    base, policy = tiny(), tiny(policy_folder)
    made, margins = [], []
    for row in preferences(base, 6, REJECTED, VIEWS):

        def ratio(answer, image=None, row=row) -> float:
            return logprob(policy, row, answer, image) - logprob(base, row, answer, image)

        chosen, length = ratio(row.chosen), len(row.chosen)
        pairs = [Pair(chosen, ratio(ids), length, len(ids)) for ids in row.rejected]
        views = []
        for make, given in zip(row.images, row.image_rejected, strict=True):
            image, ids = make(), row.rejected[given]
            views.append(
                Shown(
                    ratio(row.chosen, image),
                    ratio(ids, image),
                    given,
                    logprob(policy, row, row.chosen) - logprob(policy, row, row.chosen, image),
                    logprob(base, row, ids) - logprob(base, row, ids, image),
                )
            )
        divergence = [kl(policy, base, row, ids) for ids in (row.chosen, *row.rejected)]
        said = logprob(policy, row, row.chosen)
        made.append(Preference(said, pairs, views, divergence[0], tuple(divergence[1:])))
        kept = logprob(base, row, row.chosen)
        margins += [kept - logprob(base, row, ids) for ids in row.rejected]
    return made, margins


@pytest.fixture(scope="module")
def numbers(adapter):
    return measured(adapter)


@pytest.fixture(scope="module")
def equal_numbers():
    return measured(None)


def test_every_loss_has_its_formula_here():
    ours, trl = set(BY_PREFERENCE), {*BY_PAIR, "aot", "aot_unpaired", "sft"}
    assert (ours, trl) == (set(OUR_LOSSES), set(TRL_LOSSES)) and len(trl) == 15
    assert set(OURS) == ours


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula_written_out(name, adapter, numbers, tmp_path):
    """Of a policy that was trained, with one to three rejected answers and none to two views."""
    spec = spec_of(name)
    views = VIEWS if "images" in spec.needs else (0,)
    _, loss, _ = first_loss(tmp_path / "x", spec, REJECTED, views, adapter, "base")
    expected = written_out(name, *numbers)
    assert loss.item() == pytest.approx(expected, rel=2e-4)
    nothing_learnt = written_out(name, *had_it_not_moved(numbers))
    assert abs(expected - nothing_learnt) > 1e-3 * abs(expected)  # the policy matters


def had_it_not_moved(numbers):
    """The same preferences, had the policy not moved (log-ratios of 0)."""
    made, margins = numbers
    still = [
        Preference(
            p.logprob * 0.5,
            [Pair(0.0, 0.0, q.chosen_tokens, q.rejected_tokens) for q in p.pairs],
            [Shown(0.0, 0.0, shown.pair) for shown in p.views],
            0.0,
            tuple(0.0 for _ in p.pairs),
        )
        for p in made
    ]
    return still, margins


START = {
    "sigmoid": math.log(2),
    "hinge": 1.0,
    "ipo": 1 / (4 * BETA**2),
    "exo_pair": 0.5 * math.log(0.5 / (1 - SMOOTHING)) + 0.5 * math.log(0.5 / SMOOTHING),
    "nca_pair": 2 * math.log(2),
    "robust": math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo_hard": 1 / (2 * BETA**2),
    "aot": math.log(2),
    "aot_unpaired": math.log(2),
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * math.log(2) + 0.5,
    "sigmoid_norm": math.log(2),
    "softmax": (math.log(2) + math.log(3) + math.log(4)) / 3,  # 1, 2 and 3 rejected answers
    "image": 2 / 3 * math.log(2),  # a third of the preferences has no view with a picture
    "anchor": math.log(2),
    "ordered_images": (math.log(6) + math.log(2)) / 3,  # three pictures, one, two
    "symmetric": 4 / 3 * math.log(2),
    "view_anchor": 2 / 3 * math.log(2),
    "margin_gap": 0.0,
    "chip": math.log(2),
}
"""Each loss while policy and reference are the same model: every log-ratio is 0. ``sft`` and
``chosen_nll`` do not look at the reference, ``calibration`` compares two answers."""


@pytest.fixture(scope="module")
def beginner(tmp_path_factory):
    """A trainer before its first step, and a batch with all rows that any loss looks at."""
    work = tmp_path_factory.mktemp("start") / "x"
    trainer, _, batch = first_loss(work, spec_of("symmetric"), REJECTED, VIEWS)
    return trainer, batch


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_starts_at_its_value_for_equal_models(name, equal_numbers, beginner):
    trainer, batch = beginner
    spec = spec_of(name)
    trainer._spec, trainer.label_smoothing = spec, spec.label_smoothing
    trainer.loss_types, trainer.loss_weights = [*(spec.trl_terms or ["sigmoid"])], [1.0]
    expected = START.get(name) or written_out(name, *equal_numbers)
    found = trainer.compute_loss(trainer.model, batch).item()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_terms_add_up_with_their_weights(adapter, numbers, tmp_path):
    weights = {"sigmoid": 1.0, "ipo": 0.5, "chosen_nll": 0.01, "image": 2.0, "softmax": 0.3}
    spec = DpoTraining(loss=weights, beta=BETA, batch_size=6)
    _, loss, _ = first_loss(tmp_path / "x", spec, REJECTED, VIEWS, adapter, "base")
    expected = sum(weight * written_out(name, *numbers) for name, weight in weights.items())
    assert loss.item() == pytest.approx(expected, rel=2e-4)


NONE, NOBODY = torch.zeros(0), torch.zeros(0, dtype=torch.long)


def softmax(chosen, rejected, owner):
    return OURS["softmax"](Scores(NONE, chosen, rejected, owner, NONE, NOBODY))


def test_softmax_of_one_negative_is_dpo():
    torch.manual_seed(0)
    chosen, rejected = 20 * torch.randn(2, 50, dtype=torch.float64, requires_grad=True)
    owner = torch.arange(50)
    ours = softmax(chosen, rejected, owner)
    dpo = -torch.nn.functional.logsigmoid(chosen - rejected)
    assert torch.allclose(ours, dpo, atol=1e-6, rtol=0)
    grads = [torch.autograd.grad(loss.sum(), (chosen, rejected)) for loss in (ours, dpo)]
    assert all(torch.allclose(a, b, atol=1e-6, rtol=0) for a, b in zip(*grads, strict=True))


def test_softmax_has_the_gradient_of_infonce_and_no_overflow():
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    chosen = torch.tensor([0.3, -1.0, 900.0], dtype=torch.float64, requires_grad=True)
    rejected = [0.1, -0.4, 2.0, 0.5, -900.0, 1800.0]
    rejected = torch.tensor(rejected, dtype=torch.float64, requires_grad=True)
    value = softmax(chosen, rejected, owner)
    assert value[2].item() == pytest.approx(900.0)
    assert torch.autograd.gradcheck(  # finite differences, where they do not vanish
        lambda c, r: softmax(c, r, owner[:4]), (chosen[:2], rejected[:4])
    )
    to_chosen, to_rejected = torch.autograd.grad(value.sum(), (chosen, rejected))
    share = torch.cat([chosen[:1], rejected[:3]]).softmax(0)  # the posterior over four answers
    assert to_chosen[0].item() == pytest.approx(share[0].item() - 1)
    assert torch.allclose(to_rejected[:3], share[1:])


@pytest.mark.parametrize("loss", ["softmax", "image"])
def test_the_gradient_through_the_model_is_that_of_finite_differences(loss, adapter, tmp_path):
    """Three rejected answers, three views; along the gradient itself, where it is largest."""
    spec = DpoTraining(loss=loss, beta=BETA, batch_size=2)
    trainer, value, batch = first_loss(tmp_path / "x", spec, (3,), (3,), adapter, "base", n=2)
    value.backward()
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    grads = [p.grad.clone() for p in weights]
    norm = math.sqrt(sum(float(g.pow(2).sum()) for g in grads))

    def moved(step: float) -> float:
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight.add_(grad, alpha=step / norm)
            return trainer.compute_loss(trainer.model, batch).item()

    ahead, behind = moved(1e-2), moved(-2e-2)
    assert (ahead - behind) / 2e-2 == pytest.approx(norm, rel=1e-2)


def test_a_preference_without_pictures_has_no_image_loss():
    chosen = torch.tensor([1.0, 2.0])
    views, owner = torch.tensor([0.0, 0.5]), torch.tensor([1, 1])
    none, two = OURS["image"](Scores(NONE, chosen, NONE, NOBODY, views, owner)).tolist()
    assert none == 0 and two == pytest.approx((nll(2.0) + nll(1.5)) / 2)


def drawn(seed: int = 0) -> tuple[list[Preference], Scores]:
    """Log-probabilities drawn in float64: three preferences with two rejected answers each, and
    three, no and two views, in no order; as preferences and as what a loss gets."""
    rng = torch.Generator().manual_seed(seed)

    def some(count: int) -> torch.Tensor:
        return torch.randn(count, generator=rng, dtype=torch.float64)

    owner, view_owner = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 2, 2])
    given, strength = torch.tensor([0, 1, 1, 5, 4]), torch.tensor([3.0, 1.0, 2.0, 5.0, 7.0])
    chosen, rejected, views, own = some(3), some(6), some(5), some(5)
    gains, apart = (some(5), some(5)), Divergence(some(3).abs(), some(6).abs())
    leaves = [chosen, rejected, views, own, gains[0], apart.chosen, apart.rejected]
    for leaf in leaves:
        leaf.requires_grad_()
    scores = Scores(
        NONE, BETA * chosen, BETA * rejected, owner, BETA * views, view_owner, BETA, strength,
        given, Crossed(BETA * own, *gains), apart,
    )  # fmt: skip
    made = []
    for i in range(3):
        pairs = [Pair(chosen[i].item(), rejected[2 * i + k].item(), 1, 1) for k in range(2)]
        mine = [v for v in strength.argsort(descending=True).tolist() if view_owner[v] == i]
        shown = [
            Shown(
                views[v].item(), own[v].item(), int(given[v]) - 2 * i, gains[0][v].item(),
                gains[1][v].item(),
            )
            for v in mine
        ]  # fmt: skip
        kls = apart.chosen[i].item(), tuple(apart.rejected[2 * i : 2 * i + 2].tolist())
        made.append(Preference(0.0, pairs, shown, *kls))
    return made, scores


PICTURES = sorted(name for name in OUR_LOSSES if DpoTraining(loss=name).needs)


@pytest.mark.parametrize("name", PICTURES)
def test_a_loss_of_pictures_is_its_formula_to_1e_6(name):
    """Preference by preference, views in any order."""
    for seed in range(3):
        made, scores = drawn(seed)
        found = OURS[name](scores).tolist()
        assert found == pytest.approx([BY_PREFERENCE[name](p) for p in made], abs=1e-6)


@pytest.mark.parametrize("name", PICTURES)
def test_a_loss_of_pictures_has_the_gradient_of_finite_differences(name):
    _, s = drawn()
    assert s.crossed and s.divergence

    def value(chosen, rejected, views, own, gain, kl):
        crossed = replace(s.crossed, own=own, policy_gain=gain)
        apart = replace(s.divergence, chosen=s.divergence.chosen.detach(), rejected=kl)
        moved = replace(s, chosen=chosen, rejected=rejected, views=views)
        return OURS[name](replace(moved, crossed=crossed, divergence=apart)).sum()

    at = (
        s.chosen,
        s.rejected,
        s.views,
        s.crossed.own,
        s.crossed.policy_gain,
        s.divergence.rejected,
    )
    at = tuple(tensor.detach().requires_grad_() for tensor in at)
    assert torch.autograd.gradcheck(value, at)
    assert any(grad.any() for grad in torch.autograd.grad(value(*at), at, materialize_grads=True))


def test_the_chosen_answer_s_divergence_has_no_gradient():
    _, s = drawn()
    [grad] = torch.autograd.grad(OURS["chip"](s).sum(), s.divergence.chosen, allow_unused=True)[:1]
    assert grad is None


def test_an_ordered_list_of_one_picture_is_the_image_loss():
    _, s = drawn()
    one = torch.tensor([0, 3])
    s = replace(s, views=s.views[one], view_owner=s.view_owner[one], strength=s.strength[one])
    assert torch.allclose(OURS["ordered_images"](s), OURS["image"](s))
