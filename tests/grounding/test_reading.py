"""What a model reads of given answers is what its own forward pass says, picture by picture."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from PIL import Image

from seva_exp import Machine
from seva_exp.augment import DiffusionNoise
from seva_exp.benchmarks.question import Question
from seva_exp.core.records import Prediction
from seva_exp.grounding.pictures import SIDE, mean_picture
from seva_exp.grounding.pieces import Piece
from seva_exp.grounding.reading import Reading, reading
from seva_exp.grounding.spec import Explain
from seva_exp.inputs.views import View
from seva_exp.models import TinyModel
from seva_exp.models.vlm import load
from seva_exp.training.collate import model_inputs

from ..models import families
from . import truth

MACHINE = Machine(device="cpu", dtype="float32")
BASELINE = [partial(truth.draw, scene) for scene in truth.scenes(3, 50)]
VIEW = View("noise", DiffusionNoise(), 0)


def piece(number: int, load, base: str, aligned: str) -> Piece:
    question = Question(f"q{number}", f"p{number}", "describe", "What is it?", "", 20, load)
    said = [Prediction(f"q{number}", f"p{number}", "d", "What is it?", t, "", "", 1) for t in
            (base, aligned)]  # fmt: skip
    return Piece(question, *said, shown=True, measured=True)


def plain(vlm, image, text, features=None) -> torch.Tensor:
    """log p of each token of an answer, by the model's own forward pass."""
    prompt, ids = vlm.encode(image, "What is it?"), vlm.answer_ids("What is it?", text)
    inputs = model_inputs(vlm, [prompt], [ids])
    del inputs["completion_mask"]
    if features is not None:
        pixels = [name for name in inputs if name in image.pixels]
        inputs = {n: v for n, v in inputs.items() if n not in pixels}
        inputs["mm_encoder_outputs"] = {"image": features}
    with torch.no_grad():
        logits = vlm.model(**inputs).logits[0]
    at = torch.arange(len(prompt.ids) - 1, len(prompt.ids) - 1 + len(ids))
    return logits[at].log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]


def test_numbers_are_the_model_s_own(monkeypatch):
    vlm = load(TinyModel(), MACHINE)
    picture = truth.draw(truth.scenes(1)[0])
    pieces = [piece(0, lambda: picture, "A red circle", "A blue moon here"),
              piece(1, BASELINE[1], "A ring", "A ring")]  # fmt: skip
    how = Reading(vlm, Explain(), truth.placement(), BASELINE, VIEW)
    with reading(how) as read:
        first, second = read(pieces)
    assert [one["by"] for one in first["answers"]] == ["base", "aligned"]
    assert [one["by"] for one in second["answers"]] == ["both"]
    answer = first["answers"][1]
    clean = vlm.encode_image(picture)
    mean = mean_picture(load() for load in BASELINE).resize(picture.size, Image.Resampling.BICUBIC)
    worse = VIEW.pixels(vlm, clean, "q0")
    logp, without, noised = (
        plain(vlm, image, "A blue moon here") for image in (clean, vlm.encode_image(mean), worse)
    )
    assert sum(answer["logp"]) == pytest.approx(logp[:-1].sum().item(), abs=1e-3)
    assert sum(answer["g"]) == pytest.approx((logp - without)[:-1].sum().item(), abs=1e-3)
    assert sum(answer["g_view"]) == pytest.approx((logp - noised)[:-1].sum().item(), abs=1e-3)
    # a hidden cell: the same pass with one row of features replaced by hand
    see = partial(vlm.model.base_model.get_image_features, return_dict=True)
    features = see(**vlm.image_inputs([clean]))
    every = [see(**vlm.image_inputs([vlm.encode_image(load())])).pooler_output for load in BASELINE]
    rows = [torch.as_tensor(one[0]) for one in every]
    changed = torch.as_tensor(features.pooler_output[0]).clone()
    changed.view(-1, changed.shape[-1])[7] = torch.cat(rows).view(-1, changed.shape[-1]).mean(0)
    features.pooler_output = [changed]
    lost = (logp - plain(vlm, clean, "A blue moon here", features))[:-1].sum().item()
    cells = [word[7] for word in answer["maps"]["occlusion"]["values"]]
    assert sum(cells) == pytest.approx(lost, abs=1e-3)
    assert abs(lost) > 1e-3, "hiding this cell changes something"


def test_the_mean_picture_is_the_mean():
    found = mean_picture(Image.new("RGB", (8, 4), (v, 0, 10)) for v in (0, 100, 200))
    assert found.size == (SIDE, SIDE)
    assert found.getpixel((3, 3)) == (100, 0, 10)


@pytest.fixture(scope="module")
def vlm_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda name: load(families.build(name, root / name), MACHINE))


GRIDS = {"llava15": True, "gemma3": True, "paligemma2": True, "qwen3_vl": True, "qwen25_vl": True}
"""Of the others a picture's tokens are tiles."""


@families.slow_but("qwen3_vl", "idefics3")
def test_every_family_is_read_and_maps_are_made_or_refused_by_name(vlm_of, name, numbers_in_words):
    vlm = vlm_of(name)
    maps = ("occlusion", "activation", "relative_attention")
    load_one = partial(families.draw, 96, 64, 1)
    how = Reading(vlm, Explain(maps=maps), truth.placement(), [load_one])
    with reading(how) as read:
        [row] = read([piece(0, load_one, "red round", "blue")])
    assert len(row["answers"]) == 2
    assert all(len(one["logp"]) == len(one["g"]) > 0 for one in row["answers"])
    if name in GRIDS:
        for one in row["answers"]:
            rows, columns = one["maps"]["occlusion"]["grid"]
            values = [of for m in maps for of in one["maps"][m]["values"]]
            assert {len(of) for of in values} == {rows * columns}
            assert any(any(of) for of in one["maps"]["occlusion"]["values"])
    elif not row["answers"][0]["maps"]:
        assert set(row["no_maps"]) == set(maps)
        assert vlm.model.config.model_type in row["no_maps"]["occlusion"]
