import numpy as np
import torch

from mocosfl_mpi import parts
from mocosfl_mpi.config import Views, parse
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.privacy.resistance import Images
from mocosfl_mpi.problem import Auxiliary, Problem
from mocosfl_mpi.streams import Streams

PLAIN = {"crop_scale_min": 1.0, "jitter_probability": 0.0, "grey_probability": 0.0, "blur_probability": 0.0}
VIEWS = Views(size=8, **PLAIN)


def problem(target):
    """Dark target images and light auxiliary ones, each of one colour."""
    dark = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), dtype=np.uint8)
    light = 200 + np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), dtype=np.uint8)
    auxiliary = Auxiliary(light, (0.8,), (0.05,))
    return Problem(dark, [np.arange(target)], (0.1,), (0.2,), auxiliary=auxiliary)


def configuration(**contrast):
    values = {
        "pretraining": {"auxiliary": "embedded", "target_share": 0.5, "batch": 3, "expert": True},
        "client": {"count": 1, "batch_size": 6},
        "contrast": contrast,
    }
    return parse(values, "test")


def drawn(target, epoch=0, step=0, **contrast):
    """Pixels 0 to 255 of a batch's first views, brought back as the resistance term does it."""
    config, mixed = configuration(**contrast), problem(target)
    views = ViewMaker(VIEWS, 8, mixed.mean, mixed.std, torch.float64)
    first, _ = parts.feed(config, mixed, views, Streams(5)).draw(np.array([0]), epoch, step)
    mean, std = mixed.scales(config)
    restored = Images(mean[: first.shape[1]], std[: first.shape[1]]).restore(first)
    return first, (255 * restored[0, :, 0, 0, 0]).round().int().tolist()


def test_target_comes_first_and_each_has_its_own_statistics():
    first, pixels = drawn(4)
    assert first.shape == (1, 6, 1, 8, 8)
    assert all(pixel < 4 for pixel in pixels[:3])
    assert all(200 <= pixel < 230 for pixel in pixels[3:])


def test_without_target_images_all_are_auxiliary():
    first, pixels = drawn(0)
    assert first.shape == (1, 3, 1, 8, 8)
    assert all(200 <= pixel < 230 for pixel in pixels)


def test_target_images_come_again_while_auxiliary_ones_are_passed_over_once():
    mixed, config = problem(4), configuration()
    assert mixed.steps_per_epoch(config.model_copy(update={"federation": config.federation})) == 10
    seen = [pixel for step in range(10) for pixel in drawn(4, step=step)[1]]
    dark = [pixel for pixel in seen if pixel < 100]
    assert sorted(pixel for pixel in seen if pixel > 100) == list(range(200, 230))
    assert {dark.count(image) for image in range(4)} == {7, 8}  # 30 draws of 4 images
    assert mixed.images.tolist() == [34]


def test_rows_of_both_views_have_statistics_in_their_order():
    mixed = problem(4)
    mean, std = mixed.scales(configuration(symmetric="both_views"))
    expected = [[0.1]] * 3 + [[0.8]] * 3
    torch.testing.assert_close(mean, torch.tensor(expected * 2))
    assert std.shape == (12, 1)
