"""Contrastive decoding gives every family the answers of the loop written out, token for token in
float32, greedy and drawn."""

from __future__ import annotations

from functools import cache, partial

import pytest

from seva_exp import Machine
from seva_exp.augment import DiffusionNoise, DisturbedPrompt, LowResolution
from seva_exp.core.interfaces import Request
from seva_exp.decoding.contrast import Constant, M3id
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.sampling import Sampling
from seva_exp.inputs.views import View
from seva_exp.models.vlm import load

from ..models import families
from .alone import by_id
from .contrasts import written_out

pytestmark = pytest.mark.usefixtures("numbers_in_words")
MACHINE = Machine(device="cpu", dtype="float32")
SIZES = [(60, 30), (32, 48)]
PROMPTS = ["Describe the image.", "What is in it?", "Why?"]


def request(picture: int, question: int) -> Request:
    load = partial(families.draw, *SIZES[picture], picture)
    bound = 3 + 2 * question + picture
    return Request(f"{picture}/{question}", f"p{picture}", load, PROMPTS[question], bound)


REQUESTS = [request(0, 2), *(request(1, question) for question in range(2))]
DRAWN = Sampling(1.0, 0.95, 3, "sampling/clean")
CASES = {
    "noise": (Constant(), DiffusionNoise(step=600), None),
    "noise drawn": (Constant(alpha=0.5, cutoff=0.3), DiffusionNoise(step=600), DRAWN),
    "picture": (Constant(cutoff=0), LowResolution(side=4), None),
    "prompt": (Constant(), DisturbedPrompt(), None),
    "no picture drawn": (M3id(decay=0.5, cutoff=0.2, confident=1), None, DRAWN),
    "no picture": (M3id(decay=0.7), None, None),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: load(families.build(name, root / name), MACHINE))


ALL = [*families.FAMILIES, *families.VARIANTS]


@families.slow_but("llava15", "gemma3", "qwen3_vl", "paligemma2", of=ALL)
def test_answers_are_those_of_the_loop_written_out(name, model):
    """Quick: a plain family, one with windows and pictures seen both ways, one with three axes, one
    with prompts seen both ways."""
    vlm, changed = model(name), 0
    plain = {id: one.tokens for id, one in by_id(Engine(vlm, 8).run(REQUESTS)).items()}
    for case, (rule, source, how) in CASES.items():
        view = View("beside", source, 1) if source else None
        expected = {one.id: written_out(vlm, one, rule, view, how) for one in REQUESTS}
        for rows in (2, 7)[how is not None :]:
            engine = Engine(vlm, rows, contrast=rule, view=view, sampling=how)
            found = {id: one.tokens for id, one in by_id(engine.run(REQUESTS)).items()}
            assert found == expected, case
        changed += how is None and expected != plain
    assert changed >= 3, "a contrast that changes nothing proves nothing"
