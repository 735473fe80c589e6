from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mocosfl_mpi.schedules import learning_rate


@pytest.mark.parametrize(("step", "rate"), [(0, 0.06), (100, 0.03), (200, 0.0), (300, 0.03), (400, 0.06), (1000, 0.0)])
def test_published_cosine_oscillates(step, rate):
    """Spec 4.3, E = 200: stepped per batch, the cosine rises again."""
    assert learning_rate("cosine", 0.06, step, 200, 0.2) == pytest.approx(rate, abs=1e-15)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1), (119, 1), (120, 0.1), (159, 0.1), (160, 0.01), (199, 0.01), (5000, 0.01)]
)
def test_multi_step(step, factor):
    assert learning_rate("multi_step", 0.06, step, 200, 0.1) == pytest.approx(0.06 * factor)


@pytest.mark.parametrize("schedule", ["cosine", "multi_step", "constant"])
@given(total=st.integers(1, 1000))
def test_training_starts_at_the_initial_rate(schedule, total):
    """Of a single epoch none has passed: int(0.6 · 1) = 0 must not let the first milestone come at once."""
    assert learning_rate(schedule, 0.06, 0, total, 0.1) == 0.06


@given(total=st.integers(2, 1000))
def test_cosine_falls_within_the_run(total):
    rates = [learning_rate("cosine", 1.0, step, total, 0.1) for step in range(total + 1)]
    assert all(a > b for a, b in pairwise(rates))
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


@given(fifth=st.integers(1, 200))
def test_milestones_lie_at_three_and_four_fifths(fifth):
    rates = [learning_rate("multi_step", 1.0, step, 5 * fifth, 0.5) for step in range(5 * fifth)]
    assert rates == [1.0] * 3 * fifth + [0.5] * fifth + [0.25] * fifth


@pytest.mark.parametrize(("schedule", "decay"), [("cosine", 0.0), ("multi_step", 0.2)])
def test_same_as_torch(schedule, decay):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.06)
    schedulers = torch.optim.lr_scheduler
    scheduler = (
        schedulers.CosineAnnealingLR(optimiser, T_max=20)
        if schedule == "cosine"
        else schedulers.MultiStepLR(optimiser, [12, 16], gamma=decay)
    )
    for step in range(80):
        assert learning_rate(schedule, 0.06, step, 20, decay) == pytest.approx(
            optimiser.param_groups[0]["lr"], abs=1e-14
        )
        optimiser.step()
        scheduler.step()


def test_constant():
    assert {learning_rate("constant", 0.3, step, 10, 0.1) for step in range(30)} == {0.3}
