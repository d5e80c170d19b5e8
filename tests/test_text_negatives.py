"""Text-side negatives on the embedded model: APASI, SENTINEL and POVID's noised tokens from the
config to the adapter, what a pair is, what is refused, what a kill costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from seva_exp import InputError, Machine, Options
from seva_exp.benchmarks.shapes import describe_counts
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import Answer, CandidateScores, Continuations, Drop, Pair, Report
from seva_exp.core.store import PARTS, Store
from seva_exp.core.texts import bare, pieces
from seva_exp.data import ShapesData
from seva_exp.experiment import run
from seva_exp.experiment.graph import graph
from seva_exp.experiment.so_far import pairs_so_far
from seva_exp.preferences.filters import Removal
from seva_exp.preferences.verdicts import best_right, first_wrong
from seva_exp.report.console import example_text
from seva_exp.report.gallery import example_card
from seva_exp.runs.__main__ import main as runs_command
from seva_exp.stages import STAGES, StageContext
from seva_exp.stages.shown import PairExample
from seva_exp.world.language import mentions

from .command.test_config import composed
from .slow import slow_but
from .test_best_of_k import Bar
from .test_methods import manifest, rows

SAMPLES = 16
SMALL = (
    f"data.samples={SAMPLES}", "benchmark=none", "tracker=none", "dpo.batch_size=8",
    "dpo.warmup_ratio=0", "method.prompts=tiny",
)  # fmt: skip
PRESETS = {
    "apasi": ["aug.apasi.split=clauses"],
    "povid_noise": ["aug.povid_noise.step=700"],
    "sentinel": ["method.split=clauses"],
}
SELF = (
    "+score@method.scores.self=judge", "method.scores.self.lead='The image shows'",
    "method.scores.self.template='Is there {claim} in the image?'",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("text") / "store"


def go(store: Path, folder: Path, *words: str, **options) -> Report:
    wanted = parse(composed(*SMALL, *words))
    machine = Machine(store=str(store), runs=str(folder / "runs"), progress="off")
    return run(wanted.experiment, machine, Options(**options))


def stages(folder: Path, *words: str):
    experiment = parse(composed(*SMALL, *words)).experiment
    return {stage.label: stage for stage in graph(experiment, FileDigests(folder))}


@pytest.fixture(scope="module")
def done(store, tmp_path_factory) -> Callable[[str], Report]:
    """A preset's whole run, by name."""
    found: dict[str, Report] = {}

    def of(name: str) -> Report:
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            found[name] = go(store, folder, f"method={name}", *PRESETS[name])
        return found[name]

    return of


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_to_the_adapter_and_counts_what_it_leaves_out(done, name):
    report = done(name)
    pairs, drops = rows(report, "pairs.jsonl", Pair), rows(report, "pairs/drops.jsonl", Drop)
    assert pairs and all(pair.chosen != pair.rejected[0] for pair in pairs)
    assert len(pairs) + len(drops) == report.pairs.sampled == SAMPLES
    assert sum(report.pairs.dropped.values()) == len(drops)
    last = manifest(report, report.stages[-1].name)
    assert last["stage"] == "align" and last["summary"]["adapter_changed"]
    assert manifest(report, "reference")["summary"]["preferences"] == len(pairs)


def test_apasi_changes_one_clause_behind_the_first(done):
    report = done("apasi")
    clean = {a.sample_id: a for a in rows(report, "answers.clean/answers.jsonl", Answer)}
    made = {a.sample_id: a for a in rows(report, "answers.apasi/answers.jsonl", Answer)}
    drops = {d.sample_id: d.reason for d in rows(report, "pairs/drops.jsonl", Drop)}
    for pair in rows(report, "pairs.jsonl", Pair):
        was, now = pieces(pair.chosen, "clauses"), pieces(pair.rejected[0], "clauses")
        assert pair.chosen == clean[pair.sample_id].text and pair.views == ("apasi",)
        assert was[0] == now[0] and sum(a != b for a, b in zip(was, now, strict=True)) == 1
        assert pair.chosen_tokens and pair.rejected_tokens == ((),)
    for id, reason in drops.items():
        short = len(pieces(clean[id].text, "clauses")) < 2
        assert (reason == "one_sentence") == short
        assert made[id].stop == reason or (reason == "equal" and made[id].text == clean[id].text)
    summary = manifest(report, "answers.apasi")["summary"]
    assert summary["samples"] == SAMPLES
    assert summary["answers"] == sum(a.stop == "eos" for a in made.values())


