"""Keys of stages stay what they were: what a store holds is found again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from seva_exp.command.config import parse
from seva_exp.core.digests import FileDigests
from seva_exp.experiment.graph import graph
from seva_exp.stages import STAGES, Align, Stage

from .command.test_config import composed

PINNED = {
    ("+aug=diffusion_noise",): "1eb918366fae9beeac0e195bc0584bcf19f3426c6d23c9fd34ffd307f8209bbc",
    ("method=stic", "sft=stic"): "e22b416d83303331a1e9266d12a0b225c1dd1d7b43ef0d15b2bf0bc8dd51111d",
    (
        "+aug=diffusion_noise",
        "method.rounds=2",
        "dpo=mdpo",
    ): "c21cfee73d2b550751f460c6adb422dc01535977224b30fd5876c4531d0a7a78",
}
"""Words -> the key of ``compare.shapes``, which every other stage of the run is an input of. It
changes only with a stage's ``version``, a default of ``conf/`` or the embedded model."""


def stages_of(folder: Path, *words: str) -> dict[str, Stage]:
    experiment = parse(composed("tracker=none", *words)).experiment
    return {stage.label: stage for stage in graph(experiment, FileDigests(folder))}


@pytest.mark.parametrize("words", PINNED, ids=" ".join)
def test_keys_are_what_they_were(tmp_path, words):
    assert stages_of(tmp_path, *words)["compare.shapes"].key == PINNED[words]


BEST_OF_K = {"scores", "model_scores", "chosen_pairs"}
"""The stages of ``method=best_of_k`` alone (tests/test_best_of_k.py)."""
TEXT_SIDE = {
    *("rewritten", "continued"),
    *("sentence_scores", "model_sentence_scores", "sentence_pairs"),
}
"""Those of negatives that are made of the clean answer (tests/test_text_negatives.py)."""
LATER = {
    *("attacks", "attacked_answers", "hardest_pairs", "replayed_pairs", "external_adapter"),
    "explain",
}
"""Those of ``+aug=adversarial``, ``method=hardest_of``, ``method.curriculum``, ``method=adapter``
and ``explain=words`` alone."""


class Turned(Align):
    """Reads what ``align`` reads, in another order."""

    @property
    def inputs(self) -> dict[str, Stage]:
        return dict(reversed(super().inputs.items()))


def test_the_order_of_inputs_is_part_of_the_key(tmp_path):
    align = stages_of(tmp_path, "+aug=diffusion_noise", "method.rounds=2")["align.round2"]
    assert list(align.inputs) == ["pairs", "samples", "reference", "start"]
    turned = Turned(*(getattr(align, one.name) for one in fields(align)))
    assert turned.spec() == align.spec() and turned.key != align.key


def test_every_stage_of_a_run_tells_what_it_is(tmp_path):
    found = stages_of(tmp_path, "method=stic", "sft=stic").values()
    apart = {"judge", "rejected", "weights"}
    assert {stage.name for stage in found} == {*STAGES} - apart - BEST_OF_K - TEXT_SIDE - LATER
    for stage in found:
        assert type(stage) is STAGES[stage.name]
        assert stage.is_called(stage.label.split(".")[0]) and not stage.is_called(stage.name[:-1])
        assert all(source in found for source in stage.inputs.values()), "made by the same run"
    trained = [stage.label for stage in found if stage.trains]
    assert trained == ["align", "finetune"]
    assert {stage.name for stage in found if stage.measures} == {"evaluate", "compare"}
    assert [stage.label for stage in found if stage.scores_pairs] == ["reference", "align"]
    quiet = {stage.name for stage in found if not stage.needs_model}
    assert quiet == {"samples", "pairs", "infuse", "compare"}
