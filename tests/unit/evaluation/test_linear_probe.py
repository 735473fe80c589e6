import math

import pytest
import torch
from torch.nn import functional as F

from mocosfl_mpi.errors import RunFailed
from mocosfl_mpi.evaluation.linear_probe import fit, linear_probe


def _blobs(n, classes=4, d=6, spread=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = 3.0 * torch.eye(classes, d)
    return centres[labels] + spread * torch.randn(n, d, generator=g), labels


def _loss(classifier, x, y, penalty, weights, bias):
    z = (x.double() - classifier.mean) / classifier.scale
    return F.cross_entropy(F.linear(z, weights, bias), y) + 0.5 * penalty * weights.square().sum()


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_gradient_by_autograd_vanishes_at_the_solution(penalty):
    x, y = _blobs(200)
    found = fit(x, y, 4, penalty, 500)
    weights, bias = found.weights.clone().requires_grad_(), found.bias.clone().requires_grad_()
    gradient = torch.autograd.grad(_loss(found, x, y, penalty, weights, bias), [weights, bias])
    largest = max(float(g.abs().max()) for g in gradient)
    assert largest < 2e-6
    assert found.gradient_norm == pytest.approx(largest, rel=1e-6, abs=1e-12)


def test_agrees_with_newtons_method():
    # Two classes: binary logistic regression in the logit difference, solved by Newton's method.
    x, y = _blobs(120, classes=2, d=3, spread=2.0)
    penalty = 0.05
    found = fit(x, y, 2, penalty, 500)
    z = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    z = torch.cat([z, torch.ones(len(z), 1, dtype=torch.float64)], dim=1)
    # Logit difference u = W_1 - W_0; at the optimum W_1 = -W_0 = u/2, so the penalty is penalty/4 · ‖u‖².
    ridge = torch.diag(torch.tensor([0.5 * penalty] * 3 + [0.0], dtype=torch.float64))
    u = torch.zeros(4, dtype=torch.float64)
    for _ in range(50):
        p = torch.sigmoid(z @ u)
        gradient = z.T @ (p - y.double()) / len(z) + ridge @ u
        u -= torch.linalg.solve((z.T * (p * (1 - p))) @ z / len(z) + ridge, gradient)
    assert torch.allclose(found.weights[1] - found.weights[0], u[:3], atol=1e-5)
    assert torch.allclose(found.bias[1] - found.bias[0], u[3], atol=1e-5)
    assert torch.allclose(found.weights[1], -found.weights[0], atol=1e-8)


def test_without_information_the_bias_gives_the_class_frequencies():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    found = fit(torch.full((10, 2), 0.1), labels, 3, 0.1, 200)
    assert torch.allclose(found.weights, torch.zeros_like(found.weights), atol=1e-12)
    assert torch.allclose(found.bias.softmax(0), torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), atol=1e-5)


def test_separable_data_are_separated():
    x, y = _blobs(80, spread=0.1)
    result = linear_probe(x, y, *_blobs(40, spread=0.1, seed=1), 4, (1e-3,), 200)
    assert result.test_top1 == 100.0
    assert result.converged
    assert result.penalty == 1e-3
    assert result.validation_top1 is None


def test_units_of_a_feature_do_not_matter():
    x, y = _blobs(200, spread=2.0)
    test_x, test_y = _blobs(100, spread=2.0, seed=1)
    factor, shift = torch.logspace(-3, 3, 6).double(), torch.linspace(-5, 5, 6).double()
    plain = linear_probe(x.double(), y, test_x.double(), test_y, 4, (1e-2,), 300)
    scaled = linear_probe(x * factor + shift, y, test_x * factor + shift, test_y, 4, (1e-2,), 300)
    assert plain.test_top1 == scaled.test_top1
    assert 50.0 < plain.test_top1 < 100.0


def test_the_penalty_is_chosen_on_validation_not_on_test():
    # Shifting the test labels turns the order of the penalties on test upside down and must change nothing.
    x, y = _blobs(40, d=30, spread=2.5)
    validation = _blobs(400, d=30, spread=2.5, seed=1)
    test_x, test_y = _blobs(100, d=30, spread=2.5, seed=2)
    penalties = (1e-6, 1e-1, 100.0)
    scores = {p: linear_probe(x, y, *validation, 4, (p,), 300).test_top1 for p in penalties}
    best = max(sorted(penalties, reverse=True), key=scores.__getitem__)
    assert len(set(scores.values())) > 1
    for labels in (test_y, (test_y + 1) % 4):
        result = linear_probe(x, y, test_x, labels, 4, penalties, 300, validation)
        assert result.penalty == best
        assert result.validation_top1 == scores[best]
        assert result.test_top1 == linear_probe(x, y, test_x, labels, 4, (best,), 300).test_top1


def test_equally_good_penalties_give_the_largest():
    x, y = _blobs(80, spread=0.1)
    assert linear_probe(x, y, x, y, 4, (1e-3, 1e-1, 1e-2), 200, (x, y)).penalty == 1e-1


def test_too_few_iterations_are_reported():
    x, y = _blobs(200, spread=2.0)
    assert not linear_probe(x, y, x, y, 4, (1e-4,), 2).converged


def test_the_same_data_give_the_same_bits():
    x, y = _blobs(300)
    first, second = (fit(x, y, 4, 1e-3, 100) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.bias, second.bias)


def test_bad_calls_are_refused():
    x, y = _blobs(20)
    with pytest.raises(ValueError, match="validation"):
        linear_probe(x, y, x, y, 4, (1e-3, 1e-2), 10)
    with pytest.raises(ValueError, match="positive"):
        linear_probe(x, y, x, y, 4, (0.0,), 10)
    with pytest.raises(ValueError, match="at least one"):
        linear_probe(x, y, x, y, 4, (), 10)
    with pytest.raises(RunFailed, match="test feature rows are NaN"):
        linear_probe(x, y, torch.full_like(x, math.inf), y, 4, (1e-3,), 10)
