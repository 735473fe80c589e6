"""What a run has left behind: its networks as they were at the last checkpoint, and its images."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mocosfl_mpi.algorithms import ALGORITHMS, alignment, network
from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.keep import lay
from mocosfl_mpi.clients.participation import pool
from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.config import Config, parse
from mocosfl_mpi.data.crop_flip import DRAWS as CROP_DRAWS
from mocosfl_mpi.data.crop_flip import CropFlip
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.experts import SHA256
from mocosfl_mpi.objectives.feature_memory import noise
from mocosfl_mpi.privacy import resistance
from mocosfl_mpi.problem import Source, read
from mocosfl_mpi.record.checkpoint import DIRECTORY, Checkpoint, newest
from mocosfl_mpi.record.expert import locate
from mocosfl_mpi.record.expert import read as read_expert
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.split.cut import Encoder, SplitNetwork, Trunk, WholeNetwork
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams

PLAIN = Engine("fp32", "stacked")
"""Attacks compute in float32, whatever the run did: what is attacked are its weights."""


@dataclass(frozen=True)
class Client:
    """The models of one client as it went out of the run: ``online`` first layers, and their ``momentum`` copy."""

    number: int
    online: nn.Module
    momentum: nn.Module | None
    """None where clients have no momentum model."""
    memory: Tensor | None = None
    """Past unit keys ``[K, d]`` of its own, where the method has clients keep some."""


class Victim:
    """A run under attack.

    ``trained``: False takes random networks of the same seed: the control, which is what the run began with unless it
    began with an expert.
    ``pieces``: whether clients may have a piece of every image, as in split_vertical, instead of whole ones.

    Raises
    ------
    BadInput
        No run, no good checkpoint, data that cannot be read, or a method without one network in two parts.
    """

    def __init__(self, run: Path, data_dir: Path | None, *, trained: bool = True, pieces: bool = False) -> None:
        self.directory = run if run.is_dir() else run.parent
        with open_run(run) as record:
            self.config: Config = parse(record.attrs["config"], str(record.path))
            self.verdict = {name: record.result(name) for name in ("knn_top1", "linear_top1")}
            self.state_sha256 = record.state_sha256
            self._expert_sha256 = str(record[SHA256]) if SHA256 in record.names else ""
        if self.config.vertical and not pieces:
            raise BadInput(
                f"{run}: attacks need whole images on a client, and each client of split_vertical has a piece of them; "
                f"attack a run of another method"
            )
        if self.config.model.rich_cut_layer:
            raise BadInput(
                f"{run}: attacks are for smashed data of one shape, and with model.rich_cut_layer = "
                f"{self.config.model.rich_cut_layer} there are two; attack a run with one cut"
            )
        self.trained = trained
        self._data_dir = data_dir
        self.saved = self._checkpoint()
        self.streams = Streams(self.config.seed)
        self.source: Source = read(self.config, data_dir, self.streams)
        self.network: SplitNetwork = self.fresh()
        self.model = StackedModel(self.network.bottom, PLAIN)
        """What clients compute with: names, places and shapes of its weights."""
        beside = {}
        if self.config.resists:  # clients keep their simulated attackers too
            opponent = resistance.attacker(self.config, self.network, self.streams, torch.float32)
            beside[resistance.STATE] = resistance.width(opponent)
        model = self.model
        aligned = alignment(self.config, model.names, model.spans, model.filters, self.network.key_dim, beside)
        self._kept = tuple(aligned.kept)

    def control(self) -> Victim:
        """The same run with random networks of the same layers; the data are not read again."""
        other = copy.copy(self)
        other.trained = False
        for name in ("trunk", "momentum_trunk"):
            other.__dict__.pop(name, None)  # what was kept of the trained one
        return other

    def fresh(self, seed: int | None = None) -> SplitNetwork:
        """The network with initial weights: those of the run, or of another ``seed``."""
        streams = self.streams if seed is None else Streams(seed)
        return network(
            self.config, self.source.data.channels, self.size, self.source.data.class_count, streams, torch.float32
        )

    def architecture(self, seed: int) -> nn.Module:
        """The client's first layers with fresh weights, never those that a run of the same seed began with."""
        return self.fresh(self.streams.torch_seed("stranger", seed)).first

    @property
    def alone(self) -> bool:
        """Whether every client trains a whole network of its own, which nobody else ever sees."""
        return self.config.whole_network and self.config.aligned == "none"

    @property
    def size(self) -> int:
        """Pixels per side of what clients see."""
        return self.config.views.size or self.source.data.image_size

    def _checkpoint(self) -> Checkpoint:
        saved, _ = newest(self.directory / DIRECTORY)
        if saved is None:
            raise BadInput(
                f"{self.directory} has no checkpoint to attack; finish the run, or save one: --checkpoint-every 1epochs"
            )
        return saved

    @cached_property
    def _shared(self) -> dict[str, Tensor]:
        return _tensors(self.saved, "shared")

    @cached_property
    def _rows(self) -> dict[int, Tensor]:
        """What clients keep for themselves, by client."""
        rows: dict[int, Tensor] = {}
        for name in self.saved.names("parked-"):
            part = _tensors(self.saved, name)
            rows |= dict(zip(part["clients"].tolist(), part["rows"], strict=True))
        return rows

    def client(self, number: int) -> Client:
        """The models with which client ``number`` went out of the run, or of the untrained control."""
        initial = self.model.flat(self.network.bottom)
        has_momentum = ALGORITHMS[self.config.method].momentum
        if not self.trained:
            key_dim, memory = self.network.key_dim, None
            if "memory" in ALGORITHMS[self.config.method].widths(self.config, len(initial), key_dim):
                memory = noise(1, self.config.contrast.memory_length, key_dim, self.streams, initial.dtype)[0]
            return Client(number, self._module(initial), self._module(initial) if has_momentum else None, memory)
        states = self._states(number)
        momentum = self._module(states["momentum"]) if has_momentum else None
        memory = states["memory"].view(-1, self.network.key_dim) if "memory" in states else None
        return Client(number, self._module(states["online"]), momentum, memory)

    def _states(self, number: int) -> dict[str, Tensor]:
        """The states with which a client went out of the run: what is common, and over it what it has kept."""
        names = ("online", "momentum", "memory", resistance.STATE)
        states = {name: self._shared[name].clone().float() for name in names if name in self._shared}
        row = self._rows.get(number)
        if row is not None:
            lapsing = dict.fromkeys(keep.state for keep in self._kept if keep.lapses)
            gone = [True] * len(lapsing)
            if lapsing:
                left, loads = self._shared["left"].view(len(lapsing), -1)[:, number], self._shared["loads"]
                gone = (left != loads).tolist()
            lay(self._kept, row, dict(zip(lapsing, gone, strict=True)), states)
        return states

    def opponent(self, number: int) -> Tensor | None:
        """The state of the attacker that a client has trained against itself, if it has; None in the control."""
        return self._states(number).get(resistance.STATE) if self.trained else None

    def encoder(self, number: int = 0) -> nn.Module:
        """The encoder as client ``number`` would use it: normalised images to features ``[n, f]``."""
        bottom = self.client(number).online
        if isinstance(bottom, WholeNetwork):
            return Encoder(nn.Identity(), bottom)
        assert self.trunk is not None
        return Encoder(bottom, self.trunk)

    def augment(self, raw: Tensor, count: int, seed: int) -> Tensor:
        """``count`` views of each of ``raw`` uint8 ``[n, C, H, W]``, as in training: pixels ``[n, count, C, h, w]``."""
        plain = (0.0,) * raw.shape[1], (1.0,) * raw.shape[1]
        draw = Streams(seed).generator("views of an attack")
        if self.config.supervised:
            crop = CropFlip(self.size, self.config.views.flip_probability, *plain, torch.float32)
            many = raw[:, None].expand(-1, count, *raw.shape[1:])
            return crop(many, draw.random((len(raw), count, CROP_DRAWS)))
        pairs = -(-count // 2)
        many = raw[:, None].expand(-1, pairs, *raw.shape[1:])
        views = ViewMaker(self.config.views, self.size, *plain, torch.float32)
        return torch.cat(views(many, draw.random((len(raw), pairs, 2, ViewMaker.DRAWS))), dim=1)[:, :count]

    @cached_property
    def exposures(self) -> npt.NDArray[np.int64]:
        """How often each training image was drawn for a batch before the checkpoint ``[n]``; 0 = never seen.

        Clients that dropped out of an epoch count all the same. Of an expert, its target images.
        """
        config, source, done = self.config, self.source, self.saved.manifest
        images = np.array([len(part) for part in source.parts])
        seen = np.zeros(len(source.train), dtype=np.int64)
        if not self.trained or (config.mixes_sources and not len(source.parts[0])):
            return seen
        size = config.pretraining.batch if config.mixes_sources else config.client.batch_size
        steps = (done.steps - done.step) // done.epoch if done.epoch else done.step
        views = ViewMaker(config.views, self.size, source.data.mean, source.data.std, torch.float32)
        for epoch in range(done.epoch + (done.step > 0)):
            batches = size * (steps if epoch < done.epoch else done.step)
            feed = Feed(source.train.pixels, source.parts, batches, views, self.streams, factors(config))
            for client in pool(config, self.streams, epoch, images)[: 1 if config.vertical else None]:
                np.add.at(seen, feed.indices(int(client), epoch, 0), 1)
        return seen

    @cached_property
    def expert(self) -> Source | None:
        """What the expert with which the run began has learnt from: its one client's images are those of the target.

        The run's own, where it is such a first stage itself; None where there is no expert, or one of labels.

        Raises
        ------
        BadInput
            The expert's file is not there any more, is another one, or its data cannot be read.
        """
        if self.config.mixes_sources:
            return self.source
        path = locate(self.config) if self.config.client.pretrained else None
        if path is None:
            return None
        file = read_expert(path)
        if self._expert_sha256 not in ("", file.sha256):
            raise BadInput(f"{path} is not the expert with which {self.directory} began (its sha256 differs)")
        config: Config = parse(file.fact("config"), str(path))
        return read(config, self._data_dir, Streams(config.seed)) if config.mixes_sources else None

    @cached_property
    def trunk(self) -> Trunk | None:
        """The main server's part, if there is one."""
        return self._server("server-online")

    @cached_property
    def momentum_trunk(self) -> Trunk | None:
        """Its momentum copy, where the method has one."""
        return self._server("server-momentum")

    def _server(self, name: str) -> Trunk | None:
        trunk = self.fresh().trunk
        if trunk is None or (self.trained and name not in self.saved):
            return None
        if self.trained:
            trunk.load_state_dict(_tensors(self.saved, name))
        return trunk.eval().requires_grad_(False)

    def memory(self) -> Tensor | None:
        """The feature memory's keys ``[memories, K, d]``, as saved; None where the method has none."""
        if not self.trained:
            kept, clients = self.config.contrast, self.config.client.count
            if ALGORITHMS[self.config.method].server is not MainServer or self.config.whole_network:
                return None
            memories = 1 if kept.share_features else clients
            return noise(memories, kept.memory_length // memories, self.network.key_dim, self.streams, torch.float32)
        return _tensors(self.saved, "server-memory")["keys"].float() if "server-memory" in self.saved else None

    def _module(self, flat: Tensor) -> nn.Module:
        return self.model.module(flat).eval().requires_grad_(False)


def _tensors(saved: Checkpoint, name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in saved.arrays(name).items()}
