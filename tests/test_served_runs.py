"""Whole runs whose answers come from a real ``transformers serve`` of the embedded model."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

import seva_exp
from seva_exp import Experiment, InputError, Machine, Options
from seva_exp.augment import DiffusionNoise, DiffusionNoiseImage, LowResolution
from seva_exp.benchmarks import OFFICIAL, Judge
from seva_exp.benchmarks.judge_answers import Bench, judge_all
from seva_exp.benchmarks.judging import TRIES
from seva_exp.benchmarks.replies import Replies
from seva_exp.benchmarks.samples import make_samples
from seva_exp.core.digests import FileDigests
from seva_exp.core.interfaces import Placement
from seva_exp.core.machine import JudgeServer, Server
from seva_exp.core.progress import progress
from seva_exp.core.records import CLEAN, Pair, read_jsonl
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration, ServerGeneration
from seva_exp.experiment.graph import graph
from seva_exp.inputs.views import View
from seva_exp.methods import SevaMethod
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.preferences import LengthRatioFilter
from seva_exp.training.spec import DpoTraining

from .forking import Ends
from .preferences.stage import answer_all
from .served.serving import Misbehaving, status, transformers_serve

SERVED = ServerGeneration(max_new_tokens=48)
VIEWS = {"low_resolution": LowResolution(), "noisy": DiffusionNoiseImage(step=600, size=72)}
SAMPLES = 16


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(url, the model's name)"""
    with transformers_serve(tmp_path_factory.mktemp("serve") / "log") as found:
        yield found


@pytest.fixture
def front(real):
    """The real server behind one that counts and lists its model."""
    url, name = real
    with Misbehaving(upstream=url, models=[name]) as endpoint:
        yield endpoint


def experiment(generation=SERVED, aug=None, **options):
    options = {"data": ShapesData(samples=SAMPLES), "benchmark": {}} | options
    options.setdefault("dpo", DpoTraining(warmup_ratio=0))
    return Experiment(generation=generation, aug=aug or {"low": LowResolution()}, **options)


def machine(folder, **server):
    own = {"device": "cpu", "dtype": "float32", "progress": "off"}
    return Machine(**own, runs=str(folder), server=Server(**{"concurrency": 4} | server))


def run(experiment, machine, **options):
    return seva_exp.run(experiment, machine, Options(**options), listeners=[])


def stage_of(report, label):
    return Path(report.dir) / label


# --- against the real server


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    data = ShapesData(samples=SAMPLES)
    made = data.build(0, folder, FileDigests(folder / "store"))
    return made.samples, data.image_root(folder)


@pytest.fixture(scope="module")
def vlm():
    return load(TinyModel(), Machine(device="cpu", dtype="float32"))


@pytest.mark.parametrize("name", [CLEAN, *VIEWS])
def test_greedy_answers_are_those_of_this_process(real, world, vlm, tmp_path, name):
    url, model = real
    view = View(name, VIEWS.get(name), 0)

    def ask(work, generation):
        place = Placement("cpu", 8, 8, False, partial(progress, "off"), work)
        place = replace(place, server=Server(url=url, concurrency=4))
        found, _ = answer_all(world, work, lambda: vlm, view, generation, place, previews=2)
        return [replace(answer, tokens=()) for answer in found]

    served = ask(tmp_path / "served", SERVED.model_copy(update={"served_model": model}))
    here = ask(tmp_path / "here", HfGeneration(max_new_tokens=48))
    assert served == here
    assert len({answer.text for answer in served}) > 4
    if name != CLEAN:
        pictures = [sorted((tmp_path / w / "previews").glob("*.png")) for w in ("served", "here")]
        assert len(pictures[0]) == 2
        assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]]


