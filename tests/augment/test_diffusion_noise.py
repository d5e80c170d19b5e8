"""Diffusion noise: the paper's coefficients, its statistics, and what it depends on."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from seva_exp.augment import DiffusionNoise, DiffusionNoiseImage
from seva_exp.augment.diffusion_noise_image import CLIP_MEAN, CLIP_STD
from seva_exp.core.randomness import torch_rng
from seva_exp.models.padding import padded

from .test_augmentations import picture

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
