"""Augmentations: numbers of the papers, promises on size and mode, and determinism."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from seva_exp.augment import (
    AUGMENTATIONS,
    AnyAugmentation,
    DiffusionNoise,
    DiffusionNoiseImage,
    operations,
)
from seva_exp.augment.diffusion_noise_image import CLIP_MEAN, CLIP_STD
from seva_exp.augment.families import RandomlyApplied
from seva_exp.models.padding import padded
from seva_exp.randomness import python_rng, torch_rng

CONF = Path(__file__).parents[2] / "conf" / "aug"
COEFFICIENTS = {  # computed for the project's notes on SeVa, section 1.4
    100: (0.9983, 0.0584),
    200: (0.9939, 0.1105),
    300: (0.9810, 0.1941),
    400: (0.9449, 0.3275),
    500: (0.8630, 0.5052),
    600: (0.7342, 0.6789),
    700: (0.5927, 0.8054),
    800: (0.4670, 0.8843),
    900: (0.3649, 0.9311),
    999: (0.2850, 0.9585),
}
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
FILES = {
    **{kind: kind for kind in AUGMENTATIONS},
    "color_jitter_seva": "color_jitter",
    "mdpo_crop": "random_resized_crop",
}
"""Config file -> kind; more than one file of a kind when papers differ in its strength."""


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


# --- diffusion noise


@pytest.mark.parametrize(("step", "expected"), COEFFICIENTS.items())
def test_noise_coefficients(step, expected):
    assert DiffusionNoise(step=step).coefficients() == pytest.approx(expected, abs=5e-5)


def test_noise_schedule_agrees_with_a_tensor_version():
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.float64))
    left = torch.cumprod(1 - (betas * (0.5e-2 - 1e-5) + 1e-5), 0)
    for step in (0, 1, 499, 999):
        signal, noise = DiffusionNoise(step=step).coefficients()
        assert signal == pytest.approx(left[step].sqrt().item(), rel=1e-9)
        assert noise == pytest.approx((1 - left[step]).sqrt().item(), rel=1e-9)


@pytest.mark.parametrize("step", [100, 500, 999])
def test_noise_statistics(step):
    x = torch.full((4, 3, 100, 100), 2.0)
    out = DiffusionNoise(step=step)(x, torch_rng(0, "t", "a"))
    signal, noise = COEFFICIENTS[step]
    assert out.mean().item() == pytest.approx(2 * signal, abs=5 * noise / x.numel() ** 0.5 + 2e-4)
    assert out.std().item() == pytest.approx(noise, rel=0.01)
    rest = (out - signal * x) / noise
    neighbours = (rest[..., 1:] * rest[..., :-1]).mean().item()
    assert abs(neighbours) < 0.02
    assert (rest.abs() > 2).float().mean().item() == pytest.approx(0.0455, abs=0.003)


@pytest.mark.parametrize("shape", [(3, 72, 72), (1, 5, 3, 8, 8), (40, 1176), (7,)])
def test_noise_takes_any_shape(shape):
    x = torch.zeros(shape)
    out = DiffusionNoise()(x, torch_rng(0, "t"))
    assert out.shape == x.shape and out.dtype == torch.float32
    assert not x.any() and out.all()


def test_noise_depends_on_its_generator_only():
    x = torch.linspace(-2, 2, 300).view(3, 10, 10)
    noise = DiffusionNoise()
    first = {id: noise(x, torch_rng(0, "view", id)) for id in "abc"}
    torch.manual_seed(9)
    again = {id: noise(x, torch_rng(0, "view", id)) for id in "cab"}
    assert all(torch.equal(first[id], again[id]) for id in "abc")
    assert not torch.equal(first["a"], first["b"])
    assert not torch.equal(first["a"], noise(x, torch_rng(1, "view", "a")))


def test_noise_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    DiffusionNoise()(torch.zeros(50), torch_rng(0, "t"))
    assert torch.equal(before, torch.get_rng_state())


def normalised(image):
    """[H, W, 3] as CLIP's processor makes them; ranges of 8 bits are lost nowhere else."""
    return (np.asarray(image) / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)


@pytest.mark.parametrize("step", [200, 400])
def test_noise_on_the_picture_is_that_of_the_pixel_values(step):
    """At steps at which a gray picture is hardly clipped."""
    x = Image.new("RGB", (200, 200), (128, 118, 105))
    out = normalised(DiffusionNoiseImage(step=step, size=200)(x, random.Random(0)))
    signal, noise = COEFFICIENTS[step]
    clean = normalised(x)[0, 0]
    assert np.abs(out.mean((0, 1)) - signal * clean).max() < 5 * noise / 200
    assert np.abs(out.std((0, 1)) / noise - 1).max() < 0.02
    eps = out - out.mean((0, 1))
    assert abs((eps[:, 1:] * eps[:, :-1]).mean()) < 0.02 * noise**2, (
        "each value has noise of its own"
    )


def test_noise_on_the_picture_is_clipped():
    x = Image.new("RGB", (64, 64), "white")
    out = np.asarray(DiffusionNoiseImage(step=999, size=64)(x, random.Random(0)))
    assert 0.003 < (out == 0).mean() < 0.03, "a normal tail beyond 2.4 standard deviations"
    assert 0.03 < (out == 255).mean() < 0.1, "and beyond 1.6"


