"""Experts: the first stage's result as tensors, which of several is kept, and how an experiment begins with one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi import __version__
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.evaluation.judge import Monitor
from mocosfl_mpi.record.expert import FILE, ExpertFile, locate, read, write
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.server.trunk_server import overwrite
from mocosfl_mpi.split.cut import SplitNetwork, Trunk
from mocosfl_mpi.split.stacked import StackedModel

CUT = ("backbone", "width", "cut_layer", "bottleneck", "client_residual", "weight_standardization")
HEAD = ("head", "key_dim", "hidden_dim")
SCORES: dict[str, Callable[[Monitor], float] | None] = {"last": None, "knn": lambda monitor: monitor.knn_top1}
"""What `pretraining.choose` can name: of an epoch's evaluation the score whose best is kept, or None for the last. Any
other score of an expert, of a privacy audit for example, is one more line.
"""
SHA256 = "pretrained/sha256"

Arrays = dict[str, npt.NDArray[np.generic]]


class Beginning:
    """An expert's file, and how an experiment takes it over (rank 0)."""

    def __init__(self, config: Config, file: ExpertFile, network: SplitNetwork) -> None:
        self.sha256 = file.sha256
        self._file = file
        self._config = config
        self._heads = not (config.supervised or file.fact("supervised"))
        self._refuse_another_network(network)

    def _refuse_another_network(self, network: SplitNetwork) -> None:
        there, here = self._file.fact("model"), self._config.model.model_dump(mode="json")
        server = self._config.server.pretrained
        names = (*CUT, *(HEAD if self._heads and server else ()))
        differ = [f"model.{n} is {there.get(n)!r} there and {here[n]!r} here" for n in names if there.get(n) != here[n]]
        channels = self._file.fact("input")[0]
        if channels != network.input_shape[0]:
            differ.append(f"images have {channels} channels there and {network.input_shape[0]} here")
        if differ:
            raise BadInput(
                f"the expert {self._file.path} has another network: {'; '.join(differ)}. Give the settings with which "
                f"it was pretrained, or another expert"
            )

    def take_over(self, network: SplitNetwork) -> None:
        """Put its weights into the bottom and, unless it is not wanted, the trunk: backbone and projector.

        A classifier stays as it is: it is of other classes.
        """
        self._load(network.bottom, "client.online.")
        if self._config.server.pretrained and network.trunk is not None:
            self._load_trunk(network.trunk, "server.online.")

    def _load_trunk(self, trunk: Trunk, prefix: str) -> None:
        self._load(trunk.backbone, f"{prefix}backbone.")
        if self._heads:
            self._load(trunk.head, f"{prefix}head.")

    def _load(self, module: torch.nn.Module, prefix: str) -> None:
        given = {name: torch.from_numpy(value) for name, value in self._file.part(prefix).items()}
        try:
            overwrite({prefix: module.state_dict()}, {prefix: given})
        except (KeyError, RuntimeError) as error:
            raise BadInput(f"the expert {self._file.path} does not fit this network: {error}") from None

    def momentum(self, model: StackedModel, online: Tensor) -> Tensor:
        """The client's momentum model ``[P]``; the online one where the expert has none."""
        module = model.module(online)
        if self._file.part("client.momentum."):
            self._load(module, "client.momentum.")
        return model.flat(module)

    def take_over_server(self, server: Server) -> None:
        """Put the momentum trunk's weights where the main server has one."""
        momentum = getattr(server, "momentum", None)
        if momentum is not None and self._config.server.pretrained and self._file.part("server.momentum."):
            self._load_trunk(momentum, "server.momentum.")