def test_a_run_asks_the_server_and_trains_on_texts(front, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    there = machine(tmp_path, url=front.url, api_key_env="A_KEY")
    report = run(experiment(), there, stop_after="align")
    assert len(front.asked) == 2 * SAMPLES + 1, "each question once, and one to see that it works"
    assert {head["Authorization"] for head in front.headers} == {"Bearer sk-very-secret"}
    pairs = list(read_jsonl(stage_of(report, "pairs") / "pairs.jsonl", Pair))
    assert pairs
    assert {(pair.chosen_tokens, pair.rejected_tokens) for pair in pairs} == {((), ((),))}
    here = run(experiment(HfGeneration(max_new_tokens=48)), there, stop_after="reference")
    own = list(read_jsonl(stage_of(here, "pairs") / "pairs.jsonl", Pair))
    assert [replace(p, chosen_tokens=(), rejected_tokens=((),)) for p in own] == pairs
    references = [stage_of(r, "reference") / "reference.jsonl" for r in (report, here)]
    assert references[0].read_bytes() == references[1].read_bytes(), "texts give the same tokens"
    config = yaml.safe_load((Path(report.dir) / "config.yaml").read_text())
    assert config["generation"]["served_model"] == front.models[0]
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"sk-very" not in file.read_bytes(), file

    before = len(front.asked)
    again = run(experiment(), there, stop_after="align")
    assert all(stage.cached for stage in again.stages)
    assert len(front.asked) == before


def test_what_is_cached_needs_no_server(front, tmp_path):
    named = experiment(SERVED.model_copy(update={"served_model": front.models[0]}))
    first = run(named, machine(tmp_path, url=front.url), stop_after="pairs")
    gone = machine(tmp_path, url="http://127.0.0.1:9/v1", concurrency=2, retries=0)
    assert run(named, gone, stop_after="pairs").key == first.key


def words(store, url):
    return [
        "+aug=low_resolution", "generation=server",
        f"machine.server.url={url}", "machine.server.concurrency=2", f"data.samples={SAMPLES}",
        "stop_after=pairs", "tracker=none", f"machine.store={store}",
    ]  # fmt: skip


def texts(store):
    """The finished answers of both views."""
    return {file.read_text() for file in store.glob("answers/*/answers.jsonl")}


def test_kill_in_the_middle_then_the_same_command(cli, front, tmp_path):
    command = words(tmp_path / "store", front.url)
    front.faults = {5: status(500)}
    killed = cli(*command, ends=Ends("*/answers/*/journal-0.jsonl", 1))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (journal,) = (tmp_path / "store" / "answers").glob("*.partial/parts/journal-0.jsonl")
    lines = journal.read_bytes().splitlines()
    kept = sum(len(json.loads(line)) for line in lines if line.endswith(b"]"))
    assert 1 <= kept <= SAMPLES
    deadline = time.monotonic() + 120
    while front.under_way:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    front.asked, front.faults = [], {1: status(500)}
    after = cli(*command)
    assert after.returncode == 0, after.stderr
    assert len(front.asked) == 2 + 2 * SAMPLES - kept, "one to see that it works, one twice"

    calm = experiment(aug={"low_resolution": LowResolution()})
    run(calm, machine(tmp_path / "calm", url=front.url), stop_after="pairs")
    assert texts(tmp_path / "store") == texts(tmp_path / "calm" / "store") != set()


# --- refused before work starts


@pytest.mark.parametrize(
    ("options", "always", "served", "said"),
    [
        ({}, status(404, "no model served"), "other", "HTTP 404: no model served. Models that it "
         "lists: served"),
        ({}, status(400, "it is blind"), None, "HTTP 400: it is blind"),
        ({}, status(503, "loading"), None, "HTTP 503: loading"),
        ({"models": ["a", "b"]}, None, None, "generation.served_model: must be set.* 2 models.* "
         "Known: a, b"),
        ({"models": []}, None, None, "lists 0 models"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_do_it_is_told_before_work(tmp_path, options, always, served, said):
    with Misbehaving(**options) as endpoint:
        endpoint.always = always
        wanted = experiment(SERVED.model_copy(update={"served_model": served}))
        with pytest.raises(InputError, match=said):
            run(wanted, machine(tmp_path, url=endpoint.url))
    assert not list(tmp_path.rglob("*.jsonl")), "nothing was begun"


@pytest.mark.parametrize("served", [None, "served"])
def test_a_server_that_is_not_there_is_told_before_work(tmp_path, served):
    with Misbehaving() as endpoint:
        pass
    wanted = experiment(SERVED.model_copy(update={"served_model": served}))
    with pytest.raises(InputError, match=rf"machine\.server\.url={endpoint.url}: .*ConnectError"):
        run(wanted, machine(tmp_path, url=endpoint.url))
    assert list(tmp_path.iterdir()) == [] or served is None


def test_a_dry_run_asks_nothing_and_says_what_it_does_not_know(cli):
    with Misbehaving() as endpoint:
        url = f"machine.server.url={endpoint.url}"
        done = cli("+aug=low_resolution", "generation=server", url, "dry_run=true")
        assert not endpoint.asked
    assert done.returncode == 0, done.stderr
    assert "served_model: not set: the server will be asked" in done.stdout
    without = cli("+aug=low_resolution", "generation=server")
    assert without.returncode == 2
    assert "machine.server.url: must be set with generation=server" in without.stderr


NOISE = {"mild": DiffusionNoise(step=100)}
WRONG = [
    ({"aug": NOISE}, r"aug\.mild: .*generation=server.*\+aug=diffusion_noise_image"),
    ({"method": SevaMethod(rounds=2)}, r"method\.rounds=2: .*method\.rounds=1"),
    ({"filters": (LengthRatioFilter(max=2, unit="tokens"),)}, r"filters\.0\.unit=tokens"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_a_server_cannot_do_is_refused_and_in_process_is_not(options, said):
    with pytest.raises(ValueError, match=said):
        experiment(**options)
    assert experiment(HfGeneration(), **options)


def test_stage_2_asks_the_aligned_model(cli):
    done = cli("+aug=low_resolution", "generation=server", "method=stic", "sft=stic",
               "machine.server.url=http://127.0.0.1:9/v1")  # fmt: skip
    assert done.returncode == 2
    assert "sft: asks the model that this run has aligned" in done.stderr


# --- keys


def keys(**options):
    values = {"served_model": "a"} | options
    return [s.key for s in graph(experiment(ServerGeneration(**values)), str)]


def test_who_serves_what_is_in_the_key():
    found = [keys(), keys(served_model="b"), keys(max_new_tokens=3), keys(temperature=0.5),
             [s.key for s in graph(experiment(HfGeneration()), str)]]  # fmt: skip
    answers = [one[1] for one in found]
    assert len(set(answers)) == len(answers)


# --- a judge on the real server


def test_a_judge_that_gives_no_verdict_on_a_real_server_leaves_its_answers_unjudged(real, tmp_path):
    """The embedded model was not taught to judge: every reply comes, none can be read."""
    url, model = real
    make_samples(tmp_path / "root")
    benchmark, who = OFFICIAL["mmvet"](kind="mmvet", protocol="tiny"), Judge(model=model)
    bench = Bench(benchmark, benchmark.judging(tmp_path / "root"), who, Replies(tmp_path))
    where = JudgeServer(url=url, concurrency=4)
    who.prepare(where, bench.judging)
    with pytest.raises(InputError, match=r"judge\.model=nobody"):
        Judge(model="nobody").prepare(where, bench.judging)
    questions = list(benchmark.questions(tmp_path / "root"))[:4]
    cases = bench.cases(questions, [benchmark.predict(q, "red") for q in questions])
    found, summary = judge_all(bench, cases, where, partial(progress, "off"), print, "judge.x")
    assert [one.score for one in found] == [None] * 4
    assert any(one.reply for one in found)
    assert summary["calls"] == TRIES * len({case.messages for case in cases})
    assert summary["tokens_sent"] > 0
