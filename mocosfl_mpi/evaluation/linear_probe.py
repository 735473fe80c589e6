"""Linear probe: multinomial logistic regression on frozen features, solved to convergence.

The objective is strictly convex in the weights, so the result does not hang on a learning rate, an order of images
or the best of many epochs, as the published probes do (spec section 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.evaluation.checks import check_features

_GRADIENT_TOLERANCE = 1e-6
"""L-BFGS stops when no entry of the gradient exceeds this; the gradient at zero weights is of order 0.1."""
_CONVERGED = 1e-4
"""Largest gradient entry of a fit that is called converged: the accuracy no longer moves."""


@dataclass(frozen=True)
class ProbeResult:
    """Outcome of a linear probe; accuracies in %."""

    test_top1: float
    penalty: float
    """The L2 penalty used: the only one, or the best on validation images."""
    validation_top1: float | None
    gradient_norm: float
    """Largest absolute entry of the objective's gradient where the solver stopped; 0 at the optimum."""
    converged: bool
    """False: raise ``evaluation.probe_iterations``."""


@dataclass(frozen=True)
class Classifier:
    """A fitted probe: standardisation, weights and bias, in float64."""

    mean: Tensor
    """Mean of the training features ``[d]``."""
    scale: Tensor
    """Their standard deviation ``[d]``; 1 where a feature is constant."""
    weights: Tensor
    """``[classes, d]``, of the standardised features."""
    bias: Tensor
    """``[classes]``."""
    gradient_norm: float

    @torch.no_grad()
    def top1(self, features: Tensor, labels: Tensor) -> float:
        """Top-1 accuracy in % on ``features [m, d]`` with ``labels [m]``."""
        logits = F.linear((features.double() - self.mean) / self.scale, self.weights, self.bias)
        return 100.0 * int((logits.argmax(dim=1) == labels).sum()) / len(labels)


@torch.no_grad()
def fit(features: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int) -> Classifier:
    """Minimise  mean cross-entropy + penalty/2 · ‖W‖²  over W ``[classes, d]`` and an unpenalised bias.

    The features ``[n, d]`` are standardised with their own mean and (population) standard deviation. Full-batch
    L-BFGS with strong-Wolfe line search from zero weights, in float64: in float32 the line search stalls at a
    gradient near 1e-4, which small penalties still feel. ``iterations`` bounds the L-BFGS iterations.
    """
    inputs = features.to(torch.float64, copy=True)  # standardised in place: 50,000 x 512 are 205 MB
    mean, scale = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
    scale = torch.where(scale > 0.0, scale, 1.0)
    inputs.sub_(mean).div_(scale)
    theta = torch.zeros(classes, inputs.shape[1] + 1, dtype=torch.float64, device=inputs.device)
    theta.grad = torch.zeros_like(theta)
    rows = torch.arange(len(labels), device=labels.device)

    def objective() -> Tensor:
        # The gradient has two lines in closed form; autograd would keep three more [n, classes] tensors.
        assert theta.grad is not None
        weights, bias = theta[:, :-1], theta[:, -1]
        log_p = F.log_softmax(F.linear(inputs, weights, bias), dim=1)
        loss = -log_p[rows, labels].mean() + 0.5 * penalty * weights.square().sum()
        residual = log_p.exp_()
        residual[rows, labels] -= 1.0
        residual /= len(labels)
        theta.grad[:, :-1] = residual.T @ inputs + penalty * weights
        theta.grad[:, -1] = residual.sum(dim=0)
        return loss

    solver = torch.optim.LBFGS(
        [theta],
        max_iter=iterations,
        max_eval=4 * iterations,  # a Wolfe search mostly takes one or two evaluations; this only bounds the odd one
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    solver.step(objective)
    objective()  # at the point where the solver stopped, not where its line search last looked
    return Classifier(mean, scale, theta[:, :-1], theta[:, -1], float(theta.grad.abs().max()))


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    classes: int,
    penalties: Sequence[float],
    iterations: int,
    validation: tuple[Tensor, Tensor] | None = None,
) -> ProbeResult:
    """Fit a probe on ``train_features [n, d]`` per penalty, choose on validation, and test the chosen one.

    Labels are int64. The test images take no part in the choice; of penalties that are equally good on the
    ``validation`` features and labels, the largest is taken. Each fit starts from zero weights, so that a result
    does not depend on which other penalties are tried.

    Raises
    ------
    ValueError
        Shapes or labels that do not fit, a penalty that is not positive, or several without ``validation``.
    RunFailed
        A feature is NaN or infinite.
    """
    check_features("training", train_features, train_labels, classes)
    check_features("test", test_features, test_labels, classes)
    if validation is not None:
        check_features("validation", *validation, classes)
    if not penalties or not all(penalty > 0.0 for penalty in penalties):
        raise ValueError(f"penalties = {list(penalties)}: at least one, and all positive (else there is no minimum)")
    if len(penalties) > 1 and validation is None:
        raise ValueError(f"penalties = {list(penalties)} needs validation images to choose by")
    best: tuple[float | None, float, Classifier] | None = None
    for penalty in sorted(penalties, reverse=True):
        classifier = fit(train_features, train_labels, classes, penalty, iterations)
        score = None if validation is None else classifier.top1(*validation)
        if best is None or (score is not None and best[0] is not None and score > best[0]):
            best = (score, penalty, classifier)
    assert best is not None
    score, penalty, classifier = best
    return ProbeResult(
        test_top1=classifier.top1(test_features, test_labels),
        penalty=penalty,
        validation_top1=score,
        gradient_norm=classifier.gradient_norm,
        converged=classifier.gradient_norm <= _CONVERGED,
    )
