import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mocosfl_mpi.cost import divergence
from mocosfl_mpi.cost.divergence import layer_distance, relative_distance, spread

SPANS = [(0, 2), (2, 3), (3, 7)]


def test_three_four_five():
    a = torch.tensor([[3.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[5.0, 1.0, 2.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
    assert torch.equal(layer_distance(a, torch.zeros(7), SPANS), expected)
    assert torch.equal(layer_distance(a, torch.zeros(2, 7), SPANS), expected)
    assert torch.equal(layer_distance(a, a, SPANS), torch.zeros(2, 3, dtype=torch.float64))
    # b [n, P] is taken row by row: rows swapped, both differ by the same vector.
    swapped = layer_distance(a, a.flip(0), SPANS)
    assert torch.equal(swapped[0], swapped[1])
    assert float(swapped[0, 1]) == 3.0


def test_differences_are_taken_in_float64():
    a = torch.tensor([[1.0 + 2**-23]])
    assert float(layer_distance(a, torch.ones(1), [(0, 1)])) == 2**-23
    tiny = torch.full((1, 1), 1e-30)  # its square underflows float32
    assert float(layer_distance(tiny, torch.zeros(1), [(0, 1)])) == pytest.approx(1e-30, rel=1e-6)
    assert relative_distance(tiny, torch.zeros(1)).tolist() == [1.0]


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9), p=st.integers(1, 300), seed=st.integers(0, 10**6))
def test_a_row_does_not_depend_on_the_others(n, p, seed):
    a = torch.randn(n, p, generator=torch.Generator().manual_seed(seed))
    mean = a.mean(dim=0)
    spans = [(0, p // 2), (p // 2, p)]
    whole = layer_distance(a, mean, spans), relative_distance(a, mean), spread(a, mean)
    for i in range(n):
        one = a[i : i + 1]
        parts = layer_distance(one, mean, spans), relative_distance(one, mean), spread(one, mean)
        assert all(torch.equal(w[i], part[0]) for w, part in zip(whole, parts, strict=True))


def test_long_rows_are_summed_in_pieces_and_threads_do_not_matter(monkeypatch):
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(3, 200_001, generator=g), torch.randn(200_001, generator=g)
    expected = torch.linalg.vector_norm(a.double() - b.double(), dim=1)
    found = layer_distance(a, b, [(0, 200_001)])[:, 0]
    assert torch.allclose(found, expected, rtol=1e-13)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(layer_distance(a, b, [(0, 200_001)])[:, 0], found)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(divergence, "_COLUMNS", 1000)
    assert torch.allclose(layer_distance(a, b, [(0, 200_001)])[:, 0], expected, rtol=1e-13)


def test_relative_distance_and_spread():
    a = torch.tensor([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]])
    assert torch.equal(relative_distance(a, torch.zeros(2)), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    assert relative_distance(a, torch.tensor([3.0, 4.0])).tolist() == [0.0, 0.5, math.inf]
    assert spread(a, torch.tensor([3.0, 4.0])).tolist() == [0.0, 1.0, 1.0]


def test_no_layers_give_no_columns():
    assert layer_distance(torch.ones(2, 3), torch.ones(3), []).shape == (2, 0)


def test_bad_calls_are_refused():
    a = torch.ones(2, 3)
    with pytest.raises(ValueError, match="outside 0 … 3"):
        layer_distance(a, a, [(0, 4)])
    for b in (torch.ones(2), torch.ones(1, 3), torch.ones(3, 2)):
        with pytest.raises(ValueError, match="expected weights"):
            relative_distance(a, b)
