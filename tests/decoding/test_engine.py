"""The engine's loop: what is computed once, what memory bounds, what is read ahead, what a reply
brings."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace

import pytest
import torch

from seva_exp import StageError
from seva_exp.core.records import Answer, from_json
from seva_exp.decoding import HfGeneration, engine, joining
from seva_exp.decoding import prefetch as ahead
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.kv_attention import Decode, Layout
from seva_exp.decoding.kv_cache import KVCache
from seva_exp.decoding.sampling import Sampling

from .alone import by_id, inputs_of
from .scenes import SHARED, SINGLE, asked, request


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


def test_rows_that_wait_come_in_when_a_quarter_has_left(vlm, passes, monkeypatch):
    """However slowly they leave, one by one or all together."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    bounds = [5 + 3 * (number % 12) for number in range(36)]
    requests = [request(number, tokens=bound) for number, bound in enumerate(bounds)]
    asked(vlm, requests, rows=12)
    decoding = [size for size in passes if size <= 12]
    while_some_wait = decoding[: len(decoding) - max(bounds)]
    assert len(while_some_wait) > 30
    assert min(while_some_wait) >= 9


def test_features_and_pictures_are_dropped_after_use(vlm, monkeypatch):
    made = []
    real = joining.features_of

    def features_of(vlm, images):
        out = real(vlm, images)
        made.extend(weakref.ref(one.pooler_output[0]) for one in out)
        made.extend(weakref.ref(image.pixels["pixel_values"]) for image in images)
        return out

    monkeypatch.setattr(joining, "features_of", features_of)
    alive = []
    for _ in Engine(vlm, 2).run(SHARED):
        alive.append(sum(ref() is not None for ref in made))
    assert len(made) == 6 and not any(alive)


def test_a_prefix_s_place_is_taken_by_the_next(vlm, extents):
    asked(vlm, SINGLE, rows=3)
    assert max(extent.prefixes for extent in extents) <= 4
    assert max(extent.rows for extent in extents) <= 3


def test_a_row_sees_its_prefix_and_its_own_tokens_up_to_the_new_one():
    layout = Layout([0, 1], 2, "cpu")
    before, at, rest = torch.tensor([2, 4]), torch.tensor([0, 1]), torch.tensor([0, 0])
    step = Decode(KVCache(), layout.shape(longest=4, own=2), before, at, rest, rest, rest)
    seen = [[int(not hidden) for hidden in row] for row in step._unseen(None)[:, 0, 0]]
    assert seen == [[1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]]
    seen = [[int(not hidden) for hidden in row] for row in step._unseen(2)[:, 0, 0]]
    assert seen == [[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1]]


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
    assert plain.identity() | {"logprobs": True} == kept.identity()
    assert kept.identity() | {"contrast": None} == kept.to_json()
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


def test_of_many_that_are_put_back_few_are_made_ready_at_once(vlm):
    loaded = []
    some = [replace(r, load=lambda r=r: loaded.append(r.id) or r.load()) for r in SINGLE]
    pictures = ahead.PicturePrefetcher(vlm, some[8:], None)
    pictures.take()
    pictures.put_back(some[:9])
    assert pictures.take()[0].waiting[0].request is some[0] and len(pictures) == 11
    pictures._pool.shutdown()  # when it has done all that it was given
    assert sorted(loaded) == sorted(r.id for r in (*some[8:], *some[: 1 + ahead.DEPTH]))


def test_a_damaged_picture_s_own_error_comes_up_after_what_was_finished(vlm, expected):
    def damaged():
        raise StageError("pictures/3.png is damaged")

    requests = [*SINGLE[:3], replace(SINGLE[3], load=damaged), *SINGLE[4:]]
    for rows, least in ((1, 3), (3, 1)):
        found = []
        with pytest.raises(StageError, match=r"pictures/3.png is damaged"):
            found.extend(r for some in Engine(vlm, rows).run(requests) for r in some)
        assert len(found) >= least
        assert all(reply.tokens == expected[0][reply.id] for reply in found)


@pytest.mark.parametrize("which", [0, 1], ids=["single", "shared"])
def test_a_picture_that_overflows_spoils_no_other_s_answers(vlm, expected, which):
    """As half precision may: its numbers are no numbers, and others come into its places, with
    shorter prompts too."""
    requests, bad = (SINGLE, SHARED)[which], (SINGLE[3], SHARED[0])[which].image_key

    def change(one, image):
        lost = torch.nan if one.image_key == bad else 1.0
        return vlm.map_pixels(image, lambda pixels: pixels * lost)

    for rows in (1, 3):
        found = asked(vlm, requests, rows, change=change)
        for one in requests:
            assert (found[one.id] == expected[which][one.id]) == (one.image_key != bad), one.id
