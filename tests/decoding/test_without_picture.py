"""Questions without a picture: among those on pictures, in every family, token for token what
``model.generate`` gives for the prompt alone."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch

from seva_exp import Machine
from seva_exp.core.interfaces import TOO_LONG, Request
from seva_exp.decoding.engine import Continuous, Engine
from seva_exp.decoding.hf_generate import Batches, cut_batches
from seva_exp.models.vlm import load

from ..models import families
from .alone import alone, by_id

pytestmark = pytest.mark.usefixtures("numbers_in_words")
MACHINE = Machine(device="cpu", dtype="float32")
PROMPTS = ["What is in it?", "How many things are in it, and which?", "Why?"]


def on_picture(number: int, question: int) -> Request:
    show = partial(families.draw, 60 + 30 * number, 30, number)
    return Request(f"{number}/{question}", f"p{number}", show, PROMPTS[question], 4)


def plain(question: int, bound: int = 6) -> Request:
    return Request(f"plain/{question}", "", None, PROMPTS[question], bound)


REQUESTS = [
    on_picture(0, 0), plain(0), on_picture(0, 1), plain(1, 9), on_picture(1, 0), plain(2, 4),
]  # fmt: skip


@torch.inference_mode()
def without(vlm, request: Request) -> tuple[int, ...]:
    """transformers' own answer to the prompt in the chat template, tokenised by the tokenizer."""
    encoded = vlm.encode_text(request.prompt)
    inputs = {"input_ids": torch.tensor([encoded.ids])}
    inputs |= {key: torch.tensor([value]) for key, value in encoded.types.items()}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    out = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=request.max_new_tokens)
    return tuple(out[0, len(encoded.ids) :].tolist())


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def of(name: str):
        vlm = load(families.build(name, root / name), MACHINE)
        return vlm, {r.id: (alone if r.load else without)(vlm, r) for r in REQUESTS}

    return of


@families.slow_but("llava15", "gemma3", "qwen3_vl", "paligemma2")
@pytest.mark.parametrize("rows", [2, 8])
def test_answers_are_those_of_generate(family, name, rows):
    """Those on pictures stay what they are. In fewer rows than questions, and in more."""
    vlm, expected = family(name)
    engines = [Engine(vlm, rows), Batches(vlm, rows, None, None, False)]
    for engine in engines:
        found = {id: reply.tokens for id, reply in by_id(engine.run(REQUESTS)).items()}
        assert found == expected
    assert isinstance(engines[0]._asks, Continuous)


@families.slow_but("llava15")
def test_a_view_changes_no_prompt_and_the_answer_is_another_than_with_a_picture(family, name):
    vlm, expected = family(name)
    changed = []

    def change(request, image):
        changed.append(request.id)
        return image

    found = by_id(Engine(vlm, 4, change).run(REQUESTS))
    assert {id.partition("/")[0] for id in changed} == {"0", "1"}
    assert expected["plain/0"] != expected["0/0"]
    assert found["plain/0"].tokens == expected["plain/0"]


def test_one_that_does_not_fit_ends_nothing(family):
    vlm, expected = family("llava15")
    long = Request("long", "", None, "Why? " * 4000, 4)
    found = by_id(Engine(vlm, 4).run([*REQUESTS, long]))
    assert found["long"].stop == TOO_LONG
    assert all(found[id].tokens == tokens for id, tokens in expected.items())


def test_batches_hold_questions_on_pictures_or_such_without():
    batches = cut_batches(REQUESTS, 2)
    assert sorted(r.id for batch in batches for r in batch) == sorted(r.id for r in REQUESTS)
    assert all(len({r.load is None for r in batch}) == 1 for batch in batches)
