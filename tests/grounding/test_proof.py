"""The maps are right, and g tells what is seen from what is not, where the truth is known: the
embedded model on pictures of the embedded world. Each control is a mutant that must not pass."""

from __future__ import annotations

from statistics import fmean

import pytest

from seva_exp import Machine
from seva_exp.models import TinyModel
from seva_exp.models.vlm import Vlm, load
from seva_exp.world.scene import KINDS

from . import truth

MACHINE = Machine(device="cpu", dtype="float32")
ENOUGH = 3.0
"""Times chance that a map must be."""
NOISE = 1.6
"""Times chance that a control may be."""


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return load(TinyModel(), MACHINE)


def times(found: tuple[float, float]) -> float:
    value, chance = found
    return value / chance


def test_a_few_maps_are_where_things_are(vlm):
    """A small part of the proof, for every day."""
    words = truth.things_of(truth.named(vlm, truth.scenes(10), "occlusion"))
    assert len(words) >= 40
    assert times(truth.pointing(words)) > ENOUGH
    assert times(truth.energy(words)) > ENOUGH
    wrong = truth.of_another_thing(words)
    assert times(truth.pointing(wrong)) < NOISE
    assert times(truth.energy(wrong)) < NOISE


def test_g_is_of_what_is_seen(vlm):
    words = truth.named(vlm, truth.scenes(12), invented=True)
    real, functions = (
        [w.g for w in some]
        for some in (truth.things_of(words), [w for w in words if w.is_function])
    )
    assert truth.auroc(real, functions) > 0.6
    assert truth.auroc(real, [w.g for w in truth.made_up(words)]) > 0.7


@pytest.fixture(scope="module")
def words(vlm) -> list[truth.Named]:
    found = truth.things_of(truth.named(vlm, truth.scenes(48), "occlusion"))
    assert len(found) >= 200
    return found


@pytest.mark.slow
def test_occlusion_is_where_things_are(words):
    for some in (words, [w for w in words if w.word in KINDS]):
        assert times(truth.pointing(some)) > ENOUGH
        assert times(truth.energy(some)) > ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("control", ["of_another_thing", "of_another_scene", "shuffled"])
def test_a_map_that_is_not_the_word_s_is_not(words, control):
    wrong = getattr(truth, control)(words)
    assert len(wrong) >= 100
    assert times(truth.pointing(wrong)) < NOISE
    assert times(truth.energy(wrong)) < NOISE


@pytest.mark.slow
def test_a_model_of_random_weights_has_no_such_map():
    """What it points to stands out, whatever the word: another thing's place as well."""
    found = load(TinyModel(), MACHINE)
    truth.randomize(found)
    words = truth.things_of(truth.named(found, truth.scenes(48), "occlusion"))
    others = truth.of_another_thing(words)
    assert len(words) >= 200
    for measure in (truth.pointing, truth.energy):
        assert times(measure(words)) < min(ENOUGH, 1.3 * times(measure(others)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["activation", "relative_attention"])
def test_the_other_methods_point_too(vlm, method):
    found = truth.things_of(truth.named(vlm, truth.scenes(48), method))
    assert times(truth.pointing(found)) > ENOUGH
    assert times(truth.pointing(truth.shuffled(found))) < NOISE


@pytest.mark.slow
def test_hiding_by_the_map_loses_more_than_by_chance(vlm, words):
    some = words[::4]
    ordered, by_chance = (truth.deletion(vlm, some, by_map) for by_map in (True, False))
    assert ordered > 1.5 * by_chance


@pytest.mark.slow
def test_g_and_map_vanish_with_the_thing(vlm):
    there, gone = truth.counterfactual(vlm, truth.scenes(48))
    assert fmean(w.g for w in gone) < 0.25 * fmean(w.g for w in there)
    assert truth.peak(gone) < 0.25 * truth.peak(there)


@pytest.mark.slow
def test_g_tells_words_of_content_and_made_up_things(vlm):
    found = truth.named(vlm, truth.scenes(48), invented=True)
    real = truth.things_of(found)
    invented, functions = truth.made_up(found), [w for w in found if w.is_function]
    by_g = truth.auroc([w.g for w in real], [w.g for w in invented])
    assert by_g > 0.75
    assert by_g > truth.auroc([w.logp for w in real], [w.logp for w in invented])
    assert truth.auroc([w.g for w in real], [w.g for w in functions]) > 0.7
