"""Views of pictures: promises on size and mode, what they draw, and determinism."""

import random

import numpy as np
import pytest
from PIL import Image

from seva_exp.augment import (
    AUGMENTATIONS,
    operations,
)
from seva_exp.augment.families import RandomlyApplied
from seva_exp.core.randomness import python_rng

IMAGE_KINDS = sorted(kind for kind, cls in AUGMENTATIONS.items() if cls.space == "image")
APPLIED = sorted(kind for kind in IMAGE_KINDS if issubclass(AUGMENTATIONS[kind], RandomlyApplied))
ALWAYS = {kind: {"probability": 1.0} for kind in APPLIED}
"""Parameters with which a view changes every picture."""
STEADY = {*APPLIED, "low_resolution", "grayscale", "pad", "center_crop"}
"""Views that, applied, are the same for every sample."""
SQUARE = {
    "moco": 224, "byol": 224, "simclr": 224, "random_resized_crop": 224, "random_crop": 224,
    "center_crop": 128, "diffusion_noise_image": 336,
}  # fmt: skip
"""Sides of the views that give a square."""


def picture(width=90, height=60):
    """Soft colors that differ everywhere, with detail; not symmetric."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [60 + x, 200 - y, 90 + 40 * np.sin(x / 2) * np.cos(y / 3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def view(kind, **values):
    return AUGMENTATIONS[kind](**(ALWAYS.get(kind, {}) | values))


def see(augmentation, x, rng):
    """The view of ``x``, with as many partners as it wants."""
    partners = [picture(50, 70).rotate(90 * i) for i in range(1, augmentation.partners + 1)]
    return augmentation(x, rng, *partners)


def promised_size(kind, size):
    if kind == "pad":
        return size[0] + 100, size[1] + 100
    return (SQUARE[kind],) * 2 if kind in SQUARE else size


def same(a, b):
    return a.size == b.size and a.tobytes() == b.tobytes()


# --- image views


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_view_depends_on_its_generator_only(kind):
    augmentation, x, ids = AUGMENTATIONS[kind](), picture(), "abcdefghijklmnopqrst"
    first = {id: see(augmentation, x, python_rng(0, kind, id)) for id in ids}
    random.seed(5), np.random.seed(5)
    state = random.getstate()
    again = {id: see(augmentation, x, python_rng(0, kind, id)) for id in reversed(ids)}
    assert random.getstate() == state
    assert all(same(first[id], again[id]) for id in ids)


@pytest.mark.parametrize("kind", sorted(set(IMAGE_KINDS) - STEADY))
def test_samples_get_different_views(kind):
    rngs = [python_rng(0, kind, id) for id in "abcdefghij"]
    seen = {see(view(kind), picture(), rng).tobytes() for rng in rngs}
    assert len(seen) >= 7  # weak blurs, and learned policies that do nothing, give equal bytes


@pytest.mark.parametrize("kind", sorted(STEADY))
def test_views_without_chance_are_the_same_for_every_sample(kind):
    assert same(*(view(kind)(picture(), python_rng(0, kind, id)) for id in "ab"))


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@pytest.mark.parametrize("size", [(90, 60), (31, 200), (4, 4), (800, 4)])
def test_view_gives_rgb_of_the_promised_size(kind, size):
    x = picture(*size)
    before = x.tobytes()
    for id in "abc":
        out = see(view(kind), x, python_rng(0, kind, id))
        assert (out.mode, out.size) == ("RGB", promised_size(kind, size))
        assert out is not x
    assert x.tobytes() == before


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_view_changes_the_picture(kind):
    x = picture()
    outs = [see(view(kind), x, python_rng(0, kind, id)).resize(x.size) for id in "abcd"]
    difference = np.abs(np.asarray(outs, float) - np.asarray(x, float)).mean()
    assert difference > 0.3  # smoothing does least


@pytest.mark.parametrize("kind", sorted(SQUARE))
def test_crop_has_the_size_that_was_asked_for(kind):
    assert view(kind, size=64)(picture(), random.Random(0)).size == (64, 64)


def test_low_resolution_keeps_only_what_the_small_picture_holds():
    stripes = Image.fromarray(np.tile(np.uint8([0, 255]), (80, 40))[..., None].repeat(3, -1))
    out = np.asarray(view("low_resolution")(stripes, random.Random(0)))
    assert out.shape == (80, 80, 3) and np.ptp(out[:, 8:-8]) < 8
    halves = Image.new("RGB", (80, 80))
    halves.paste((255, 255, 255), (40, 0, 80, 80))
    out = view("low_resolution")(halves, random.Random(0))
    assert out.getpixel((10, 40))[0] < 10 and out.getpixel((70, 40))[0] > 245


def test_low_resolution_goes_through_the_short_side(monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def spy(self, size, *args, **kwargs):
        sizes.append(tuple(size))
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", spy)
    view("low_resolution")(picture(90, 60), random.Random(0))
    assert sizes == [(30, 20), (90, 60)]


def test_low_resolution_leaves_a_small_picture():
    assert same(view("low_resolution")(picture(24, 16), random.Random(0)), picture(24, 16))


def test_flip_mirrors_left_and_right():
    out = np.asarray(view("horizontal_flip")(picture(), random.Random(0)))
    assert np.array_equal(out, np.asarray(picture())[:, ::-1])


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (0.5, 70, 130), (1, 200, 200)])
def test_flip_probability(probability, low, high):
    flip, x = view("horizontal_flip", probability=probability), picture(8, 8)
    flips = sum(not same(flip(x, python_rng(0, "f", str(i))), x) for i in range(200))
    assert low <= flips <= high


def test_blur_is_gaussian_with_the_radius_drawn():
    point = Image.new("RGB", (41, 41))
    point.putpixel((20, 20), (255, 255, 255))
    blur = view("gaussian_blur", radius_min=2.0, radius_max=2.0)
    out = np.asarray(blur(point, random.Random(0)), float)[..., 0]
    _, x = np.mgrid[0:41, 0:41]
    spread = (out * (x - 20) ** 2).sum() / out.sum()
    assert out[20, 20] == pytest.approx(255 / (2 * np.pi * 4), rel=0.2)
    assert spread**0.5 == pytest.approx(2.0, rel=0.2)


def test_moco_can_be_switched_off_piece_by_piece():
    x = picture(50, 50)
    nothing = view(
        "moco", size=50, scale_min=1.0, ratio_min=1.0, ratio_max=1.0, flip_probability=0.0,
        brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, gray_probability=0.0,
        radius_min=0.0, radius_max=0.0,
    )  # fmt: skip
    assert same(nothing(x, random.Random(0)), x)
    gray = np.asarray(
        nothing.model_copy(update={"gray_probability": 1.0})(x, random.Random(0)), int
    )
    assert not np.ptp(gray, axis=-1).any()
    flipped = nothing.model_copy(update={"flip_probability": 1.0})(x, random.Random(0))
    assert same(flipped, operations.flip(x))
    blurred = nothing.model_copy(update={"radius_min": 2.0, "radius_max": 2.0})
    assert same(blurred(x, random.Random(0)), operations.blur(x, 2.0))
    brighter = nothing.model_copy(update={"brightness": 0.4})(x, random.Random(0))
    assert not same(brighter, x)


def test_moco_turns_some_pictures_gray():
    out = (view("moco", size=16)(picture(), python_rng(0, "m", str(i))) for i in range(300))
    grays = sum(not np.ptp(np.asarray(image, int), axis=-1).any() for image in out)
    assert 35 <= grays <= 90


# --- parameters that are drawn


def drawn(strengths, n=2000):
    values = {}
    for i in range(n):
        for operation, value in operations.draw_jitter(python_rng(0, "j", str(i)), *strengths):
            values.setdefault(operation.__name__, []).append(value)
    return values


def test_jitter_factors_fill_their_ranges():
    values = drawn((0.5, 0.4, 1.5, 0.3))
    ranges = {
        "scale_brightness": (0.5, 1.5),
        "scale_contrast": (0.6, 1.4),
        "scale_saturation": (0.0, 2.5),
        "shift_hue": (-0.3, 0.3),
    }
    assert set(values) == set(ranges)
    for name, (low, high) in ranges.items():
        assert low <= min(values[name]) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values[name]) <= high
        assert np.mean(values[name]) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_color_jitter_uses_stic_strengths(monkeypatch):
    seen = []
    monkeypatch.setattr(operations, "draw_jitter", lambda rng, *s: seen.append(s) or [])
    view("color_jitter")(picture(), random.Random(0))
    view("moco")(picture(), random.Random(0))
    assert seen == [(0.5, 0.0, 0.0, 0.3), (0.4, 0.4, 0.4, 0.1)]


def test_strength_zero_leaves_the_operation_out():
    assert set(drawn((0.5, 0.0, 0.0, 0.3), 10)) == {"scale_brightness", "shift_hue"}


def test_jitter_order_is_random():
    strengths = (0.4, 0.4, 0.4, 0.1)
    orders = {
        tuple(operation for operation, _ in operations.draw_jitter(random.Random(i), *strengths))
        for i in range(400)
    }
    assert len(orders) == 24


def test_adjustments_do_what_they_say():
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    assert operations.scale_brightness(image, 0.5).getpixel((0, 0)) == (100, 50, 25)
    assert operations.scale_brightness(image, 2.0).getpixel((0, 0)) == (255, 200, 100)
    gray = operations.to_gray(image).getpixel((0, 0))
    assert operations.scale_saturation(image, 0.0).getpixel((0, 0)) == gray
    image.paste((0, 0, 0), (0, 0, 4, 8))
    flat = np.asarray(operations.scale_contrast(image, 0.0))
    assert np.ptp(flat) == 0 and flat[0, 0, 0] == pytest.approx(gray[0] / 2, abs=1)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [(1 / 3, (0, 255, 0)), (-1 / 3, (0, 0, 255)), (0.5, (0, 255, 255)), (0.0, (255, 0, 0))],
)
def test_hue_is_measured_in_turns(turns, expected):
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert operations.shift_hue(red, turns).getpixel((0, 0)) == pytest.approx(expected, abs=3)


def test_crop_boxes_fill_their_ranges():
    boxes = [
        operations.draw_crop(python_rng(0, "c", str(i)), 400, 300, (0.36, 0.64), (0.75, 4 / 3))
        for i in range(1000)
    ]
    sizes = np.array([(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes])
    shares, ratios = sizes.prod(1) / 120_000, sizes[:, 0] / sizes[:, 1]
    assert 0.355 < shares.min() < 0.37 and 0.62 < shares.max() < 0.645
    assert 0.74 < ratios.min() < 0.77 and 1.3 < ratios.max() < 1.345
    assert np.median(ratios) == pytest.approx(1.0, abs=0.04)
    starts = np.array([box[:2] for box in boxes])
    slack = np.array([400, 300]) - sizes
    assert (starts >= 0).all() and (starts <= slack).all()
    assert (starts / np.maximum(slack, 1)).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("size", "expected"), [((800, 4), (397, 0, 402, 4)), ((4, 800), (0, 397, 4, 402))]
)
def test_crop_that_cannot_fit_is_central(size, expected):
    assert operations.draw_crop(random.Random(0), *size, (1.0, 1.0), (0.75, 4 / 3)) == expected


# --- perspective


def test_perspective_puts_the_corners_where_they_are_drawn_to():
    image = Image.new("RGB", (101, 61), "white")
    perspective = AUGMENTATIONS["random_perspective"](distortion=0.6)
    corners = perspective.corners(random.Random(3), 101, 61)
    out = np.asarray(perspective(image, random.Random(3)).convert("L")) > 127
    from PIL import ImageDraw

    expected = Image.new("L", (101, 61))
    ImageDraw.Draw(expected).polygon(corners, fill=255)
    wrong = (out != (np.asarray(expected) > 127)).mean()
    assert wrong < 0.03
    assert 0.1 < out.mean() < 0.95


def test_no_distortion_changes_nothing():
    image = picture()
    out = AUGMENTATIONS["random_perspective"](distortion=0.0)(image, random.Random(0))
    assert np.abs(np.asarray(out).astype(int) - np.asarray(image)).max() <= 1


def test_corners_move_inwards_by_no_more_than_the_distortion():
    perspective = AUGMENTATIONS["random_perspective"](distortion=0.5)
    moves = [perspective.corners(random.Random(i), 200, 100) for i in range(400)]
    for (ax, ay), (bx, by), (cx, cy), (dx, dy) in moves:
        assert 0 <= ax <= 50
        assert 0 <= ay <= 25
        assert 149 <= bx <= 199
        assert 0 <= by <= 25
        assert 149 <= cx <= 199
        assert 74 <= cy <= 99
        assert 0 <= dx <= 50
        assert 74 <= dy <= 99
    mean = sum(corner[0][0] for corner in moves) / len(moves)
    assert mean == pytest.approx(25, abs=2.5)
