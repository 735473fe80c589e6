"""Scores of orders, against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from mocosfl_mpi.attacks.ranking import chance, ranks, separation


def test_a_perfect_a_reversed_and_a_known_order():
    inside = torch.tensor([True, True, False, False])
    assert separation(torch.tensor([4.0, 3.0, 2.0, 1.0]), inside)["auc"] == 1.0
    assert separation(torch.tensor([1.0, 2.0, 3.0, 4.0]), inside)["auc"] == 0.0
    found = separation(torch.tensor([4.0, 1.0, 3.0, 2.0]), inside)
    assert found["auc"] == 0.5  # of the four pairs two stand right
    assert found["tpr_at_1e-2"] == found["tpr_at_1e-3"] == 0.5  # the highest score is right: without any false one
    assert (found["smallest_fpr"], found["positives"], found["negatives"]) == (0.5, 2, 2)


def test_no_order_is_chance():
    found = separation(torch.zeros(40), torch.arange(40) < 20)
    assert found["auc"] == chance()["auc"] == 0.5
    assert found["tpr_at_1e-2"] == 0.0


def test_the_error_is_that_of_repeated_draws():
    generator = torch.Generator().manual_seed(0)
    inside = torch.arange(400) < 200
    found = [separation(torch.randn(400, generator=generator) + inside, inside) for _ in range(100)]
    areas = np.array([one["auc"] for one in found])
    assert areas.mean() == pytest.approx(0.760, abs=0.01)  # Φ(1/√2)
    assert areas.std() == pytest.approx(np.mean([one["auc_error"] for one in found]), rel=0.25)


def test_who_is_level_shares_the_places():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2], [0.3, 0.3, 0.1]])
    assert ranks(scores, torch.tensor([0, 1, 2])).tolist() == [1.0, 2.0, 3.0]
    assert ranks(scores, torch.tensor([1, 0, 0])).tolist() == [3.0, 2.0, 1.5]


def test_no_number_ranks_last():
    scores = torch.full((2, 3), torch.nan)
    scores[1, 1:] = 0.5
    assert ranks(scores, torch.tensor([0, 0])).tolist() == [2.0, 3.0]
