"""A run, then ``python -m seva_exp.explain`` of it: the same answers under both models, in one
artifact; metrics in the report; nothing is trained again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from seva_exp import Experiment, InputError, Machine
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks import ShapesBenchmark
from seva_exp.command.explain_run import _command, _name, main
from seva_exp.data import ShapesData
from seva_exp.experiment import run
from seva_exp.experiment.objective import check_objective, value_of
from seva_exp.grounding.agreeing import agreeing
from seva_exp.grounding.metrics import METRICS
from seva_exp.grounding.rows import Word
from seva_exp.grounding.spec import Explain
from seva_exp.preferences.ambiguity import Ambiguity
from seva_exp.runs.listing import find_run
from seva_exp.runs.reader import FinishedRun
from seva_exp.stages.artifacts import ExplainArtifact
from seva_exp.training import DpoTraining

from .command.test_config import composed
from .test_keys import stages_of

EXPERIMENT = Experiment(
    aug={"diffusion_noise": DiffusionNoise(step=700)},
    data=ShapesData(samples=24),
    dpo=DpoTraining(learning_rate=3e-3, warmup_ratio=0.0),
    benchmark={"shapes": ShapesBenchmark(images=4)},
)


@pytest.fixture(scope="module")
def explained(tmp_path_factory) -> tuple[FinishedRun, FinishedRun]:
    """A run, and the one that explains it."""
    folder = tmp_path_factory.mktemp("explained")
    machine = Machine(
        device="cpu", progress="off", store=str(folder / "store"), runs=str(folder / "runs")
    )
    first = run(EXPERIMENT, machine)
    assert main([first.dir, "measured=12", "fixed=2", "broken=2", "unchanged=2"]) == 0
    return FinishedRun.read(Path(first.dir)), FinishedRun.read(folder / "runs" / "latest")


def test_only_the_explanation_is_computed(explained):
    before, after = explained
    stages = {stage.name: stage for stage in after.report.stages}
    assert [name for name, one in stages.items() if not one.cached] == ["explain.shapes"]
    assert {s.name: s.key for s in before.report.stages} == {
        name: one.key for name, one in stages.items() if name != "explain.shapes"
    }


def test_both_runs_are_told_apart_by_name(explained):
    before, after = explained
    assert after.report.name == f"{before.report.name}-explained"
    runs = before.folder.parent
    assert find_run(before.report.name, runs).path == before.folder
    assert find_run(after.report.name, runs).path == after.folder.resolve()
    assert _name(after) == after.report.name, "explained once more it is called the same"
    typed = replace(before, report=replace(before.report, name="mine"))
    object.__setattr__(
        typed, "command", ("python", "-m", "seva_exp", "+aug=moco", "name=mine", "+explain.words=2")
    )
    words = ["+aug=moco", "explain=words", "explain.words=5", "name=mine-explained"]
    assert _command(typed, ["words=5"]) == words


def _weight(word: Word) -> float:
    return word.is_word * max(abs(word.base.g), abs(word.aligned.g))


def test_words_of_both_models_answers_are_read_by_both(explained):
    run = explained[1]
    artifact = ExplainArtifact(run.artifact("explain.shapes"))
    texts = {
        model: {p.sample_id: p.text for p in run.predictions(model, "shapes")}
        for model in ("base", "aligned")
    }
    samples = [*artifact.samples()]
    assert samples
    assert len([*artifact.measured()]) == 12
    for sample in samples:
        said = {answer.by: answer.text for answer in sample.answers}
        both = texts["base"][sample.id], texts["aligned"][sample.id]
        assert said in ({"both": both[0]}, {"base": both[0], "aligned": both[1]})
        for answer in sample.answers:
            assert answer.words
            assert all(w.text == answer.text[w.start : w.end] for w in answer.words)
            assert any(w.base != w.aligned for w in answer.words)
            assert all(w.base.g_view is not None for w in answer.words)
            assert all(len(m.base) == len(m.aligned) == 36 for m in answer.maps)
            heavy = max(
                range(len(answer.words)), key=[_weight(w) for w in answer.words].__getitem__
            )
            assert heavy in {one.word for one in answer.maps}
        clean, worse = artifact.pictures()[sample.id]
        assert clean.is_file()
        assert worse.is_file()


def test_metrics_are_in_the_report_and_can_be_searched_by(explained):
    before, after = explained
    names = {m.name for m in METRICS}
    found = {(s.model, s.metric) for s in after.report.scores if s.split == "words"}
    assert found == {(model, name) for model in ("base", "aligned") for name in names}
    assert {d.metric for d in after.report.final_deltas if d.split == "words"} == names
    assert not [s for s in before.report.scores if s.split == "words"]
    name = "benchmark/shapes/words/on_picture/delta"
    assert isinstance(value_of(name, after), float)
    half = EXPERIMENT.model_copy(
        update={"benchmark": {"shapes": ShapesBenchmark(images=4, split="selection")}}
    )
    with pytest.raises(InputError, match="Add explain=words"):
        check_objective(name, half)
    check_objective(name, half.model_copy(update={"explain": Explain()}))


def test_bad_words_are_refused_before_anything_is_loaded(explained, capsys):
    folder = str(explained[0].folder)
    for words, said in (
        ([folder, "wrds=5"], "Did you mean 'words'"),
        ([folder, "words=-1"], "explain.words=-1"),
        ([folder, "maps=[oclusion]"], "occlusion"),
        ([f"{folder}x"], "no such folder"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_what_the_store_lost_is_not_trained_again(explained, tmp_path, capsys):
    folder = explained[0].folder
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    copied = tmp_path / "run"
    copied.mkdir()
    (copied / "report.json").write_bytes((folder / "report.json").read_bytes())
    (copied / "config.yaml").write_text(config.replace("samples: 24", "samples: 25"))
    assert main([str(copied)]) == 2
    assert "would be computed anew" in capsys.readouterr().err


def test_explain_changes_no_other_key(tmp_path):
    plain = stages_of(tmp_path, "+aug=diffusion_noise")
    found = stages_of(tmp_path, "+aug=diffusion_noise", "explain=words")
    assert {n: s.key for n, s in found.items() if n != "explain.shapes"} == {
        n: s.key for n, s in plain.items()
    }
    assert "78 a shown one" in found["explain.shapes"].cost_note()


def test_yaml_is_the_class_with_weak_views():
    values = composed("+aug=moco", "explain=words", "explain.agreement=null")["explain"]
    assert Explain.model_validate_json(json.dumps(values)) == Explain()
    with pytest.raises(ValueError, match="takes other pictures"):
        Explain(agreement=Ambiguity(views={"b": {"kind": "blend"}}))


def test_agreement_counts_classes():
    ask = Ambiguity(views={"a": DiffusionNoise()})
    found = agreeing(ask, "Red.", ["red", "blue", "red"])
    assert (found.asked, found.equal, found.agreement) == (4, 3, 0.5)
    assert found.entropy == pytest.approx(0.5623, abs=1e-4)
    alone = agreeing(ask, "red", ["red"])
    assert (alone.equal, alone.agreement, alone.entropy) == (2, 1.0, 0.0)


def test_nothing_to_explain_is_refused():
    with pytest.raises(ValueError, match="nothing is explained"):
        Explain(fixed=0, broken=0, unchanged=0, measured=0)
    with pytest.raises(ValueError, match="there is none"):
        Experiment(aug={"a": DiffusionNoise()}, benchmark={}, explain=Explain())
