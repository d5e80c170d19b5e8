"""Judges, asked over HTTP: every question once, whatever the server does; none paid for twice."""

from __future__ import annotations

import json
from functools import partial

import pytest

from seva_exp import StageError
from seva_exp.benchmarks import OFFICIAL, Judge
from seva_exp.benchmarks.judge_answers import Bench, judge_all
from seva_exp.benchmarks.judging import TRIES
from seva_exp.benchmarks.replies import Replies, damaged_replies
from seva_exp.core.machine import JudgeServer
from seva_exp.core.progress import progress
from seva_exp.served import asking

from ..served.serving import completion, cut, dropped, reply, slow, status
from .judges import judge, sensibly, with_usage

QUIET = partial(progress, "off")
JUDGED = ["hallusionbench", "llava_bench", "mathvista", "mmhal", "mmvet", "shr"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.02)


def bench_of(kind, samples, store, **fields):
    benchmark = OFFICIAL[kind](kind=kind, protocol="tiny")
    who = Judge(**{"model": "judge", **fields})
    return Bench(benchmark, benchmark.judging(samples, who.own_prompts), who, Replies(store))


def right_answers(bench, samples):
    """Questions, and answers that say the targets (of descriptions: something)."""
    questions = list(bench.benchmark.questions(samples))
    return questions, [
        bench.benchmark.predict(q, q.target or "There is a red circle. It is nice.")
        for q in questions
    ]


def judged(endpoint, bench, samples, warn=lambda text: None, **server):
    """What came of it, and the summary."""
    options = {"concurrency": 3, "retries": 3, "timeout_seconds": 60.0} | server
    where = JudgeServer(url=endpoint.url, **options)
    cases = bench.cases(*right_answers(bench, samples))
    found, summary = judge_all(bench, cases, where, QUIET, warn, "judge.base.x")
    assert [(one.sample_id, one.repeat) for one in found] == [case.id for case in cases]
    return found, summary


def distinct(bench, samples) -> int:
    """How many questions differ; the samples ask some of them on several pictures."""
    cases = bench.cases(*right_answers(bench, samples))
    return len({(case.messages, case.repeat) for case in cases})


@pytest.fixture(scope="module")
def undisturbed(samples, tmp_path_factory):
    bench = bench_of("mmvet", samples, tmp_path_factory.mktemp("store"))
    with judge() as endpoint:
        found, summary = judged(endpoint, bench, samples)
        assert len(endpoint.asked) == summary["calls"] == distinct(bench, samples)
        assert summary["judgements"] == len(found) > summary["calls"]
    assert {one.score for one in found} == {1.0}
    return found


