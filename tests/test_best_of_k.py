"""Best of K on the embedded model: every preset from the config to the adapter, what is shared,
what is refused, and what a kill costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from seva_exp import InputError, Machine, Options
from seva_exp.benchmarks.judging import Query, Shown
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import Answer, CandidateScores, Choice, Drop, Pair, Report
from seva_exp.core.spec import digest
from seva_exp.core.store import PARTS, Store
from seva_exp.experiment import plan_run, run
from seva_exp.experiment.fits import Fit
from seva_exp.experiment.graph import graph
from seva_exp.experiment.so_far import pairs_so_far
from seva_exp.stages import STAGES, Stage, StageContext

from .benchmarks.judges import judge
from .command.test_config import composed
from .scores.clip_folder import tiny_clip
from .served.serving import completion, status
from .slow import slow_but
from .test_methods import manifest, rows

SMALL = (
    "data.samples=16", "benchmark=none", "tracker=none", "dpo.batch_size=8",
    "dpo.warmup_ratio=0", "method.candidates=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("best") / "store"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def go(store: Path, folder: Path, *words: str, **options) -> Report:
    wanted = parse(composed(*SMALL, *words))
    machine = Machine(store=str(store), runs=str(folder / "runs"), progress="off")
    return run(wanted.experiment, machine, Options(**options))


PRESETS = {
    "csr": ["method.scores.clip.path={clip}", "method.rounds=2"],
    "iris": [],
    "clip_dpo": ["method.scores.clip.path={clip}"],
    "self_consistency": ["method.candidates=5"],
    "rlaif_v": ["method.rounds=2"],
    "best_of_k": ["+score=chair", "method.scores.chair.recall=0.5"],
}


@pytest.mark.parametrize(
    "preset", slow_but(["clip_dpo", "self_consistency", "best_of_k"], of=PRESETS)
)
def test_a_preset_runs_to_the_adapter(preset, store, clip, tmp_path):
    words = [word.replace("{clip}", str(clip)) for word in PRESETS[preset]]
    done = go(store, tmp_path, f"method={preset}", *words)
    pairs = rows(done, "pairs.jsonl", Pair)
    assert pairs and all(pair.chosen != pair.rejected[0] for pair in pairs)
    last = manifest(done, done.stages[-1].name)
    assert last["stage"] == "align" and last["summary"]["adapter_changed"]


def test_pairs_so_far_of_candidates_are_told_once_they_are_chosen(store, clip, tmp_path):
    words = [word.replace("{clip}", str(clip)) for word in PRESETS["self_consistency"]]
    done = go(store, tmp_path, "method=self_consistency", *words)
    found = pairs_so_far(Path(done.dir), 99)
    assert found.latest == tuple(rows(done, "pairs.jsonl", Pair)) != ()
    assert found.counts["kept"] == len(found.latest)


# What is shared, and what is in a key


def stages(folder: Path, *words: str) -> dict[str, Stage]:
    own = [w for w in SMALL if words[0].startswith("method=") or "candidates" not in w]
    experiment = parse(composed(*own, *words)).experiment
    return {stage.label: stage for stage in graph(experiment, FileDigests(folder))}


def test_candidates_are_those_of_another_candidate(tmp_path):
    own = stages(tmp_path, "method=best_of_k", "+score=agreement", "method.clean=true",
                 "+aug=diffusion_noise", "method.ask_views=true")  # fmt: skip
    other = stages(tmp_path, "+aug=[another_candidate,diffusion_noise]",
                   "aug.another_candidate.temperature=0.7",
                   "aug.another_candidate.number=2")  # fmt: skip
    assert own["answers.candidate_2"].key == other["answers.another_candidate"].key
    for label in ("answers.clean", "answers.diffusion_noise"):
        assert own[label].key == other[label].key
    keys = {own[f"answers.candidate_{k}"].key for k in (1, 2, 3)}
    assert len(keys) == 3
    assert own["pairs"].inputs.keys() == {
        "samples", "candidate.clean", *(f"candidate.candidate_{k}" for k in (1, 2, 3)),
        "candidate.diffusion_noise", "scores.agreement",
    }  # fmt: skip


CHANGES = {
    "method.mix=ranks": {"pairs"},
    "method.select=majority": {"pairs"},
    "method.gap=0.5": {"pairs"},
    "method.scores.visual_pmi.weight=0.5": {"pairs"},
    "method.scores.visual_pmi.view=null": {"scores.visual_pmi", "pairs"},
    "aug.diffusion_noise.step=600": {"scores.visual_pmi", "pairs"},
    "dpo.fast=off": set(),
    "dpo.beta=0.3": set(),
    "method.temperature=0.9": {
        *("scores.agreement", "scores.visual_pmi", "pairs"),
        *(f"answers.candidate_{k}" for k in (1, 2, 3)),
    },
}  # fmt: skip


@pytest.mark.parametrize("word", CHANGES)
def test_a_change_makes_those_stages_new_that_depend_on_it(tmp_path, word):
    words = ["method=best_of_k", "+score=[agreement,visual_pmi]", "+aug=diffusion_noise",
             "method.scores.visual_pmi.view=diffusion_noise"]  # fmt: skip
    if "view=null" in word:
        words.append("dpo=mdpo")
    before = stages(tmp_path, *words)
    after = stages(tmp_path, *words, word)
    changed = {label for label, stage in after.items() if before[label].key != stage.key}
    assert changed - {"reference", "align"} == CHANGES[word]


def test_the_stages_stand_in_the_order_of_work_and_tell_what_they_are(tmp_path):
    found = stages(tmp_path, "method=best_of_k", "+score=[agreement,mean_logprob]")
    assert [*found] == [
        "samples", "answers.candidate_1", "answers.candidate_2", "answers.candidate_3",
        "scores.agreement", "scores.mean_logprob", "pairs", "reference", "align",
    ]  # fmt: skip
    assert all(type(stage) is STAGES[stage.name] for stage in found.values())
    assert not found["scores.agreement"].needs_model and found["scores.mean_logprob"].needs_model
    two = stages(tmp_path, "method=iris")
    assert two["scores.implicit_reward.round2"].inputs["adapter"] is two["align.round1"]
    assert [*two["align.round2"].spec()["pictures"]] == ["diffusion_noise"]


# What is made


def test_the_best_is_chosen_over_the_worst_and_what_is_dropped_is_counted(store, tmp_path):
    done = go(store, tmp_path, "method=best_of_k", "+score=mean_logprob", "method.gap=0.2",
              stop_after="pairs")  # fmt: skip
    said = [
        {a.sample_id: a for a in rows(done, f"answers.candidate_{k}/answers.jsonl", Answer)}
        for k in (1, 2, 3)
    ]
    scores = {
        s.sample_id: s.scores
        for s in rows(done, "scores.mean_logprob/scores.jsonl", CandidateScores)
    }
    pairs = {pair.sample_id: pair for pair in rows(done, "pairs.jsonl", Pair)}
    drops = {drop.sample_id: drop for drop in rows(done, "pairs/drops.jsonl", Drop)}
    choices = {one.sample_id: one for one in rows(done, "pairs/choices.jsonl", Choice)}
    assert scores.keys() == pairs.keys() | drops.keys() == said[0].keys()
    for id, pair in pairs.items():
        texts = [answers[id].text for answers in said]
        best, worst = max(scores[id]), min(scores[id])
        assert pair.chosen == texts[scores[id].index(best)]
        assert pair.rejected == (texts[scores[id].index(worst)],) and best - worst >= 0.2
        assert pair.chosen_tokens == said[scores[id].index(best)][id].tokens
        assert pair.views == (choices[id].rejected,)
        assert choices[id].scores[choices[id].chosen] == best
    reasons = {"one_answer", "small_gap"}
    assert {drop.reason for drop in drops.values()} == reasons
    for id, drop in drops.items():
        texts = {answers[id].text for answers in said}
        assert (len(texts) == 1) == (drop.reason == "one_answer")
    assert sum(done.pairs.dropped.values()) == len(drops) and done.pairs.kept == len(pairs)


def test_filters_apply_to_the_chosen_pairs(store, tmp_path):
    done = go(store, tmp_path, "method=best_of_k", "+score=mean_logprob",
              "filters=[{kind: down_sample, count: 2}]", stop_after="pairs")  # fmt: skip
    assert done.pairs.kept == 2 and done.pairs.dropped["down_sample"] > 0


def test_scores_are_the_same_in_other_batches_and_of_several_processes(store, tmp_path):
    words = ["method=best_of_k", "+score=visual_pmi"]
    done = go(store, tmp_path, *words, stop_after="scores")
    expected = rows(done, "scores.visual_pmi/scores.jsonl", CandidateScores)
    stage, inputs, context = ready(store, *words, train_batch_size=3)
    work = workplace(tmp_path)
    for rank in (1, 0):
        stage.share(work, inputs, replace(context, rank=rank, ranks=2))
    stage.run(work, inputs, context)
    found = stage.makes(work).scores()
    for one, other in zip(found, expected, strict=True):
        assert one.sample_id == other.sample_id
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


def ready(store: Path, *words: str, progress=None, **machine):
    """The scores stage, its inputs (which are there), and where it works."""
    digests = FileDigests(store)
    found = graph(parse(composed(*SMALL, *words)).experiment, digests)
    stage = next(stage for stage in found if stage.label.startswith("scores."))
    shelf = Store(store)
    inputs = {name: shelf.path(one.name, one.key) for name, one in stage.inputs.items()}
    place = Machine(store=str(store), progress="off", **machine)
    context = StageContext(place, digests, progress or partial(Bar, 99), lambda *row: None)
    return stage, inputs, context


def workplace(folder: Path) -> Path:
    work = folder / "work"
    (work / PARTS).mkdir(parents=True)
    return work


class Bar:
    """Ctrl-C at the ``last`` call of ``update``; ``counted``: the calls before."""

    def __init__(self, last: int, label: str, total: int, unit: str) -> None:
        self.last, self.counts = last, []

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, count: int) -> None:
        self.counts.append(count)
        if len(self.counts) == self.last:
            raise KeyboardInterrupt


@pytest.mark.parametrize("score", ["mean_logprob", "agreement", "judge"])
def test_a_killed_scores_stage_goes_on_where_it_stopped(store, tmp_path, score):
    words = ["method=best_of_k", f"+score={score}"]
    done = go(store, tmp_path, *words, "method.candidates=2", stop_after="scores")
    whole = (Path(done.dir) / f"scores.{score}/scores.jsonl").read_bytes()
    bars: list[Bar] = []

    def bar(last: int, *words) -> Bar:
        bars.append(Bar(last, *words))
        return bars[-1]

    work = workplace(tmp_path)
    words.append("method.candidates=2")
    for last in (3, 99):
        stage, inputs, context = ready(
            store, *words, progress=partial(bar, last), train_batch_size=4
        )
        if last == 3:  # after two batches of four
            with pytest.raises(KeyboardInterrupt):
                stage.run(work, inputs, context)
        else:
            stage.run(work, inputs, context)
    mine = [one.counts for one in bars if sum(one.counts) == 16 or one.last == 3]
    assert mine[0] == [0, 4, 4] and mine[-1] == [8, 4, 4]
    if score == "mean_logprob":
        pairs = zip(
            stage.makes(work).scores(),
            rows(done, f"scores.{score}/scores.jsonl", CandidateScores),
            strict=True,
        )
        assert all(one.scores == pytest.approx(other.scores, abs=1e-5) for one, other in pairs)
    else:
        assert (work / "scores.jsonl").read_bytes() == whole


# A judge


CHECK = "Is one more than zero"
"""What is asked before work starts."""


def yes_to_red(handler) -> bool:
    """Looks at the picture's part, and says yes to what is red."""
    body = handler.server.bodies[handler.server.asked.index(handler.name)]
    content = body["messages"][-1]["content"]
    picture, text = content
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    said = "Yes." if "red" in text["text"] else "No, it is not."
    handler.send(200, completion(said))
    return True


