"""Sampled decoding: the right distribution, and answers that depend on no batch."""

import random
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chisquare

from seva_exp import Machine
from seva_exp.core.interfaces import Request
from seva_exp.decoding import HfGeneration, engine
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.hf_generate import left_padded
from seva_exp.decoding.sampling import Sampling
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.world import UNBIASED, draw, sample_scene

WARM = 1.0
"""A temperature at which the model's answers are open."""
PROMPTS = ("Describe this image.", "What is in the picture?", "Is there a red circle?")


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu", dtype="float32"))


def request(number, picture=None, prompt=None, tokens=24):
    picture = number if picture is None else picture
    scene = sample_scene(random.Random(picture), UNBIASED)
    prompt = prompt or PROMPTS[number % len(PROMPTS)]
    return Request(f"id{number}", f"picture{picture}", lambda: draw(scene), prompt, tokens)


REQUESTS = [request(number) for number in range(16)]


def sampling(temperature=0.7, top_p=1.0, seed=0, purpose="sampling/clean"):
    return Sampling(temperature, top_p, seed, purpose)


def asked(vlm, how, requests=REQUESTS, size=8, tokens=24):
    """id -> reply."""
    requests = [replace(request, max_new_tokens=tokens) for request in requests]
    found = Engine(vlm, size, sampling=how).run(requests)
    return {reply.id: reply for batch in found for reply in batch}


@pytest.fixture(scope="module")
def first(vlm):
    return asked(vlm, sampling())


@pytest.mark.parametrize("size", [1, 3, 16])
def test_an_answer_depends_on_no_batch_and_no_order(vlm, first, size):
    shuffled = random.Random(size).sample(REQUESTS, len(REQUESTS))
    assert asked(vlm, sampling(), shuffled, size) == first
    assert {reply.stop for reply in first.values()} == {"eos", "length"}


def test_the_same_question_on_the_same_picture_is_drawn_for_each_sample_anew(vlm):
    twins = [request(number, picture=0, prompt=PROMPTS[0]) for number in range(8)]
    assert len({reply.text for reply in asked(vlm, sampling(), twins).values()}) > 4


@pytest.mark.parametrize("other", [{"seed": 1}, {"purpose": "sampling/moco"}])
def test_another_seed_or_view_draws_anew(vlm, other):
    first, now = asked(vlm, sampling(2.0)), asked(vlm, sampling(2.0, **other))
    assert sum(now[id].tokens != first[id].tokens for id in first) > len(first) / 2


def test_transformers_loop_draws_the_same(vlm, first, monkeypatch):
    monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    assert asked(vlm, sampling()) == first


def test_global_state_changes_nothing(vlm, first):
    torch.manual_seed(12345)
    assert asked(vlm, sampling(), REQUESTS[:8]) == {r.id: first[r.id] for r in REQUESTS[:8]}


def test_a_temperature_near_0_is_greedy(vlm):
    assert asked(vlm, sampling(1e-4)) == asked(vlm, None)


def probabilities(vlm, request, temperature):
    """softmax(logits / T) [V] of the first token, image tokens excluded, by a plain forward."""
    image = vlm.encode_image(request.load())
    inputs = left_padded([vlm.encode(image, request.prompt)], vlm.pad_id, vlm.device)
    with torch.inference_mode():
        logits = vlm.model(**inputs, **vlm.image_inputs([image])).logits[0, -1]
    logits = logits.clone().double()
    logits[vlm.image_token_id] = -torch.inf
    return torch.softmax(logits / temperature, dim=-1)


DRAWS = 2000
VARIED = [request(number, picture=0, prompt="red or blue or two") for number in range(DRAWS)]


def first_tokens(vlm, how):
    """How often each token [V] came first."""
    replies = asked(vlm, how, VARIED, size=250, tokens=1).values()
    drawn = torch.tensor([reply.tokens[0] for reply in replies])
    return torch.bincount(drawn, minlength=vlm.model.config.text_config.vocab_size)


def test_tokens_are_drawn_from_the_softmax(vlm):
    expected = probabilities(vlm, VARIED[0], WARM) * DRAWS
    common = expected >= 5
    assert common.sum() >= 4, "the test needs a question whose answer is open"
    counts = first_tokens(vlm, sampling(WARM)).double()
    seen, wanted = ([*x[common].tolist(), x[~common].sum().item()] for x in (counts, expected))
    assert chisquare(seen, wanted).pvalue > 0.001
    warmer = probabilities(vlm, VARIED[0], 1.3 * WARM) * DRAWS
    wrong = [*warmer[common].tolist(), warmer[~common].sum().item()]
    assert chisquare(seen, wrong).pvalue < 1e-6, "the test does not see another temperature"


def test_top_p_draws_from_the_smallest_set_that_holds_it(vlm):
    ordered, ids = probabilities(vlm, VARIED[0], WARM).sort(descending=True)
    size = int((ordered.cumsum(0) < 0.9).sum()) + 1
    assert 1 < size < 9
    counts = first_tokens(vlm, sampling(WARM, top_p=0.9))
    assert set(counts.nonzero().flatten().tolist()) == set(ids[:size].tolist())
    wanted = ordered[:size] / ordered[:size].sum() * DRAWS
    assert chisquare(counts[ids[:size]].double().numpy(), wanted.numpy()).pvalue > 0.001


def processed(scores, how, steps=1, ids=None):
    steps_of = how.processors(ids or [f"id{i}" for i in range(len(scores))])
    assert len(steps_of) == 1
    for _ in range(steps):
        out = steps_of(torch.zeros(len(scores), 1, dtype=torch.long), scores.clone())
    return out


def test_excluded_tokens_stay_excluded():
    scores = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    scores[:, ::2] = -torch.inf
    for top_p in (1.0, 0.9):
        out = processed(scores, sampling(top_p=top_p))
        assert out[:, ::2].isneginf().all()
        assert not out.isnan().any()
    assert processed(scores, sampling())[:, 1::2].isfinite().all()


def test_a_row_draws_the_same_numbers_at_each_step_whatever_the_batch():
    scores = torch.zeros(3, 50)
    for step in (1, 2, 5):
        together = processed(scores, sampling(), step)
        alone = processed(scores[2:], sampling(), step, ids=["id2"])
        assert torch.equal(together[2:], alone)
    one, two = (processed(scores, sampling(), step) for step in (1, 2))
    assert not (one == two).any()


def test_a_token_that_alone_is_allowed_is_drawn():
    scores = torch.full((64, 50), -torch.inf)
    scores[:, 7] = 0
    assert (processed(scores, sampling()).argmax(dim=1) == 7).all()


def test_the_kind_of_noise_is_in_the_key_of_sampled_answers_alone():
    assert HfGeneration(temperature=0.2).identity()["noise"] == "splitmix64"
    assert "noise" not in HfGeneration().identity()


def test_the_spec():
    assert not HfGeneration().seeded
    assert HfGeneration(temperature=0.2).seeded
    with pytest.raises(ValidationError, match="set temperature above 0"):
        HfGeneration(top_p=0.9)
    for wrong in ({"temperature": -0.1}, {"top_p": 0.0, "temperature": 1}, {"top_p": 1.1}):
        with pytest.raises(ValidationError):
            HfGeneration(**wrong)
