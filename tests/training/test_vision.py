"""The vision tower runs once per picture, within the memory that it is given, and a trained
projector still learns."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from seva_exp.training import DpoTraining
from seva_exp.training.forward import forward_for, scored
from seva_exp.training.reference import scoring
from seva_exp.training.vision import FeatureCache

from .steps import assert_equal, step
from .tools import placement, preferences, tiny, trained


@pytest.fixture
def counted(monkeypatch):
    """How many pictures each call of the tower saw."""
    from transformers import CLIPVisionModel, SiglipVisionModel

    calls: list[int] = []
    for kind in (CLIPVisionModel, SiglipVisionModel):
        real = kind.forward

        def forward(self, pixel_values, *args, real=real, **kwargs):
            calls.append(len(pixel_values))
            return real(self, pixel_values, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", forward)
    return calls


def epochs(work, **changes):
    spec = DpoTraining(batch_size=3, epochs=3, lora_rank=4, repeat=2)
    return trained(work, spec, n=6, rejected=(2,), **changes)


def test_each_picture_is_encoded_once_in_all_epochs(tmp_path, counted):
    _, rows = epochs(tmp_path / "kept", vision_cache=2**30)
    compared = 3 * 3 + 3  # the first batch both ways: 3 preferences of 3 rows, and packed
    assert sum(counted) == compared + 6
    del counted[:]
    _, again = epochs(tmp_path / "none", vision_cache=0)
    assert sum(counted) > compared + 2 * 12
    assert [row["loss"] for row in rows] == [row["loss"] for row in again]


def test_what_is_kept_stays_below_its_budget():
    vlm = tiny()
    rows = preferences(vlm, 4)
    one = FeatureCache(vlm, 2**30)
    one.features([one.picture(rows[0])])
    [(_, _, size)] = one.kept.values()
    few = FeatureCache(vlm, 2 * size + size // 2)
    expected = one.features([one.picture(row) for row in rows])
    for _ in range(2):
        found = few.features([few.picture(row) for row in rows])
        assert len(few.kept) == 2
        for a, b in zip(found.pooler_output, expected.pooler_output, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("cache", [0, 2**30])
def test_a_trained_projector_gets_trl_s_gradients(tmp_path, cache):
    spec = partial(DpoTraining, lora_rank=4, batch_size=8, train_projector=True)
    ways = [
        step(
            tiny, partial(preferences, n=3, rejected=(1, 2)), spec(fast=fast), tmp_path / fast,
            vision_cache=cache,
        )
        for fast in ("on", "off")
    ]  # fmt: skip
    assert any("modules_to_save" in name for name in ways[0].gradients)
    assert_equal(*ways)


def test_a_trained_projector_runs_on_the_tower_s_kept_output(tmp_path, counted):
    spec = DpoTraining(batch_size=3, epochs=2, lora_rank=4, train_projector=True)
    _, kept = trained(tmp_path / "kept", spec, n=6, vision_cache=2**30)
    compared = 3 * 2 + 3  # the first batch both ways
    assert sum(counted) == compared + 6
    plain = spec.model_copy(update={"fast": "off"})
    _, rows = trained(tmp_path / "plain", plain, n=6)
    for one, other in zip(kept, rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_the_budget_comes_from_the_machine(tmp_path, monkeypatch):
    """A number, or a quarter of the memory that is free (8 GiB, within a container's limit)."""
    from seva_exp import Machine
    from seva_exp.core.digests import FileDigests
    from seva_exp.stages import StageContext, base

    def budget(**machine) -> int:
        context = StageContext(Machine(**machine), FileDigests(tmp_path), lambda *_: None, print)
        return context.placement(tmp_path).vision_cache

    monkeypatch.setattr(base, "free_bytes", lambda: 8.0 * 2**30)
    assert budget(vision_cache=0.5) == 2**29
    assert budget(vision_cache=0) == 0
    assert budget() == 2**31
    assert placement(tmp_path).vision_cache == 0


def test_features_are_kept_as_long_as_the_model_is(tmp_path):
    """Another model's pictures have other features, under the same names."""
    from seva_exp import Machine
    from seva_exp.core.digests import FileDigests
    from seva_exp.models import TinyModel
    from seva_exp.stages import StageContext

    context = StageContext(Machine(device="cpu"), FileDigests(tmp_path), lambda *_: None, print)
    model = context.model(TinyModel())
    context.placement(tmp_path).features["a"] = "of the first model"
    assert context.model(TinyModel()) is model
    assert context.placement(tmp_path).features == {"a": "of the first model"}
    context.release()
    assert context.placement(tmp_path).features == {}
    assert context.model(TinyModel()) is not model


def test_a_view_s_features_are_known_by_its_name():
    """In another round a sample may have lost its first view; the second is then at its place."""
    vlm = tiny()
    [both] = preferences(vlm, 1, views=(2,))
    second = replace(both, images=both.images[1:], image_views=both.image_views[1:])
    kept = FeatureCache(vlm, 2**30)
    one, other, clean = (kept.picture(both, view) for view in (0, 1, None))
    expected = kept.features([other]).pooler_output[0]
    kept.features([one, clean])
    found = kept.features([kept.picture(second, 0)]).pooler_output[0]
    assert torch.equal(found, expected) and len(kept.kept) == 3


def test_a_trained_projector_does_not_take_features_that_were_projected(tmp_path):
    """The features that stages share are behind the base model's projector."""
    place, losses = placement(tmp_path, vision_cache=2**30), []
    vlm = tiny()
    rows = preferences(vlm, 3)
    with scoring(vlm, None) as model:
        way = forward_for(vlm, model, rows, "on", place)
        scored(way, model, way.collator(rows)([{"row": i} for i in range(3)]), place)
        way.close()
    assert len(place.features) == 3
    spec = DpoTraining(batch_size=3, epochs=2, lora_rank=4, train_projector=True)
    for known in (place.features, {}):
        _, steps = trained(tmp_path, spec, n=3, vision_cache=2**30, features=known)
        losses.append([step["loss"] for step in steps])
    assert losses[0] == losses[1]