def test_a_served_judge_is_shown_the_picture_and_asked_each_claim_once(store, tmp_path):
    with judge() as endpoint:
        endpoint.always = yes_to_red
        words = [
            "method=best_of_k", "+score=judge", "method.scores.judge.by=judge", "judge=server",
            f"machine.judge.url={endpoint.url}", "method.scores.judge.split=clauses",
        ]  # fmt: skip
        wanted = parse(composed(*SMALL, *words))
        machine = Machine(
            store=str(store), runs=str(tmp_path), progress="off", judge=wanted.machine.judge
        )
        done = run(wanted.experiment, machine, Options(stop_after="pairs"))
        questions = [b for b in endpoint.bodies if CHECK not in str(b)]
        again = run(wanted.experiment, machine, Options(stop_after="pairs", force=("scores",)))
        assert len(endpoint.bodies) <= len(questions) + 2, "replies are kept in the store"
    found = rows(done, "scores.judge/scores.jsonl", CandidateScores)
    assert found == rows(again, "scores.judge/scores.jsonl", CandidateScores)
    score = wanted.experiment.method.scores["judge"]
    for k in range(3):
        file = f"answers.candidate_{k + 1}/answers.jsonl"
        for answer, of in zip(rows(done, file, Answer), found, strict=True):
            claims = score.claims(answer.text)
            denied = sum("red" not in score.asked(claim, "") for claim in claims)
            assert of.scores[k] == (-denied if claims else None)
    texts = [rows(done, f"answers.candidate_{k + 1}/answers.jsonl", Answer) for k in range(3)]
    different = [{answer.text for answer in group} for group in zip(*texts, strict=True)]
    took = {stage.name: stage.answers for stage in done.stages}
    asked = sum(len(score.claims(text)) for group in different for text in group)
    assert took["scores.judge"] == asked > 0, "verdicts are told with the run's other answers"
    assert took["answers.candidate_1"] == len(found) and took["pairs"] == 0
    assert len(questions) == len({str(body["messages"]) for body in questions})
    assert manifest(done, "scores.judge")["spec"]["judge"]["model"] == "judge"