def test_povid_s_rejected_tokens_stand_place_by_place(done):
    report = done("povid_noise")
    for pair in rows(report, "pairs.jsonl", Pair):
        assert len(pair.rejected_tokens[0]) == len(pair.chosen_tokens)
        assert pair.rejected_tokens[0] != pair.chosen_tokens
    drops = rows(report, "pairs/drops.jsonl", Drop)
    assert {drop.reason for drop in drops} <= {"same_tokens", "equal"}


@pytest.mark.parametrize("loss", slow_but(["ue_dpo"], of=["mdpo", "ue_dpo"]))
def test_a_loss_looks_at_the_picture_that_povid_showed(store, tmp_path, loss):
    """``ue_dpo`` at the rejected answer with it, too."""
    words = ["method=povid_noise", *PRESETS["povid_noise"], f"dpo={loss}"]
    report = go(store, tmp_path, *words)
    assert manifest(report, report.stages[-1].name)["summary"]["adapter_changed"]
    found = stages(tmp_path, *words)["align"]
    assert found.pairs.shown["povid_noise"].step == 700


# SENTINEL


def truth(id: str) -> str:
    return ShapesData(samples=SAMPLES).truth(0, id)


def wrong(id: str, text: str) -> bool | None:
    """By the embedded world; None where nothing is named."""
    if not mentions(text):
        return None
    return describe_counts(truth(id), text).counts["wrong"] > 0


def test_a_pair_is_two_sentences_behind_the_same_clean_words(done):
    report = done("sentinel")
    clean = {a.sample_id: a for a in rows(report, "answers.clean/answers.jsonl", Answer)}
    said = {
        one.sample_id: one for one in rows(report, "continued/continuations.jsonl", Continuations)
    }
    pairs = rows(report, "pairs.jsonl", Pair)
    assert any(pair.context for pair in pairs) and said.keys() == clean.keys()
    for pair in pairs:
        id, answer = pair.sample_id, clean[pair.sample_id]
        parts = pieces(answer.text, "clauses")
        place = len(pieces(pair.context, "clauses"))
        assert "".join(parts[:place]) == pair.context and parts[place] == pair.rejected[0]
        assert not any(wrong(id, part) for part in parts[:place]), "the first wrong one"
        assert wrong(id, pair.rejected[0]) is True and wrong(id, pair.chosen) is False
        ids = pair.context_tokens + pair.rejected_tokens[0]
        assert answer.tokens[: len(ids)] == ids and pair.rejected_tokens[0]
        assert pair.chosen in said[id].texts and pair.chosen_tokens in said[id].tokens
        assert pair.views == ("sentence",)
    reasons = {d.sample_id: d.reason for d in rows(report, "pairs/drops.jsonl", Drop)}
    for id, reason in reasons.items():
        mistakes = [wrong(id, part) for part in pieces(clean[id].text, "clauses")]
        if reason == "nothing_wrong":
            assert not any(mistakes)
        else:
            assert reason == "no_right_sentence" and any(mistakes)
            assert all(wrong(id, text) is not False for text in said[id].texts)
    assert {*reasons.values()} == {"nothing_wrong", "no_right_sentence"}


def test_a_sampled_sentence_goes_on_behind_its_context(done):
    """Each is the next clause of context and sentence, and they differ by their draws."""
    found = rows(done("sentinel"), "continued/continuations.jsonl", Continuations)
    several = 0
    for one in found:
        for text, ids in zip(one.texts, one.tokens, strict=True):
            assert pieces(one.context + text, "clauses") == [
                *pieces(one.context, "clauses"), text
            ]  # fmt: skip
            assert ids
        several += len({*one.texts}) > 1
        assert len(one.texts) <= 5
    assert several
    (stage,) = (one for one in done("sentinel").stages if one.name == "continued")
    assert stage.answers == sum(len(one.texts) for one in found), "what a comparison counts as cost"


