"""The data as every rank sees it: training pixels, one copy per node, and who owns which of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Config
from mocosfl_mpi.data.check import check_all
from mocosfl_mpi.data.images import Dataset, Images
from mocosfl_mpi.data.partition import partition
from mocosfl_mpi.data.sources import load
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.streams import Streams


@dataclass(frozen=True)
class Source:
    """What rank 0 alone holds: the data set as read, and what was held out of its training split."""

    data: Dataset
    train: Images
    validation: Images | None
    parts: list[npt.NDArray[np.int64]]
    transfer: Dataset | None = None
    """Another data set on which the encoder is judged too."""
    auxiliary: Dataset | None = None
    """Another data set from which an expert learns."""


def read(config: Config, data_dir: Path | None, streams: Streams) -> Source:
    """Read the data set, hold out validation images, deal the rest to clients.

    Raises
    ------
    BadInput
        Files or partition cannot be used, or a view would be larger than sensible.
    """
    check_all(config, data_dir)
    data, other = load(config.data, data_dir, streams), config.transfer_data
    held = config.data.validation_images
    if held >= len(data.train):
        raise BadInput(
            f"data.validation_images = {held} leaves none of the {len(data.train)} training images; choose fewer"
        )
    train, validation = data.train, None
    if held:
        order = streams.generator("validation").permutation(len(data.train))
        train, validation = data.train.take(np.sort(order[held:])), data.train.take(np.sort(order[:held]))
    parts = owners(config, train.labels, data.class_count, streams)
    transfer = load(other, data_dir, streams) if other else None
    return Source(data, train, validation, parts, transfer, _auxiliary(config, data, data_dir, streams))


def _auxiliary(config: Config, data: Dataset, data_dir: Path | None, streams: Streams) -> Dataset | None:
    """The data set from which an expert learns beside ``data``, if there is one."""
    settings = config.auxiliary_data
    if settings is None:
        return None
    found = load(settings, data_dir, Streams(streams.torch_seed("auxiliary")))
    if found.channels != data.channels:
        raise BadInput(
            f"pretraining.auxiliary = {settings.source!r} has images of {found.channels} channels and data.source = "
            f"{config.data.source!r} has {data.channels}; choose two of a kind"
        )
    return found


def owners(
    config: Config, labels: npt.NDArray[np.int64], classes: int, streams: Streams
) -> list[npt.NDArray[np.int64]]:
    """Each client's indices into the training images; all of them where clients have pieces of the same images.

    Of an expert's proxy client, the share of them that it has.

    Raises
    ------
    BadInput
        The partition is impossible.
    """
    if config.mixes_sources:
        count = round(config.pretraining.target_share * len(labels))
        if config.pretraining.target_share and not count:
            raise BadInput(
                f"pretraining.target_share = {config.pretraining.target_share} of {len(labels)} images is none; raise "
                f"it, or set it to 0"
            )
        return [np.sort(streams.generator("target share").permutation(len(labels))[:count])]
    if config.vertical:
        return [np.arange(len(labels)) for _ in range(config.client.count)]
    return partition(config.partition, labels, config.client.count, classes, streams, config.rich_clients)


@dataclass(frozen=True)
class Auxiliary:
    """An expert's other training pixels uint8 ``[n, C, H, W]``, and their own normalisation."""

    pixels: npt.NDArray[np.uint8]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """Training pixels uint8 ``[n, C, H, W]``, each client's indices into them, their normalisation, and their labels.

    ``labels`` int64 ``[n]`` are of ``classes`` classes.
    """

    pixels: npt.NDArray[np.uint8]
    parts: list[npt.NDArray[np.int64]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    classes: int = 0
    auxiliary: Auxiliary | None = None

    @classmethod
    def share(cls, cluster: Cluster, source: Source | None) -> Problem:
        """Rank 0's ``source`` on every rank."""
        pixels = cluster.share(source.train.pixels if source else None)
        owned = cluster.share(np.concatenate(source.parts) if source else None)
        labels = cluster.share(source.train.labels if source else None)
        other = source.auxiliary if source else None
        mean, std, ends, classes, scale = cluster.broadcast_json(
            [
                source.data.mean,
                source.data.std,
                np.cumsum([len(p) for p in source.parts]).tolist(),
                source.data.class_count,
                [other.mean, other.std] if other else None,
            ]
            if source
            else None
        )
        auxiliary = None
        if scale:
            more = cluster.share(other.train.pixels if other else None)
            auxiliary = Auxiliary(more, tuple(scale[0]), tuple(scale[1]))
        return cls(pixels, np.split(owned, ends[:-1]), tuple(mean), tuple(std), labels, classes, auxiliary)

    def scales(self, config: Config) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation with which a client's images are normalised: ``[C]`` each.

        ``[rows, C]`` where a batch has images of two sources, in the order of ``clients.mixed``.
        """
        own = torch.tensor(self.mean), torch.tensor(self.std)
        if self.auxiliary is None:
            return own
        other = torch.tensor(self.auxiliary.mean), torch.tensor(self.auxiliary.std)
        size, times = config.pretraining.batch, 2 if config.both_roles else 1
        kinds = [own, other] if len(self.parts[0]) else [other]
        mean, std = (torch.stack([kind[which] for kind in kinds]).repeat_interleave(size, 0) for which in (0, 1))
        return mean.repeat(times, 1), std.repeat(times, 1)

    @cached_property
    def images(self) -> npt.NDArray[np.int64]:
        """Images of each client ``[clients]``; an expert's auxiliary ones among them."""
        more = len(self.auxiliary.pixels) if self.auxiliary else 0
        return np.array([len(part) + more for part in self.parts], dtype=np.int64)

    def steps_per_epoch(self, config: Config) -> int:
        """As set, or whole passes over the mean client's images in the mean client's batches, each rounded up.

        An expert passes over the larger of its two sources.

        Raises
        ------
        BadInput
            More synchronisations than steps are asked for.
        """
        per_client = -(-int(self.images.sum()) // len(self.parts))
        together = config.client.batch_size * int(factors(config).sum())  # all clients' batches
        passes = config.client.local_epochs * -(-int(self.images.sum()) // together)
        if self.auxiliary is not None:
            passes = -(-max(len(self.parts[0]), len(self.auxiliary.pixels)) // config.pretraining.batch)
        steps = config.steps_per_epoch or passes
        if config.sync_freq > steps:
            raise BadInput(
                f"federation.sync_freq = {config.federation.sync_freq} exceeds the {steps} steps of an epoch "
                f"({per_client} images per client, client.batch_size = {config.client.batch_size}); "
                f"choose at most {steps}"
            )
        return steps