def test_almost_no_noise_leaves_the_picture_on_a_square():
    x = picture(90, 60)
    out = DiffusionNoiseImage(step=0, size=90)(x, random.Random(0))
    square = padded(x, CLIP_MEAN)
    difference = np.abs(np.asarray(out).astype(int) - np.asarray(square).astype(int))
    assert difference.max() <= 2


@pytest.mark.parametrize("step", [-1, 1000, 500.5, "500", True])
def test_noise_step_is_checked(step):
    with pytest.raises(ValidationError, match="step"):
        DiffusionNoise(step=step)


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


# --- configuration


def test_every_class_has_its_file_and_the_other_way_round():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(FILES)


def test_a_second_file_of_a_kind_states_every_field_too():
    text = (CONF / "color_jitter_seva.yaml").read_text()
    assert text.startswith("# @package aug.color_jitter_seva\n")
    values = yaml.safe_load(text)
    assert set(values) == set(AUGMENTATIONS["color_jitter"].model_fields)
    assert list(values.values()) == ["color_jitter", 0.4, 0.4, 0.4, 0.1]
    assert TypeAdapter(AnyAugmentation).validate_python(values).hue == 0.1


@pytest.mark.parametrize("kind", sorted(AUGMENTATIONS))
def test_file_states_every_default(kind):
    text = (CONF / f"{kind}.yaml").read_text()
    assert text.startswith(f"# @package aug.{kind}\n")
    values = yaml.safe_load(text)
    assert values == AUGMENTATIONS[kind]().to_json()
    assert TypeAdapter(AnyAugmentation).validate_python(values) == AUGMENTATIONS[kind]()


@pytest.mark.parametrize(("file", "kind"), sorted(FILES.items()))
def test_every_parameter_has_a_comment_and_a_description(file, kind):
    lines = (CONF / f"{file}.yaml").read_text().splitlines()
    assert any(line.startswith("# Source: ") for line in lines)
    assert all("#" in line for line in lines if not line.startswith("kind:"))
    fields = AUGMENTATIONS[kind].model_fields
    assert all(field.description for name, field in fields.items() if name != "kind")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("moco", "scale_min", 0.0), ("moco", "scale_max", 1.1), ("moco", "flip_probability", 1.5),
        ("moco", "size", 3), ("color_jitter", "hue", 0.6), ("color_jitter", "brightness", -0.1),
        ("low_resolution", "side", 0), ("gaussian_blur", "radius_max", float("inf")),
        ("horizontal_flip", "probability", -0.1), ("random_resized_crop", "ratio_min", 0.0),
        ("moco", "hues", 0.1), ("random_posterize", "bits", 0), ("random_posterize", "bits", 9),
        ("random_solarize", "threshold", 256), ("pad", "padding", 0), ("patch_shuffle", "grid", 1),
        ("object_mask", "area_max", 1.0), ("object_mask", "fill", "black"),
        ("blend", "mode", "cut"),
        ("random_affine", "scale_min", 0.0), ("rand_augment", "magnitude", 31),
        ("random_rotation", "degrees_max", 400), ("bad_prompt", "prompts", ""),
    ],
)  # fmt: skip
def test_bounds_are_checked_and_named(kind, field, value):
    with pytest.raises(ValidationError, match=field):
        AUGMENTATIONS[kind](**{field: value})


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("moco", {"scale_min": 0.9}, {"scale_max": 0.5}),
        ("moco", {"ratio_min": 2.0}, {"ratio_max": 1.0}),
        ("moco", {"radius_min": 3.0}, {"radius_max": 2.0}),
        ("gaussian_blur", {"radius_min": 3.0}, {"radius_max": 2.0}),
        ("random_resized_crop", {"scale_min": 0.6}, {"scale_max": 0.5}),
        ("random_resized_crop", {"ratio_min": 2.0}, {"ratio_max": 1.0}),
        ("byol", {"scale_min": 0.9}, {"scale_max": 0.5}),
        ("random_rotation", {"degrees_min": 50.0}, {"degrees_max": 40.0}),
        ("random_affine", {"degrees_min": 50.0}, {"degrees_max": 40.0}),
        ("random_affine", {"scale_min": 0.9}, {"scale_max": 0.5}),
        ("object_mask", {"count_min": 4}, {"count_max": 3}),
        ("object_mask", {"area_min": 0.5}, {"area_max": 0.3}),
        ("object_mask", {"ratio_min": 2.0}, {"ratio_max": 1.0}),
        ("blend", {"share_min": 0.6}, {"share_max": 0.5}),
    ],
)
def test_ranges_that_are_upside_down_are_refused(kind, low, high):
    with pytest.raises(ValidationError, match=f"{next(iter(low))}.*{next(iter(high))}"):
        AUGMENTATIONS[kind](**low, **high)


def test_import_is_light():
    code = (
        "import sys, seva_exp.augment\n"
        "print(*{'torch', 'kornia', 'numpy', 'PIL'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


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
