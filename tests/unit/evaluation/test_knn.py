import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.errors import RunFailed
from mocosfl_mpi.evaluation import knn
from mocosfl_mpi.evaluation.knn import knn_top1


def _oracle(bank, bank_labels, queries, query_labels, classes, neighbours, temperature):
    """One query after the other, plain Python sums."""
    correct = 0
    for query, label in zip(queries.double(), query_labels.tolist(), strict=True):
        similarities = [float(query @ row / (query.norm() * row.norm())) for row in bank.double()]
        nearest = sorted(range(len(bank)), key=lambda i: -similarities[i])[:neighbours]
        scores = [0.0] * classes
        for i in nearest:
            scores[int(bank_labels[i])] += math.exp(similarities[i] / temperature)
        correct += scores.index(max(scores)) == label
    return 100.0 * correct / len(queries)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 30),
    m=st.integers(1, 12),
    neighbours=st.integers(1, 40),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_plain_definition(n, m, neighbours, temperature, seed):
    g = torch.Generator().manual_seed(seed)
    bank, queries = torch.randn(n, 5, generator=g).double(), torch.randn(m, 5, generator=g).double()
    a, b = torch.randint(0, 3, (n,), generator=g), torch.randint(0, 3, (m,), generator=g)
    assert knn_top1(bank, a, queries, b, 3, neighbours, temperature) == _oracle(
        bank, a, queries, b, 3, neighbours, temperature
    )


def test_votes_are_weighted_by_temperature():
    # Class 0: one neighbour at cosine 1; class 1: two at 0.6. exp(1/T) and 2 exp(0.6/T) are even at T = 0.4/ln 2.
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = torch.tensor([0, 1, 1])
    query, truth = torch.tensor([[3.0, 0.0]]), torch.tensor([0])
    even = 0.4 / math.log(2.0)
    assert knn_top1(bank, labels, query, truth, 2, 3, 0.99 * even) == 100.0
    assert knn_top1(bank, labels, query, truth, 2, 3, 1.01 * even) == 0.0
    assert knn_top1(bank, labels, query, truth, 2, 1, 1.01 * even) == 100.0


def test_a_small_temperature_does_not_overflow():
    # exp(800) and exp(1000) are both infinite; the tie would go to class 0.
    bank, query = torch.tensor([[0.8, 0.6], [1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert knn_top1(bank, torch.tensor([0, 1]), query, torch.tensor([1]), 2, 200, 0.001) == 100.0


def test_lengths_of_features_do_not_matter():
    g = torch.Generator().manual_seed(3)
    bank, queries = torch.randn(50, 8, generator=g), torch.randn(40, 8, generator=g)
    a, b = torch.randint(0, 4, (50,), generator=g), torch.randint(0, 4, (40,), generator=g)
    long = bank * torch.logspace(-2, 2, 50)[:, None]
    assert knn_top1(bank, a, queries, b, 4, 7, 0.1) == knn_top1(long, a, 7.0 * queries, b, 4, 7, 0.1)


def test_chunks_do_not_change_the_result(monkeypatch):
    g = torch.Generator().manual_seed(4)
    bank, queries = torch.randn(60, 8, generator=g).double(), torch.randn(37, 8, generator=g).double()
    a, b = torch.randint(0, 4, (60,), generator=g), torch.randint(0, 4, (37,), generator=g)
    whole = knn_top1(bank, a, queries, b, 4, 9, 0.1)
    monkeypatch.setattr(knn, "_SIMILARITIES", 60 * 5)
    assert knn_top1(bank, a, queries, b, 4, 9, 0.1) == whole
    assert 0.0 < whole < 100.0


def test_a_diverged_encoder_is_told_apart_from_a_bad_call():
    good, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(RunFailed, match="1 of 3 query feature rows are NaN"):
        knn_top1(good, labels, good.clone().index_fill_(0, torch.tensor([1]), math.nan), labels, 3, 1, 0.1)
    with pytest.raises(ValueError, match="labels run from 0 to 2; expected 0 to 1"):
        knn_top1(good, labels, good, labels, 2, 1, 0.1)
    with pytest.raises(ValueError, match="dimensions"):
        knn_top1(good, labels, good[:, :2], labels, 3, 1, 0.1)
    with pytest.raises(ValueError, match="temperature = 0"):
        knn_top1(good, labels, good, labels, 3, 1, 0.0)
    with pytest.raises(ValueError, match="3 feature rows but labels"):
        knn_top1(good, labels[:2], good, labels, 3, 1, 0.1)
    with pytest.raises(ValueError, match="n, d ≥ 1"):
        knn_top1(good[:0], labels[:0], good, labels, 3, 1, 0.1)