def beginning(config: Config, network: SplitNetwork, earlier: Run | None) -> Beginning | None:
    """The expert that the configuration names, if it does (rank 0); ``earlier``: the run that is continued.

    ``network`` is filled with its weights.

    Raises
    ------
    BadInput
        No usable file, a network that does not fit, or another file than that with which the run began.
    """
    path = locate(config) if config.client.pretrained else None
    if path is None:
        return None
    found = Beginning(config, read(path), network)
    if earlier is not None and SHA256 in earlier.names and str(earlier[SHA256]) != found.sha256:
        raise BadInput(
            f"{path} is not the expert with which {earlier.path} began (its sha256 differs): bring that one back, or "
            f"start again in another directory"
        )
    found.take_over(network)
    return found


def recorded(beginning: Beginning | None) -> dict[str, str]:
    """What the run's file says of it."""
    return {SHA256: beginning.sha256} if beginning else {}


class Keeper:
    """The first stage's result: which expert is kept, and its file. Collective; rank 0 keeps and writes."""

    def __init__(
        self, config: Config, network: SplitNetwork, model: StackedModel, clients: Population, server: Server | None
    ) -> None:
        self._config = config
        self._input = list(network.input_shape)
        self._model = model
        self._clients = clients
        self._server = server
        self._score = SCORES[config.pretraining.choose]
        self._best = -math.inf
        self._facts = np.full(3, math.nan)
        """Of the one that is kept: epochs done, kNN accuracy, similarity to what its own attacker draws."""
        self._kept: Arrays = {}

    def consider(self, epoch: int, monitor: Monitor | None, similarity: float) -> None:
        """Keep the expert as it is after ``epoch`` epochs, if it is better than all that were considered before.

        ``monitor``: its evaluation; ``similarity``: of images to what its own attacker draws (both on rank 0).
        """
        if self._score is None:
            self._facts = np.array([epoch, monitor.knn_top1 if monitor else math.nan, similarity])
            return
        found = self._tensors()
        if found and monitor is not None and self._score(monitor) > self._best:
            self._best, self._kept = self._score(monitor), found
            self._facts = np.array([epoch, monitor.knn_top1, similarity])

    def _tensors(self) -> Arrays:
        """The client's online and momentum models and the main server's, by parameter; nothing but on rank 0."""
        states = self._clients.held(0, ("online", "momentum"))
        found: Arrays = {}
        for kind, flat in states.items():
            named = self._model.module(flat).state_dict()
            found |= {f"client.{kind}.{name}": value.numpy().copy() for name, value in named.items()}
        held = self._server.state() if self._server else {}
        for kind in {"online", "momentum"} & held.keys():
            found |= {
                f"server.{kind}.{name}": value.detach().cpu().numpy().copy() for name, value in held[kind].items()
            }
        return found

    def state(self) -> Arrays:
        """What a checkpoint must hold (rank 0)."""
        kept = {f"kept.{name}": value for name, value in self._kept.items()}
        return {"facts": self._facts, "best": np.array([self._best]), **kept}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """The inverse of ``state``. KeyError where it is another run's."""
        self._facts, self._best = state["facts"].astype(np.float64), float(state["best"].astype(np.float64)[0])
        self._kept = {name.removeprefix("kept."): v for name, v in state.items() if name.startswith("kept.")}

    def write(self, directory: Path, similarity: float) -> None:
        """Write the one that is kept, or the last. RunFailed where the disk refuses."""
        config = self._config
        if self._score is None:
            judged = self._facts[0] == config.epochs
            self._facts = np.array([config.epochs, self._facts[1] if judged else math.nan, similarity])
        found = self._kept if self._score else self._tensors()
        if not found:
            return
        facts = {
            "software_version": __version__,
            "method": config.method,
            "supervised": config.supervised,
            "config_hash": config.hash(),
            "config": json.loads(config.canonical()),
            "model": config.model.model_dump(mode="json"),
            "input": self._input,
            "choose": config.pretraining.choose,
            "epoch": int(self._facts[0]),
            "knn_top1": _number(self._facts[1]),
            "attacker_ssim": _number(self._facts[2]),
        }
        write(directory / FILE, facts, found)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