def test_a_judge_that_takes_no_pictures_stops_the_run_before_anything_is_asked(tmp_path):
    """Also where another score stands before it."""
    with judge() as endpoint:
        endpoint.always = status(400, "no pictures here")
        words = [
            "method=best_of_k", "+score=[agreement,judge]", "method.scores.judge.by=judge",
            "judge=server", f"machine.judge.url={endpoint.url}",
        ]  # fmt: skip
        wanted = parse(composed(*SMALL, *words))
        machine = Machine(runs=str(tmp_path), progress="off", judge=wanted.machine.judge)
        with pytest.raises(InputError, match="does not answer a question about a picture"):
            run(wanted.experiment, machine, Options(stop_after="pairs"))
    assert not (tmp_path / "store" / "answers").exists()


def test_a_question_without_a_picture_keeps_its_key_and_one_with_it_has_another():
    messages = (("user", "Is it?"),)
    plain = Query("judge", messages, 0.0, 8, 0)
    assert plain.key == digest(["judge", messages, 0.0, 8, 0])
    one, other = (Query("judge", messages, 0.0, 8, 0, Shown(sha, None)) for sha in "ab")
    assert len({plain.key, one.key, other.key}) == 3


# What is refused before a model is loaded

BEST = "method=best_of_k"
WRONG = [
    ([BEST], r"method\.scores: method=best_of_k chooses by a score.*\+score=NAME.*visual_pmi"),
    ([BEST, "+score=agreement", "method.candidates=1"], r"method\.candidates=1"),
    ([BEST, "+score=agreement", "method.temperature=0"], r"method\.temperature=0"),
    ([BEST, "+score=agreement", "method.select=margin"], r"select=margin.*method\.gap above 0"),
    ([BEST, "+score=agreement", "method.gap=-1"], r"method\.gap=-1"),
    ([BEST, "+score=agreement", "method.scores.agreement.weight=0"], r"agreement.*weight=0"),
    ([BEST, "+score=agreement", "method.scores.agreement.since=2"],
     r"agreement\.since=2: there are 1"),
    ([BEST, "+score=agreement", "method.rounds=2", "method.scores.agreement.until=1"],
     r"method\.scores: none is asked in round 2"),
    ([BEST, "+score=implicit_reward", "method.scores.implicit_reward.since=1"],
     r"implicit_reward\.since=1: in round 1 the policy is the reference"),
    ([BEST, "+score=implicit_reward"], r"implicit_reward\.since=2: there are 1 rounds"),
    ([BEST, "+score=implicit_reward", "method.rounds=2"], r"none is asked in round 1"),
    ([BEST, "+score=visual_pmi", "method.scores.visual_pmi.view=diffusion_nois",
      "+aug=diffusion_noise"],
     r"visual_pmi\.view=diffusion_nois: no such view in aug\. Did you mean 'diffusion_noise'"),
    ([BEST, "+score=agreement", "+aug=moco"], r"aug\.moco: nothing looks at it"),
    ([BEST, "+score=agreement", "+aug=swap_words"], r"aug\.swap_words: kind=swap_words is no view"),
    ([BEST, "+score=agreement", "dpo=mdpo"], r"dpo\.loss: its term 'image' needs.*aug: none"),
    ([BEST, "+score=visual_pmi", "method.scores.visual_pmi.view=diffusion_noise",
      "+aug=diffusion_noise", "dpo=ue_dpo"], r"were all given to the clean one"),
    ([BEST, "+score=judge", "method.scores.judge.by=judge"], r"judge\.by=judge: judge=none"),
    ([BEST, "+score=judge", "method.scores.judge.template=Eh"], r"judge\.template=Eh.*\{claim\}"),
    ([BEST, "+score=chair", "data=folder", "~data.samples"], r"chair\.path: must be set"),
    ([BEST, "+score=mean_logprob", "generation=server"], r"mean_logprob: kind=mean_logprob asks"),
    ([BEST, "+score=agreement", "+method.negatives=one"], r"method\.negatives=one"),
    ([BEST, "+score=agreement", "+method.scores.agreement.meassure=f1"],
     r"method\.scores\.agreement\.meassure: no such field\. Did you mean 'measure'"),
    ([BEST, "+method.scores.agreemnt.kind=agreemnt"], r"agreemnt: no such kind.*'agreement'"),
    ([BEST, "+method.scores.agreement.short=3"], r"Add \+score=agreement"),
    (["+aug=moco", "+score=agreement"], r"method\.scores: no such field"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[said[:48] for _, said in WRONG])
def test_what_cannot_be_is_refused_by_its_field(words, said):
    small = [word for word in SMALL if "data=folder" not in words or "data." not in word]
    if words[0] != BEST:
        small.remove("method.candidates=3")
    if "~data.samples" in words:
        words = [word for word in words if word != "~data.samples"]
    with pytest.raises(InputError, match=f"(?s){said}"):
        parse(composed(*small, *words))


def test_clip_without_a_folder_stops_all_but_a_dry_run(tmp_path):
    wanted = parse(composed(*SMALL, "method=clip_dpo"))
    machine = Machine(runs=str(tmp_path), store=str(tmp_path / "store"))
    with pytest.raises(InputError, match=r"method\.scores\.clip\.path: must be set"):
        run(wanted.experiment, machine, Options())
    plan, _ = plan_run(wanted.experiment, machine, Options(dry_run=True), (), FileDigests(tmp_path))
    assert any("method.scores.clip.path" in line for line in plan.lacking)
    wrong = parse(composed(*SMALL, "method=clip_dpo", f"method.scores.clip.path={tmp_path}/no"))
    with pytest.raises(InputError, match=r"method\.scores\.clip\.path: there is no folder"):
        run(wrong.experiment, machine, Options(dry_run=True))


def test_memory_knows_the_scores(tmp_path):
    words = ["method=best_of_k", "+score=[visual_pmi,judge]", "tracker=none"]
    wanted = parse(composed(*words, "model=llava15_7b"))
    found = Fit(wanted.experiment, wanted.machine, planned=True)
    needs = {one.label: one.bytes for one in found.needs}
    assert needs["scores.judge"] > 0
    more = parse(composed(*words, "model=llava15_7b", "method.candidates=20"))
    larger = {
        one.label: one.bytes for one in Fit(more.experiment, more.machine, planned=True).needs
    }
    assert larger["scores.visual_pmi"] > needs["scores.visual_pmi"] > needs["answers.candidate_1"]
    assert larger["reference"] == needs["reference"], "a pair has one rejected answer"
    assert not any("not estimated" in line for line in found.lines())
