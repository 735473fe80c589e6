import numpy as np
import pytest
import torch
from PIL import Image

from mocosfl_mpi.data.normalise import denormalise, evaluation_images, normalise

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pixel_value_survives_the_round_trip(dtype):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    x = normalise(pixels, MEAN, STD, dtype)
    assert x.dtype == dtype
    back = denormalise(x, MEAN, STD).mul(255).round().to(torch.uint8)
    assert torch.equal(back, pixels)


def test_normalised_images_have_the_published_scale():
    x = normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), MEAN, STD, torch.float64)
    torch.testing.assert_close(
        x[0, :, 0, 0], (1 - torch.tensor(MEAN).double()) / torch.tensor(STD).double(), rtol=1e-6, atol=0
    )


def test_evaluation_images_of_the_right_size_are_only_normalised():
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        evaluation_images(pixels, 32, MEAN, STD, torch.float32), normalise(pixels, MEAN, STD, torch.float32)
    )


@pytest.mark.parametrize(("source", "size"), [(32, 20), (32, 48), (33, 8)])
def test_evaluation_images_are_resized_as_pillow_does(source, size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, source, source), dtype=np.uint8)
    x = evaluation_images(torch.from_numpy(pixels), size, MEAN, STD, torch.float32)
    ours = denormalise(x, MEAN, STD) * 255
    for image, expected in zip(ours, pixels, strict=True):
        resized = Image.fromarray(expected.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR)
        difference = image.numpy() - np.asarray(resized).transpose(2, 0, 1)
        assert np.abs(difference).max() < 1.1  # two roundings to uint8
