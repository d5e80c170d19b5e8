"""The engine's loop: what is computed once, what memory bounds, what is read ahead, what a reply
brings."""

from __future__ import annotations

import random
import threading
import weakref
from dataclasses import replace

import pytest
import torch

from seva_exp import Machine, StageError
from seva_exp.generation import HfGeneration, ahead, engine, loop
from seva_exp.generation.budget import Budget
from seva_exp.generation.engine import Engine
from seva_exp.generation.sampling import Sampling
from seva_exp.generation.slot_attention import Decode, Layout
from seva_exp.generation.slots import Slots, bytes_per_token
from seva_exp.interfaces import Request
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.records import Answer, from_json
from seva_exp.world import UNBIASED, draw, sample_scene

from .alone import alone, by_id, inputs_of

PROMPTS = (
    "Describe this image.",
    "Is there a red circle?",
    "How many shapes are there?",
    "What color is the square in this picture of several shapes?",
)


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu", dtype="float32"))


def request(number, picture=None, tokens=24):
    picture = number if picture is None else picture
    scene = sample_scene(random.Random(picture), UNBIASED)
    prompt = PROMPTS[number % len(PROMPTS)]
    return Request(f"id{number}", f"picture{picture}", lambda: draw(scene), prompt, tokens)


SINGLE = [request(number) for number in range(12)]
SHARED = [request(number, picture=number // 4) for number in range(12)]


@pytest.fixture(scope="module")
def expected(vlm):
    """Of SINGLE and SHARED, by their order."""
    return [{r.id: alone(vlm, r) for r in some} for some in (SINGLE, SHARED)]


def asked(vlm, requests, rows=8, **more):
    return {id: r.tokens for id, r in by_id(Engine(vlm, rows, **more).run(requests)).items()}


@pytest.fixture
def passes(vlm, monkeypatch):
    """How many tokens each pass of the language model took."""
    seen = []
    decoder = vlm.model.get_decoder()
    real = decoder.forward

    def forward(*args, inputs_embeds, **kwargs):
        seen.append(inputs_embeds.shape[1])
        return real(*args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(decoder, "forward", forward)
    return seen


@pytest.fixture
def extents(monkeypatch):
    """What the slots hold, whenever they are looked at."""
    seen = []
    real = Slots.fit

    def fit(self, need, budget, rows):
        real(self, need, budget, rows)
        assert self.extent.covers(need)
        for buffers in (self.prefixes, self.own):
            for buffer in buffers.values():
                assert buffer.shape[1] * buffer.shape[3] <= self.extent.tokens
        seen.append(self.extent)

    monkeypatch.setattr(Slots, "fit", fit)
    return seen


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_any_number_of_rows_gives_generate_s_answers(vlm, expected, rows):
    assert asked(vlm, SINGLE, rows) == expected[0]
    assert asked(vlm, SHARED, rows) == expected[1]


def test_a_picture_and_the_common_beginning_run_once(vlm, passes):
    questions = [request(number, picture=0, tokens=1) for number in range(4)]
    prompts = [inputs_of(vlm, question)["input_ids"][0].tolist() for question in questions]
    common = 0
    while len({tuple(ids[: common + 1]) for ids in prompts}) == 1:
        common += 1
    assert common > 36  # the placeholders are in it
    seen = []
    hook = vlm.model.model.vision_tower.register_forward_hook(lambda *call: seen.append(1))
    assert len(asked(vlm, questions, rows=2)) == 4
    hook.remove()
    assert len(seen) == 1
    assert sum(passes) == common + sum(len(ids) - common for ids in prompts)


def test_a_row_that_finishes_makes_room_for_the_next(vlm, passes):
    bounds = [3, 20, 5, 3, 4, 6]
    requests = [replace(r, max_new_tokens=n) for r, n in zip(SINGLE, bounds, strict=False)]
    found = asked(vlm, requests, rows=2)
    decoding = [size for size in passes if size <= 2]
    assert sum(decoding) == sum(len(tokens) - 1 for tokens in found.values())
    assert decoding.count(2) > len(decoding) / 2


def test_features_and_pictures_are_dropped_after_use(vlm, monkeypatch):
    made = []
    real = loop.features_of

    def features_of(vlm, images):
        out = real(vlm, images)
        made.extend(weakref.ref(one.pooler_output[0]) for one in out)
        made.extend(weakref.ref(image.pixels["pixel_values"]) for image in images)
        return out

    monkeypatch.setattr(loop, "features_of", features_of)
    alive = []
    for _ in Engine(vlm, 2).run(SHARED):
        alive.append(sum(ref() is not None for ref in made))
    assert len(made) == 6 and not any(alive)


def test_a_prefix_s_place_is_taken_by_the_next(vlm, extents):
    asked(vlm, SINGLE, rows=3)
    assert max(extent.prefixes for extent in extents) <= 4
    assert max(extent.rows for extent in extents) <= 3


@pytest.mark.parametrize("tokens", [120, 300])
def test_the_budget_is_kept_to(vlm, expected, extents, tokens):
    assert asked(vlm, SINGLE, tokens=tokens) == expected[0]
    assert asked(vlm, SHARED, tokens=tokens) == expected[1]
    assert 60 < max(extent.tokens for extent in extents) <= tokens


def test_a_row_without_room_to_go_on_is_done_again(vlm, expected, extents, monkeypatch):
    monkeypatch.setattr(loop, "PROMISED", 1)
    back = []
    real = ahead.Ahead.put_back
    monkeypatch.setattr(
        ahead.Ahead, "put_back", lambda self, some: back.extend(some) or real(self, some)
    )
    assert asked(vlm, SINGLE, tokens=150) == expected[0]
    assert asked(vlm, SHARED, tokens=150) == expected[1]
    assert back and max(extent.tokens for extent in extents) <= 150


def test_a_prefix_that_only_waiting_rows_need_makes_room(vlm, monkeypatch):
    """A long answer beside a picture with many short ones, in memory for the long one alone."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    long = request(0, picture=0, tokens=180)
    short = [request(number, picture=1, tokens=3) for number in range(1, 40)]
    alone_in_it = asked(vlm, [long], rows=2, tokens=250)
    with_others = asked(vlm, [long, *short], rows=2, tokens=250)
    assert with_others[long.id] == alone_in_it[long.id] and len(with_others) == 40


def test_a_row_sees_its_prefix_and_its_own_tokens_up_to_the_new_one():
    layout = Layout([0, 1], 2, "cpu")
    step = Decode(Slots(), layout, torch.tensor([2, 4]), torch.tensor([0, 1]), longest=4, own=2)
    seen = [[int(not hidden) for hidden in row] for row in step._unseen(None)[:, 0, 0]]
    assert seen == [[1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]]
    seen = [[int(not hidden) for hidden in row] for row in step._unseen(2)[:, 0, 0]]
    assert seen == [[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1]]


def test_main_memory_is_shared_with_other_processes(vlm):
    whole, third = (Budget(vlm, None, neighbours).tokens for neighbours in (1, 3))
    assert third == pytest.approx(whole / 3, rel=0.2)


def test_a_request_that_fits_no_budget_is_named(vlm):
    with pytest.raises(StageError, match=r"request id0: .* and 30 fit \(machine.generation_tokens"):
        asked(vlm, SINGLE, tokens=30)
    with pytest.raises(StageError, match=r"request id0: .* take 61 tokens .* and 60 fit"):
        asked(vlm, SINGLE[:1], tokens=60)


def test_none_takes_what_memory_allows(vlm, monkeypatch):
    assert bytes_per_token(vlm.model) == 2 * 4 * 128 * 4
    monkeypatch.setattr("seva_exp.generation.budget.free_bytes", lambda device: 4096 * 500)
    assert Engine(vlm, 8)._asks._budget.tokens == 250


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
def test_when_memory_runs_out_half_is_run_and_nothing_is_lost(vlm, expected, monkeypatch, error):
    real, sizes = vlm.model.forward, []

    def forward(*args, input_ids, **kwargs):
        sizes.append(input_ids.shape[1])
        if input_ids.shape[1] > 150:
            raise error
        return real(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(vlm.model, "forward", forward)
    ours = Engine(vlm, 8)
    first = by_id(ours.run(SINGLE))
    assert {id: reply.tokens for id, reply in first.items()} == expected[0]
    failed = sum(size > 150 for size in sizes)
    assert 1 <= failed <= 3
    by_id(ours.run(SINGLE))  # the engine remembers
    assert sum(size > 150 for size in sizes) == failed


def test_memory_that_runs_out_in_the_middle_of_answers_loses_none(vlm, expected, monkeypatch):
    real, calls = vlm.model.forward, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) in (7, 30):
            raise CPU
        return real(*args, **kwargs)

    monkeypatch.setattr(vlm.model, "forward", forward)
    assert asked(vlm, SHARED, 8) == expected[1]
    assert len(calls) > 30


@pytest.mark.parametrize("slow", [False, True], ids=["slots", "batches"])
def test_one_alone_that_runs_out_of_memory_is_named(vlm, monkeypatch, slow):
    def forward(*args, **kwargs):
        raise CPU

    monkeypatch.setattr(vlm.model.model.vision_tower, "forward", forward)
    if slow:
        monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    with pytest.raises(StageError, match="request id0: "):
        asked(vlm, SINGLE[:2])


def test_another_error_is_not_taken_for_memory(vlm, monkeypatch):
    def forward(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(vlm.model, "forward", forward)
    with pytest.raises(RuntimeError, match="mat1"):
        asked(vlm, SINGLE)


def test_an_unproven_model_takes_generate_and_says_so(vlm, expected, monkeypatch):
    monkeypatch.setattr(vlm.model.config, "model_type", "unheard_of")
    said = []
    assert asked(vlm, SHARED, 3, warn=said.append) == expected[1]
    assert said == [
        "generation takes transformers' slower loop, since the family unheard_of is not proven"
    ]


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_sampled_answers_are_those_of_generate_with_the_same_noise(vlm, monkeypatch, temperature):
    how = Sampling(temperature, 0.95, 3, "sampling/clean")
    ours = [asked(vlm, SHARED, rows, sampling=how) for rows in (1, 5, 64)]
    monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    assert ours == [asked(vlm, SHARED, 4, sampling=how)] * 3


def teacher_forced(vlm, request, tokens):
    """Log-probabilities of an answer by one plain forward pass."""
    inputs = inputs_of(vlm, request)
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.inference_mode():
        logits = vlm.model(**inputs).logits[0, start - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("how", [None, Sampling(1.3, 0.9, 0, "x")], ids=["greedy", "sampled"])
@pytest.mark.parametrize("slow", [False, True], ids=["slots", "batches"])
def test_log_probabilities_are_the_model_s_own(vlm, monkeypatch, how, slow):
    if slow:
        monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    found = by_id(Engine(vlm, 5, sampling=how, logprobs=True).run(SHARED))
    for one in SHARED:
        reply = found[one.id]
        wanted = teacher_forced(vlm, one, reply.tokens)
        assert reply.logprobs == pytest.approx(wanted, abs=1e-4)
    assert all(not reply.logprobs for reply in by_id(Engine(vlm, 5).run(SINGLE[:2])).values())


def test_log_probabilities_are_in_the_key_only_when_they_are_kept():
    plain, kept = HfGeneration(), HfGeneration(logprobs=True)
    assert "logprobs" not in plain.identity()
    assert plain.identity() | {"logprobs": True} == kept.identity() == kept.to_json()
    row = {
        "sample_id": "a",
        "view": "clean",
        "asked": "?",
        "text": "",
        "tokens": [1],
        "stop": "eos",
    }
    assert from_json(Answer, row).logprobs == ()


def test_few_pictures_are_read_ahead(vlm):
    loaded = []

    def noted(one):
        return replace(one, load=lambda: loaded.append(one.id) or one.load())

    replies = Engine(vlm, 2).run([noted(one) for one in SINGLE])
    next(replies)
    assert 0 < len(loaded) <= 4 + ahead.DEPTH < len(SINGLE)
    replies.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pictures")]


def test_a_damaged_picture_s_own_error_comes_up(vlm):
    def damaged():
        raise StageError("pictures/7.png is damaged")

    requests = [*SINGLE[:3], replace(SINGLE[3], load=damaged), *SINGLE[4:]]
    with pytest.raises(StageError, match=r"pictures/7.png is damaged"):
        asked(vlm, requests, rows=1)
