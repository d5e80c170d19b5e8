"""Rejected answers without a view, from the config to the adapter: who makes them, what is told of
them, and where they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seva_exp import Experiment, Machine, Options, StageError
from seva_exp.augment import (
    AnotherCandidate,
    AnswerFile,
    BadPrompt,
    DiffusionNoise,
    HorizontalFlip,
    ObjectMask,
    SwapWords,
)
from seva_exp.compare.comparison import Comparison
from seva_exp.compare.runs import ComparedRun
from seva_exp.compare.samples import same_samples
from seva_exp.core.digests import FileDigests
from seva_exp.core.randomness import python_rng
from seva_exp.core.records import Answer, Drop, Pair
from seva_exp.data import ShapesData
from seva_exp.decoding import HfGeneration, ServerGeneration
from seva_exp.experiment import run
from seva_exp.experiment.graph import graph
from seva_exp.inputs.views import ViewDraw
from seva_exp.methods import SevaMethod
from seva_exp.preferences.filters import EqualFilter, LengthRatioFilter
from seva_exp.report.gallery import example_card
from seva_exp.report.html import HtmlReport
from seva_exp.stages import Answers, Rejected
from seva_exp.training import DpoTraining
from seva_exp.training.loss import NEEDS, Loss
from seva_exp.training.losses import OURS

from .test_methods import STIC_LOSS, go, manifest, rows, small, stic

SAMPLES = 12
TEXTS = {"shapes-000001": ["moon"], "shapes-000003": ["one of two", "two of two"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rejected") / "store"


@pytest.fixture
def file(tmp_path) -> str:
    return written(tmp_path / "rejected.jsonl", TEXTS)


def written(path: Path, texts) -> str:
    lines = [json.dumps({"id": id, "rejected": said}) + "\n" for id, said in texts.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def those(**changes) -> Experiment:
    return small(**({"data": ShapesData(samples=SAMPLES), "benchmark": {}} | changes))


def stages(experiment: Experiment, folder: Path):
    return {stage.label: stage for stage in graph(experiment, FileDigests(folder))}


def answers(report, view: str) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for answer in rows(report, f"answers.{view}/answers.jsonl", Answer):
        found.setdefault(answer.sample_id, []).append(answer)
    return found


def test_all_kinds_stand_side_by_side_in_the_pairs(store, file, tmp_path):
    aug = {
        "edited": SwapWords(),
        "again": AnotherCandidate(temperature=1.5),
        "file": AnswerFile(path=file),
        "noise": DiffusionNoise(step=900),
    }
    report = go(those(aug=aug), tmp_path, store, stop_after="pairs")
    clean, again = answers(report, "clean"), answers(report, "again")
    pairs = {pair.sample_id: pair for pair in rows(report, "pairs.jsonl", Pair)}
    for id, [chosen] in clean.items():
        edit = SwapWords()(chosen.text, python_rng(0, "rejected/swap_words", id))
        expected = [("again", again[id][0].text), ("edited", edit)]
        expected += [("file", text) for text in TEXTS.get(id, [])]
        expected += [("noise", answers(report, "noise")[id][0].text)]
        left = [(view, text) for view, text in expected if text != chosen.text]
        pair = pairs.get(id)
        assert left == ([] if pair is None else list(zip(pair.views, pair.rejected, strict=True)))
    pair = pairs["shapes-000003"]
    assert pair.views.count("file") == 2 and pair.chosen_tokens
    tokens = dict(zip(pair.views, pair.rejected_tokens, strict=True))
    assert not tokens["file"] and tokens.get("noise", True) and not tokens.get("edited")
    said = manifest(report, "pairs")["summary"]
    for view, texts in (("file", 3), ("edited", SAMPLES), ("noise", SAMPLES)):
        assert said["kept_by_view"][view] + sum(said["removed_by_view"][view].values()) == texts


def test_the_order_of_work_and_what_each_source_reads(tmp_path, file):
    aug = {"edited": SwapWords(), "file": AnswerFile(path=file), "again": AnotherCandidate()}
    found = stages(those(aug=aug), tmp_path)
    labels = [*found]
    assert labels[:5] == [
        "samples", "answers.file", "answers.clean", "answers.again", "answers.edited"
    ]  # fmt: skip
    assert [*found["answers.file"].inputs] == ["samples"], "a model's answers are not in its key"
    assert [*found["answers.edited"].inputs] == ["samples", "clean"]
    assert found["answers.again"].generation.temperature == 0.8
    assert found["answers.clean"].generation.temperature == 0
    assert type(found["answers.again"]) is Answers and type(found["answers.file"]) is Rejected


def test_a_file_s_content_is_in_the_key_and_its_path_is_not(tmp_path, file):
    def keys(path: str) -> tuple[str, str]:
        found = stages(those(aug={"file": AnswerFile(path=path)}), tmp_path)
        return found["answers.file"].key, found["answers.clean"].key

    other = written(tmp_path / "other.jsonl", TEXTS)
    assert keys(file) == keys(other)
    before = keys(other)
    written(tmp_path / "other.jsonl", TEXTS | {"shapes-000002": ["new"]})
    assert keys(other)[0] != before[0] and keys(other)[1] == before[1]


def test_samples_without_a_rejected_answer_are_dropped_by_name(store, file, tmp_path):
    experiment = those(aug={"file": AnswerFile(path=file)})
    report = go(experiment, tmp_path, store, stop_after="pairs")
    drops = rows(report, "pairs/drops.jsonl", Drop)
    assert {drop.reason for drop in drops} == {"no rejected answer"}
    assert (report.pairs.kept, report.pairs.sampled) == (2, SAMPLES)
    assert report.pairs.dropped == {"no rejected answer": SAMPLES - 2}


def test_a_file_of_other_ids_stops_the_run_before_the_model_is_asked(store, tmp_path):
    path = written(tmp_path / "r.jsonl", {"elsewhere": ["x"]})
    with pytest.raises(StageError, match=r"answers\.file: it has a text for none of 12 samples"):
        go(those(aug={"file": AnswerFile(path=path)}), tmp_path, tmp_path / "new")
    assert not list((tmp_path / "new").glob("answers/*"))


def test_one_source_is_drawn_for_each_sample(store, tmp_path):
    aug = {"edited": SwapWords(share=1.0), "noise": DiffusionNoise(step=900)}
    method = SevaMethod(negatives="one", weights={"edited": 2})
    report = go(those(aug=aug, method=method), tmp_path, store, stop_after="pairs")
    draw = ViewDraw((("edited", 2.0), ("noise", 1.0)))
    fell = {id: draw(0, id) for id in answers(report, "clean")}
    assert set(fell.values()) == {"edited", "noise"}
    for view in ("edited", "noise"):
        assert set(answers(report, view)) == {id for id, drawn in fell.items() if drawn == view}
    for pair in rows(report, "pairs.jsonl", Pair):
        assert pair.views == (fell[pair.sample_id],)


def test_rounds_edit_the_round_s_own_answers_and_read_one_file(store, file, tmp_path):
    aug = {"edited": SwapWords(), "file": AnswerFile(path=file)}
    experiment = those(aug=aug, method=SevaMethod(rounds=2))
    found = stages(experiment, tmp_path)
    assert found["answers.file.round1"].key == found["answers.file.round2"].key
    assert found["answers.edited.round1"].key != found["answers.edited.round2"].key
    assert found["answers.edited.round2"].inputs["clean"] == found["answers.clean.round2"]
    report = go(experiment, tmp_path, store)
    chosen = answers(report, "clean.round2")
    for id, [answer] in answers(report, "edited.round2").items():
        text = chosen[id][0].text
        assert answer.text == SwapWords()(text, python_rng(0, "rejected/swap_words", id))


def test_stic_edits_the_careful_answers_and_asks_again_carefully(store, tmp_path):
    aug = {"edited": SwapWords(), "again": AnotherCandidate(), "bad": BadPrompt(prompts="tiny")}
    method = stic().method.model_copy(update={"weights": {}, "negatives": "all"})
    experiment = stic(aug=aug, method=method, data=ShapesData(samples=SAMPLES), benchmark={})
    dpo = experiment.dpo.model_copy(update={"warmup_ratio": 0.0})
    experiment = experiment.model_copy(update={"dpo": dpo})
    report = go(experiment, tmp_path, store, stop_after="align")
    clean = answers(report, "clean")
    assert len({said[0].asked for said in clean.values()}) > 1
    for view in ("edited", "again"):
        for id, [answer] in answers(report, view).items():
            assert answer.asked == clean[id][0].asked
    assert any(answers(report, "bad")[id][0].asked != said[0].asked for id, said in clean.items())
    assert experiment.dpo.loss == STIC_LOSS


def test_another_candidate_is_its_own_by_number_and_the_same_by_name(store, tmp_path):
    aug = {
        "a": AnotherCandidate(temperature=1.5),
        "b": AnotherCandidate(temperature=1.5),
        "second": AnotherCandidate(temperature=1.5, number=2),
    }
    found = stages(those(aug=aug), tmp_path)
    assert found["answers.a"].key == found["answers.b"].key != found["answers.second"].key
    report = go(those(aug=aug), tmp_path, store, stop_after="answers")
    said = [[a.text for [a] in answers(report, view).values()] for view in ("a", "b", "second")]
    assert said[0] == said[1] != said[2]


def test_greedy_answers_have_no_other_candidate():
    greedy = {"again": AnotherCandidate(temperature=None)}
    with pytest.raises(ValueError, match=r"aug\.again: .*aug\.again\.temperature"):
        those(aug=greedy)
    sampled = HfGeneration(max_new_tokens=8, temperature=0.2)
    assert those(aug=greedy, generation=sampled)
    not_asked = SevaMethod(negatives="one", weights={"again": 0})
    assert those(aug=greedy | {"flip": HorizontalFlip()}, method=not_asked)


def test_a_server_can_be_asked_again_and_its_answers_edited(tmp_path):
    served = ServerGeneration(served_model="x", max_new_tokens=8)
    aug = {"again": AnotherCandidate(), "edited": SwapWords()}
    found = stages(those(aug=aug, generation=served), tmp_path)
    assert found["answers.again"].generation == served.model_copy(update={"temperature": 0.8})
    assert found["answers.edited"].inputs["clean"].generation == served


def test_filters_that_count_tokens_are_refused_by_name():
    rules = (EqualFilter(), LengthRatioFilter(max=2, unit="tokens"))
    with pytest.raises(ValueError, match=r"filters\.1\.unit=tokens: aug\.edited tells no tokens"):
        those(aug={"edited": SwapWords(), "flip": HorizontalFlip()}, filters=rules)
    assert those(aug={"again": AnotherCandidate()}, filters=rules), "a model's have tokens"


def test_a_loss_is_refused_by_its_own_name_where_no_source_has_what_it_needs(monkeypatch):
    for loss in ("image", {"sigmoid": 1.0, "image": 0.5}):
        spec = DpoTraining(loss=loss)
        with pytest.raises(ValueError, match=r"term 'image' needs a picture .*\(aug: edited\)"):
            those(aug={"edited": SwapWords()}, dpo=spec)
        assert those(aug={"edited": SwapWords(), "noise": DiffusionNoise()}, dpo=spec)

    class Twin(type(OURS["image"])):
        """Another loss of the same need."""

        name = "twin"

    monkeypatch.setitem(OURS, "twin", Twin())
    monkeypatch.setattr("seva_exp.training.spec.LOSSES", ("twin", "sigmoid"))
    monkeypatch.setattr("seva_exp.training.spec.OUR_LOSSES", ("twin",))
    twin = DpoTraining(loss="twin")
    assert twin.needs == {"images": "twin"}
    with pytest.raises(ValueError, match=r"term 'twin' needs .*\(aug: bad\)"):
        those(aug={"bad": BadPrompt(prompts="tiny")}, dpo=twin)


def test_every_need_of_a_loss_is_a_known_one():
    for loss in OURS.values():
        assert isinstance(loss, Loss) and loss.needs <= NEEDS.keys()
    assert {name for name, loss in OURS.items() if loss.needs} == {
        "image", "ordered_images", "calibration", "symmetric", "view_anchor", "margin_gap", "chip",
    }  # fmt: skip


NOISES = {"weak": DiffusionNoise(step=300), "strong": DiffusionNoise(step=800)}
ORDER = r"dpo.loss: its term 'ordered_images' orders pictures by strength, and "


@pytest.mark.parametrize(
    ("aug", "said"),
    [
        ({"noise": DiffusionNoise()}, r"there is one picture \(aug: noise\)"),
        ({"noise": DiffusionNoise(), "edit": SwapWords()}, r"there is one picture \(aug: noise\)"),
        (NOISES | {"flip": HorizontalFlip()}, "aug.flip: kind=horizontal_flip has none. Leave"),
        (NOISES | {"mask": ObjectMask()}, "aug.mask is object_mask, aug.weak is diffusion_noise"),
        (NOISES | {"same": DiffusionNoise(step=800)}, "aug.same and aug.strong are equally strong"),
    ],
)
def test_an_ordered_loss_is_refused_pictures_without_an_order_by_name(aug, said):
    dpo = DpoTraining(loss={"sigmoid": 1.0, "ordered_images": 1.0})
    with pytest.raises(ValueError, match=ORDER + ".*" + said):
        those(aug=aug, dpo=dpo)
    assert those(aug=NOISES | {"edit": SwapWords()}, dpo=dpo)


def test_an_ordered_loss_is_refused_one_view_a_sample():
    dpo, method = DpoTraining(loss="ordered_images"), SevaMethod(negatives="one")
    with pytest.raises(ValueError, match=ORDER + "method.negatives=one shows each sample one"):
        those(aug=NOISES, dpo=dpo, method=method)


def test_a_loss_with_pictures_trains_beside_texts(store, file, tmp_path):
    """The pairs' texts have no picture: their view term is that of the noise alone."""
    aug = {"file": AnswerFile(path=file), "noise": DiffusionNoise(step=900)}
    dpo = DpoTraining(loss={"sigmoid": 1.0, "image": 1.0}, learning_rate=1e-3, warmup_ratio=0.0)
    report = go(those(aug=aug, dpo=dpo), tmp_path, store)
    pairs = {pair.sample_id: pair for pair in rows(report, "pairs.jsonl", Pair)}
    with (Path(report.dir) / "reference" / "reference.jsonl").open() as lines:
        for row in map(json.loads, lines):
            views = pairs[row["sample_id"]].views
            assert len(row["views"]) == views.count("noise")
            assert len(row["rejected"]) == len(views)
    assert (Path(report.dir) / "adapter" / "adapter_model.safetensors").exists()


def test_pages_show_texts_without_a_picture(store, file, tmp_path):
    aug = {"edited": SwapWords(), "file": AnswerFile(path=file)}
    experiment = those(aug=aug)
    machine = Machine(store=str(store), runs=str(tmp_path / "runs"), progress="off")
    report = run(experiment, machine, Options(stop_after="align"), listeners=[HtmlReport()])
    pairs = stages(experiment, tmp_path)["pairs"]
    folder = Path(report.dir)
    examples = pairs.examples(lambda stage: (folder / stage.label).resolve(), 3)
    assert len(examples) == 3
    card = example_card(examples[1])
    assert card["clean"] and all(view["picture"] is None for view in card["views"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "one of two" in page and "two of two" in page
    read = ComparedRun.read(folder)
    assert read.views().keys() == {"clean", "edited", "file"}
    cards = same_samples(Comparison.of([read]))
    assert len(cards) == 8 and {view["name"] for card in cards for view in card["views"]} == {
        "edited", "file",
    }  # fmt: skip
