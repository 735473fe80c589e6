import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.clients import participation
from mocosfl_mpi.config import parse
from mocosfl_mpi.streams import Streams


def sampled(clients, ratio, **settings):
    return parse({"client": {"count": clients, "sampling_ratio": ratio, **settings}}, "test")


def pool(config, streams, epoch, images=None):
    return participation.pool(config, streams, epoch, np.ones(config.client.count, int) if images is None else images)


@pytest.mark.parametrize("sampling", ["uniform", "by_data", "round_robin"])
@given(clients=st.integers(1, 60), ratio=st.floats(0.02, 1.0), epoch=st.integers(0, 5), seed=st.integers(0, 9))
def test_pool_is_a_sorted_sample_without_replacement(sampling, clients, ratio, epoch, seed):
    if int(round(ratio * clients, 9)) < 1:
        return
    config = sampled(clients, ratio, sampling=sampling)
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


def test_the_uniform_draw_is_the_one_it_was():
    """These pools are part of published state hashes."""
    config = sampled(12, 0.5)
    assert [pool(config, Streams(1234), epoch).tolist() for epoch in range(2)] == [
        [0, 1, 2, 3, 4, 7],
        [0, 2, 8, 9, 10, 11],
    ]


def test_clients_with_more_images_take_part_more_often():
    config, streams = sampled(4, 0.25, sampling="by_data"), Streams(5)
    images = np.array([10, 20, 30, 40])
    times = np.bincount(np.concatenate([pool(config, streams, epoch, images) for epoch in range(2000)]), minlength=4)
    # binomial: standard deviation at most 22
    assert np.abs(times - 2000 * images / 100).max() < 5 * 22


def test_in_turns_everybody_comes_as_often():
    config = sampled(10, 0.3, sampling="round_robin")
    pools = np.concatenate([pool(config, Streams(5), epoch) for epoch in range(10)])
    assert np.bincount(pools, minlength=10).tolist() == [3] * 10
    first = np.concatenate([pool(config, Streams(5), epoch) for epoch in range(3)])
    assert len(set(first.tolist())) == 9, "nobody twice before everybody once"
    assert len({tuple(pool(config, Streams(seed), 0).tolist()) for seed in range(20)}) > 10, "shuffled by the seed"


def test_a_trace_says_who_may_take_part():
    config = sampled(6, 0.34, sampling="trace", availability=("110", "011", "101"))
    seen = set()
    for epoch in range(60):
        found = pool(config, Streams(5), epoch).tolist()
        allowed = {client for client in range(6) if config.client.availability[client % 3][epoch % 3] == "1"}
        assert len(found) == 2
        assert set(found) <= allowed
        seen |= {(epoch % 3, client) for client in found}
    assert len(seen) == 12, "all that may, do"
