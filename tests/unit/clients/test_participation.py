import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.clients.participation import pool
from mocosfl_mpi.config import parse
from mocosfl_mpi.streams import Streams


def sampled(clients, ratio):
    return parse({"client": {"count": clients, "sampling_ratio": ratio}}, "test")


@given(clients=st.integers(1, 60), ratio=st.floats(0.02, 1.0), epoch=st.integers(0, 5), seed=st.integers(0, 9))
def test_pool_is_a_sorted_sample_without_replacement(clients, ratio, epoch, seed):
    if int(round(ratio * clients, 9)) < 1:
        return
    config = sampled(clients, ratio)
    found = pool(config, Streams(seed), epoch)
    assert len(found) == config.pool_size == len(set(found.tolist()))
    assert (np.diff(found) > 0).all()
    assert found.min() >= 0
    assert found.max() < clients
    assert np.array_equal(found, pool(config, Streams(seed), epoch))


@pytest.mark.parametrize(("clients", "ratio", "size"), [(20, 0.25, 5), (1000, 0.1, 100), (100, 0.29, 29), (3, 0.5, 1)])
def test_size_of_the_pool(clients, ratio, size):
    assert len(pool(sampled(clients, ratio), Streams(0), 0)) == size


def test_everybody_takes_part_without_sampling():
    assert pool(sampled(7, 1.0), Streams(0), 3).tolist() == list(range(7))


def test_each_epoch_draws_afresh_and_uniformly():
    config, streams = sampled(20, 0.25), Streams(5)
    pools = [pool(config, streams, epoch) for epoch in range(2000)]
    assert len({tuple(p.tolist()) for p in pools}) > 1500
    times = np.bincount(np.concatenate(pools), minlength=20)
    # 2000 epochs, probability 1/4 each: mean 500, standard deviation 19.4
    assert np.abs(times - 500).max() < 5 * 19.4
