"""Contrastive decoding from the config to scores and pairs, on the embedded model: where it is
used, what is shared with runs without it, and what is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from seva_exp import InputError, Machine, Options
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.paths import config_dir, options_of
from seva_exp.core.records import Answer, Prediction, Report
from seva_exp.decoding.engines import check_engine
from seva_exp.experiment import run
from seva_exp.experiment.fits import Fit
from seva_exp.experiment.graph import graph
from seva_exp.experiment.memory import Need
from seva_exp.models import HubModel
from seva_exp.stages import Stage

from .command.test_config import composed
from .models import families
from .slow import slow_but
from .test_methods import rows

SMALL = (
    "data.samples=30", "benchmark.shapes.images=8", "tracker=none", "dpo.batch_size=8",
    "dpo.warmup_ratio=0",
)  # fmt: skip
PLAIN = ("+aug=diffusion_noise",)
PREDICTIONS = "evaluate.base.shapes/predictions.jsonl"
OTHER = ("+aug=another_candidate", "aug.another_candidate.temperature=null")


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """Runs that share a store."""
    root = tmp_path_factory.mktemp("contrast")

    @cache
    def of(*words: str, processes: int = 1, **options) -> Report:
        wanted = parse(composed(*SMALL, *words))
        machine = Machine(
            store=str(root / f"store{processes}"), runs=str(root / "runs"), progress="off",
            processes=processes, batch_size=8,
        )  # fmt: skip
        return run(wanted.experiment, machine, Options(**options))

    return of


def stages(folder: Path, *words: str) -> dict[str, Stage]:
    experiment = parse(composed(*SMALL, *words)).experiment
    return {stage.label: stage for stage in graph(experiment, FileDigests(folder))}


def answers(report: Report, view: str) -> dict[str, Answer]:
    return {one.sample_id: one for one in rows(report, f"answers.{view}/answers.jsonl", Answer)}


PRESETS = sorted({*options_of("generation/contrast")} - {"none"})


PAPERS = {"vcd": "2311.16922", "icd": "2403.18715", "m3id": "2403.14003"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_states_each_field_and_opens_with_its_paper(name):
    file = config_dir() / "generation" / "contrast" / f"{name}.yaml"
    assert PAPERS.get(name, "") in file.read_text().split("kind:")[0]
    values = composed(*SMALL, *PLAIN, f"generation/contrast={name}")
    contrast = parse(values).experiment.generation.contrast
    assert contrast.to_json() == values["generation"]["contrast"]
    assert contrast.at == ("evaluate",)


@pytest.mark.parametrize("name", slow_but(["vcd"], of=PRESETS))
def test_a_preset_is_a_baseline_of_evaluation(go, name):
    """Of both models; pairs are those of a run without it."""
    report = go(*PLAIN, f"generation/contrast={name}")
    assert {score.model for score in report.scores} == {"base", "aligned"}
    plain = go(*PLAIN, stop_after="evaluate.base")
    mine, theirs = (
        {
            p.sample_id: p.text
            for p in rows(one, "evaluate.base.shapes/predictions.jsonl", Prediction)
        }
        for one in (report, plain)
    )
    assert mine.keys() == theirs.keys() and mine != theirs
    before = go(*PLAIN, stop_after="answers.clean")
    assert answers(report, "clean") == answers(before, "clean")


def test_no_contrast_leaves_every_key(tmp_path):
    plain = stages(tmp_path, *PLAIN)
    none = stages(tmp_path, *PLAIN, "generation/contrast=none")
    assert {label: one.key for label, one in none.items()} == {
        label: one.key for label, one in plain.items()
    }


CHANGES = {
    "evaluate": {"evaluate.base.shapes", "evaluate.aligned.shapes"},
    "clean": {"answers.clean"},
    "views": {"answers.diffusion_noise"},
}


@pytest.mark.parametrize("place", CHANGES)
def test_what_is_decoded_so_has_another_key_and_what_follows_from_it(tmp_path, place):
    words = [*PLAIN, "generation/contrast=vcd", f"generation.contrast.at=[{place}]"]
    plain, mine = stages(tmp_path, *PLAIN), stages(tmp_path, *words)
    specs = {label for label in plain if plain[label].spec() != mine[label].spec()}
    assert specs == CHANGES[place]
    other = stages(tmp_path, *words, "generation.contrast.alpha=0.5")
    assert all(other[label].key != mine[label].key for label in specs)
    steps = stages(tmp_path, *words, "aug.diffusion_noise.step=600")
    assert all(steps[label].key != mine[label].key for label in specs), "the view is the run's"
    every = stages(tmp_path, *PLAIN, "generation/contrast=vcd",
                   "generation.contrast.at=[clean,views,evaluate]")  # fmt: skip
    first = [label for label in specs if label != "evaluate.aligned.shapes"]
    assert all(every[label].key == mine[label].key for label in first), "where else is no matter"


def test_chosen_by_contrast_and_rejected_without(go):
    words = ("generation/contrast=vcd", "generation.contrast.at=[clean]", *OTHER)
    report = go(*words, stop_after="pairs")
    plain = answers(go(*PLAIN, stop_after="answers.clean"), "clean")
    chosen, rejected = answers(report, "clean"), answers(report, "another_candidate")
    assert {id: one.text for id, one in rejected.items()} == {
        id: one.text for id, one in plain.items()
    }
    differ = [id for id in chosen if chosen[id].text != rejected[id].text]
    assert report.pairs and 0 < report.pairs.kept == len(differ) < len(chosen)


def test_rejected_by_a_contrast_towards_the_view_and_chosen_without(go):
    words = ("generation/contrast=vcd", "generation.contrast.at=[views]", *OTHER)
    report = go(*words, "generation.contrast.alpha=-1", stop_after="pairs")
    plain = answers(go(*PLAIN, stop_after="answers.clean"), "clean")
    assert {id: one.text for id, one in answers(report, "clean").items()} == {
        id: one.text for id, one in plain.items()
    }
    assert report.pairs and report.pairs.kept > 0


@pytest.mark.slow
def test_several_processes_give_the_same(go):
    words = (*PLAIN, "generation/contrast=m3id", "generation.contrast.at=[clean,evaluate]")
    one, two = (go(*words, processes=n, stop_after="evaluate.base") for n in (1, 2))
    first = [go(*words, processes=n, stop_after="answers.clean") for n in (1, 2)]
    assert answers(first[0], "clean") == answers(first[1], "clean")
    assert rows(one, PREDICTIONS, Prediction) == rows(two, PREDICTIONS, Prediction)


REFUSED = {
    "generation=vllm": "kind=vllm does not tell. Take generation=hf",
    "generation=server": "kind=server does not tell. Take generation=hf",
    "generation.contrast.view=diffusion_nose": "no such view. Did you mean 'diffusion_noise'",
    "generation.contrast.view=blend": "kind=blend takes other pictures of the data",
    "generation.contrast.view=another_candidate": "kind=another_candidate is no view",
    "generation.contrast.cutoff=2": "generation.contrast.cutoff=2: input should be less",
    "generation.contrast.at=[all]": "generation.contrast.at.0=all: input should be 'clean'",
    "generation/contrast=cutoff_only generation.contrast.temperature=0": "changes nothing",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_by_name(words):
    own = ("generation/contrast=vcd", "+aug=another_candidate", *words.split())
    with pytest.raises(InputError) as error:
        parse(composed(*SMALL, *own))
    assert REFUSED[words] in str(error.value)


def test_without_a_contrast_a_greedy_candidate_is_refused_as_ever():
    for at in ("evaluate", "clean,views"):
        contrast = ("generation/contrast=vcd", f"generation.contrast.at=[{at}]")
        with pytest.raises(InputError, match="at temperature 0 there is one"):
            parse(composed(*SMALL, *OTHER, *contrast))


def test_a_family_that_our_loop_is_not_proven_for_is_refused_before_its_weights(tmp_path):
    spec = families.build("llava15", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(file.read_text().replace('"llava"', '"vipllava"'))
    generation = parse(composed(*SMALL, *PLAIN, "generation/contrast=vcd")).experiment.generation
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"generation\.contrast: the family vipllava is not proven"
    ):
        check_engine(generation, Machine(), HubModel(path=spec.path))


def test_an_estimate_of_memory_counts_both_rows():
    def found(*words: str) -> dict[str, Need]:
        wanted = parse(composed(*SMALL, "+aug=diffusion_noise", *words))
        machine = Machine(device="cpu", batch_size=1)
        return {one.label: one for one in Fit(wanted.experiment, machine).needs}

    plain, mine = found(), found("generation/contrast=vcd")
    for label in ("evaluate.base.shapes", "evaluate.aligned.shapes"):
        assert mine[label].kinds["2 rows"] == pytest.approx(
            2 * plain[label].kinds["one row"], rel=0.2
        )
        assert (plain[label].rows, mine[label].rows) == (1, 2)
    assert mine["answers.clean"] == plain["answers.clean"]
    assert found("generation/contrast=yes_bias") == plain, "nothing stands beside"
