"""Judges, asked over HTTP: every question once, whatever the server does; predictions outlive a
judge that fails; nothing is paid for twice; no key is ever told."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import seva_exp
from seva_exp import InputError, Machine, Options, StageError
from seva_exp.benchmarks import OFFICIAL, Judge
from seva_exp.benchmarks.judging import TRIES
from seva_exp.benchmarks.replies import Replies
from seva_exp.benchmarks.verdicts import Bench, judge_all
from seva_exp.config import parse
from seva_exp.digests import FileDigests
from seva_exp.experiment import plan_run
from seva_exp.machine import JudgeServer
from seva_exp.paths import config_dir
from seva_exp.progress import progress
from seva_exp.records import Judgement, Prediction, read_jsonl
from seva_exp.served import asking

from ..generation.serving import completion, cut, dropped, reply, slow, status
from .judges import judge, sensibly, with_usage

QUIET = partial(progress, "off")
JUDGED = ["llava_bench", "mathvista", "mmvet", "shr"]


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
    options = {"concurrency": 3, "retries": 3, "timeout_seconds": 20.0} | server
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
        limit = 1.0 if name == "hangs" else 20.0
        found, summary = judged(endpoint, bench, samples, timeout_seconds=limit)
        assert len(endpoint.asked) == distinct(bench, samples) + 2
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
        assert f"Well {number} {{so}}." in text
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


# --- whole runs


def composed(*overrides: str):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", ["+aug=moco", "tracker=none", "data.samples=2", *overrides])
    return parse(OmegaConf.to_container(config, resolve=True))


def asking_judge(endpoint, *overrides):
    return composed(f"machine.judge.url={endpoint.url}", "judge=server", *overrides)


def run(wanted, folder, samples, stop_after="judge.base", **options):
    machine = wanted.machine.model_copy(
        update={"runs": str(folder), "progress": "off", "device": "cpu"}
    )
    options = Options(data_root=str(samples), stop_after=stop_after, **options)
    return seva_exp.run(wanted.experiment, machine, options, listeners=[])


def test_a_changed_judge_asks_the_model_nothing(samples, tmp_path):
    with judge() as endpoint:
        words = ["benchmark=mmvet", "judge.model=first"]
        first = run(asking_judge(endpoint, *words), tmp_path, samples)
        words[1] = "judge.model=second"
        second = run(asking_judge(endpoint, *words), tmp_path, samples)
        words.append("judge.own_prompts=true")
        third = run(asking_judge(endpoint, *words), tmp_path, samples)
    for report in (second, third):
        cached = {stage.name: stage.cached for stage in report.stages}
        assert cached == {"evaluate.base.mmvet": True, "judge.base.mmvet": False}
    assert {s.protocol for s in third.scores} == {"tiny+own.second"}
    assert {s.protocol for s in first.scores} == {"tiny+first"}
    assert {s.protocol for s in second.scores} == {"tiny+second"}
    assert {(s.split, s.metric): s.value for s in first.scores} == {
        (s.split, s.metric): s.value for s in second.scores
    }


def test_the_models_answers_outlive_a_judge_that_fails(samples, tmp_path):
    with judge(faults={6: status(403, "no more")}) as endpoint:
        words = ["benchmark=mmvet", "machine.judge.concurrency=1"]
        with pytest.raises(StageError, match="no more"):
            run(asking_judge(endpoint, *words), tmp_path, samples)
        before = set(endpoint.asked[1:6])
        endpoint.faults, endpoint.asked = {}, []
        report = run(asking_judge(endpoint, *words), tmp_path, samples)
        assert not before & set(endpoint.asked)
    assert [stage.cached for stage in report.stages] == [True, False]
    folder = Path(report.dir) / "judge.base.mmvet"
    found = list(read_jsonl(folder / "predictions.jsonl", Prediction))
    said = list(read_jsonl(folder / "judgements.jsonl", Judgement))
    assert Counter(one.score for one in found) == Counter(one.score for one in said)
    (all_,) = (s for s in report.scores if (s.split, s.metric) == ("all", "score"))
    assert all_.value == pytest.approx(100 * sum(one.score for one in found) / len(found))


@contextmanager
def closed():
    with judge() as endpoint:
        pass
    yield endpoint


def unknown(handler):
    handler.send(404, {"error": {"message": "The model `gpt-9` does not exist"}})
    return True


@pytest.mark.parametrize("fault", ["no key", "nobody there", "unknown model", "wrong key"])
def test_a_judge_that_cannot_be_asked_stops_the_run_before_anything_is_generated(
    samples, tmp_path, monkeypatch, fault
):
    monkeypatch.delenv("A_KEY", raising=False)
    said = {
        "no key": r"machine\.judge\.api_key_env=A_KEY: this environment variable is not set",
        "nobody there": r"machine\.judge\.url=http.*: no answer \(ConnectError",
        "unknown model": r"judge\.model=gpt-9: .*does not exist\. Models that it lists: judge",
        "wrong key": r"401: bad key \*\*\*",
    }[fault]
    words = ["benchmark=mmvet", "judge.model=gpt-9"]
    if fault in ("no key", "wrong key"):
        words.append("machine.judge.api_key_env=A_KEY")
    if fault == "wrong key":
        monkeypatch.setenv("A_KEY", "sk-secret")
    with closed() if fault == "nobody there" else judge() as endpoint:
        if fault == "unknown model":
            endpoint.always = unknown
        elif fault == "wrong key":
            endpoint.always = status(401, "bad key sk-secret")
        with pytest.raises(InputError, match=said):
            run(asking_judge(endpoint, *words), tmp_path, samples)
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_a_judge_without_a_name_is_the_only_one_that_the_server_lists(samples, tmp_path):
    with judge() as endpoint:
        report = run(asking_judge(endpoint, "benchmark=llava_bench"), tmp_path, samples)
        assert {body["model"] for body in endpoint.bodies} == {"judge"}
        endpoint.models = ["a", "b"]
        with pytest.raises(InputError, match=r"judge\.model: must be set.*2 models.*Known: a, b"):
            run(asking_judge(endpoint, "benchmark=llava_bench"), tmp_path, samples)
    assert {s.protocol for s in report.scores} == {"tiny+judge"}


def test_a_benchmark_that_needs_a_judge_is_refused_by_name_and_left_out_of_a_suite():
    for name in ("mmvet", "llava_bench", "shr"):
        with pytest.raises(InputError, match=rf"benchmark\.{name}: a judge.*judge=openai"):
            composed(f"benchmark={name}")
    found = composed("benchmark=seva_suite").experiment
    assert found.left_out == ("llava_bench", "mmvet", "shr")
    assert "mathvista" in composed("benchmark=stic_suite").experiment.benchmark
    with pytest.raises(InputError, match=r"without_judge=guess: 'refuse' or 'leave_out'"):
        composed("benchmark=seva_suite", "benchmark.without_judge=guess")
    whole = composed("benchmark=seva_suite", "judge=openai", "judge.model=x").experiment
    assert not whole.left_out
    assert {"mmvet", "llava_bench", "shr"} < set(whole.benchmark)


def test_openais_address_and_key_come_with_the_choice():
    machine = composed("benchmark=mmvet", "judge=openai", "judge.model=x").machine
    assert machine.judge.url == "https://api.openai.com/v1"
    assert machine.judge.api_key_env == "OPENAI_API_KEY"
    assert composed().machine == Machine()


def notes(wanted, folder, samples, **options):
    machine = wanted.machine.model_copy(update={"runs": str(folder)})
    options = Options(data_root=str(samples), dry_run=True, **options)
    plan, _ = plan_run(wanted.experiment, machine, options, [], FileDigests(folder))
    return "\n".join(plan.notes)


def test_the_plan_tells_what_of_a_suite_is_left_out(samples, tmp_path):
    told = notes(composed("benchmark=seva_suite"), tmp_path, samples)
    assert told.startswith("left out, since a judge scores them and judge=none: llava_bench, mmvet")


def test_the_plan_tells_calls_and_cost_before_anything_is_asked(samples, tmp_path):
    prices = ["machine.judge.prompt_price=30", "machine.judge.reply_price=60"]
    with judge() as endpoint:
        words = ["benchmark=[mmvet,mathvista]", "judge.model=judge", "judge.repeats=2", *prices]
        wanted = asking_judge(endpoint, *words)
        (mmvet, mathvista) = (
            len(list(OFFICIAL[kind](kind=kind, protocol="tiny").questions(samples)))
            for kind in ("mmvet", "mathvista")
        )
        told = notes(wanted, tmp_path, samples)
        calls = 4 * mmvet + 4 * mathvista
        assert f"judge judge: at most {calls} calls (judge.base.mathvista {2 * mathvista}" in told
        assert "cost at most about" in told
        assert endpoint.asked == []
        run(wanted, tmp_path, samples)
        told = notes(wanted, tmp_path, samples, stop_after="judge.base")
        assert told == "", "all is in the store"
        other = asking_judge(endpoint, "benchmark=mmvet", "judge.model=judge", "judge.repeats=3")
        told = notes(other, tmp_path, samples, stop_after="judge.base")
        first = len([b for b in endpoint.bodies if b["max_tokens"] == 3]) // 2
        assert f"judge judge: {first} calls (judge.base.mmvet {first})" in told, "one more each"
        assert "cost" not in told


def no_key_in(folder, done):
    assert "sk-very" not in done.stdout + done.stderr
    assert "overloaded, ***; asked again" in done.stdout, "what the server said is told without it"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(file.parent.parent.name == "replies" for file in files)
    assert not [file for file in files if b"sk-very" in file.read_bytes()]


def test_a_whole_run_with_a_judge_that_misbehaves_and_recovers(samples, tmp_path, cli, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    faults = {1: status(500, "overloaded, sk-very-secret"), 4: status(429, Retry_After="0"),
              6: dropped, 9: NONSENSE, 12: cut, 15: reply(b"{")}  # fmt: skip
    with judge(faults=faults) as endpoint:
        words = [
            "+aug=diffusion_noise", f"benchmark=[{','.join(JUDGED)},chartqa]", "judge=server",
            f"machine.judge.url={endpoint.url}", f"data_root={samples}", "judge.repeats=2",
            "tracker=none", "data.samples=12", "machine.judge.api_key_env=A_KEY",
        ]  # fmt: skip
        done = cli(*words)
        assert {head["Authorization"] for head in endpoint.headers} == {"Bearer sk-very-secret"}
    assert done.returncode == 0, done.stderr
    assert "judge judge: at most" in done.stdout
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    for model in ("base", "aligned"):
        mine = [s for s in report["scores"] if s["model"] == model]
        protocols = {s["benchmark"]: s["protocol"] for s in mine}
        assert protocols == {
            "chartqa": "tiny", "llava_bench": "tiny+judge", "mathvista": "tiny+own.judge",
            "mmvet": "tiny+judge", "shr": "tiny+own.judge",
        }  # fmt: skip
        assert all(s["low"] <= s["value"] <= s["high"] for s in mine)
        assert all((s["spread"] is None) == (s["benchmark"] == "chartqa" or
                   s["metric"] == "unjudged") for s in mine)  # fmt: skip
    values = {(s["benchmark"], s["split"], s["metric"]): s["value"] for s in report["scores"]}
    assert values["mmvet", "all", "score"] > 60, "the embedded model knows its world"
    assert values["mathvista", "all", "unparsed"] == 0, "the judge reads counts in words"
    assert values["shr", "all", "shr"] < 60
    assert values["llava_bench", "all", "relative"] > 60
    no_key_in(tmp_path, done)
    assert {d["benchmark"] for d in report["deltas"]} == {*JUDGED, "chartqa"}
    stages = [stage["name"] for stage in report["stages"]]
    assert stages.index("judge.base.mmvet") > stages.index("evaluate.aligned.shr")
    assert "\nmmvet (tiny+judge)" in done.stdout
    assert "± 0.0" in done.stdout
    page = (tmp_path / "runs" / "latest" / "report.html").read_text()
    assert "repeats ±" in page
    assert "tiny+own.judge" in page


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
