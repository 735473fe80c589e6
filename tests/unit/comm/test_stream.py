"""What needs no second rank; tests/mpi/test_windows.py has several."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.placement import deal
from mocosfl_mpi.comm.stream import has_own_cores, stream, waves_of
from mocosfl_mpi.rows import Rows

CPU = torch.device("cpu")
SHAPES = (3, 2), (4,)


@given(
    pool=st.integers(1, 40),
    rich=st.integers(0, 40),
    size=st.integers(1, 5),
    ranks=st.integers(2, 6),
    factor=st.integers(1, 3),
)
def test_waves_tile_the_rows_of_each_kind(pool, rich, size, ranks, factor):
    clients = np.arange(pool)
    weights, kinds = np.where(clients < rich, factor, 1), (clients >= rich).astype(np.int64)
    dealt = deal(clients, size, list(range(1, ranks)), weights, kinds)
    seen = [waves_of(dealt, 2, rank, ranks) for rank in range(ranks)]
    owner = {kind: np.full(2 * int(weights[kinds == kind].sum()), -1) for kind in (0, 1)}
    for number, wave in enumerate(seen[0]):
        for rank in range(ranks):
            own = seen[rank][number]
            assert (own.kind, own.begin, own.stop) == (wave.kind, wave.begin, wave.stop)
            assert own.owns == (wave.of(rank).stop > wave.of(rank).start)
            assert (owner[wave.kind][wave.of(rank)] == -1).all()
            owner[wave.kind][wave.of(rank)] = rank
    by_client = np.repeat(dealt.owner_of_clients(), 2 * weights)
    assert np.array_equal(np.concatenate([owner[0], owner[1]]), by_client)
    assert seen[0][-1].stop == len(by_client)


@pytest.mark.parametrize("eager", [True, False])
def test_with_one_rank_rows_come_and_go_where_they_are(eager):
    exchange = Exchange(Cluster.alone())
    exchange.begin(deal(np.arange(5), 2, [0], kinds=np.array([0, 0, 0, 1, 1])))
    traffic = stream(exchange, ("query", "key"), 2, SHAPES, torch.float32, CPU, eager=eager)
    for turn in range(2):
        blocks = [torch.randn(lanes, 2, *SHAPES[kind]) + turn for lanes, kind in ((2, 0), (1, 0), (2, 1))]
        traffic.begin()
        for block in blocks:
            traffic.send(block, -block)
        traffic.sent()
        whole = Rows((torch.cat([b.flatten(0, 1) for b in blocks[:2]]), blocks[2].flatten(0, 1)))
        assert len(traffic) == 10
        for at in (slice(0, 5), slice(5, 7), slice(7, 10)):
            query, key = traffic.take(at)
            for found, opposite, right in zip(query.parts, key.parts, whole[at].parts, strict=True):
                assert torch.equal(found, right)
                assert torch.equal(opposite, -right)
            traffic.answer(query.map(lambda part: 3 * part))
        traffic.end(down=True)
        for found, block in zip(traffic.receive(), blocks, strict=True):
            assert torch.equal(found, 3 * block)
    assert exchange.take_bytes() == 0


class Ranks:
    """What ranks say of themselves, as rank 0 hears it."""

    def __init__(self, *everyone):
        self.host_name = "a"
        self._everyone = everyone

    def gather_json(self, own):
        assert own == ["a", sorted(os.sched_getaffinity(0)), 2]
        return [list(each) for each in self._everyone]

    def broadcast_json(self, value):
        return value


@pytest.mark.parametrize(
    ("ranks", "spare"),
    [
        (Ranks(("a", [0, 1], 2), ("a", [0, 1], 1)), False),
        (Ranks(("a", [0, 1], 1), ("a", [0, 1], 1)), True),
        (Ranks(("a", [0, 1], 2), ("a", [2], 1), ("a", [3], 1)), True),
        (Ranks(("a", [0, 1], 2), ("b", [0, 1], 1), ("b", [0, 1], 1)), True),
        (Ranks(("a", [0, 1], 3), ("b", [0, 1], 1)), False),
    ],
)
def test_the_server_has_cores_of_its_own(ranks, spare):
    assert has_own_cores(ranks, 2) == spare
