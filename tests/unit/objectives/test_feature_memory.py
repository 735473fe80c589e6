import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.objectives.feature_memory import FeatureMemory
from mocosfl_mpi.streams import Streams

DIM = 3


def memory(length, clients=1, *, shared=True, seed=0):
    return FeatureMemory(length, DIM, clients, shared=shared, streams=Streams(seed), dtype=torch.float64)


def numbered(start, *shape):
    """Keys that carry their own number, to see where each goes."""
    count = int(np.prod(shape))
    return torch.arange(start, start + count, dtype=torch.float64).view(*shape, 1).expand(*shape, DIM).clone()


@given(length=st.integers(1, 9), sizes=st.lists(st.integers(1, 12), max_size=12))
@settings(deadline=None)
def test_shared_ring_is_a_list_that_forgets_its_head(length, sizes):
    ring = memory(length)
    naive = list(ring.keys[0].clone())  # index 0 is overwritten first
    start = 0
    for size in sizes:
        keys = numbered(start, 1, size)
        ring.enqueue(keys, np.arange(1))
        naive = (naive + list(keys[0]))[-length:]
        start += size
        assert torch.equal(ring.newest_first(), torch.stack(naive).flip(0))
        assert ring.position[0] == start % length


@given(
    length=st.integers(1, 5),
    pools=st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=8),
    rows=st.integers(1, 4),
    blocks=st.integers(1, 2),
)
@settings(deadline=None)
def test_private_rings_belong_to_client_ids(length, pools, rows, blocks):
    """Under sampling too: the published code mixes ids with places in the pool."""
    ring = memory(6 * length, 6, shared=False)
    naive = [list(keys.clone()) for keys in ring.keys]
    start = 0
    for chosen in pools:
        pool = np.array(sorted(chosen))
        keys = numbered(start, blocks, len(pool) * rows)
        ring.enqueue(keys, pool)
        start += keys[..., 0].numel()
        for block in keys:
            for place, client in enumerate(pool):
                own = list(block[place * rows : (place + 1) * rows])
                naive[client] = (naive[client] + own)[-length:]
        for client in range(6):
            assert torch.equal(ring.newest_first(client), torch.stack(naive[client]).flip(0))
        queries = torch.randn(len(pool) * rows, DIM, dtype=torch.float64)
        found = ring.similarities(queries, pool)
        assert found.shape == (len(pool) * rows, length)
        for row, query in enumerate(queries):
            expected = torch.stack([query @ key for key in naive[pool[row // rows]]])
            assert torch.allclose(found[row].sort().values, expected.sort().values, rtol=1e-12, atol=1e-12)


def test_blocks_follow_each_other_in_the_shared_ring():
    """k1 block first, then k2 (spec 3.2)."""
    ring = memory(5)
    ring.enqueue(numbered(0, 2, 2), np.array([0, 3]))
    assert ring.newest_first()[:4, 0].tolist() == [3, 2, 1, 0]


def test_clients_with_different_numbers_of_rows_find_their_own_memories():
    ring, each = memory(12, 4, shared=False), [3, 1, 2]
    pool = np.array([0, 2, 3])
    queries = torch.randn(6, DIM, dtype=torch.float64)
    found = ring.similarities(queries, pool, each)
    for row, client in enumerate(np.repeat(pool, each)):
        assert torch.allclose(found[row], ring.keys[client] @ queries[row], rtol=1e-12, atol=1e-12)
    before = ring.keys.clone()
    ring.enqueue(numbered(0, 2, 6), pool, each)
    assert ring.newest_first(0)[:3, 0].tolist() == [8, 7, 6], "of six keys a memory of three keeps the newest"
    assert ring.newest_first(2)[:2, 0].tolist() == [9, 3]
    assert ring.newest_first(3)[:3, 0].tolist() == [11, 10, 5]
    assert torch.equal(ring.keys[1], before[1])


def test_shared_similarities():
    ring = memory(7)
    queries = torch.randn(4, DIM, dtype=torch.float64)
    assert torch.equal(ring.similarities(queries, np.arange(2)), queries @ ring.keys[0].T)


@pytest.mark.parametrize("shared", [True, False])
def test_initial_keys_are_unit_vectors_of_the_seed(shared):
    ring = memory(50, 4, shared=shared)
    assert ring.keys.shape == ((1, 50, DIM) if shared else (4, 12, DIM))
    assert torch.allclose(ring.keys.norm(dim=2), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(ring.keys, memory(50, 4, shared=shared).keys)
    assert not torch.equal(ring.keys, memory(50, 4, shared=shared, seed=1).keys)
    assert ring.keys.view(-1, DIM).unique(dim=0).shape[0] == ring.keys.shape[0] * ring.keys.shape[1]


def test_memory_keeps_copies():
    ring = memory(4)
    keys = numbered(1, 1, 2)
    ring.enqueue(keys, np.arange(1))
    keys.zero_()
    assert ring.newest_first()[:2, 0].tolist() == [2, 1]
    assert not ring.keys.requires_grad
