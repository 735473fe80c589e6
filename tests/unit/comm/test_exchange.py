"""Collectives on one rank; tests/mpi runs them on several."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.comm import exchange as module
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.placement import deal


@pytest.fixture(scope="module")
def cluster():
    return Cluster()


def exchange(cluster, clients, size):
    found = Exchange(cluster)
    found.begin(deal(np.arange(clients), size, cluster.hosts))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_up_and_down_are_inverse_and_bytes_are_counted(cluster, dtype):
    blocks = [torch.randn(2, 3, 4, 5).to(dtype), torch.randn(1, 3, 4, 5).to(dtype)]
    traffic = exchange(cluster, 3, 2)
    everything = traffic.up(blocks, (3, 4, 5), dtype)
    assert torch.equal(everything, torch.cat(blocks))
    back = traffic.down(everything, [2, 1], (3, 4, 5), dtype)
    assert [len(part) for part in back] == [2, 1]
    assert all(torch.equal(a, b) for a, b in zip(back, blocks, strict=True))
    # sender and receiver are the same rank here: 3 clients, 60 numbers each, twice per direction
    assert traffic.take_bytes() == 3 * 60 * dtype.itemsize * 4
    assert traffic.take_bytes() == 0


def test_strided_rows_travel_whole(cluster):
    rows = torch.arange(24.0).view(4, 6)[:, 1:5:2]
    assert torch.equal(exchange(cluster, 4, 4).up([rows], [2], torch.float32), rows)


@pytest.mark.parametrize("slab", [2**26, 7, 1])
def test_weighted_mean(cluster, monkeypatch, slab):
    monkeypatch.setattr(module, "SLAB", slab)
    stacks = [torch.randn(2, 11), torch.randn(2, 11), torch.randn(1, 11)]
    weights = np.array([1.0, 5.0, 2.0, 30.0, 4.0])
    found = exchange(cluster, 5, 2).mean(stacks, 11, torch.float32, weights)
    expected = sum(w * row.double() for w, row in zip(weights, torch.cat(stacks), strict=True)) / weights.sum()
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.float())


@given(
    value=st.floats(allow_nan=False, allow_infinity=False, width=32),
    sizes=st.lists(st.integers(1, 50_000), min_size=1, max_size=20),
)
def test_mean_of_equal_models_is_that_model(cluster, value, sizes):
    rows = torch.full((len(sizes), 3), value, dtype=torch.float32)
    found = exchange(cluster, len(sizes), 4).mean(rows.split(4), 3, torch.float32, np.array(sizes, dtype=np.float64))
    assert torch.equal(found, rows[0])


def test_nothing_moves_on_one_rank(cluster):
    rows = {3: torch.ones(2)}
    assert exchange(cluster, 1, 1).relocate(rows, 2, torch.float32, [(3, 0, 0)]) == {}
    assert 3 in rows


def test_agreement(cluster):
    assert cluster.broadcast_json({"a": [1, None, "ß"]}) == {"a": [1, None, "ß"]}
    assert cluster.gather_json([1.5, "x"]) == [[1.5, "x"]]
    array = np.arange(6).reshape(2, 3)
    assert cluster.share(array) is array
    assert cluster.root_decides(lambda: 7) == cluster.everywhere(lambda: 7) == 7
