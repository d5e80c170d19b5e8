"""Contrastive decoding on the embedded model: the formulas, and two rows that come and go together,
whatever memory there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from seva_exp import StageError
from seva_exp.augment import BadPrompt, DiffusionNoise, DisturbedPrompt, LowResolution
from seva_exp.core.interfaces import TOO_LONG
from seva_exp.decoding import HfGeneration, VllmGeneration, engine
from seva_exp.decoding import cuda_graphs as recorded
from seva_exp.decoding import scheduler as loop
from seva_exp.decoding.contrast import CONTRASTS, Constant, CutoffOnly, M3id, YesBias
from seva_exp.decoding.engine import Engine
from seva_exp.decoding.prefetch import PicturePrefetcher
from seva_exp.decoding.sampling import Sampling
from seva_exp.inputs.views import View

from ..slow import slow_but
from . import scenes
from .alone import by_id
from .contrasts import written_out
from .recording import Frozen, recorded_with
from .scenes import asked, request

WARM = Sampling(1.3, 0.95, 3, "sampling/clean")
NOISE = View("beside", DiffusionNoise(step=700), 0)
SINGLE, SHARED = scenes.SINGLE[:6], scenes.SHARED[:8]
SOME = [replace(one, max_new_tokens=14) for one in (*SHARED[:2], SINGLE[4])]
"""Two questions on one picture and one on another."""
RULES = {
    "vcd": (Constant(), NOISE),
    "far": (Constant(alpha=3, cutoff=0), NOISE),
    "towards": (Constant(alpha=-1, cutoff=0.01), NOISE),
    "icd": (Constant(), View("beside", DisturbedPrompt(), 0)),
    "m3id": (M3id(decay=0.6), None),
    "m3id of all": (M3id(decay=0.6, confident=1, cutoff=0.3), None),
    "cutoff_only": (CutoffOnly(temperature=1, cutoff=0.9), None),
    "yes_bias": (YesBias(bias=30), None),
}


@pytest.fixture(scope="module")
def yes(vlm):
    """The ids of the embedded model's yes."""
    assert len(vlm.answer_ids("?", "yes")) > 2, "not one token"
    return {vlm.answer_ids("?", "Yes")[0]}


QUICK = ["vcd", "icd", "m3id of all", "cutoff_only", "yes_bias"]


@pytest.mark.parametrize("name", slow_but(QUICK, of=RULES))
def test_answers_are_those_of_the_formula_written_out(vlm, yes, name):
    rule, view = RULES[name]
    for how in (None, WARM):
        expected = {one.id: written_out(vlm, one, rule, view, how, yes) for one in SOME}
        assert asked(vlm, SOME, sampling=how, contrast=rule, view=view) == expected
        differ = expected != asked(vlm, SOME, sampling=how)
        assert differ or (name == "cutoff_only" and how is None) or name == "m3id"


def test_a_bias_is_of_the_first_token_alone(vlm, yes):
    found = asked(vlm, SHARED, contrast=YesBias(bias=1e4))
    assert all(tokens[0] in yes for tokens in found.values())
    assert not any(token in yes for tokens in found.values() for token in tokens[1:])
    with pytest.raises(StageError, match="none is one token of this"):
        Engine(vlm, 2, contrast=YesBias(words=("Jawohl",)))


def test_log_probabilities_are_the_model_s_own(vlm):
    plain = by_id(Engine(vlm, 4, logprobs=True).run(SHARED))
    found = by_id(Engine(vlm, 4, logprobs=True, contrast=Constant(), view=NOISE).run(SHARED))
    same = [id for id in found if found[id].tokens == plain[id].tokens]
    assert 0 < len(same) < len(found)
    for id in same:
        assert found[id].logprobs == pytest.approx(plain[id].logprobs, abs=1e-4)
    assert all(len(one.logprobs) == len(one.tokens) for one in found.values())


# Two rows that come and go together


@pytest.fixture(scope="module")
def wanted(vlm):
    """name -> the answers to SINGLE and SHARED, in any number of rows."""
    return {
        name: [asked(vlm, of, 64, **options(name)) for of in (SINGLE, SHARED)] for name in MEMORY
    }


MEMORY = ["vcd", "icd", "m3id of all"]


def options(name):
    rule, view = RULES[name]
    return {"contrast": rule, "view": view, "sampling": WARM if name == "m3id of all" else None}


