"""Whatever is asked, in whatever order, in however little memory: the answers of ``generate``, one
by one."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch

from seva_exp import Machine
from seva_exp.core.interfaces import Request
from seva_exp.decoding import scheduler as loop
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.sampling import Sampling
from seva_exp.models.vlm import load

from ..models import families
from .alone import alone, by_id, inputs_of

WORDS = ("what", "is", "there", "how", "many", "red", "things", "are", "in it", "and", "why", "so")
EIGHTEEN, MOST = 18, 28
"""Questions on one of the pictures, as POPE asks; tokens of an answer."""


@pytest.fixture(scope="module", params=["qwen25_vl", "gemma3"])
def vlm(request, tmp_path_factory):
    """Pictures of any size on three axes; windows and pictures that see themselves both ways."""
    spec = families.build(request.param, tmp_path_factory.mktemp("model") / request.param)
    return load(spec, Machine(device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def requests():
    """Pictures of several sizes with 18 questions, with one, and with some; one picture under two
    names, a question asked twice, and prompts of one word to 40."""
    rng, found = random.Random(5), []
    for picture, questions in enumerate([EIGHTEEN, 1, 1, 5, 1, 2]):
        size = rng.randrange(20, 160), rng.randrange(20, 160)
        draw = partial(families.draw, *size, 0 if picture == 4 else picture)
        for number in range(questions):
            prompt = " ".join(rng.choices(WORDS, k=rng.choice([1, 3, 8, 40])))
            if number == 3:
                prompt = found[-1].prompt
            bound = rng.choice([1, 2, 9, MOST])
            found.append(Request(f"{picture}/{number}", f"p{picture}", draw, prompt, bound))
    return found


@torch.inference_mode()
def drawn(vlm, request, how):
    """The sampled answer's ids, from one request's generator."""
    inputs = inputs_of(vlm, request)
    out = vlm.model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=request.max_new_tokens,
        logits_processor=how.processors([request.id]),
    )
    return tuple(out[0, inputs["input_ids"].shape[1] :].tolist())


@pytest.fixture
def put_back(monkeypatch):
    """The requests that are put back; rows come in with room for one token."""
    monkeypatch.setattr(loop, "PROMISED", 1)
    prefetcher = loop.PicturePrefetcher
    found, real = [], prefetcher.put_back
    monkeypatch.setattr(
        prefetcher, "put_back", lambda self, some: found.extend(some) or real(self, some)
    )
    return found


@pytest.fixture
def out_of_memory(monkeypatch):
    """How many passes there are, from now on, until memory runs out in one."""
    left, real = [], loop.Scheduler._forward

    def forward(*args, **kwargs):
        if left and not left[0]:
            left.clear()
            raise torch.OutOfMemoryError
        left[:] = [number - 1 for number in left]
        return real(*args, **kwargs)

    monkeypatch.setattr(loop.Scheduler, "_forward", forward)
    return left


def test_answers_under_pressure(vlm, requests, put_back, out_of_memory):
    how = Sampling(0.9, 0.95, 3, "sampling/clean")
    expected = {
        None: {one.id: alone(vlm, one) for one in requests},
        how: {one.id: drawn(vlm, one, how) for one in requests},
    }
    assert len(set(expected[None].values())) > 10 and expected[None] != expected[how]
    least = MOST + max(inputs_of(vlm, one)["input_ids"].shape[1] for one in requests)
    for seed, (rows, tokens, sampling, fault) in enumerate(
        [
            (3, least, None, []),
            (16, least + 60, how, []),
            (6, least + 100, None, []),
            (16, 6 * least, how, [9]),
        ]
    ):
        out_of_memory[:] = fault
        some = random.Random(seed).sample(requests, len(requests)) if seed % 2 else requests
        found = by_id(Engine(vlm, rows, sampling=sampling, tokens=tokens).run(some))
        assert {id: reply.tokens for id, reply in found.items()} == expected[sampling], seed
        assert not out_of_memory, "it never came to it"
    assert len(put_back) > 5
