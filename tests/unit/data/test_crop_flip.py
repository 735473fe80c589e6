"""The view that methods with labels learn from: padded, cropped, flipped."""

import numpy as np
import pytest
import torch

from mocosfl_mpi.data.crop_flip import DRAWS, CropFlip
from mocosfl_mpi.data.normalise import evaluation_images, normalise

MEAN, STD = (0.5, 0.25, 0.1), (0.5, 0.2, 0.4)
PIXELS = torch.randint(0, 256, (2, 3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws(*numbers):
    return np.tile(np.array(numbers), (2, 3, 1))


def maker(size=16, flip=0.5):
    return CropFlip(size, flip, MEAN, STD, torch.float64)


def test_the_middle_is_the_image_itself():
    views = maker()(PIXELS, draws(0.5, 0.5, 0.9))
    assert torch.equal(views, normalise(PIXELS, MEAN, STD, torch.float64))
    assert torch.equal(maker()(PIXELS, draws(0.5, 0.5, 0.1)), views.flip(-1))
    assert torch.equal(maker(flip=0.0)(PIXELS, draws(0.5, 0.5, 0.0)), views)


def test_a_corner_is_padded_with_black():
    """At 16 pixels the padding is 2: the first place shows two black rows and columns and the image's beginning."""
    image = normalise(PIXELS, MEAN, STD, torch.float64)
    black = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)], dtype=torch.float64)
    first = maker()(PIXELS, draws(0.0, 0.0, 0.9))
    assert torch.equal(first[..., 2:, 2:], image[..., :14, :14])
    assert (first[..., :2, :] == black[:, None, None]).all()
    assert (first[..., :, :2] == black[:, None, None]).all()
    last = maker()(PIXELS, draws(0.999, 0.999, 0.9))
    assert torch.equal(last[..., :14, :14], image[..., 2:, 2:])
    mixed = maker()(PIXELS, draws(0.0, 0.999, 0.1))
    assert torch.equal(mixed[..., 2:, 2:], image[..., :14, 2:].flip(-1))


def test_every_place_and_flip_is_as_likely():
    generator = np.random.default_rng(1)
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).expand(1, 5000, 1, 16, 16)
    made = CropFlip(16, 0.5, (0.0,), (1.0,), torch.float64)(image, generator.random((1, 5000, DRAWS)))
    kinds, counts = torch.unique(made.flatten(2)[0], dim=0, return_counts=True)
    assert len(kinds) == 5 * 5 * 2
    assert 60 < counts.min() <= counts.max() < 150


def test_another_size_is_resized_first():
    flat = evaluation_images(PIXELS.flatten(0, 1), 24, MEAN, STD, torch.float64).view(2, 3, 3, 24, 24)
    assert torch.equal(maker(24)(PIXELS, draws(0.5, 0.5, 0.9)), flat)


def test_wrong_draws_are_refused():
    with pytest.raises(ValueError, match=r"expected \[n, B, 3\]"):
        maker()(PIXELS, np.zeros((2, 3, 2)))