def test_a_pair_is_shown_with_its_context(done, tmp_path, capsys):
    report = done("sentinel")
    pair = next(pair for pair in rows(report, "pairs.jsonl", Pair) if pair.context)
    example = PairExample(pair, tmp_path / "none.png", {})
    question = f"{pair.prompt} [{pair.context}]"
    assert example_card(example)["question"] == question
    assert pair.context.split()[-1] in example_text(example)
    assert pairs_so_far(Path(report.dir), 99).latest == tuple(rows(report, "pairs.jsonl", Pair))
    assert runs_command(["pairs", report.dir, "--limit", "99"]) == 0
    told = capsys.readouterr().out
    assert question in told and f"pairs so far: {report.pairs.kept}" in told


def test_two_judges_must_agree(store, done, tmp_path):
    """The world's truth and the model itself: what one of them says alone is not used."""
    words = ["method=sentinel", *PRESETS["sentinel"], *SELF]
    report = go(store, tmp_path, *words, stop_after="pairs")
    assert manifest(report, "scores.self.continued")["stage"] == "model_sentence_scores"
    assert manifest(report, "scores.chair.continued")["stage"] == "sentence_scores"
    clean = rows(report, "answers.clean/answers.jsonl", Answer)
    scores = [
        rows(report, f"scores.{name}/scores.jsonl", CandidateScores) for name in ("chair", "self")
    ]
    alone = {pair.sample_id for pair in rows(done("sentinel"), "pairs.jsonl", Pair)}
    pairs = {pair.sample_id: pair for pair in rows(report, "pairs.jsonl", Pair)}
    drops = {d.sample_id: d for d in rows(report, "pairs/drops.jsonl", Drop)}
    uncertain = 0
    for answer, *both in zip(clean, *scores, strict=True):
        id, parts = answer.sample_id, pieces(answer.text, "clauses")
        values = [*zip(*(one.scores for one in both), strict=True)]
        assert len(values) == len(parts)
        for part, (chair, own) in zip(parts, values, strict=True):
            told = wrong(id, bare(part, "clauses"))
            assert chair == (None if told is None else -1.0 if told else 0.0)
            assert own in (None, 0.0, -1.0)
        accused = [n for n, of in enumerate(values) if -1.0 in of]
        if id in pairs:
            assert values[accused[0]] == (-1.0, -1.0)
            assert pairs[id].rejected[0] == parts[accused[0]]
        elif accused and values[accused[0]] != (-1.0, -1.0):
            assert drops[id].reason == "uncertain"
            uncertain += 1
    assert uncertain and {*pairs} != alone