@pytest.mark.parametrize("name", MEMORY)
@pytest.mark.parametrize("rows", [1, 5])
def test_any_number_of_rows_gives_the_same(vlm, wanted, extents, name, rows):
    assert [asked(vlm, of, rows, **options(name)) for of in (SINGLE, SHARED)] == wanted[name]
    assert max(extent.rows for extent in extents) <= max(2, rows), "both rows of an answer count"


@pytest.mark.parametrize("name", MEMORY)
def test_under_pressure_both_rows_are_put_back_and_done_again(
    vlm, wanted, extents, monkeypatch, name
):
    monkeypatch.setattr(loop, "PROMISED", 1)
    back, real = [], PicturePrefetcher.put_back
    monkeypatch.setattr(
        PicturePrefetcher, "put_back", lambda self, some: back.extend(some) or real(self, some)
    )
    tokens = {"icd": 240}.get(name, 220)
    found = [asked(vlm, of, tokens=tokens, **options(name)) for of in (SINGLE, SHARED)]
    assert found == wanted[name]
    assert max(extent.tokens for extent in extents) <= tokens
    assert back


@pytest.mark.parametrize("name", slow_but(["m3id of all"], of=MEMORY))
def test_a_prefix_that_only_waiting_rows_need_makes_room(vlm, monkeypatch, name):
    """And what stands beside them, too."""
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", 10**6)
    long = request(0, picture=0, tokens=90)
    short = [request(number, picture=1, tokens=3) for number in range(1, 10)]
    given_up, real = [], loop.Scheduler._put_back
    monkeypatch.setattr(
        loop.Scheduler, "_put_back", lambda self, idle: given_up.append(idle) or real(self, idle)
    )
    alone_in_it = asked(vlm, [long], rows=4, tokens=320, **options(name))
    with_others = asked(vlm, [long, *short], rows=4, tokens=320, **options(name))
    assert with_others[long.id] == alone_in_it[long.id] and len(with_others) == 10
    assert given_up


@pytest.mark.parametrize("name", slow_but(["vcd"], of=MEMORY))
def test_when_memory_runs_out_it_starts_again(vlm, wanted, monkeypatch, name):
    left, real = [4], loop.Scheduler._forward

    def forward(*args, **kwargs):
        if left and not left[0]:
            left.clear()
            raise torch.OutOfMemoryError
        left[:] = [number - 1 for number in left]
        return real(*args, **kwargs)

    monkeypatch.setattr(loop.Scheduler, "_forward", forward)
    for which, of in enumerate((SINGLE, SHARED)):
        left[:] = [4]
        assert asked(vlm, of, 6, tokens=3000, **options(name)) == wanted[name][which]
        assert not left, "it never came to it"


def test_what_fits_only_without_the_row_beside_it_is_named(vlm):
    assert asked(vlm, SINGLE[:1], tokens=100)
    with pytest.raises(StageError, match=r"request id0: .* and 100 fit"):
        asked(vlm, SINGLE[:1], tokens=100, **options("vcd"))


@pytest.mark.parametrize("name", slow_but(["vcd"], of=MEMORY))
def test_steps_without_a_look_give_the_same(vlm, wanted, monkeypatch, name):
    """As on a GPU."""
    monkeypatch.setitem(loop.STEPS, "cpu", 8)
    monkeypatch.setattr(loop, "SURPLUS", 1)
    assert asked(vlm, SINGLE, 6, **options(name)) == wanted[name][0]


def test_recorded_steps_give_the_same(vlm, monkeypatch):
    """The same shape again and again."""
    monkeypatch.setattr(recorded, "OFTEN", 1)
    record, some = Frozen(), [replace(one, max_new_tokens=9) for one in SHARED[:2]]
    found = by_id(recorded_with(vlm, record, 8, **options("vcd")).run(some))
    assert {id: one.tokens for id, one in found.items()} == asked(vlm, some, **options("vcd"))
    assert record.played > 3


# What is computed once


def test_all_questions_on_a_picture_share_its_noise(vlm):
    drawn, real = [], vlm.map_pixels

    def map_pixels(image, change):
        drawn.append(image)
        return real(image, change)

    vlm.map_pixels = map_pixels
    try:
        asked(vlm, SHARED, **options("vcd"))
    finally:
        del vlm.map_pixels
    assert len(drawn) == len({one.image_key for one in SHARED}) == 2


