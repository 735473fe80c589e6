import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.config import Views
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.streams import Streams

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)


def feed(parts, batch, seed=0):
    maker = ViewMaker(Views(), 12, (0.5,) * 3, (0.25,) * 3, torch.float64)
    return Feed(PIXELS, [np.array(part) for part in parts], batch, maker, Streams(seed))


@given(size=st.integers(1, 11), batch=st.integers(1, 7), epoch=st.integers(0, 3), steps=st.integers(1, 12))
@settings(deadline=None)
def test_batches_run_through_one_shuffle_after_another(size, batch, epoch, steps):
    own = np.arange(20, 20 + size)
    source = feed([np.arange(20), own], batch)
    drawn = np.concatenate([source.indices(1, epoch, step) for step in range(steps)])
    assert len(drawn) == steps * batch
    for start in range(0, len(drawn), size):
        run = drawn[start : start + size]
        assert len(set(run.tolist())) == len(run), "an image comes back only when all others have been drawn"
        assert set(run.tolist()) <= set(own.tolist())
    assert np.array_equal(source.indices(1, epoch, steps - 1), drawn[-batch:]), "any step can be asked for again"


def test_order_depends_on_epoch_and_client_and_seed():
    source = feed([np.arange(30)] * 2, 30)
    orders = [source.indices(0, 0, 0), source.indices(0, 1, 0), source.indices(1, 0, 0), source.indices(0, 0, 1)]
    orders.append(feed([np.arange(30)] * 2, 30, seed=1).indices(0, 0, 0))
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


def test_views_of_a_client_do_not_depend_on_who_else_is_asked():
    source = feed([np.arange(0, 10), np.arange(10, 20), np.arange(20, 40)], 4)
    together = source.draw(np.array([0, 1, 2]), 1, 2)
    for client in range(3):
        alone = source.draw(np.array([client]), 1, 2)
        for both, one in zip(together, alone, strict=True):
            assert torch.allclose(both[client], one[0], rtol=0, atol=1e-12)


def test_draw_gives_two_different_normalised_views():
    first, second = feed([np.arange(10), np.arange(10, 40)], 5).draw(np.array([0, 1]), 0, 0)
    assert first.shape == second.shape == (2, 5, 3, 12, 12)
    assert first.dtype == torch.float64
    assert not torch.equal(first, second)
    for view in (first, second):
        assert view.min() >= -2 - 1e-9
        assert view.max() <= 2 + 1e-9


@pytest.mark.parametrize("batch", [1, 9])
def test_client_with_a_single_image(batch):
    assert feed([[3]], batch).indices(0, 0, 5).tolist() == [3] * batch
