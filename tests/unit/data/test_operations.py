"""Each batched operation against Pillow and torchvision on uint8 images, in units of 1/255."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from mocosfl_mpi.data._torchvision import torchvision
from mocosfl_mpi.data.colour import BRIGHTNESS, CONTRAST, SATURATION, blend, luma, shift_hue
from mocosfl_mpi.data.resample import apply_matrices, blur_matrices, crop_matrices

M, SIZE = 12, 32


def images(channels=3):
    """Smooth and noisy images, uint8 ``[M, SIZE, SIZE, channels]``."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (M, 5, 5, channels), dtype=np.uint8)
    smooth = [
        np.stack([np.asarray(Image.fromarray(x[..., c]).resize((SIZE, SIZE))) for c in range(channels)], -1)
        for x in coarse
    ]
    noise = random.integers(-40, 41, (M, SIZE, SIZE, channels))
    return (np.stack(smooth) + noise * (np.arange(M) % 2)[:, None, None, None]).clip(0, 255).astype(np.uint8)


def planes(pixels):
    return torch.from_numpy(pixels).permute(3, 0, 1, 2).contiguous().double() / 255


def difference(ours, pillow):
    """Our planes minus Pillow's images, ``[M, ...]``, in 1/255."""
    expected = np.stack([np.asarray(image).reshape(*image.size[::-1], -1) for image in pillow])
    return ours.permute(1, 2, 3, 0).numpy() * 255 - expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 24, 50])
def test_crop_resize_and_flip(channels, size):
    functional = torchvision().transforms.functional
    random = np.random.default_rng(1)
    tall, wide = random.integers(4, SIZE + 1, M), random.integers(4, SIZE + 1, M)
    top, left = random.integers(0, SIZE - tall + 1), random.integers(0, SIZE - wide + 1)
    flip = random.random(M) < 0.5
    pixels = images(channels)
    to = torch.from_numpy
    rows = crop_matrices(to(top).double(), to(tall).double(), SIZE, size)
    columns = crop_matrices(to(left).double(), to(wide).double(), SIZE, size, to(flip))
    expected = []
    for v in range(M):
        image = Image.fromarray(pixels[v, ..., 0] if channels == 1 else pixels[v])
        image = functional.resized_crop(image, int(top[v]), int(left[v]), int(tall[v]), int(wide[v]), [size, size])
        expected.append(functional.hflip(image) if flip[v] else image)
    delta = difference(apply_matrices(rows, columns, planes(pixels)), expected)
    assert np.abs(delta).max() < 1.1  # Pillow rounds after each axis
    assert np.abs(delta).mean() < 0.4


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.8, 1.2, 1.4143, 1.7, 2.0])
def test_blur(radius):
    pixels = images()
    matrices = blur_matrices(torch.full((M,), radius, dtype=torch.float64), SIZE)
    torch.testing.assert_close(matrices.sum(dim=2), torch.ones(M, SIZE, dtype=torch.float64))
    expected = [Image.fromarray(x).filter(ImageFilter.GaussianBlur(radius)) for x in pixels]
    delta = difference(apply_matrices(matrices, matrices, planes(pixels)), expected)
    assert np.abs(delta).max() < 3.5  # Pillow rounds to uint8 after each of six passes
    assert np.abs(delta).mean() < 1.0


def test_blur_is_nearly_gaussian_inside():
    matrix = blur_matrices(torch.tensor([1.7], dtype=torch.float64), 65)[0]
    distance = torch.arange(65) - 32.0
    gauss = torch.exp(-(distance**2) / (2 * 1.7**2))
    assert (matrix[32] - gauss / gauss.sum()).abs().max() < 0.012  # three boxes, not a Gaussian
    assert float((matrix[32] * distance**2).sum()) == pytest.approx(1.7**2, rel=1e-9)


@pytest.mark.parametrize("kind", [BRIGHTNESS, CONTRAST, SATURATION])
@pytest.mark.parametrize("channels", [1, 3])
def test_blends(kind, channels):
    functional = torchvision().transforms.functional
    adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)[kind]
    pixels = images(channels)
    factor = np.linspace(0.6, 1.4, M)
    ours = planes(pixels)
    blend(ours, torch.from_numpy(factor), torch.full((M,), kind))
    expected = [
        adjust(Image.fromarray(x[..., 0] if channels == 1 else x), f) for x, f in zip(pixels, factor, strict=True)
    ]
    delta = difference(ours, expected)
    assert np.abs(delta).max() < 1.5
    assert delta.min() > -0.6
    assert delta.mean() < 0.6  # Pillow cuts off fractions, so it is darker by half a step


def test_each_view_gets_its_own_blend():
    pixels = images()
    together = planes(pixels)
    factor, kind = torch.linspace(0.6, 1.4, M).double(), torch.arange(M) % 3
    blend(together, factor, kind)
    for v in range(M):
        alone = planes(pixels[v : v + 1])
        blend(alone, factor[v : v + 1], kind[v : v + 1])
        assert torch.equal(alone[:, 0], together[:, v])


def test_hue_equals_torchvisions_on_tensors():
    functional = torchvision().transforms.functional
    pixels = images()
    turns = np.linspace(-0.1, 0.1, M)
    ours = planes(pixels)
    shift_hue(ours, torch.from_numpy(turns))
    for v in range(M):
        expected = functional.adjust_hue(planes(pixels)[:, v], float(turns[v]))
        torch.testing.assert_close(ours[:, v], expected, rtol=0, atol=1e-6)


def test_hue_is_close_to_pillows_which_has_256_hues():
    functional = torchvision().transforms.functional
    pixels = images()
    turns = np.linspace(-0.1, 0.1, M)
    ours = planes(pixels)
    shift_hue(ours, torch.from_numpy(turns))
    expected = [functional.adjust_hue(Image.fromarray(x), f) for x, f in zip(pixels, turns, strict=True)]
    delta = difference(ours, expected)
    assert np.abs(delta).mean() < 2.0
    assert np.abs(delta).max() < 15.0


def test_hue_leaves_greys_alone():
    grey = torch.linspace(0, 1, 16, dtype=torch.float64).view(1, 1, 4, 4).repeat(3, 1, 1, 1)
    turned = grey.clone()
    shift_hue(turned, torch.tensor([0.1]).double())
    torch.testing.assert_close(turned, grey)


def test_luma_is_pillows():
    pixels = images()
    expected = [Image.fromarray(x).convert("L") for x in pixels]
    assert np.abs(difference(luma(planes(pixels))[None], expected)).max() < 0.51
