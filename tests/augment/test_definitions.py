"""Views whose definition must be torchvision's: our output against the definition's formula."""

import math
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from seva_exp.augment import AUGMENTATIONS, operations
from seva_exp.augment.families import RandomlyApplied
from seva_exp.core.randomness import python_rng

APPLIED = sorted(kind for kind, cls in AUGMENTATIONS.items() if issubclass(cls, RandomlyApplied))
N = 400


def view(kind, **values):
    return AUGMENTATIONS[kind](**values)


def array(image):
    return np.asarray(image).astype(int)


def noise(width=90, height=60, seed=0):
    values = np.random.default_rng(seed).integers(20, 230, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def rngs(kind, n=N):
    return (python_rng(0, kind, str(i)) for i in range(n))


# --- applied with a probability


@pytest.mark.parametrize("kind", APPLIED)
def test_half_of_the_samples_are_changed(kind):
    x = noise(60, 40)
    changed = sum(view(kind)(x, rng).tobytes() != x.tobytes() for rng in rngs(kind))
    assert abs(changed - N / 2) < 4 * math.sqrt(N / 4)
    with_certainty = view(kind, probability=1.0)
    assert all(with_certainty(x, rng).tobytes() != x.tobytes() for rng in rngs(kind, 20))
    never = view(kind, probability=0.0)
    assert all(never(x, rng).tobytes() == x.tobytes() for rng in rngs(kind, 20))


def applied(kind, x, **values):
    return array(view(kind, probability=1.0, **values)(x, random.Random(0)))


def test_invert_is_255_minus_v():
    x = noise()
    assert np.array_equal(applied("random_invert", x), 255 - array(x))


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_posterize_keeps_the_highest_bits(bits):
    x = noise()
    expected = array(x) >> (8 - bits) << (8 - bits)
    assert np.array_equal(applied("random_posterize", x, bits=bits), expected)


def test_posterize_keeps_two_bits_unless_told():
    assert set(np.unique(applied("random_posterize", noise()))) == {0, 64, 128, 192}


@pytest.mark.parametrize("threshold", [0, 100, 255])
def test_solarize_inverts_at_and_above_the_threshold(threshold):
    x = noise()
    v = array(x)
    expected = np.where(v >= threshold, 255 - v, v)
    assert np.array_equal(applied("random_solarize", x, threshold=threshold), expected)


def test_solarize_inverts_from_128_unless_told():
    row = Image.fromarray(np.uint8([[[127] * 3, [128] * 3]]))
    assert applied("random_solarize", row)[0, :, 0].tolist() == [127, 127]
    assert applied("random_solarize", row, threshold=127)[0, :, 0].tolist() == [128, 127]


def test_autocontrast_stretches_each_channel():
    x = noise()
    v = array(x)
    low, high = v.min((0, 1)), v.max((0, 1))
    expected = (v - low) * 255 / (high - low)
    out = applied("random_autocontrast", x)
    assert np.abs(out - expected).max() <= 1
    assert out.min((0, 1)).tolist() == [0] * 3
    assert out.max((0, 1)).tolist() == [255] * 3


def test_equalize_makes_the_histogram_flat():
    dark = Image.fromarray(
        (np.random.default_rng(0).random((80, 80, 3)) ** 3 * 255).astype("uint8")
    )
    shares = np.histogram(applied("random_equalize", dark), bins=8, range=(0, 256))[0] / 19200
    assert np.ptp(np.histogram(array(dark), bins=8, range=(0, 256))[0] / 19200) > 0.4
    assert np.ptp(shares[1:]) < 0.06  # a value that is very frequent cannot be split


def test_sharpness_moves_between_smoothed_and_itself():
    """torchvision: out = factor * x + (1 - factor) * smoothed(x), kernel (1 1 1; 1 5 1; 1 1 1)."""
    x = noise()
    smooth = array(x.filter(ImageFilter.SMOOTH))
    kernel = np.ones((3, 3))
    kernel[1, 1] = 5
    v = array(x)
    around = sum(kernel[i, j] * v[i : i + 58, j : j + 88] for i in range(3) for j in range(3))
    assert np.abs(smooth[1:-1, 1:-1] - around / 13).max() <= 1
    assert np.array_equal(applied("random_adjust_sharpness", x), smooth)
    assert np.array_equal(applied("random_adjust_sharpness", x, factor=1.0), v)
    sharper = np.clip(2 * v - smooth, 0, 255)
    assert np.abs(applied("random_adjust_sharpness", x, factor=2.0) - sharper).max() <= 1


def test_grayscale_has_the_weights_of_luma():
    v = array(noise())
    out = array(view("grayscale")(noise(), random.Random(0)))
    assert not np.ptp(out, axis=-1).any()
    assert np.abs(out[..., 0] - v @ [0.299, 0.587, 0.114]).max() <= 1


# --- pad and crops


def test_pad_puts_a_black_border_around_the_picture():
    out = array(view("pad")(noise(), random.Random(0)))
    assert out.shape == (160, 190, 3)
    assert np.array_equal(out[50:-50, 50:-50], array(noise()))
    assert out.sum() == array(noise()).sum()


@pytest.mark.parametrize(
    ("size", "left", "top"),
    [((200, 300), 36, 86), ((129, 131), 0, 2), ((131, 128), 2, 0)],
)  # torchvision: int(round((side - crop) / 2)); .5 is rounded to even
def test_center_crop_is_in_the_middle(size, left, top):
    x = noise(*size)
    out = array(view("center_crop")(x, random.Random(0)))
    assert np.array_equal(out, array(x)[top : top + 128, left : left + 128])


@pytest.mark.parametrize(("size", "left", "top"), [((64, 128), 32, 0), ((61, 97), 33, 15)])
def test_center_crop_of_a_smaller_picture_is_padded(size, left, top):
    x = noise(*size)
    out = array(view("center_crop")(x, random.Random(0)))
    inner = out[top : top + size[1], left : left + size[0]]
    assert np.array_equal(inner, array(x))
    assert out.sum() == inner.sum()


def test_random_crop_takes_every_place_equally():
    ramp = np.zeros((40, 50, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(50), np.arange(40)[:, None]
    corners = [
        view("random_crop", size=30)(Image.fromarray(ramp), rng).getpixel((0, 0))[:2]
        for rng in rngs("crop", 2000)
    ]
    lefts, tops = np.array(corners).T
    assert set(lefts) == set(range(21))
    assert set(tops) == set(range(11))
    assert lefts.mean() == pytest.approx(10, abs=0.5)
    assert abs(np.corrcoef(lefts, tops)[0, 1]) < 0.1


def test_random_crop_of_a_smaller_picture_shows_all_of_it_somewhere_on_black():
    x = noise(20, 50)
    places = set()
    for rng in rngs("crop", 60):
        out = array(view("random_crop", size=30)(x, rng))
        column = int(np.flatnonzero(out.any((0, 2)))[0])
        places.add(column)
        rows = [
            np.array_equal(out[:, column : column + 20], array(x)[t : t + 30]) for t in range(21)
        ]
        assert sum(rows) == 1
    assert places == set(range(11))


@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("random_resized_crop", (0.36, 0.64)),
        ("moco", (0.2, 1)),
        ("byol", (0.08, 1)),
        ("simclr", (0.2, 1)),
    ],
)
def test_crops_draw_their_own_share_of_the_area(monkeypatch, kind, scale):
    seen = []
    draw = operations.draw_crop

    def spy(rng, width, height, *ranges):
        seen.append((*ranges, draw(rng, width, height, *ranges)))
        return seen[-1][-1]

    monkeypatch.setattr(operations, "draw_crop", spy)
    for rng in rngs(kind, 200):
        view(kind, size=8)(noise(200, 150), rng)
    assert {item[:2] for item in seen} == {(scale, (3 / 4, 4 / 3))}
    shares = [(x1 - x0) * (y1 - y0) / 30_000 for *_, (x0, y0, x1, y1) in seen]
    assert scale[0] - 0.01 <= min(shares) < scale[0] + 0.1
    assert scale[1] - 0.2 < max(shares) <= scale[1] + 0.01


# --- contrastive views


def test_contrastive_views_differ_as_seva_has_them():
    moco, byol, simclr = (view(kind).to_json() for kind in ("moco", "byol", "simclr"))
    assert {k for k in moco if moco[k] != byol[k]} == {"kind", "scale_min"}
    assert {k for k in moco if moco[k] != simclr[k]} == {"kind", "hue", "blur_probability"}


@pytest.mark.parametrize("step", ["jitter", "blur", "gray", "flip"])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_contrastive_steps_come_with_their_probability(monkeypatch, step, probability):
    counts = dict.fromkeys(("jitter", "blur", "to_gray", "flip"), 0)

    def count(name):
        def operation(image, *_):
            counts[name] += 1
            return image

        return operation

    for name in counts:
        monkeypatch.setattr(operations, name, count(name))
    augmentation = view("moco", size=4, **{f"{step}_probability": probability})
    for rng in rngs("moco"):
        augmentation(noise(16, 12), rng)
    found = counts["to_gray" if step == "gray" else step]
    assert abs(found - N * probability) <= 4 * math.sqrt(N * probability * (1 - probability))


# --- geometry


def marked(x, y, width=201, height=101):
    """Black, with a disc of radius 3 px about (x, y)."""
    image = Image.new("RGB", (width, height))
    ImageDraw.Draw(image).ellipse((x - 3, y - 3, x + 3, y + 3), fill="white")
    return image


def position(image):
    """Center of the disc: (x, y) in pixels; None where it has left the frame in part."""
    rows, columns = np.nonzero(array(image.convert("L")) > 127)
    return np.array([columns.mean(), rows.mean()])


def test_rotation_angles_fill_their_range_counter_clockwise():
    center = np.array([100.0, 50.0])
    angles = []
    for rng in rngs("rotation"):
        x, y = position(view("random_rotation")(marked(130, 50), rng)) - center
        angles.append(math.degrees(math.atan2(-y, x)) % 360)
    assert all(a < 181 or a > 359 for a in angles)
    inside = sorted(a if a < 359 else a - 360 for a in angles)
    assert -1 < inside[0] < 3
    assert 177 < inside[-1] < 181
    assert np.mean(inside) == pytest.approx(90, abs=4 * 180 / math.sqrt(12 * N))


def test_rotation_keeps_the_middle_and_blackens_the_corners():
    white = Image.new("RGB", (80, 80), "white")
    out = array(
        view("random_rotation", degrees_min=45.0, degrees_max=45.0)(white, random.Random(0))
    )
    assert out[0, 0].sum() == out[-1, -1].sum() == 0
    assert out[40, 40].sum() == 765


def test_affine_parameters_fill_their_ranges():
    draws = [view("random_affine").draw(rng, 200, 100) for rng in rngs("affine", 2000)]
    angles, shifts, scales = (np.array(values) for values in zip(*draws, strict=True))
    for values, low, high in (
        (angles, 30, 70), (shifts[:, 0], -20, 20), (shifts[:, 1], -30, 30), (scales, 0.5, 0.75),
    ):  # fmt: skip
        assert low <= values.min() < low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_affine_turns_clockwise_zooms_and_shifts_about_the_center():
    """torchvision: p -> c + t + s R(angle) (p - c), y pointing down, in pixel centers."""
    augmentation = view("random_affine")
    for number in range(30):
        angle, shift, scale = augmentation.draw(random.Random(number), 201, 101)
        turn = math.radians(angle)
        matrix = scale * np.array(
            [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        )
        center = np.array([100.5, 50.5])
        expected = center + shift + matrix @ (np.array([110.5, 50.5]) - center) - 0.5
        out = position(augmentation(marked(110, 50), random.Random(number)))
        assert out == pytest.approx(expected, abs=0.6)


def test_affine_of_nothing_changes_nothing():
    values = {name: 0.0 for name in ("degrees_min", "degrees_max", "translate_x", "translate_y")}
    augmentation = view("random_affine", **values, scale_min=1.0, scale_max=1.0)
    assert augmentation(noise(), random.Random(0)).tobytes() == noise().tobytes()