NONSENSE = reply(completion("It depends."))
FAULTS = {
    "500": status(500),
    "429": status(429, Retry_After="0"),
    "dropped": dropped,
    "cut": cut,
    "hangs": slow(3.0),
    "no JSON": reply(b"{"),
    "malformed": NONSENSE,
    "empty": reply(completion(None)),
    "filtered": reply(completion("0.5", "content_filter")),
    "too long": status(400, "maximum context length"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_changes_no_verdict(samples, tmp_path, undisturbed, name):
    bench = bench_of("mmvet", samples, tmp_path)
    with judge(faults={2: FAULTS[name], 7: FAULTS[name]}) as endpoint:
        hangs = name == "hangs"
        options = {"timeout_seconds": 0.8, "retries": 20} if hangs else {}
        found, summary = judged(endpoint, bench, samples, **options)
        again = len(endpoint.asked) - distinct(bench, samples)
        assert again >= 2 if hangs else again == 2  # a slow machine may end others by the limit
    assert found == undisturbed
    assert summary["unjudged"] == 0


def test_a_reply_that_never_can_be_read_is_asked_for_hotter_and_counted_never_guessed(
    samples, tmp_path
):
    bench = bench_of("mmvet", samples, tmp_path)

    def never(handler):
        body = handler.server.bodies[handler.server.asked.index(handler.name)]
        asked = body["messages"][-1]["content"]
        return (NONSENSE if asked.endswith(f"{first} | ") else sensibly)(handler)

    question = next(iter(bench.benchmark.questions(samples)))
    first = f"{question.details['question']} | {question.target} | {question.target}"
    with judge() as endpoint:
        endpoint.always = never
        found, summary = judged(endpoint, bench, samples)
        hard = [b for b in endpoint.bodies if b["messages"][-1]["content"].endswith(f"{first} | ")]
    cases = bench.cases(*right_answers(bench, samples))
    cases = bench.cases(*right_answers(bench, samples))
    same = sum(case.messages == cases[0].messages for case in cases)
    assert [body["temperature"] for body in hard] == [0, 0.5, 1, 1.5]
    assert summary["unjudged"] == same
    unread = [one for one in found if one.score is None]
    assert len(unread) == same
    assert {one.reply for one in unread} == {"It depends."}
    assert not any(one.counts for one in unread)


def test_the_same_question_is_never_paid_for_twice(samples, tmp_path):
    several = distinct(bench_of("mmvet", samples, tmp_path), samples)
    with judge() as endpoint:
        first, summary = judged(endpoint, bench_of("mmvet", samples, tmp_path), samples)
        assert summary["from_store"] == 0
        endpoint.asked.clear()
        again, summary = judged(endpoint, bench_of("mmvet", samples, tmp_path), samples)
        assert (again, endpoint.asked, summary["calls"]) == (first, [], 0)
        for other in ({"model": "other"}, {"temperature": 0.3}, {"max_tokens": 9}):
            judged(endpoint, bench_of("mmvet", samples, tmp_path, **other), samples)
            assert len(endpoint.asked) == several, other
            endpoint.asked.clear()
        _, summary = judged(endpoint, bench_of("mmvet", samples, tmp_path, repeats=3), samples)
        assert summary["from_store"] == len(first), "the first of three is known"
        assert len(endpoint.asked) == 2 * several


def test_equal_questions_of_one_stage_are_asked_once(samples, tmp_path):
    bench = bench_of("mathvista", samples, tmp_path)
    questions = [q for q in bench.benchmark.questions(samples) if not q.details["choices"]]
    found = [bench.benchmark.predict(q, "two") for q in questions]
    cases = bench.cases(questions, found)
    with judge() as endpoint:
        where = JudgeServer(url=endpoint.url)
        judgements, _ = judge_all(bench, cases, where, QUIET, lambda text: None, "x")
        assert len(judgements) == len(cases) > len({case.messages for case in cases})
        assert len(endpoint.asked) == len({case.messages for case in cases})
    assert {one.extracted for one in judgements} == {"2"}


def test_what_could_not_be_read_is_asked_again_by_the_next_run_and_only_that(samples, tmp_path):
    bench = bench_of("llava_bench", samples, tmp_path)
    with judge() as endpoint:
        endpoint.always = NONSENSE
        found, summary = judged(endpoint, bench, samples)
        assert summary["unjudged"] == len(found)
        assert not list(tmp_path.iterdir()), "such replies are of no use to anybody"
        endpoint.always, endpoint.faults = sensibly, {}
        endpoint.asked.clear()
        found, summary = judged(endpoint, bench, samples)
        assert summary["unjudged"] == 0
        assert len(endpoint.asked) == distinct(bench, samples)


def test_a_server_that_fails_for_good_ends_the_stage_and_what_came_is_kept(samples, tmp_path):
    bench = bench_of("mmvet", samples, tmp_path)
    with judge(faults={5: status(401, "key revoked")}) as endpoint:
        with pytest.raises(StageError, match=r"judge\.base\.x: question .*401: key revoked.*kept"):
            judged(endpoint, bench, samples, concurrency=1)
        endpoint.faults = {}
        endpoint.asked.clear()
        _, summary = judged(endpoint, bench, samples)
        assert summary["from_store"] >= 5
        assert len(endpoint.asked) == distinct(bench, samples) - 5


@pytest.mark.parametrize("kind", JUDGED)
@pytest.mark.parametrize("own", [False, True])
def test_every_way_of_asking_shows_question_and_answer(kind, own, samples, tmp_path):
    bench = bench_of(kind, samples, tmp_path, own_prompts=own)
    questions = list(bench.benchmark.questions(samples))
    found = [bench.benchmark.predict(q, f"Well {n} {{so}}.") for n, q in enumerate(questions)]
    cases = bench.cases(questions, found)
    assert len(cases) == len(questions)
    for number, case in enumerate(cases):
        text = "\n".join(part for _, part in case.messages)
        assert f"Well {number} {{so}}" in text
        if kind != "shr":
            assert case.question.details["question"] in text
        if kind in ("mmvet", "llava_bench"):
            assert case.question.target in text


def test_official_prompts_are_the_files(samples, tmp_path):
    (system, user) = (
        bench_of("llava_bench", samples, tmp_path)
        .cases(*right_answers(bench_of("llava_bench", samples, tmp_path), samples))[0]
        .messages
    )
    rule = json.loads((samples / "llava_bench" / "rule.json").read_text())["llava_bench_conv"]
    assert (system[0], user[0]) == ("system", "user")
    assert user[1].startswith("[Context]\n")
    assert user[1].endswith(f"[End of Assistant 2]\n\n[System]\n{rule['prompt']}\n\n")
    bench = bench_of("mmvet", samples, tmp_path)
    ((_, text),) = bench.cases(*right_answers(bench, samples))[0].messages
    examples = (samples / "mmvet" / "judge_prompt.txt").read_text()
    assert text.startswith(examples + "\n"), "a blank line between the table and the last row"


def test_replies_hold_what_was_asked(samples, tmp_path):
    bench = bench_of("shr", samples, tmp_path)
    with judge() as endpoint:
        found, summary = judged(endpoint, bench, samples, prompt_price=10.0, reply_price=20.0)
    files = list((tmp_path / "replies").rglob("*.json"))
    assert len(files) == len(found) == summary["calls"]
    held = json.loads(files[0].read_text())
    assert (held["model"], held["temperature"], held["max_tokens"]) == ("judge", 0.7, 800)
    assert "Sentences:" in held["messages"][0][1]
    assert summary["tokens_sent"] == 100 * len(found)
    assert summary["cost"] == pytest.approx(len(found) * (100 * 10 + 5 * 20) / 1e6, abs=1e-4)
    assert with_usage(completion("x"))["usage"]["prompt_tokens"] == 100
    assert TRIES == 4


def test_a_kept_reply_that_is_damaged_is_asked_again(samples, tmp_path, capfd):
    """One letter; and one of an earlier version, which has no digest."""
    bench = bench_of("shr", samples, tmp_path)
    with judge() as endpoint:
        first, _ = judged(endpoint, bench, samples)
        damaged, old, *_ = sorted((tmp_path / "replies").rglob("*.json"))
        row = json.loads(damaged.read_text())
        damaged.write_text(json.dumps(row | {"text": "9" + row["text"][1:]}))
        row = json.loads(old.read_text())
        del row["sha256"]
        old.write_text(json.dumps(row))
        assert list(damaged_replies(tmp_path)) == [
            f"{damaged}: is damaged; the judge is asked again"
        ]
        again, summary = judged(endpoint, bench, samples)
    assert summary["calls"] == 1 and again == first
    assert f"{damaged}: is damaged" in capfd.readouterr().err
