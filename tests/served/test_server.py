"""The engine that asks a server: what it sends, and what it makes of every kind of fault."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import threading
import time
from contextlib import closing, contextmanager
from email.utils import formatdate

import pytest
from httpx2 import Response
from PIL import Image

from seva_exp.core.errors import StageError
from seva_exp.core.interfaces import Request
from seva_exp.core.machine import Server
from seva_exp.decoding import ServerGeneration
from seva_exp.decoding.openai_chat import Chat, server_engine
from seva_exp.models import HubModel, TinyModel
from seva_exp.served import asking
from seva_exp.served.chat import PassingFault, Refusal, reply_of

from .serving import Misbehaving, completion, cut, dripping, dropped, reply, slow, status

GENERATION = ServerGeneration(served_model="served", max_new_tokens=8)
N = 12


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.02)


def request(number):
    picture = Image.new("RGB", (9, 7), (number, 2 * number, 3 * number))
    return Request(f"id{number}", f"id{number}", lambda: picture, f"What is {number}?", 8)


REQUESTS = [request(number) for number in range(N)]


def chat(generation=GENERATION, source=None, seed=0, purpose="sampling/clean"):
    return Chat(generation, source or TinyModel(), seed, purpose, generation.served_model)


def engine(endpoint, warn=lambda text: None, **options):
    options = {"concurrency": 3, "retries": 3, "timeout_seconds": 60.0} | options
    return server_engine(Server(url=endpoint.url, **options), chat(), warn)


def asked(endpoint, requests=REQUESTS, **options):
    """id -> text."""
    replies = [r for some in engine(endpoint, **options).run(requests) for r in some]
    assert len({reply.id for reply in replies}) == len(replies)
    return {reply.id: reply.text for reply in replies}


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("Thread-")}


@pytest.fixture(scope="module")
def undisturbed():
    with Misbehaving() as endpoint:
        return asked(endpoint)


# --- what is sent and received


def test_a_question_without_a_picture_is_its_text():
    body = json.loads(chat().body(Request("id", "", None, "Why?", 8)))
    (user,) = (one for one in body["messages"] if one["role"] == "user")
    assert user["content"] == [{"type": "text", "text": "Why?"}]
    shown = json.loads(chat().body(REQUESTS[0]))["messages"][-1]["content"]
    assert [part["type"] for part in shown] == ["image_url", "text"]


def test_every_question_has_the_reply_that_was_given_to_it(undisturbed):
    assert sorted(undisturbed) == sorted(request.id for request in REQUESTS)
    assert len(set(undisturbed.values())) == N


def test_a_question_is_one_user_turn_with_the_picture_as_it_is_before_the_text():
    body = json.loads(chat().body(REQUESTS[5]))
    (turn,) = body["messages"]
    picture, text = turn["content"]
    assert turn["role"] == "user"
    assert text == {"type": "text", "text": "What is 5?"}
    kind, _, content = picture["image_url"]["url"].partition(",")
    assert (picture["type"], kind) == ("image_url", "data:image/png;base64")
    sent = Image.open(io.BytesIO(base64.b64decode(content)))
    square = Image.new("RGB", (9, 9), (122, 116, 104))  # model=tiny: padded, CLIP's mean
    square.paste(REQUESTS[5].load(), (0, 1))
    assert (sent.mode, sent.size, sent.tobytes()) == ("RGB", (9, 9), square.tobytes())
    assert (body["model"], body["max_tokens"]) == ("served", 8)
    assert (body["temperature"], body["top_p"]) == (0, 1)
    assert "seed" not in body


def test_a_model_that_pads_nothing_is_shown_the_picture_at_its_size_and_told_its_system_prompt():
    source = HubModel(path="x/y", system_prompt="Be brief.")
    body = json.loads(chat(source=source).body(REQUESTS[5]))
    first, second = body["messages"]
    assert first == {"role": "system", "content": "Be brief."}
    content = second["content"][0]["image_url"]["url"].partition(",")[2]
    sent = Image.open(io.BytesIO(base64.b64decode(content)))
    assert sent.tobytes() == REQUESTS[5].load().tobytes()
    assert sent.size == (9, 7)


def test_a_sampled_question_has_a_seed_of_run_view_and_sample():
    sampled = GENERATION.model_copy(update={"temperature": 0.7})

    def seed(number=1, **options):
        return json.loads(chat(sampled, **options).body(REQUESTS[number]))["seed"]

    assert seed() == seed()
    others = [seed(2), seed(seed=1), seed(purpose="sampling/moco")]
    assert len({seed(), *others}) == 4
    assert all(0 <= value < 2**31 for value in others)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (completion(" two words\n"), ("two words", "eos")),
        (completion("cut off", "length"), ("cut off", "length")),
        (completion(None), ("", "eos")),
        (completion([]), ("", "eos")),
        (
            completion([{"type": "text", "text": " in "}, {"type": "text", "text": "parts"}]),
            ("in parts", "eos"),
        ),
        (
            completion([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]),
            ("yes", "eos"),
        ),
    ],
)
def test_text_and_ending_of_a_reply(content, wanted):
    with Misbehaving({0: reply(content)}) as endpoint:
        ((found,),) = engine(endpoint).run(REQUESTS[:1])
    assert (found.text, found.stop, found.tokens) == (*wanted, ())


# --- faults that pass

FAULTS = {
    "500": status(500),
    "503": status(503),
    "408": status(408),
    "409": status(409),
    "429": status(429, Retry_After="0"),
    "dropped": dropped,
    "cut": cut,
    "no JSON": reply(b"{not json"),
    "no choices": reply({"choices": []}),
    "another shape": reply([1, 2]),
    "content of another shape": reply(completion({"text": "I"})),
    "parts of another shape": reply(completion(["I"])),
    "parts without their text": reply(completion([{"type": "text", "text": None}])),
    "slow": slow(3.0),
    "dripping": dripping,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_changes_nothing(undisturbed, name):
    heard = []
    with Misbehaving({2: FAULTS[name], 7: FAULTS[name]}) as endpoint:
        stalls = name in ("slow", "dripping")
        options = {"timeout_seconds": 0.8, "retries": 20} if stalls else {}
        begun = time.monotonic()
        assert asked(endpoint, warn=heard.append, **options) == undisturbed
        assert time.monotonic() - begun < 100
        again = len(endpoint.asked) - N  # on a slow machine the limit may end others, too
        assert again >= 2 if stalls else again == 2
        assert len(set(endpoint.asked)) == N
    assert len(heard) == 1, "one line for a person, however many faults"
    assert "asked again" in heard[0]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_heeded(undisturbed, form):
    until = []

    def busy(handler):
        until.append(int(time.time()) + 2)
        when = formatdate(until[0], usegmt=True) if form == "date" else "1"
        return status(429, Retry_After=when)(handler)

    with Misbehaving({0: busy}) as endpoint:
        assert asked(endpoint, REQUESTS[:1]) == {"id0": undisturbed["id0"]}
        first, second = endpoint.times
        came = time.time() - (time.monotonic() - second)
    assert second - first < 60
    assert came > until[0] - 0.1 if form == "date" else second - first > 0.9


@pytest.mark.parametrize(
    "value", ["nan", "inf", "1e400", "-5", "-inf", "soon", "", "Fri, 99 Foo 2026 25:61:61 GMT"]
)
def test_a_retry_after_that_says_nothing_leaves_our_own_wait(undisturbed, value):
    with pytest.raises(PassingFault) as caught:
        reply_of("id", Response(429, headers={"Retry-After": value}))
    assert not caught.value.wait
    with Misbehaving({0: status(429, Retry_After=value)}) as endpoint:
        assert asked(endpoint, REQUESTS[:1]) == {"id0": undisturbed["id0"]}
        first, second = endpoint.times
    assert second - first < 60


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%c"])
def test_every_form_of_a_date_is_one_in_gmt(monkeypatch, form):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        in_a_minute = time.strftime(form, time.gmtime(time.time() + 60))
        response = Response(429, headers={"Retry-After": in_a_minute})
        with pytest.raises(PassingFault) as caught:
            reply_of("id", response)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 0 < caught.value.wait <= 60


def test_waits_grow_and_are_not_the_same_for_all(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.5)
    with Misbehaving() as endpoint:
        waits = [[engine(endpoint)._wait(attempt, None) for _ in range(50)] for attempt in range(9)]
    for attempt, drawn in enumerate(waits):
        most = min(60.0, 0.5 * 2**attempt)
        assert most / 2 <= min(drawn) < max(drawn) <= most


# --- faults that do not


@contextmanager
def closed():
    """An address at which nobody listens."""
    with Misbehaving() as endpoint:
        pass
    yield endpoint


@pytest.mark.parametrize(
    ("always", "said"), [(status(503, "loading"), "HTTP 503: loading"), (None, "ConnectError")]
)
def test_a_question_without_an_answer_is_asked_so_often_and_no_more(always, said):
    with Misbehaving() if always else closed() as endpoint:
        endpoint.always = always
        with pytest.raises(StageError, match=f"sample id0: no answer, asked 3 times.*{said}"):
            asked(endpoint, REQUESTS[:1], retries=2)
        assert len(endpoint.asked) == (3 if always else 0)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422, 307])
def test_a_refused_question_ends_the_work_at_once_with_the_servers_words(code):
    with Misbehaving({0: status(code, "picture too large")}) as endpoint:
        wanted = f"sample id0: the server refuses .*HTTP {code}: picture too large .*{endpoint.url}"
        with pytest.raises(StageError, match=wanted):
            asked(endpoint, concurrency=1)
        assert len(endpoint.asked) == 1


def test_an_answer_that_ended_in_another_way_is_none():
    filtered = reply(completion("I", "content_filter"))
    with (
        Misbehaving({0: filtered}) as endpoint,
        pytest.raises(StageError, match="finish_reason=content_filter"),
    ):
        asked(endpoint, concurrency=1)


@pytest.mark.parametrize("reason", ["x" * 5000, "\ud800stop", 10**1000], ids=range(3))
def test_a_reason_that_is_none_is_cut_and_can_be_printed(reason):
    with pytest.raises(Refusal, match="finish_reason=") as caught:
        reply_of("id", Response(200, content=json.dumps(completion("I", reason))))
    str(caught.value).encode()
    assert len(str(caught.value)) < 300


def test_a_picture_that_is_gone_ends_the_work():
    def gone():
        raise StageError("x.png: vanished")

    broken = Request("id", "id", gone, "What?", 8)
    with Misbehaving() as endpoint, pytest.raises(StageError, match=r"x\.png: vanished"):
        asked(endpoint, [*REQUESTS, broken])


# --- many at once


def test_so_many_are_under_way_and_no_more():
    """None is answered before four are there, and a fifth has the time to come."""
    several = threading.Event()

    def waits(handler):
        if handler.server.under_way >= 4:
            time.sleep(0.1)
            several.set()
        assert several.wait(60)
        return False

    with Misbehaving() as endpoint:
        endpoint.always = waits
        asked(endpoint, concurrency=4)
        assert several.is_set() and endpoint.most_under_way == 4


def test_replies_come_while_others_are_under_way(undisturbed):
    release = threading.Event()

    def held(handler):
        release.wait(50)
        return False

    with Misbehaving({0: held}) as endpoint:
        found = {}
        for replies in engine(endpoint).run(REQUESTS):
            found |= {reply.id: reply.text for reply in replies}
            if len(found) == N - 1:
                release.set()
        assert release.is_set()
        assert found == undisturbed


def test_who_stops_listening_stops_the_work():
    """The first is answered; the next three wait for an answer."""
    before, release = threads(), threading.Event()
    with Misbehaving({0: lambda handler: False}) as endpoint:
        endpoint.always = lambda handler: not release.wait(60)
        with closing(engine(endpoint).run(REQUESTS)) as replies:
            next(replies)
        release.set()
        time.sleep(0.4)
        assert len(endpoint.asked) <= 4 < N
    assert {t.name for t in threads() - before if "_work" in t.name} == set()


def test_ctrl_c_is_heard_while_nothing_comes():
    """It is pressed when a question is under way, which is answered only later."""
    once, heard, late = threading.Lock(), threading.Event(), []

    def presses(handler):
        if once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        if not heard.wait(40):
            late.append(handler.name)
        return False

    with Misbehaving() as endpoint:
        endpoint.always = presses
        with pytest.raises(KeyboardInterrupt):
            asked(endpoint)
        heard.set()
        assert not late