def test_a_bad_prompt_shares_the_picture(vlm):
    """Its vision tower runs once, and its keys and values are there once."""
    seen = []
    hook = vlm.model.model.vision_tower.register_forward_hook(lambda *call: seen.append(1))
    counts = {}
    for name in ("icd", "vcd"):
        seen.clear()
        asked(vlm, SINGLE[:4], **options(name))
        counts[name] = len(seen)
    hook.remove()
    assert counts["vcd"] > 0 and counts["icd"] < 2 * len(SINGLE[:4])


def test_what_stands_beside_has_its_own_part_of_the_context(vlm):
    long = View("beside", DisturbedPrompt(sentences=("What color is the circle? " * 100,)), 0)
    found = by_id(Engine(vlm, 4, contrast=Constant(), view=long).run(SINGLE))
    assert {one.stop for one in found.values()} == {TOO_LONG}


def test_a_picture_view_is_of_what_the_request_shows(vlm):
    """Where a run's own view changes pixels, the view beside comes on top."""
    shown = View("diffusion_noise", DiffusionNoise(step=300), 5)
    change = lambda one, image: shown.pixels(vlm, image, one.id)  # noqa: E731
    rule = Constant()
    for view in (NOISE, View("beside", LowResolution(side=6), 0)):
        one = SINGLE[0]
        found = asked(vlm, [one], change=change, contrast=rule, view=view)
        image = change(one, vlm.encode_image(view.image(one.load(), one.image_key)))
        seen = view.pixels(vlm, image, one.image_key)
        assert found[one.id] == _against(
            vlm, one, rule, change(one, vlm.encode_image(one.load())), seen
        )


def _against(vlm, one, rule, image, other):
    """``written_out`` of two encoded pictures."""
    from . import contrasts

    pair = vlm.encode(image, one.prompt), vlm.encode(other, one.prompt)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrasts, "prompts", lambda *_: pair)
        return contrasts.written_out(vlm, one, rule)


# What is refused, and what is in a key


def test_a_model_that_only_transformers_loop_is_right_for_is_refused(vlm, monkeypatch):
    monkeypatch.setattr(engine, "unproven", lambda vlm: "of the test")
    with pytest.raises(StageError, match=r"generation.contrast: of the test. .*our own loop"):
        Engine(vlm, 2, contrast=Constant())


def test_specs():
    assert HfGeneration().identity() == HfGeneration(contrast=None).identity()
    assert "contrast" not in HfGeneration().identity()
    one = HfGeneration(contrast=Constant())
    assert one.identity()["contrast"] == {
        "kind": "constant", "alpha": 1.0, "cutoff": 0.1, "seed": 0,
    }  # fmt: skip
    clean = HfGeneration(contrast=Constant(at=("clean",)))
    assert clean.identity() == one.identity(), "where it is used decides no answer"
    assert one.contrasted_at("clean") == HfGeneration() == clean.contrasted_at(None)
    assert one.contrasted_at("evaluate") is one and clean.contrasted_at("clean") is clean
    with pytest.raises(ValidationError, match=r"kind=vllm does not tell\. Take generation=hf"):
        VllmGeneration.model_validate({"contrast": {"kind": "constant"}})
    assert VllmGeneration.model_validate({"contrast": None}) == VllmGeneration()
    with pytest.raises(ValidationError, match="changes nothing at temperature=0"):
        CutoffOnly()
    with pytest.raises(ValidationError, match=r"Set generation\.temperature above 0"):
        HfGeneration(contrast=CutoffOnly(at=("clean",)))
    assert CONTRASTS.keys() == {"constant", "m3id", "cutoff_only", "yes_bias"}
    assert [CONTRASTS[kind].paired for kind in sorted(CONTRASTS)] == [True, False, True, False]


def test_a_bad_prompt_may_take_the_question_s_place(vlm):
    view = View("beside", BadPrompt(prompts="tiny"), 4)
    rule = Constant(cutoff=0.2)
    expected = {one.id: written_out(vlm, one, rule, view) for one in SHARED[:3]}
    assert asked(vlm, SHARED[:3], contrast=rule, view=view) == expected


@pytest.mark.parametrize("name", ["vcd", "m3id"])
def test_a_question_without_a_picture_is_contrasted_with_itself(vlm, name):
    """As some of HallusionBench's are: its logits are those of the plain answer."""
    text = replace(SOME[0], id="text", image_key="no picture", load=None)
    plain = asked(vlm, [text])
    assert asked(vlm, [text, *SOME], **options(name)) == plain | asked(vlm, SOME, **options(name))
