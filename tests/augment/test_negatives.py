"""The harder negatives of our own: patch shuffle, object mask, blend."""

import random

import numpy as np
import pytest
from PIL import Image

from seva_exp.augment import Blend, ObjectMask, PatchShuffle
from seva_exp.augment.patch_shuffle import cells, cycle
from seva_exp.core.randomness import python_rng


def rng(i=0):
    return python_rng(0, "test", str(i))


def array(image):
    return np.asarray(image).astype(int)


def noise(width=90, height=60, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


# --- patch shuffle


def numbered(side=20, grid=4):
    """Each cell has its own gray."""
    values = np.arange(grid * grid).reshape(grid, grid) * 10 + 10
    return Image.fromarray(values.repeat(side, 0).repeat(side, 1).astype(np.uint8)).convert("RGB")


def test_every_cell_moves_and_none_is_lost():
    x = numbered()
    for i in range(20):
        out = PatchShuffle()(x, rng(i))
        places = array(out)[10::20, 10::20, 0].ravel()
        assert sorted(places) == sorted(range(10, 170, 10))
        assert (places != array(x)[10::20, 10::20, 0].ravel()).all()
        assert np.bincount(array(out)[..., 0].ravel())[10:170:10].tolist() == [400] * 16


def test_cells_keep_their_inside():
    x = noise(80, 80)
    out = array(PatchShuffle(grid=2)(x, rng()))
    halves = [array(x)[i : i + 40, j : j + 40] for i in (0, 40) for j in (0, 40)]
    for i in (0, 40):
        for j in (0, 40):
            assert any(np.array_equal(out[i : i + 40, j : j + 40], half) for half in halves)


def test_every_place_gets_every_other_cell_equally_often():
    counts = np.zeros((5, 5), int)
    for i in range(2000):
        for place, source in enumerate(cycle(rng(i), 5)):
            counts[place, source] += 1
    assert not counts.diagonal().any()
    others = counts[~np.eye(5, dtype=bool)]
    assert abs(others - 500).max() < 4 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize(("size", "grid"), [((91, 59), 4), ((4, 4), 64), ((800, 4), 16)])
def test_cells_tile_the_picture(size, grid):
    covered = np.zeros(size[::-1], int)
    boxes = cells(*size, grid)
    for x0, y0, x1, y1 in boxes:
        assert x1 > x0 and y1 > y0
        covered[y0:y1, x0:x1] += 1
    assert (covered == 1).all()
    assert len(boxes) == min(grid, size[0]) * min(grid, size[1])


# --- object mask


def changed(view, x, i=0):
    return (array(view(x, rng(i))) != array(x)).any(-1)


@pytest.mark.parametrize(("shape", "share"), [("rectangle", 1.0), ("ellipse", np.pi / 4)])
@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_the_hidden_share_of_the_area_is_what_was_asked_for(shape, share, fill):
    view = ObjectMask(shape=shape, fill=fill, count_max=1, area_min=0.05, area_max=0.2)
    shares = [changed(view, noise(200, 150), i).mean() / share for i in range(150)]
    assert 0.045 < min(shares) < 0.07
    assert 0.18 < max(shares) < 0.205
    assert np.mean(shares) == pytest.approx(0.125, abs=0.015)


def test_parts_have_the_ratios_and_the_count_that_were_asked_for():
    drawn = [ObjectMask().draw(rng(i), 400, 300) for i in range(400)]
    counts = np.bincount([len(boxes) for boxes in drawn])
    assert counts[0] == 0
    assert counts[1:].min() > 100
    assert len(counts) == 4
    sizes = np.array([(x1 - x0, y1 - y0) for boxes in drawn for x0, y0, x1, y1 in boxes])
    ratios = sizes[:, 0] / sizes[:, 1]
    assert 0.49 < ratios.min() < 0.55
    assert 1.85 < ratios.max() < 2.03
    inside = [0 <= x0 < x1 <= 400 and 0 <= y0 < y1 <= 300 for b in drawn for x0, y0, x1, y1 in b]
    assert all(inside)


def test_an_object_vanishes_into_the_color_around_it():
    x = Image.new("RGB", (100, 100), (200, 150, 100))
    x.paste((10, 20, 30), (45, 45, 55, 55))
    view = ObjectMask(count_max=1, area_min=0.5, area_max=0.6, ratio_min=1.0, ratio_max=1.0)
    whole = [array(view(x, rng(i))) for i in range(40)]
    covering = [out for out in whole if (out[50, 50] == (200, 150, 100)).all()]
    assert len(covering) > 30
    assert any((out == (200, 150, 100)).all() for out in covering)


def test_a_blurred_part_keeps_its_mean_and_loses_its_detail():
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]), (100, 50))[..., None].repeat(3, -1))
    view = ObjectMask(fill="blur", shape="rectangle", count_max=1, area_min=0.2)
    hidden = changed(view, stripes)
    inside = array(view(stripes, rng()))[hidden]
    assert abs(inside - 127.5).max() < 40  # at the picture's edge
    assert abs(inside - 127.5).mean() < 10


def test_a_mask_over_everything_takes_the_picture_s_own_mean():
    thin = noise(800, 4)
    out = array(ObjectMask(area_min=0.9, area_max=0.9, shape="rectangle")(thin, rng()))
    assert out.shape == (4, 800, 3)


# --- blend


def solid(value, size=(60, 40)):
    return Image.new("RGB", size, (value,) * 3)


def test_mixup_weighs_the_partner_by_its_share():
    values = [array(Blend()(solid(0), rng(i), solid(200)))[0, 0, 0] / 200 for i in range(400)]
    assert 0.29 <= min(values) < 0.31
    assert 0.49 < max(values) <= 0.505
    assert np.mean(values) == pytest.approx(0.4, abs=0.015)


def test_cutmix_shows_the_partner_in_a_box_of_that_area_and_of_the_same_place():
    ramp = Image.fromarray(np.arange(255, dtype=np.uint8).repeat(170).reshape(255, 170).T)
    partner = ramp.convert("RGB")
    shares, corners = [], set()
    for i in range(300):
        out = array(Blend(mode="cutmix")(solid(255, (255, 170)), rng(i), partner))
        shown = (out != 255).any(-1)
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        assert shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert np.array_equal(out[shown], array(partner)[shown])
        shares.append(shown.mean())
        corners.add((rows[0], columns[0]))
    assert 0.29 < min(shares) < 0.32
    assert 0.48 < max(shares) < 0.51
    assert len(corners) > 200


@pytest.mark.parametrize("mode", ["mixup", "cutmix"])
@pytest.mark.parametrize("size", [(8, 300), (300, 8), (31, 30)])
def test_a_partner_of_any_size_fits(mode, size):
    x = noise(60, 40)
    out = Blend(mode=mode)(x, rng(), noise(*size, seed=1))
    assert (out.mode, out.size) == ("RGB", x.size)


def test_no_share_is_the_picture_and_the_whole_share_is_the_partner():
    x, partner = noise(), noise(seed=1)
    for mode in ("mixup", "cutmix"):
        nothing = Blend(mode=mode, share_min=0.0, share_max=0.0)
        everything = Blend(mode=mode, share_min=1.0, share_max=1.0)
        assert nothing(x, rng(), partner).tobytes() == x.tobytes()
        assert everything(x, rng(), partner).tobytes() == partner.tobytes()


def test_blend_without_its_partner_is_refused():
    with pytest.raises(ValueError):
        Blend()(noise(), random.Random(0))
