"""A map's drawing: clear where a word rests, outlined at half, hatched below zero, at one scale."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from seva_exp.grounding.rows import WordMap
from seva_exp.report.word_maps import WIDTH, field, region, shares_of, tinted, trio, veiled


def a_map(base: list[float], aligned: list[float], method="occlusion", grid=(2, 3)) -> WordMap:
    return WordMap(word=0, method=method, grid=grid, base=tuple(base), aligned=tuple(aligned))


def image(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(";base64,")[2])))


PEAK = [0.0, 0.0, 0.0, 0.0, 0.0, 2.0]
"""At the lower right of 2 x 3 cells."""


def test_the_picture_is_clear_where_the_word_rests_and_veiled_elsewhere():
    made = trio(a_map(PEAK, [one / 4 for one in PEAK]), 200.0)
    base = image(made.base.uri)
    assert base.size == (36, 24), "as wide as its cells are"
    assert base.getpixel((35, 23))[3] == 0
    assert base.getpixel((0, 0))[3] > 200
    assert image(made.aligned.uri).getpixel((35, 23))[3] > 140, "both have one scale"
    assert made.base.outline and not made.aligned.outline
    assert (made.base.strongest, made.aligned.strongest, made.change.strongest) == (2, 0.5, -1.5)
    assert made.change.hatched and not made.base.hatched


def test_the_outline_lies_around_the_half_of_the_largest():
    made = trio(a_map(PEAK, PEAK), 200.0)
    points = [
        tuple(map(float, one.split())) for one in re.findall(r"[\d.]+ [\d.]+", made.base.outline)
    ]
    assert all(190 < x <= WIDTH and 95 < y <= 200 for x, y in points)
    assert made.base.outline.count("M") == 1, "one line"


def test_a_region_s_area_is_what_is_beyond_the_level():
    """Of a slope from -1 to 1 along x, without the flat ends: a quarter is at or above one half."""
    slope = field((1, 24), [-1 + 2 * i / 23 for i in range(24)])
    for level, share in ((0.5, 0.26), (-0.25, 0.38)):
        parts, lines = region(slope, level)
        assert sum(map(area, parts)) == pytest.approx(share, abs=0.01)
        (border,) = lines
        assert len({round(x, 2) for x, _ in border}) == 1, "upright"
        assert (border[0][1], border[-1][1]) in ((0.0, 1.0), (1.0, 0.0)), "from edge to edge"


def area(part) -> float:
    pairs = zip(part, part[1:] + part[:1], strict=True)
    return abs(sum(a * d - c * b for (a, b), (c, d) in pairs)) / 2


def test_two_peaks_at_corners_have_an_outline_each():
    saddle = field((2, 2), [1.0, 0.0, 0.0, 1.0])
    parts, lines = region(saddle, 0.6)
    assert len(lines) == 2
    assert 0.1 < sum(map(area, parts)) < 0.5


def test_maps_without_a_unit_have_each_its_own_scale():
    base, aligned, change, scale = shares_of(a_map(PEAK, [one * 9 for one in PEAK], "activation"))
    assert base == aligned and scale is None
    assert set(change) == {0.0}


def test_a_map_of_nothing_is_veiled_as_a_whole():
    made = trio(a_map([0.0] * 6, [0.0] * 6), 200.0)
    assert not made.base.outline + made.base.hatched
    assert image(made.base.uri).getextrema()[3] == (209, 209)


def test_less_than_a_hundredth_of_a_nat_is_not_drawn_as_if_it_mattered():
    made = trio(a_map([one / 2000 for one in PEAK], [0.0] * 6), 200.0)
    assert not made.base.outline + made.change.hatched
    assert image(made.base.uri).getextrema()[3][0] > 180, "veiled"
    assert made.base.strongest == 0.001


def test_what_rose_is_blue_and_what_fell_is_not():
    assert tinted(1.0)[2] > tinted(1.0)[0]
    assert tinted(-1.0)[0] > tinted(-1.0)[2]
    assert tinted(0.0)[3] == veiled(0.0)[3] == veiled(-3.0)[3]
