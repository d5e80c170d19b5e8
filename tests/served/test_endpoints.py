"""Several endpoints of one server: those that are well are asked, one that dies is left out, looked
at, and asked again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import seva_exp
from seva_exp import Experiment, Machine, Options
from seva_exp.augment import LowResolution
from seva_exp.core.errors import InputError, StageError
from seva_exp.core.machine import Server
from seva_exp.data import ShapesData
from seva_exp.decoding import ServerGeneration
from seva_exp.decoding.openai_chat import server_engine
from seva_exp.served import asking, endpoint

from .serving import Misbehaving, dropped, slow, status
from .test_server import REQUESTS, N, chat

AWAY = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.02)


@pytest.fixture
def two():
    with Misbehaving() as one, Misbehaving() as other:
        yield one, other


def texts(urls, told=None, **options):
    server = Server(url=tuple(urls), **{"concurrency": 4, "retries": 2} | options)
    engine = server_engine(server, chat(), (told if told is not None else []).append)
    found = [reply for some in engine.run(REQUESTS) for reply in some]
    assert len({reply.id for reply in found}) == len(found) == N
    return {reply.id: reply.text for reply in found}


def in_fours(came, lock):
    """None of four questions is answered before the last of them is there."""

    def fault(handler):
        with lock:
            came.append(handler.name)
            last = -(-len(came) // 4) * 4
        until = time.monotonic() + 60
        while len(came) < last and time.monotonic() < until:
            time.sleep(0.005)
        return False

    return fault


def test_questions_are_shared_and_answers_are_those_of_one(two):
    one, other = two
    one.always = other.always = in_fours([], threading.Lock())
    shared = texts([one.url, other.url])
    assert len(one.asked) == len(other.asked) == N // 2
    one.always = None
    assert shared == texts([one.url])


def test_one_that_dies_in_the_middle_is_left_out_and_told_once(two):
    one, other = two
    calm = texts([other.url])
    other.asked.clear()
    one.always = other.always = slow(0.02)
    one.faults = dict.fromkeys(range(2, 99), dropped)
    one.listing = dropped
    told = []
    assert texts([one.url, other.url], told, retries=0) == calm
    assert len(told) == 1 and one.url in told[0]
    assert len(one.asked) < N // 2, "it was not asked on and on"


def test_one_that_is_never_there_costs_no_retry(two):
    _, other = two
    told = []
    assert len(texts([AWAY, other.url], told, retries=0)) == N
    assert len(told) == 1 and AWAY in told[0]


def test_one_that_comes_back_is_asked_again(two):
    one, other = two
    looked_at = threading.Event()
    one.listing = lambda handler: looked_at.set()
    one.always = slow(0.05)
    other.always = lambda handler: looked_at.wait(60) and slow(0.3)(handler)
    one.faults = {0: status(500)}
    assert len(texts([one.url, other.url], retries=0, concurrency=2)) == N
    assert len(one.asked) > 2


def test_where_none_is_left_it_ends_within_its_retries(two):
    one, other = two
    one.always = other.always = dropped
    one.listing = other.listing = dropped
    start = time.monotonic()
    with pytest.raises(StageError, match="no answer, asked 4 times"):
        texts([one.url, other.url])
    assert time.monotonic() - start < 100


def test_before_work_one_that_answers_is_enough(two):
    _, other = two
    body = chat().body(REQUESTS[0])
    endpoint.check(Server(url=(AWAY, other.url)), body, "name", "a question")
    with pytest.raises(InputError) as caught:
        endpoint.check(Server(url=(AWAY, "http://127.0.0.1:19/v1")), body, "name", "a question")
    assert AWAY in str(caught.value) and ":19" in str(caught.value)
    assert endpoint.only_model(Server(url=(AWAY, other.url)), "f") == "served"
    other.always = status(404, "no such model")
    with pytest.raises(InputError, match="no such model"):
        endpoint.check(Server(url=(AWAY, other.url)), body, "name", "a question")


def test_a_run_of_which_an_endpoint_dies_makes_the_same_artifact(two, tmp_path):
    """Each answers with a hash of the question: whoever is asked, the answer is the same."""
    one, other = two
    what = Experiment(
        generation=ServerGeneration(served_model="served", max_new_tokens=8),
        aug={"low": LowResolution()},
        data=ShapesData(samples=40),
        benchmark={},
    )

    def answers(name: str, *urls: str) -> bytes:
        server = Server(url=urls, concurrency=4, retries=0)
        machine = Machine(runs=str(tmp_path / name), progress="off", server=server)
        report = seva_exp.run(what, machine, Options(stop_after="answers"))
        return (Path(report.dir) / "answers.clean" / "answers.jsonl").read_bytes()

    calm = answers("calm", other.url)
    one.listing = dropped
    one.faults = dict.fromkeys(range(len(one.asked) + 5, 999), dropped)
    assert answers("disturbed", one.url, other.url) == calm
    assert 5 <= len(one.asked) < 40
