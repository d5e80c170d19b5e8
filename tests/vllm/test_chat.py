"""What is asked of the run's own vLLM, and what is made of its replies."""

from __future__ import annotations

import base64
import io
import json

import pytest
import torch
from httpx2 import Response

from seva_exp import Machine
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.core.interfaces import TOO_LONG, Request
from seva_exp.decoding import VllmGeneration
from seva_exp.decoding.vllm_chat import Features, ReplyReader, VllmChat
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.models.vision import features_of
from seva_exp.models.vlm import load, without_weights
from seva_exp.served.chat import PassingFault, Refusal

QUESTION = next(iter(ShapesBenchmark(images=1).questions()))
REQUEST = Request("id0", "picture", QUESTION.load, "What is this?", 4)


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def weightless():
    return without_weights(TinyModel())


def chat(vlm, features=None, **fields):
    generation = VllmGeneration(**fields)
    return VllmChat(generation, TinyModel(), 0, "sampling/clean", "base", vlm, features)


def test_a_model_without_weights_asks_and_reads_as_the_loaded_one(vlm, weightless):
    image, other = vlm.encode_image(QUESTION.load()), weightless.encode_image(QUESTION.load())
    assert vlm.encode(image, "What?").ids == weightless.encode(other, "What?").ids
    assert vlm.eos_ids == weightless.eos_ids
    assert vlm.decode((322, 282, 341, 2)) == weightless.decode((322, 282, 341, 2))
    settings = [one.model.generation_config.to_dict() for one in (vlm, weightless)]
    assert settings[0] == settings[1]


def test_a_question_says_what_ends_an_answer_and_what_never_comes(weightless):
    body = json.loads(chat(weightless, temperature=0.5).body(REQUEST))
    assert body["model"] == "base" and body["max_tokens"] == 4 and body["temperature"] == 0.5
    assert body["stop_token_ids"] == [2] and body["return_token_ids"]
    assert set(body["logit_bias"]) == {str(weightless.image_token_id)}
    assert body["logit_bias"]["3"] <= -100
    assert isinstance(body["seed"], int)
    picture, text = body["messages"][0]["content"]
    assert picture["type"] == "image_url" and text["text"] == "What is this?"


def test_changed_pixels_go_as_features(vlm, weightless):
    view = View("noise", DiffusionNoise(step=500), 0)
    body = json.loads(chat(weightless, Features(vlm, view)).body(REQUEST))
    part = body["messages"][0]["content"][0]
    assert part["type"] == "image_embeds"
    sent = torch.load(io.BytesIO(base64.b64decode(part["image_embeds"])), weights_only=True)
    with torch.inference_mode():
        noised = view.pixels(vlm, vlm.encode_image(QUESTION.load()), "id0")
        clean = features_of(vlm, [vlm.encode_image(QUESTION.load())])[0].pooler_output[0]
        wanted = features_of(vlm, [noised])[0].pooler_output[0]
    assert torch.equal(sent, wanted)
    assert not torch.allclose(sent, clean)


def response(vlm, tokens, reason="stop", prompt=None) -> Response:
    own = vlm.encode(vlm.encode_image(QUESTION.load()), REQUEST.prompt).ids
    choice = {"message": {"content": "x"}, "finish_reason": reason, "token_ids": tokens}
    content = {"choices": [choice], "prompt_token_ids": list(own if prompt is None else prompt)}
    return Response(200, content=json.dumps(content).encode())


def test_a_reply_is_made_of_the_ids(weightless):
    told = []
    read = ReplyReader(weightless, None, told.append)
    reply = read(REQUEST, response(weightless, [322, 282, 2]))
    assert (reply.tokens, reply.stop) == ((322, 282, 2), "eos")
    assert reply.text == weightless.decode((322, 282, 2))
    whole = read(REQUEST, response(weightless, [322, 282, 341, 266], "length"))
    assert (len(whole.tokens), whole.stop) == (4, "length")
    cut = read(REQUEST, response(weightless, [322, 282], "length"))
    assert (cut.tokens, cut.stop) == ((322, 282), TOO_LONG), "as where the context ends in process"
    long = Response(
        400, content=b'{"error": {"message": "exceeds model\'s maximum context length"}}'
    )
    assert read(REQUEST, long).stop == TOO_LONG
    assert not told


def test_a_context_of_one_s_own_choice_is_told_where_it_is_too_short(weightless):
    read = ReplyReader(weightless, 60, print)
    with pytest.raises(Refusal, match=r"machine\.vllm\.context=60"):
        read(REQUEST, response(weightless, [322], "length"))


def test_another_prompt_than_this_process_s_is_told_once(weightless):
    told = []
    read = ReplyReader(weightless, None, told.append)
    for _ in range(2):
        read(REQUEST, response(weightless, [322, 2], prompt=[1, 2, 3]))
    assert len(told) == 1 and "chat template" in told[0]


def test_a_question_without_a_picture_is_its_text(vlm, weightless):
    """Whatever a view makes of pictures; its prompt is compared with this process's as well."""
    plain = Request("id1", "", None, "Why?", 4)
    noise = Features(vlm, View("noise", DiffusionNoise(step=500), 0))
    for features in (None, noise):
        body = json.loads(chat(weightless, features).body(plain))
        assert body["messages"][-1]["content"] == [{"type": "text", "text": "Why?"}]
    told = []
    own = vlm.encode_text("Why?").ids
    read = ReplyReader(weightless, None, told.append)
    assert read(plain, response(weightless, [322, 2], prompt=own)).tokens == (322, 2)
    assert not told
    ReplyReader(weightless, None, told.append)(plain, response(weightless, [322, 2]))
    assert len(told) == 1


def test_a_reply_without_ids_is_a_fault(weightless):
    with pytest.raises(PassingFault, match="token_ids"):
        ReplyReader(weightless, None, print)(REQUEST, response(weightless, None))
