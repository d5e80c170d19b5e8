"""Runs with a judge: what is refused before work, told in the plan, kept when a judge fails."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import seva_exp
from seva_exp import InputError, Machine, Options, StageError
from seva_exp.benchmarks import OFFICIAL
from seva_exp.command.config import parse
from seva_exp.command.forecast import Past
from seva_exp.core.digests import FileDigests
from seva_exp.core.paths import config_dir
from seva_exp.core.records import Judgement, Prediction, read_jsonl
from seva_exp.experiment import plan_run

from ..served.serving import cut, dropped, reply, status
from .judges import judge
from .test_judges import JUDGED, NONSENSE, short_waits  # noqa: F401


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


def calls_foreseen(wanted, folder, samples):
    machine = wanted.machine.model_copy(update={"runs": str(folder)})
    options = Options(data_root=str(samples), dry_run=True)
    plan, work = plan_run(wanted.experiment, machine, options, [], FileDigests(folder))
    past = Past(machine.store_root())
    todo = [stage for stage, row in zip(work.chosen, plan.stages, strict=True) if not row.cached]
    return {stage.label: n for stage in todo if (n := past.cost(stage).judge_calls)}


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
        foreseen = calls_foreseen(wanted, tmp_path, samples)
        assert set(foreseen.values()) == {2 * mmvet, 2 * mathvista}
        assert sum(foreseen.values()) == calls
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
    said = "overloaded, sk-very-secret"  # by both: which is heard first is chance
    faults = {1: status(500, said), 4: status(429, said, Retry_After="0"), 6: dropped,
              9: NONSENSE, 12: cut, 15: reply(b"{")}  # fmt: skip
    with judge(faults=faults) as endpoint:
        words = [
            "+aug=diffusion_noise", f"benchmark=[{','.join(JUDGED)},chartqa]", "judge=server",
            f"machine.judge.url={endpoint.url}", f"data_root={samples}", "judge.repeats=2",
            "tracker=none", "data.samples=12", "dpo.warmup_ratio=0",
            "machine.judge.api_key_env=A_KEY",
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
            "chartqa": "tiny", "hallusionbench": "tiny+own.judge", "llava_bench": "tiny+judge",
            "mathvista": "tiny+own.judge", "mmhal": "tiny+judge",
            "mmvet": "tiny+judge", "shr": "tiny+own.judge",
        }  # fmt: skip
        assert all(s["low"] <= s["value"] <= s["high"] for s in mine)
        unasked = ("chartqa", "hallusionbench")  # of which the rule reads all
        assert all((s["spread"] is None) == (s["benchmark"] in unasked or
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
