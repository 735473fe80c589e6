import numpy as np
import pytest
from PIL import Image

from mocosfl_mpi.data.images import Images, with_channels


def images(channels, n=50, side=9):
    pixels = np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    return Images(pixels, np.arange(n))


def test_colour_becomes_grey_as_in_pillow():
    colour = images(3)
    grey = with_channels(colour, 1)
    assert grey.pixels.shape == (50, 1, 9, 9)
    for one, other in zip(colour.pixels, grey.pixels, strict=True):
        expected = np.asarray(Image.fromarray(one.transpose(1, 2, 0)).convert("L"))
        np.testing.assert_array_equal(other[0], expected)
    assert grey.labels is colour.labels


def test_grey_is_repeated_and_comes_back():
    grey = images(1)
    colour = with_channels(grey, 3)
    assert colour.pixels.shape == (50, 3, 9, 9)
    np.testing.assert_array_equal(colour.pixels, np.broadcast_to(grey.pixels, (50, 3, 9, 9)))
    np.testing.assert_array_equal(with_channels(colour, 1).pixels, grey.pixels)


def test_the_same_channels_are_the_same_images():
    given = images(3)
    assert with_channels(given, 3) is given
    with pytest.raises(ValueError, match="2 channels cannot be given 3"):
        with_channels(images(2), 3)
