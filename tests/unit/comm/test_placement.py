import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.clients.wealth import dealt
from mocosfl_mpi.comm.placement import deal
from mocosfl_mpi.config import parse

pools = st.sets(st.integers(0, 500), min_size=1, max_size=60).map(lambda ids: np.array(sorted(ids)))
hosts = st.integers(1, 9).map(lambda n: [0] if n == 1 else list(range(1, n)))


@given(pool=pools, size=st.integers(1, 20), ranks=hosts)
def test_blocks_cover_the_pool_in_order(pool, size, ranks):
    found = deal(pool, size, ranks)
    assert np.array_equal(np.concatenate(found.blocks), pool)
    assert all(len(block) == size for block in found.blocks[:-1])
    assert 1 <= len(found.blocks[-1]) <= size


@given(pool=pools, size=st.integers(1, 20), ranks=hosts, others=hosts)
def test_blocks_do_not_depend_on_the_hosts(pool, size, ranks, others):
    one, two = deal(pool, size, ranks), deal(pool, size, others)
    assert len(one.blocks) == len(two.blocks)
    assert all(np.array_equal(a, b) for a, b in zip(one.blocks, two.blocks, strict=True))


@given(pool=pools, size=st.integers(1, 20), ranks=hosts)
def test_hosts_share_evenly(pool, size, ranks):
    found = deal(pool, size, ranks)
    assert set(found.owners) <= set(ranks)
    blocks = [found.owners.count(rank) for rank in ranks]
    assert max(blocks) - min(blocks) <= 1
    clients = [found.clients_of(rank) for rank in ranks]
    assert sum(clients) == len(pool)
    assert max(clients) <= size * max(blocks)
    assert found.clients_of(99) == 0


@given(pool=pools, size=st.integers(1, 20), ranks=hosts)
def test_waves_gathered_in_rank_order_stand_in_client_order(pool, size, ranks):
    found = deal(pool, size, ranks, kinds=(pool > 250).astype(np.int64))
    gathered = []
    for wave in found.waves:
        assert len({found.kinds[block] for block in wave}) == 1
        by_rank = [found.blocks[block] for rank in ranks for block in wave if found.owners[block] == rank]
        assert len({found.owners[block] for block in wave}) == len(wave)
        gathered += by_rank
    assert np.array_equal(np.concatenate(gathered), pool)
    owners = found.owner_of_clients()
    for rank in ranks:
        assert found.clients_of(rank) == (owners == rank).sum()


@given(count=st.integers(1, 60), ranks=hosts)
def test_all_hosts_have_a_block_in_every_wave_but_the_last(count, ranks):
    """So that the first wave is there when each has computed one block, not when the first host has computed all."""
    found = deal(np.arange(count), 1, ranks)
    assert [len(wave) for wave in found.waves[:-1]] == [len(ranks)] * (len(found.waves) - 1)


@given(pool=pools, size=st.integers(1, 20), ranks=hosts, rich=st.integers(0, 500), factor=st.integers(1, 16))
def test_a_block_holds_clients_with_equal_batches(pool, size, ranks, rich, factor):
    weights = np.where(pool < rich, factor, 1)
    found = deal(pool, size, ranks, weights)
    assert np.array_equal(np.concatenate(found.blocks), pool)
    for block, weight in zip(found.blocks, found.weights, strict=True):
        assert 1 <= len(block) <= size
        assert set(np.where(block < rich, factor, 1)) == {weight}
    assert [len(b) for b in found.blocks] == [len(b) for b in deal(pool, size, [0], weights).blocks]
    assert sum(found.work_of(rank) for rank in ranks) == weights.sum()


@given(pool=pools, size=st.integers(1, 20), ranks=hosts, rich=st.integers(0, 500))
def test_a_block_holds_clients_of_one_kind(pool, size, ranks, rich):
    kinds = np.where(pool < rich, 0, 1)
    found = deal(pool, size, ranks, kinds=kinds)
    assert np.array_equal(np.concatenate(found.blocks), pool)
    for block, kind in zip(found.blocks, found.kinds, strict=True):
        assert set(np.where(block < rich, 0, 1)) == {kind}
    assert sorted(kind for rank in ranks for kind in found.kinds_of(rank)) == sorted(found.kinds)
    assert all(found.kinds_of(rank) == sorted(found.kinds_of(rank)) for rank in ranks)
    for rank in ranks:
        assert found.work_of(rank, 0) + found.work_of(rank, 1) == found.work_of(rank)
    assert sum(found.work_of(rank, 0) for rank in ranks) == (pool < rich).sum()


def test_hosts_share_the_work_not_the_blocks():
    found = deal(np.arange(8), 1, [1, 2], np.array([4, 4, 1, 1, 1, 1, 1, 1]))
    assert [found.work_of(rank) for rank in (1, 2)] == [7, 7]
    odd = deal(np.arange(7), 1, [1, 2], np.array([4, 4, 4, 1, 1, 1, 1]))
    assert [odd.work_of(rank) for rank in (1, 2)] == [8, 8]
    assert odd.clients_of(1) == 2


@given(pool=pools, blocks=st.integers(1, 30), ranks=hosts, rich=st.integers(0, 500), factor=st.integers(1, 3))
def test_equal_blocks_cover_the_pool_and_differ_by_one_client(pool, blocks, ranks, rich, factor):
    weights = np.where(pool < rich, factor, 1)
    found = deal(pool, 99, ranks, weights, equal=blocks)
    assert np.array_equal(np.concatenate(found.blocks), pool)
    assert max(map(len, found.blocks)) <= -(-len(pool) // blocks)
    for weight in set(found.weights.tolist()):
        sizes = [len(block) for block, its in zip(found.blocks, found.weights, strict=True) if its == weight]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1
    assert [len(b) for b in found.blocks] == [len(b) for b in deal(pool, 99, [0], weights, equal=blocks).blocks]
    if len(set(weights.tolist())) == 1:
        assert len(found.blocks) == min(blocks, len(pool))


@given(count=st.integers(1, 1200), ranks=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
def test_the_usual_numbers_of_hosts_get_equal_shares_of_a_pool(count, ranks):
    """100 clients: 50 and 50 for two hosts. They were 54 and 46, in blocks of six."""
    config = parse({"client": {"count": count}}, "here")
    found = dealt(config, np.arange(count), range(ranks))
    assert len(found.blocks) == config.blocks
    shares = [found.clients_of(rank) for rank in range(ranks)]
    if count >= 24:
        assert max(shares) - min(shares) <= 1
    assert max(map(len, found.blocks)) == config.block_size <= 16


def test_blocks_of_a_pool_with_absent_clients_are_no_larger():
    config = parse({"client": {"count": 385}}, "here")
    for present in (384, 100, 49, 7):
        assert max(map(len, dealt(config, np.arange(present), [0]).blocks)) <= config.block_size
