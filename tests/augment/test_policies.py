"""RandAugment and AutoAugment must be torchvision's: operations, strengths, what is drawn."""

import math

import pytest
from PIL import Image

from seva_exp.augment import policies
from seva_exp.augment.auto_augment import IMAGENET
from seva_exp.augment.rand_augment import NAMES

from .test_definitions import N, marked, noise, position, rngs, view


def test_strengths_are_torchvision_s():
    """num_magnitude_bins = 31, magnitude 9; AutoAugment: 10 bins."""
    rand, full, auto = 9 / 30, 1.0, 5 / 9
    side = (331, 662)
    table = {
        "shear_x": (0.09, 0.3, 0.3 * auto), "shear_y": (0.09, 0.3, 0.3 * auto),
        "translate_x": (45, 150, 150 * auto), "translate_y": (90, 300, 300 * auto),
        "rotate": (9, 30, 30 * auto), "brightness": (0.27, 0.9, 0.5), "color": (0.27, 0.9, 0.5),
        "contrast": (0.27, 0.9, 0.5), "sharpness": (0.27, 0.9, 0.5), "posterize": (7, 4, 6),
        "solarize": (178.5, 0, 255 * 4 / 9),
        **{name: (0, 0, 0) for name in ("identity", "autocontrast", "equalize", "invert")},
    }  # fmt: skip
    assert set(table) == set(policies.OPERATIONS)
    for name, expected in table.items():
        found = [policies.OPERATIONS[name].strength(share, side) for share in (rand, full, auto)]
        assert found == pytest.approx(expected), name
    posterize = policies.OPERATIONS["posterize"].strength
    bits = [posterize(level / 9, side) for level in range(10)]
    assert bits == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]  # 8 - round(level / 2.25)


def test_only_operations_with_a_direction_are_signed():
    signed = {name for name, operation in policies.OPERATIONS.items() if operation.signed}
    assert signed == {
        "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
        "contrast", "sharpness",
    }  # fmt: skip


def test_operations_go_the_way_that_torchvision_s_do():
    def moved(name, strength):
        at = position(policies.OPERATIONS[name].apply(marked(100, 50), strength))
        return (at - [100, 50]).round(1).tolist()

    assert moved("translate_x", 20.9) == [20, 0]
    assert moved("translate_y", -20.9) == [0, -20]
    assert moved("shear_x", 0.2) == pytest.approx([-10, 0], abs=0.6)  # x -> x - tan * y
    assert moved("shear_y", 0.2) == pytest.approx([0, -20], abs=0.6)
    turned = position(policies.OPERATIONS["rotate"].apply(marked(130, 50), 30.0))
    assert turned == pytest.approx([100 + 30 * math.cos(math.pi / 6), 35], abs=0.6)
    flat = Image.new("RGB", (4, 4), (100, 50, 10))
    assert policies.OPERATIONS["brightness"].apply(flat, 0.5).getpixel((0, 0)) == (150, 75, 15)
    assert policies.OPERATIONS["brightness"].apply(flat, -0.5).getpixel((0, 0)) == (50, 25, 5)


def test_signs_are_drawn_evenly():
    signs = []
    for rng in rngs("sign"):
        out = policies.apply(marked(100, 50), "translate_x", 0.3, rng)
        signs.append(position(out)[0] > 100)
    assert abs(sum(signs) - N / 2) < 4 * math.sqrt(N / 4)


def names_used(monkeypatch, kind, n=3000):
    used = []
    monkeypatch.setattr(
        policies, "apply", lambda image, name, share, rng: used[-1].append((name, share)) or image
    )
    for rng in rngs(kind, n):
        used.append([])
        view(kind)(noise(4, 4), rng)
    return used


def test_rand_augment_draws_two_of_fourteen_evenly(monkeypatch):
    used = names_used(monkeypatch, "rand_augment")
    assert len(NAMES) == 14
    assert {len(one) for one in used} == {2}
    flat = [name for one in used for name, _ in one]
    assert {share for one in used for _, share in one} == {9 / 30}
    counts = [flat.count(name) for name in NAMES]
    assert sum(counts) == len(flat)
    assert min(counts) > 6000 / 14 - 85  # 4 standard deviations
    assert max(counts) < 6000 / 14 + 85


def test_auto_augment_follows_the_imagenet_policy(monkeypatch):
    used = names_used(monkeypatch, "auto_augment", 5000)
    assert len(IMAGENET) == 25
    assert {len(pair) for pair in IMAGENET} == {2}
    expected = {}
    for name, probability, level in (rule for pair in IMAGENET for rule in pair):
        key = (name, level / 9)
        expected[key] = expected.get(key, 0) + 5000 * probability / 25
    counts = {key: sum(one.count(key) for one in used) for key in expected}
    for key, mean in expected.items():
        assert abs(counts[key] - mean) < 5 * math.sqrt(mean + 1), key
    assert sum(counts.values()) == sum(map(len, used))


def test_the_imagenet_policy_s_probabilities_and_levels():
    """Sums over torchvision's table, which this one was compared with."""
    rules = [rule for pair in IMAGENET for rule in pair]
    assert sum(probability for _, probability, _ in rules) == pytest.approx(31.0)
    names = [name for name, *_ in rules]
    assert {name: names.count(name) for name in sorted(set(names))} == {
        "autocontrast": 2, "color": 6, "contrast": 2, "equalize": 17, "invert": 3, "posterize": 5,
        "rotate": 6, "sharpness": 1, "shear_x": 1, "solarize": 7,
    }  # fmt: skip
    levels = {name: [level for rule, _, level in rules if rule == name] for name in set(names)}
    assert {name: found for name, found in levels.items() if any(found)} == {
        "posterize": [8, 7, 6, 5, 6], "rotate": [9, 8, 3, 8, 9, 8], "sharpness": [7],
        "solarize": [5, 4, 3, 8, 7, 4, 5], "color": [0, 4, 2, 8, 0, 4], "contrast": [8, 8],
        "shear_x": [5],
    }  # fmt: skip