def test_a_file_of_objects_tells_what_is_there(store, done, tmp_path):
    """Two files: kinds of objects as they are, and one that says of everything that it is there."""
    clean = rows(done("sentinel"), "answers.clean/answers.jsonl", Answer)
    kinds = {a.sample_id: [kind for _, kind in mentions(truth(a.sample_id))] for a in clean}
    every = sorted({kind for own in kinds.values() for kind in own})
    for name, of in (("true", kinds), ("blind", dict.fromkeys(kinds, every))):
        lines = [json.dumps({"id": id, "objects": own}) + "\n" for id, own in of.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    words = ["method=sentinel", *PRESETS["sentinel"]]
    one = f"method.scores.chair.path={tmp_path / 'true.jsonl'}"
    report = go(store, tmp_path, *words, one, stop_after="pairs")
    pairs = rows(report, "pairs.jsonl", Pair)
    for pair in pairs:
        [(_, kind)], [(_, right)] = mentions(pair.rejected[0]), mentions(pair.chosen)
        assert kind not in kinds[pair.sample_id] and right in kinds[pair.sample_id]
    assert pairs
    other = ["+score@method.scores.other=chair",
             f"method.scores.other.path={tmp_path / 'blind.jsonl'}"]  # fmt: skip
    none = go(store, tmp_path, *words, one, *other, stop_after="pairs")
    assert none.pairs.kept == 0 and none.pairs.dropped["uncertain"] >= len(pairs)


@pytest.mark.parametrize(
    ("sentences", "found"),
    [
        ([(0.0, 0.0), (-1.0, -2.0), (-1.0, -1.0)], 1),
        ([(None, None), (0.0, None), (-1.0, -1.0)], 2),  # what nobody calls wrong may stand before
        ([(0.0, -1.0), (-1.0, -1.0)], "uncertain"),
        ([(None, -1.0), (-1.0, -1.0)], "uncertain"),
        ([(0.0, 0.0), (None, None)], "nothing_wrong"),
        ([], "no_sentence"),
    ],
)
def test_the_first_wrong_sentence_is_that_on_which_all_agree(sentences, found):
    place = first_wrong(sentences)
    assert (place.reason if isinstance(place, Removal) else place) == found


@pytest.mark.parametrize(
    ("texts", "verdicts", "found"),
    [
        (["a", "b", "b"], [(0.0,), (0.0,), (0.0,)], 1),  # the one that is sampled most often
        (["a", "b"], [(0.0,), (0.0,)], 0),  # the first of equals
        (["a", "b"], [(None,), (-1.0,)], "no_right_sentence"),
        (["a", "b"], [(0.0, -1.0), (0.0, 0.0)], 1),
        (["wrong"], [(0.0,)], "no_right_sentence"),
        ([], [], "no_right_sentence"),
    ],
)
def test_the_chosen_sentence_is_right_to_all(texts, verdicts, found):
    place = best_right(texts, verdicts, "wrong")
    assert (place.reason if isinstance(place, Removal) else place) == found


# Keys and the order of work


def test_the_order_of_work(tmp_path):
    found = stages(tmp_path, "method=sentinel", *SELF)
    assert [*found] == [
        "samples", "answers.clean", "scores.chair", "scores.self", "continued",
        "scores.chair.continued", "scores.self.continued", "pairs", "reference", "align",
    ]  # fmt: skip
    assert all(type(stage) is STAGES[stage.name] for stage in found.values())
    both = stages(tmp_path, "method=apasi", "+aug=[povid_noise,diffusion_noise]")
    assert [*both][:6] == [
        "samples", "answers.clean", "answers.apasi", "answers.diffusion_noise",
        "answers.povid_noise", "pairs",
    ]  # fmt: skip
    assert [*both["pairs"].shown] == ["diffusion_noise", "povid_noise"]


CHANGES = {
    "sentinel": {
        "method.candidates=3": {"continued", "scores.chair.continued", "pairs"},
        "method.temperature=1.1": {"continued", "scores.chair.continued", "pairs"},
        "method.scores.chair.weight=2.0": set(),
        "method.split=clauses": {
            "scores.chair", "continued", "scores.chair.continued", "pairs"
        },
        "dpo.beta=0.3": set(),
        "dpo.fast=off": set(),
        "seed=1": None,
    },
    "apasi": {
        "aug.apasi.rate=0.4": {"answers.apasi", "pairs"},
        "aug.apasi.fall=0.5": set(),
        "dpo.fast=off": set(),
    },
}  # fmt: skip


@pytest.mark.parametrize("method", CHANGES)
def test_a_change_makes_those_stages_new_that_depend_on_it(tmp_path, method):
    before = stages(tmp_path, f"method={method}")
    for word, expected in CHANGES[method].items():
        after = stages(tmp_path, f"method={method}", word)
        changed = {label for label, stage in after.items() if before[label].key != stage.key}
        if expected is None:
            assert changed == {*before}
        else:
            assert changed - {"reference", "align"} == expected, word


def test_rounds_ask_the_model_of_the_round_and_the_rate_falls(tmp_path):
    found = stages(tmp_path, "method=apasi", "method.rounds=2", "aug.apasi.fall=0.5")
    first, second = (found[f"answers.apasi.round{n}"] for n in (1, 2))
    assert (first.source.rate, second.source.rate) == (0.2, 0.1)
    assert second.inputs["adapter"] is found["align.round1"] and "adapter" not in first.inputs
    two = stages(tmp_path, "method=sentinel", "method.rounds=2", *SELF)
    assert two["continued.round2"].inputs["adapter"] is two["align.round1"]
    for label in ("scores.self.round2", "scores.self.continued.round2"):
        assert two[label].inputs["adapter"] is two["align.round1"]
    assert "adapter" not in two["scores.chair.round2"].inputs


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_two_rounds(store, tmp_path, name):
    report = go(store, tmp_path, f"method={name}", *PRESETS[name], "method.rounds=2")
    assert manifest(report, "align.round2")["summary"]["adapter_changed"]


# Several processes, and kills


def ready(store: Path, label: str, *words: str, progress=None, **machine):
    """A stage, its inputs (which are there), and where it works."""
    stage = stages(store, *words)[label]
    shelf = Store(store)
    inputs = {name: shelf.path(one.name, one.key) for name, one in stage.inputs.items()}
    place = Machine(store=str(store), progress="off", **machine)
    context = StageContext(
        place, FileDigests(store), progress or partial(Bar, 99), lambda *row: None
    )
    return stage, inputs, context


KILLED = {
    "apasi": ("answers.apasi", "answers.jsonl"),
    "povid_noise": ("answers.povid_noise", "answers.jsonl"),
    "sentinel": ("continued", "continuations.jsonl"),
}


@pytest.mark.parametrize("name", slow_but(["sentinel", "apasi"], of=KILLED))
def test_a_killed_stage_goes_on_and_several_processes_share_it(done, store, tmp_path, name):
    label, file = KILLED[name]
    whole = (Path(done(name).dir) / label / file).read_bytes()
    words = [f"method={name}", *PRESETS[name]]
    work = tmp_path / "work"
    (work / PARTS).mkdir(parents=True)
    stage, inputs, context = ready(
        store, label, *words, progress=partial(Bar, 3), batch_size=4, train_batch_size=4
    )
    with pytest.raises(KeyboardInterrupt):  # after two batches of four
        stage.run(work, inputs, context)
    bars: list[Bar] = []

    def bar(*words) -> Bar:
        bars.append(Bar(99, *words))
        return bars[-1]

    context = replace(context, progress=bar)
    stage.share(work, inputs, replace(context, rank=1, ranks=2))
    stage.run(work, inputs, context)
    assert (work / file).read_bytes() == whole
    assert sum(bars[-1].counts) == SAMPLES and bars[-1].counts[0] >= 8


# What is refused


REFUSED = {
    "method.newlines": ["method=sentinel", "+method.newlines=delete"],
    "method.scores: method=sentinel": ["method=sentinel", "~method.scores.chair"],
    "method.scores.agreement: kind=agreement": ["method=sentinel", "+score=agreement"],
    "method.scores.chair: kind=chair with recall=0.5": [
        "method=sentinel", "method.scores.chair.recall=0.5"
    ],
    "generation=server: method=sentinel": ["method=sentinel", "generation=server"],
    "dpo.weights: kind=aspo": ["method=sentinel", "dpo=aspo"],
    "aug.apasi: kind=apasi is no view": ["method=sentinel", "+aug=apasi"],
    "aug.povid_noise: kind=povid_noise is no view": [
        "method=best_of_k", "+score=agreement", "+aug=povid_noise"
    ],
    "candidates of method=sentinel": ["method=sentinel", "+aug=diffusion_noise", "dpo=ue_dpo"],
    "aug.apasi: kind=apasi has the answer rewritten": ["method=apasi", "generation=server"],
    "aug.apasi.rate": ["method=apasi", "aug.apasi.rate=0"],
    "aug.apasi.lead": ["method=apasi", "aug.apasi.lead=There"],
    "aug.povid_noise.step": ["method=povid_noise", "aug.povid_noise.step=1000"],
    "filters.0.unit=tokens": [
        "method=apasi", "filters=[{kind: length_ratio, max: 2, unit: tokens}]"
    ],
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_is_refused_by_name_before_any_work(said):
    words = REFUSED[said]
    own = SMALL[:-1] if "method=best_of_k" in words else SMALL
    with pytest.raises(InputError) as error:
        parse(composed(*own, *words))
    assert said in str(error.value)


def test_a_prompt_set_that_is_not_there_is_told(store, tmp_path):
    with pytest.raises(InputError, match=r"method\.prompts"):
        go(store, tmp_path, "method=apasi", "method.prompts=nowhere.yaml")
