"""From an experiment to its first stage: the configuration of the proxy client that learns before anybody else does."""

from __future__ import annotations

from mocosfl_mpi.config.experiment import Config
from mocosfl_mpi.config.reading import parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.methods import METHODS


def first_stage(config: Config, origin: str) -> Config:
    """The experiment by which `mocosfl pretrain` trains the expert of ``config``, named ``origin``.

    One client with everything: a share of the target's images and all auxiliary ones; with labels, the auxiliary ones
    alone. Network, contrast, views, defence and evaluation are those of the experiment.

    Raises
    ------
    BadInput
        The method has no first stage, or there is nothing for it to learn from.
    """
    method, settings = METHODS[config.method].expert, config.pretraining
    if not method:
        able = ", ".join(name for name, other in METHODS.items() if other.expert)
        raise BadInput(f"{origin}: method = {config.method} has no first stage; choose one of {able}")
    if not settings.auxiliary:
        raise BadInput(
            f"{origin}: pretraining.auxiliary names no data set for the expert to learn from; set it, for example to "
            f"cifar100"
        )
    every = config.evaluation.every
    if settings.choose != "last" and not 0 < every <= settings.epochs:
        raise BadInput(
            f"{origin}: pretraining.choose = {settings.choose} chooses among evaluations, and evaluation.every = "
            f"{every} makes none in {settings.epochs} epochs; lower it, to at least 1"
        )
    values = config.model_dump()
    supervised = METHODS[method].supervised
    kinds = 1 if supervised or not settings.target_share else 2
    defaults = ("partition", "federation", "reliability", "communication")
    values = {name: value for name, value in values.items() if name not in defaults}
    values |= {
        "method": method,
        "epochs": settings.epochs,
        "steps_per_epoch": None,
        "partition": {"kind": "iid"},
        "federation": {"sync_freq": 1},
        "client": {
            "count": 1,
            "batch_size": kinds * settings.batch,
            "lr": settings.lr,
            "momentum": config.client.momentum,
            "weight_decay": config.client.weight_decay,
        },
        "server": values["server"] | {"lr": settings.lr, "schedule": "cosine", "pretrained": True},
        "pretraining": values["pretraining"] | {"expert": True},
        "evaluation": values["evaluation"] | {"own_models": None},
    }
    if supervised:
        values["data"] |= {"source": settings.auxiliary, "train_images": settings.auxiliary_images}
    return parse(values, f"{origin}, first stage")
