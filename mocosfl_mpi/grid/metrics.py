"""What the table of a grid can show: figures of finished runs, and costs, which are known without a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.published import GIBI, MEBIBYTE
from mocosfl_mpi.plan.account import Account
from mocosfl_mpi.plan.images import image_set
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.summary import over_layers


@dataclass(frozen=True)
class Metric:
    """One column; either ``of_run`` or ``of_plan`` gives its figure."""

    title: str
    digits: int = 1
    of_run: Callable[[Run], float | None] | None = None
    of_plan: Callable[[Account], float] | None = None
    of_training: bool = True
    """False: it is the same whatever the training, and no difference is worth a column."""


def _classifier(run: Run) -> float | None:
    """None where the method does not learn from labels."""
    return run.result("classifier_top1") if "result/classifier_top1" in run.names else None


def _divergence(run: Run) -> float | None:
    """MocoSFL eq. 4: mean over synchronisations and clients of the L2 distances from the mean, summed over layers."""
    norms = over_layers(run["divergence/online_mean"])
    known = norms[np.isfinite(norms)]  # NaN: of a client that had dropped out
    return float(known.mean()) if known.size else None


def _result(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.result(name)


def _loss(run: Run) -> float | None:
    losses = run.last("epochs/loss")
    return None if losses is None else float(losses)


METRICS = {
    "linear_top1": Metric("linear probe, %", 2, of_run=_result("linear_top1")),
    "knn_top1": Metric("kNN, %", 2, of_run=_result("knn_top1")),
    "knn_projector_top1": Metric("kNN on projections, %", 2, of_run=_result("knn_projector_top1")),
    "classifier_top1": Metric("own classifier, %", 2, of_run=_classifier),
    "linear_top1_untrained": Metric("linear, untrained", of_run=_result("linear_top1_untrained"), of_training=False),
    "knn_top1_untrained": Metric("kNN, untrained", of_run=_result("knn_top1_untrained"), of_training=False),
    "linear_top1_pixels": Metric("linear, raw pixels", of_run=_result("linear_top1_pixels"), of_training=False),
    "knn_top1_pixels": Metric("kNN, raw pixels", of_run=_result("knn_top1_pixels"), of_training=False),
    "loss": Metric("loss, last epoch", 2, of_run=_loss),
    "online_momentum_distance": Metric(
        "online-momentum distance (relative)", 4, of_run=_result("online_momentum_distance")
    ),
    "seconds": Metric("run time, s", 0, of_run=_result("wall_seconds"), of_training=False),
    "divergence": Metric("client divergence (L2)", 2, of_run=_divergence),
    "mebibytes": Metric("MiB a client sends and receives", of_plan=lambda account: account.true.total),
    "megaflops": Metric("MFLOP of a client an image", of_plan=lambda account: account.true.image / 1e6),
    "published_megabytes": Metric("MB as the papers count", of_plan=lambda account: account.published_traffic.total),
    "published_image": Metric(
        "M an image as the papers count", 2, of_plan=lambda account: account.published_computation[0] / MEBIBYTE
    ),
    "published_whole": Metric("G as the papers count", of_plan=lambda account: account.published_computation[1] / GIBI),
}
"""By the name that a grid's description uses."""


def account(config: Config) -> Account:
    """The costs of ``config``, in float32 where it leaves the precision open, from published sizes of its data."""
    if config.compute.precision == "auto":
        config = config.computed("fp32", config.compute.backend)
    return Account(config, image_set(config, None))
