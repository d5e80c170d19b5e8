"""The hardest of several views' answers on the embedded model: method=hardest_of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from seva_exp import InputError, Machine, Options, run
from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.core.records import Answer, CandidateScores, Pair, Report, Sample
from seva_exp.core.spec import digest
from seva_exp.experiment.graph import graph
from seva_exp.experiment.so_far import pairs_so_far
from seva_exp.inputs.images import load_image
from seva_exp.preferences.filters import Candidate
from seva_exp.preferences.pairs import Candidates, make_pairs
from seva_exp.training.collate import Preference

from .command.test_config import composed
from .test_methods import manifest, rows
from .training.tools import logprob, tiny

SMALL = ["data.samples=24", "benchmark=none", "tracker=none", "dpo.warmup_ratio=0"]
WORDS = ["method=hardest_of", "+aug=noise_steps"]
VIEWS = ("noise_500", "noise_650", "noise_800")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Report:
    folder = tmp_path_factory.mktemp("hardest")
    machine = Machine(store=str(folder / "store"), runs=str(folder / "runs"), progress="off")
    return run(parse(composed(*SMALL, *WORDS)).experiment, machine, Options())


def answers(report: Report) -> dict[str, dict[str, Answer]]:
    """By view, by sample."""
    return {
        view: {a.sample_id: a for a in rows(report, f"answers.{view}/answers.jsonl", Answer)}
        for view in ("clean", *VIEWS)
    }


def test_the_rejected_answer_is_the_likeliest_with_the_clean_picture_that_differs(done):
    """Loop: log p of each answer, one sequence alone, per token."""
    vlm, said = tiny(), answers(done)
    root = Path(done.dir) / "samples" / "images"
    pairs = {pair.sample_id: pair for pair in rows(done, "pairs.jsonl", Pair)}
    found: Counter[str] = Counter()
    for sample in rows(done, "samples/samples.jsonl", Sample):
        means = {}
        for view in VIEWS:
            answer = said[view][sample.id]
            if answer.text != said["clean"][sample.id].text:
                row = Preference(
                    sample.id, sample.prompt, lambda s=sample: load_image(root, s.image),
                    answer.tokens, (),
                )  # fmt: skip
                means[view] = logprob(vlm, row, answer.tokens) / len(answer.tokens)
        assert (sample.id in pairs) == bool(means)
        if means:
            [view], [text] = pairs[sample.id].views, pairs[sample.id].rejected
            assert text == said[view][sample.id].text
            assert means[view] >= max(means.values()) - 1e-4
            found[view] += 1
    assert len(found) > 1
    summary = manifest(done, "pairs")["summary"]
    assert summary["kept_by_view"] == {view: found[view] for view in VIEWS}
    assert sum(of.get("easier", 0) for of in summary["removed_by_view"].values()) > 0
    assert manifest(done, "align")["summary"]["adapter_changed"]


def test_its_scores_are_kept_for_each_view(done):
    scores = rows(done, "scores.likelihood/scores.jsonl", CandidateScores)
    assert len(scores) == 24 and all(len(one.scores) == len(VIEWS) for one in scores)


def test_pairs_so_far_are_told_once_they_are_chosen(done):
    found = pairs_so_far(Path(done.dir), 99)
    assert found.latest == tuple(rows(done, "pairs.jsonl", Pair)) != ()


def answer(text: str, view: str = "v") -> Answer:
    return Answer("a", view, "?", text, (), "eos")


def made(*given: tuple[str, str, float | None]):
    sample = Sample("a", None, "?")
    candidates = tuple(
        Candidate("a", view, answer("chosen"), answer(text), likelihood=value)
        for view, text, value in given
    )
    [found] = make_pairs(lambda: iter([Candidates(sample, candidates)]), (), 0, hardest=True)
    return found


def test_the_chosen_answer_itself_is_never_the_hardest():
    found = made(("a", "chosen", -0.1), ("b", "other", -9.0))
    assert found.result.rejected == ("other",)
    assert [(view, why.reason) for view, why in found.removed] == [("a", "equal")]


def test_of_equal_ones_the_first_counts_and_what_has_no_likelihood_is_last():
    found = made(("a", "x", None), ("b", "y", -2.0), ("c", "z", -2.0))
    assert found.result.views == ("b",)
    assert {view: why.reason for view, why in found.removed} == {"a": "easier", "c": "easier"}
    assert made(("a", "x", None), ("b", "y", None)).result.views == ("a",)


def keys(folder: Path, *words: str) -> dict[str, str]:
    experiment = parse(composed(*SMALL, *words)).experiment
    return {stage.label: stage.key for stage in graph(experiment, FileDigests(folder))}


def test_only_what_follows_the_answers_is_another(tmp_path):
    every, hardest = keys(tmp_path, "+aug=noise_steps"), keys(tmp_path, *WORDS)
    assert hardest.keys() - every.keys() == {"scores.likelihood"}
    changed = {label for label, key in every.items() if hardest[label] != key}
    assert changed == {"pairs", "reference", "align"}
    assert digest(every) != digest(hardest)


REFUSED = {
    "method.negatives=hardest: there is one view": ["method=hardest_of", "+aug=moco"],
    "aug.swap_words: kind=swap_words asks no model": [
        "method=hardest_of", "+aug=[moco,swap_words]",
    ],
    "generation=server": [
        "method=hardest_of", "+aug=[moco,byol]", "generation=server",
    ],
    "method.negatives=hardest shows each sample one": [*WORDS, "dpo=lpoi"],
    "method.negatives=hardest: no view is drawn": ["method=best_of_k", "+score=agreement",
                                          "+method.negatives=hardest"],
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_refused_by_name(said):
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        parse(composed(*SMALL, *REFUSED[said]))
