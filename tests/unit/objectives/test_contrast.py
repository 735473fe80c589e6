import math

import pytest
import torch
from torch.nn import functional as F

from mocosfl_mpi.objectives.contrast import SYMMETRIES, info_nce


def units(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("memory", [1, 7, 6000])
def test_identical_keys_give_log_of_keys_plus_one(memory):
    queries = units(5, 16)
    key = units(1, 16, seed=1)
    loss, _ = info_nce(queries, key.expand(5, -1), queries @ key.expand(memory, -1).T, 0.1)
    assert loss.item() == pytest.approx(5 * math.log(memory + 1), rel=1e-12)


def test_by_hand():
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    memory = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    loss, right = info_nce(queries, keys, queries @ memory.T, 0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(-2)))
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(2) + math.exp(0)))
    assert loss.item() == pytest.approx(first + second, abs=1e-14)
    assert right == 1


def test_loss_is_a_sum_over_rows():
    queries, keys, memory = units(6, 8), units(6, 8, seed=1), units(20, 8, seed=2)
    whole, right = info_nce(queries, keys, queries @ memory.T, 0.1)
    parts = [info_nce(queries[i : i + 2], keys[i : i + 2], queries[i : i + 2] @ memory.T, 0.1) for i in (0, 2, 4)]
    assert whole.item() == pytest.approx(sum(loss.item() for loss, _ in parts), rel=1e-14)
    assert right == sum(hits for _, hits in parts)


def test_negatives_and_positive_pull_as_they_should():
    query = units(1, 8).requires_grad_()
    key, memory = units(1, 8, seed=1), units(4, 8, seed=2)
    info_nce(query, key, query @ memory.T, 0.1)[0].backward()
    logits = torch.cat([query @ key.T, query @ memory.T], dim=1) / 0.1
    weight = torch.softmax(logits, dim=1).detach()
    expected = ((weight[:, :1] - 1) * key + weight[:, 1:] @ memory) / 0.1
    assert torch.allclose(query.grad, expected, rtol=0, atol=1e-12)


def test_perfect_match_with_opposite_memory_is_nearly_free():
    query = units(1, 8)
    loss, right = info_nce(query, query, query @ (-query).T, 0.1)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-20)), rel=1e-6)
    assert right == 1


def test_who_plays_query_and_key():
    first, second = torch.rand(3, 2, 1, 4, 4), torch.rand(3, 2, 1, 4, 4)
    for name in ("off", "published"):
        query, key = SYMMETRIES[name].assign(first, second)
        assert query is first
        assert key is second
    query, key = SYMMETRIES["both_views"].assign(first, second)
    assert query.shape == key.shape == (3, 4, 1, 4, 4)
    for client in range(3):
        assert torch.equal(query[client], torch.cat([first[client], second[client]]))
        assert torch.equal(key[client], torch.cat([second[client], first[client]]))
    assert [SYMMETRIES[name].server_swap for name in ("off", "published", "both_views")] == [False, True, False]
