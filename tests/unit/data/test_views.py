import numpy as np
import pytest
import torch

from mocosfl_mpi.config import Views
from mocosfl_mpi.data.idx import load_embedded
from mocosfl_mpi.data.views import DRAWS, ViewMaker, denormalise
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams
from tests.unit.data.test_operations import images

OFF = {"jitter_probability": 0, "grey_probability": 0, "blur_probability": 0, "flip_probability": 0}


def draws(n, batch, seed=0):
    uniform = Streams(seed).uniforms("views", epoch=0, step=0, clients=range(n), count=batch * 2 * DRAWS)
    return uniform.reshape(n, batch, 2, DRAWS)


def colour_block():
    """12 smooth and noisy colour images as 3 clients with 4 each."""
    return torch.from_numpy(images()).permute(0, 3, 1, 2).reshape(3, 4, 3, 32, 32)


def grey_block():
    return torch.from_numpy(load_embedded().train.pixels[:12]).view(3, 4, 1, 28, 28)


def maker(size=32, channels=3, dtype=torch.float32, **settings):
    return ViewMaker(Views(**settings), size, (0.45,) * channels, (0.25,) * channels, dtype)


def in_255(view, channels=3):
    return denormalise(view, (0.45,) * channels, (0.25,) * channels) * 255


@pytest.mark.parametrize("pipeline", ["mocov1", "mocov2"])
@pytest.mark.parametrize("size", [32, 24])
def test_fast_and_exact_colour_views_are_nearly_the_same(pipeline, size):
    block, uniform = colour_block(), np.concatenate([draws(3, 4, seed) for seed in range(4)])
    block = block.repeat(4, 1, 1, 1, 1)
    pair = [maker(size, pipeline=pipeline, exact=exact)(block, uniform) for exact in (False, True)]
    for fast, exact in zip(*pair, strict=True):
        assert fast.shape == exact.shape == (12, 4, 3, size, size)
        delta = (in_255(fast) - in_255(exact)).abs()
        # Pillow cuts off fractions in each of three blends, and knows 256 hues.
        assert delta.mean() < 1.6
        assert delta.mean(dim=(2, 3, 4)).max() < 4.0


@pytest.mark.parametrize("pipeline", ["mocov1", "mocov2"])
def test_fast_and_exact_grey_views_are_nearly_the_same(pipeline):
    pair = [maker(28, 1, pipeline=pipeline, exact=exact)(grey_block(), draws(3, 4)) for exact in (False, True)]
    for fast, exact in zip(*pair, strict=True):
        assert fast.shape == exact.shape == (3, 4, 1, 28, 28)
        delta = (in_255(fast, 1) - in_255(exact, 1)).abs()
        assert delta.mean() < 1.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exact", [False, True])
def test_with_everything_off_the_image_comes_back(dtype, exact):
    for view in maker(dtype=dtype, exact=exact, crop_scale_min=1.0, **OFF)(colour_block(), draws(3, 4)):
        assert view.dtype == dtype
        assert torch.equal(in_255(view).round().to(torch.uint8), colour_block())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("pipeline", ["mocov1", "mocov2"])
def test_the_flip_mirrors(exact, pipeline):
    settings = {**OFF, "flip_probability": 1, "crop_scale_min": 1.0, "exact": exact, "pipeline": pipeline}
    query, key = maker(**settings)(colour_block(), draws(3, 4))
    assert torch.equal(in_255(query).round().to(torch.uint8), colour_block().flip(-1))
    assert torch.equal(query, key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exact", [False, True])
def test_a_view_depends_on_nothing_but_its_pixels_and_draws(dtype, exact):
    block, uniform = colour_block(), draws(3, 4)
    make = maker(dtype=dtype, exact=exact)
    torch.manual_seed(1)
    query, key = make(block, uniform)
    torch.manual_seed(2)
    for client in range(3):
        for begin, end in ((0, 1), (1, 4)):
            part = block[client : client + 1, begin:end], uniform[client : client + 1, begin:end]
            alone_query, alone_key = make(*part)
            assert torch.equal(alone_query[0], query[client, begin:end])
            assert torch.equal(alone_key[0], key[client, begin:end])
    swapped_query, swapped_key = make(block, uniform[:, :, ::-1].copy())
    assert torch.equal(swapped_query, key)
    assert torch.equal(swapped_key, query)


def test_chunks_do_not_show(monkeypatch):
    block, uniform = colour_block(), draws(3, 4)
    whole = maker()(block, uniform)
    monkeypatch.setattr("mocosfl_mpi.data.views._CPU_CHUNK", 5 * 3 * 32 * 32)
    assert all(torch.equal(a, b) for a, b in zip(whole, maker()(block, uniform), strict=True))


def test_float64_agrees_with_float32():
    pairs = zip(
        maker()(colour_block(), draws(3, 4)), maker(dtype=torch.float64)(colour_block(), draws(3, 4)), strict=True
    )
    for single, double in pairs:
        torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-3)


def test_grey_views_have_equal_channels():
    query, _ = maker(grey_probability=1)(colour_block(), draws(3, 4))
    torch.testing.assert_close(query[:, :, 0], query[:, :, 2])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="expected"):
        maker()(colour_block(), draws(3, 3))
    with pytest.raises(BadInput, match="above 0"):
        ViewMaker(Views(), 32, (0.5,), (0.0,), torch.float32)
