"""The answers stage with a server: in order, resumed, and no key in what is told."""

from __future__ import annotations

from functools import partial

import pytest

from seva_exp.core.digests import FileDigests
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.interfaces import Placement
from seva_exp.core.machine import Server
from seva_exp.core.progress import progress
from seva_exp.core.records import CLEAN
from seva_exp.core.store import PARTS, read_journal
from seva_exp.data import ShapesData
from seva_exp.inputs.views import View

from ..served.serving import Misbehaving, completion, reply, slow, status
from ..served.test_server import GENERATION, N, short_waits  # noqa: F401
from .stage import answer_all


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    data = ShapesData(samples=N)
    made = data.build(0, folder, FileDigests(folder / "store"))
    return made.samples, data.image_root(folder)


class Meter:
    """Raises after ``limit`` answers, as Ctrl-C would."""

    def __init__(self, limit=None):
        self.seen, self._limit = 0, limit

    def update(self, n):
        self.seen += n
        if self._limit is not None and self.seen >= self._limit:
            raise KeyboardInterrupt


def no_model():
    raise AssertionError("the model is loaded for nothing")


def answered(endpoint, world, work, meter=None, **options):
    options = {"concurrency": 2, "retries": 1} | options
    place = Placement("cpu", 4, 4, False, partial(progress, "off"), work)
    place = Placement(**{**vars(place), "server": Server(url=endpoint.url, **options)})
    view = View(CLEAN, None, 0)
    return answer_all(world, work, no_model, view, GENERATION, place, previews=0, meter=meter)


def journalled(work):
    return {row["sample_id"] for row in read_journal(work / PARTS / "journal-0.jsonl")}


def test_answers_are_in_the_samples_order_and_have_no_tokens(world, tmp_path):
    with Misbehaving() as endpoint:
        answers, summary = answered(endpoint, world, tmp_path / "a", concurrency=5)
    assert [answer.sample_id for answer in answers] == [sample.id for sample in world[0]]
    assert {answer.tokens for answer in answers} == {()}
    assert summary == {"answers": N, "cut_at_max_new_tokens": 0, "empty": 0}


SURROGATES = (
    ("re\ud83d", "re\ufffd"),
    ("\udc4d up", "\ufffd up"),
    ("\ud83d\udc4d up", "\U0001f44d up"),
)


@pytest.mark.parametrize(("sent", "kept"), SURROGATES)
def test_half_a_character_in_a_reply_is_replaced_and_told_and_the_others_are_kept(
    world, tmp_path, sent, kept
):
    with Misbehaving({4: reply(completion(sent))}) as endpoint:
        answers, summary = answered(endpoint, world, tmp_path / "a", concurrency=1)
    assert answers[4].text == kept
    broken = "\ufffd" in kept
    assert summary.get("with_broken_characters", 0) == broken
    named = [line.split(":")[0] for line in summary.get("remarks", [])]
    assert named == [answers[4].sample_id] * broken
    assert len(answers) == len({answer.text for answer in answers}) == N


def test_half_a_character_in_a_refusal_can_be_told(world, tmp_path):
    refused = Misbehaving({0: status(400, "no \ud83d")})
    with refused as endpoint, pytest.raises(StageError) as caught:
        answered(endpoint, world, tmp_path / "a", concurrency=1)
    assert r"no \ud83d" in str(caught.value).encode().decode()


def test_empty_replies_are_counted(world, tmp_path):
    with Misbehaving({2: reply(completion(" \n")), 5: reply(completion(None))}) as endpoint:
        answers, summary = answered(endpoint, world, tmp_path / "a", concurrency=1)
    assert (summary["answers"], summary["empty"]) == (N, 2)
    assert [number for number, answer in enumerate(answers) if not answer.text] == [2, 5]


TOO_LONG_SAID = {
    "vLLM": (400, "This model's maximum context length is 4096 tokens. However, you requested 4609 "
             "tokens (4097 in the messages, 512 in the completion)."),
    "vLLM, of old": (400, "max_tokens must be at least 1, got -186."),
    "vLLM, no token's room": (400, "max_tokens must be at least 1, got 0. (value=0)"),
    "SGLang": (400, "The input (5000 tokens) is longer than the model's context length (4096)."),
    "llama.cpp": (400, "the request exceeds the available context size, try increasing it"),
    "llama.cpp, 500": (500, "Context size has been exceeded."),
    "TGI": (422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LONG_SAID)
def test_a_server_s_own_limit_leaves_out_the_sample_and_no_other(world, tmp_path, name):
    with Misbehaving({3: status(*TOO_LONG_SAID[name])}) as endpoint:
        answers, summary = answered(endpoint, world, tmp_path / "a", concurrency=1)
        assert len(endpoint.asked) == N, "it is not asked again"
    assert [answer.stop == "too_long" for answer in answers].index(True) == 3
    assert (summary["too_long"], summary["empty"]) == (1, 0)
    assert summary["left_out"][0].startswith(f"{answers[3].sample_id}: too_long")


@pytest.mark.parametrize("said", ["the context is unclear", "no such model", "image too large"])
def test_another_refusal_is_none_of_length(world, tmp_path, said):
    with Misbehaving({3: status(400, said)}) as endpoint, pytest.raises(StageError, match=said):
        answered(endpoint, world, tmp_path / "a", concurrency=1)


@pytest.mark.parametrize("how", ["refused", "Ctrl-C"])
def test_what_was_answered_is_never_asked_again(world, tmp_path, how):
    with Misbehaving() as endpoint:
        whole, _ = answered(endpoint, world, tmp_path / "whole")
    with Misbehaving({7: status(400, "no") if how == "refused" else None}) as endpoint:
        endpoint.always = None if how == "refused" else slow(0.1)
        meter = Meter(None if how == "refused" else 5)
        with pytest.raises(StageError if how == "refused" else KeyboardInterrupt):
            answered(endpoint, world, tmp_path / "cut", meter, concurrency=1)
        kept = journalled(tmp_path / "cut")
        assert len(kept) == 7 if how == "refused" else 5 <= len(kept) < N
        before = set(endpoint.asked[: len(kept)])
        endpoint.always, endpoint.faults, endpoint.asked = None, {}, []
        after, _ = answered(endpoint, world, tmp_path / "cut")
        assert len(endpoint.asked) == N - len(kept)
        assert not before & set(endpoint.asked)
    assert after == whole


def test_the_key_is_sent_and_never_told(world, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    with Misbehaving({1: status(401, "bad key: Bearer sk-very-secret")}) as endpoint:
        with pytest.raises(StageError, match=r"bad key: Bearer \*\*\*") as caught:
            answered(endpoint, world, tmp_path / "key", concurrency=1, api_key_env="A_KEY")
        assert {head["Authorization"] for head in endpoint.headers} == {"Bearer sk-very-secret"}
    assert "sk-very" not in str(caught.value)
    assert caught.value.__cause__ is None
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"sk-very" not in file.read_bytes()


@pytest.mark.parametrize("value", [None, "", "two\nlines", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_being_shown(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("A_KEY", raising=False)
    else:
        monkeypatch.setenv("A_KEY", value)
    with pytest.raises(InputError, match=r"machine\.server\.api_key_env=A_KEY") as caught:
        Server(api_key_env="A_KEY").api_key()
    assert not value or value not in str(caught.value)
