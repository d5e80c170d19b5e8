"""A server that lies, stalls or floods: every request ends in bounded time and memory, names the
question and the server, and sends its key nowhere else."""

from __future__ import annotations

import resource
import time

import pytest

from seva_exp.benchmarks import Judge
from seva_exp.benchmarks.judging import Judging, Query
from seva_exp.benchmarks.replies import ask_all
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.machine import JudgeServer, Server
from seva_exp.decoding.openai_chat import check
from seva_exp.models import TinyModel
from seva_exp.served import asking, endpoint

from .hostile import (
    DEEP,
    HTML,
    LONG,
    ODD_COUNTS,
    bomb,
    compressed,
    dripping_headers,
    endless,
    many_headers,
    silent,
    to,
)
from .serving import Misbehaving, cut, dripping, reply
from .test_server import GENERATION, REQUESTS, asked, undisturbed

__all__ = ["undisturbed"]
STALLING = {"dripping", "dripping headers", "silent"}
"""Faults that end by the limit; the others by themselves, however slow this machine is."""
LIMIT, AMPLE = 0.6, 60.0
"""Seconds in all for a reply."""
MEMORY = 300 << 20
"""Bytes that a question may take; the replies are larger."""
FAULTS = {
    "endless": (endless, "more than 4 MB"),
    "10 MB": (LONG, "more than 4 MB"),
    "bomb": (bomb, "compressed by gzip, which was not asked for"),
    "deep": (DEEP, r"no chat completion came, but \[\[\["),
    "page": (HTML, "no chat completion came, but <html>"),
    "many headers": (many_headers, "RemoteProtocolError"),
    "dripping": (dripping, "no reply within 0.6 s"),
    "dripping headers": (dripping_headers, "no reply within 0.6 s"),
    "silent": (silent, "no reply within 0.6 s"),
    "cut": (cut, "RemoteProtocolError"),
    "NaN": (reply(b'{"choices":[{"message":{"content":NaN},"finish_reason":"stop"}]}'), "NaN"),
}


def limit_of(name: str) -> float:
    return LIMIT if name in STALLING else AMPLE


each_fault = pytest.mark.parametrize("name", FAULTS)


@pytest.fixture(autouse=True)
def bounded(monkeypatch):
    """No test takes longer or more memory, however large the replies are."""
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.02)
    compressed()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - begun < 100
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY


@each_fault
def test_the_other_replies_are_kept_and_the_question_is_asked_again(undisturbed, name):
    with Misbehaving({1: FAULTS[name][0]}) as server:
        limit = limit_of(name)
        assert asked(server, REQUESTS[:4], timeout_seconds=limit, retries=20) == {
            f"id{number}": undisturbed[f"id{number}"] for number in range(4)
        }
        assert len(set(server.asked)) == 4
        again = len(server.asked) - 4  # on a slow machine the limit may end others, too
        assert again >= 1 if name in STALLING else again == 1
        assert server.sent < 100 << 20


@each_fault
def test_at_last_the_sample_and_the_server_are_named(name):
    fault, said = FAULTS[name]
    with Misbehaving() as server:
        server.always = fault
        with pytest.raises(StageError, match=rf"^sample id0: no answer, .*{said}") as caught:
            asked(server, REQUESTS[:1], timeout_seconds=limit_of(name), retries=1)
        assert server.url in str(caught.value) and "the same command resumes" in str(caught.value)
        assert len(str(caught.value)) < 700


@each_fault
def test_the_first_check_is_bounded_and_names_the_server(name):
    fault, said = FAULTS[name]
    with Misbehaving() as server:
        server.always = fault
        where = Server(url=server.url, timeout_seconds=limit_of(name))
        with pytest.raises(InputError, match=said) as caught:
            check(where, GENERATION, TinyModel())
        assert str(caught.value).startswith(f"machine.server.url={server.url}")


@each_fault
def test_the_list_of_models_is_bounded(name):
    with Misbehaving() as server:
        server.listing = FAULTS[name][0]
        where = Server(url=server.url, timeout_seconds=limit_of(name))
        with pytest.raises(InputError, match="its list of models cannot be had") as caught:
            endpoint.only_model(where, "generation.served_model")
        assert server.url in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_no_key_goes_there(monkeypatch, status):
    monkeypatch.setenv("OUR_KEY", "sk-planted")
    with Misbehaving() as other, Misbehaving() as server:
        server.always = server.listing = to(f"{other.url}/chat/completions", status)
        options = {"url": server.url, "api_key_env": "OUR_KEY"}
        wanted = f"HTTP {status}: it redirects to {other.url}"
        with pytest.raises(StageError, match=wanted):
            asked(server, REQUESTS[:1], api_key_env="OUR_KEY")
        with pytest.raises(InputError, match=wanted):
            check(Server(**options), GENERATION, TinyModel())
        with pytest.raises(InputError, match=wanted):
            endpoint.only_model(Server(**options), "x")
        assert [h["Authorization"] for h in server.headers] == ["Bearer sk-planted"] * 4
        assert other.headers == [] and other.asked == []


@pytest.mark.parametrize("name", ["endless", "deep", "page", "dripping"])
def test_a_judge_is_held_to_the_same(name):
    fault, said = FAULTS[name]
    question = Query("served", (("user", "Is it?"),), 0.0, 8, 0)
    with Misbehaving() as server:
        server.always = fault
        where = JudgeServer(url=server.url, timeout_seconds=limit_of(name), retries=1)
        with pytest.raises(StageError, match=f"^question 7: no answer, .*{said}"):
            list(ask_all(where, [question], lambda query: "question 7", lambda text: None))
        judge = Judge(model="served")
        with pytest.raises(InputError, match=r"^machine\.judge\.url=.*" + said):
            judge.prepare(where, Judging("own", 0.0, 8, {}, lambda *_: None, lambda *_: None))


def test_counts_of_tokens_that_are_none_are_left_out():
    question = Query("served", (("user", "Is it?"),), 0.0, 8, 0)
    with Misbehaving() as server:
        server.always = ODD_COUNTS
        ((said,),) = ask_all(JudgeServer(url=server.url), [question], str, print)
    assert (said.text, said.prompt_tokens, said.reply_tokens) == ("green", 0, 0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/v1", "http://[::1/v1", "http://a..b/v1"])
def test_an_address_that_is_none_is_told_before_work(url):
    with pytest.raises(InputError, match=r"machine\.server\.url="):
        check(Server(url=url), GENERATION, TinyModel())
    with pytest.raises(InputError, match=r"machine\.server\.url="):
        endpoint.only_model(Server(url=url), "x")
