import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.evaluation.health import effective_rank, feature_std, hardness, total_hardness


def test_feature_std_of_collapse_and_isotropy():
    d = 5
    cross = torch.cat([torch.eye(d), -torch.eye(d)])
    lengths = torch.linspace(0.1, 9.0, 2 * d)[:, None]
    assert feature_std(cross * lengths) == pytest.approx(1.0, abs=1e-6)
    assert feature_std(torch.ones(7, d) * torch.arange(1, 8)[:, None]) == pytest.approx(0.0, abs=1e-6)
    # Two opposite points: one dimension has deviation 1, the others 0; mean times √d.
    assert feature_std(cross[[0, d]]) == pytest.approx(math.sqrt(d) / d)


def test_effective_rank_in_closed_form():
    assert effective_rank(3.0 * torch.eye(4)) == pytest.approx(4.0)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1.0, abs=1e-9)
    assert effective_rank(torch.zeros(3, 4)) == 0.0
    # Singular values 3 and 1: exp(H(3/4, 1/4)).
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.0]))) == pytest.approx(math.exp(entropy))


@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), d=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_effective_rank_lies_between_one_and_the_rank_and_ignores_scale(seed, n, d):
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()
    rank = effective_rank(features)
    assert 1.0 - 1e-9 <= rank <= min(n, d) + 1e-9
    assert effective_rank(1e-6 * features) == pytest.approx(rank)


def _memory(similarity, rows, temperature):
    """Unit rows in the plane whose exp((cos - 1)/T) with query (1, 0) is ``similarity[a]`` at age a + 1."""
    cosines = torch.tensor([1.0 + temperature * math.log(s) for s in similarity], dtype=torch.float64)
    assert bool((cosines >= -1.0).all())
    return torch.stack([cosines, (1.0 - cosines**2).sqrt()], dim=1).repeat_interleave(rows, dim=0)


QUERY = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(("updates", "bins", "width"), [(2, 2, 1), (30, 30, 1), (31, 15, 2), (75, 25, 3)])
def test_a_geometric_memory_gives_back_its_eta_and_gamma(updates, bins, width):
    eta, gamma, rows, temperature = 0.5, 0.97, 4, 0.1
    memory = _memory([eta * gamma**a for a in range(1, updates + 1)], rows, temperature)
    found = hardness(QUERY, memory, rows, temperature)
    assert found.eta == pytest.approx(eta)
    assert found.gamma == pytest.approx(gamma)
    assert (found.batch, found.memory) == (rows, updates * rows)
    assert found.total == pytest.approx(sum(rows * eta * gamma**a for a in range(1, updates + 1)))
    assert found.age == tuple(range(1, bins * width + 1, width))
    assert found.similarity_by_age[0] == pytest.approx(eta * sum(gamma**a for a in range(1, width + 1)) / width)


def test_similarity_is_the_mean_over_queries_and_rows():
    memory = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    found = hardness(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), memory, 2, 0.5)
    assert found.similarity_by_age == pytest.approx(((1 + math.exp(-2)) / 2, (math.exp(-4) + math.exp(-2)) / 2))
    assert len(found.similarity_by_age) == 2  # the fifth row is half an update
    assert found.memory == 5


def test_a_memory_that_grows_harder_with_age_has_no_decay():
    memory = _memory([0.2, 0.8], 3, 0.1)
    found = hardness(QUERY, memory, 3, 0.1)
    assert found.gamma == 1.0
    assert found.eta == pytest.approx(0.4)  # geometric mean
    assert found.total == pytest.approx(2 * 3 * 0.4)


def test_one_bin_leaves_gamma_open():
    found = hardness(QUERY, _memory([0.3], 3, 0.1), 3, 0.1)
    assert math.isnan(found.gamma)
    assert found.total == pytest.approx(3 * 0.3)


def test_small_temperatures_do_not_break_the_fit():
    memory = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])
    found = hardness(QUERY.float(), memory, 1, 0.001)
    assert found.gamma == 1.0
    assert found.total == 0.0


@given(gamma=st.floats(0.01, 1.0), eta=st.floats(0.01, 1.0), batch=st.integers(1, 50), updates=st.integers(1, 60))
def test_total_is_the_sum_of_the_paper(gamma, eta, batch, updates):
    memory = batch * updates + batch - 1
    series = math.fsum(batch * eta * gamma**a for a in range(1, updates + 1))
    assert total_hardness(eta, gamma, batch, memory) == pytest.approx(series, rel=1e-9)


def test_total_is_continuous_at_gamma_one():
    assert total_hardness(0.5, 1.0, 10, 100) == 50.0
    assert total_hardness(0.5, math.nextafter(1.0, 0.0), 10, 100) == pytest.approx(50.0, rel=1e-12)


def test_bad_calls_are_refused():
    memory = _memory([0.5, 0.4], 2, 0.1)
    with pytest.raises(ValueError, match="between 1 and the memory's 4 rows"):
        hardness(QUERY, memory, 5, 0.1)
    with pytest.raises(ValueError, match="must be \\[n ≥ 1, d\\]"):
        hardness(QUERY[:, :1], memory, 2, 0.1)
    with pytest.raises(ValueError, match="temperature"):
        hardness(QUERY, memory, 2, 0.0)
