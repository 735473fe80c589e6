"""All that is known of an experiment before it runs, in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from mocosfl_mpi import saving
from mocosfl_mpi.algorithms import ALGORITHMS, Algorithm, alignment
from mocosfl_mpi.algorithms import network as build_network
from mocosfl_mpi.clients.participation import pool
from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.clients.wealth import factors, kinds
from mocosfl_mpi.config import Communication, Compute, Config
from mocosfl_mpi.cost.flops import Costs, totals
from mocosfl_mpi.native import Kernels
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.plan.images import ImageSet
from mocosfl_mpi.plan.segment import NO_SEGMENT, Segment, both_ends, segment
from mocosfl_mpi.privacy import resistance
from mocosfl_mpi.privacy.streamed import guard_cost
from mocosfl_mpi.problem import Auxiliary, Problem, owners
from mocosfl_mpi.record.schema import WORK
from mocosfl_mpi.server.alignments import Alignment
from mocosfl_mpi.server.fed_server import due
from mocosfl_mpi.simulated import WireSizes
from mocosfl_mpi.split import backbones
from mocosfl_mpi.split.cut import SplitNetwork
from mocosfl_mpi.split.engine import ACTIVATIONS, MASTERS, Engine, choose, precision
from mocosfl_mpi.split.fused import take_apart
from mocosfl_mpi.split.layers import mixes_rows
from mocosfl_mpi.split.stacked import filters
from mocosfl_mpi.streams import Streams


@dataclass(frozen=True)
class Network:
    """The network cut in two; sizes are numbers, not bytes."""

    bottom: Segment
    trunk: Segment
    layers: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """(start, stop) of each of the bottom's ``layers``."""
    filters: tuple[tuple[int, int], ...]
    """Those of the backbone's weights proper, where clients hold the whole network."""
    smashed: int
    input: int
    features: int
    keys: int
    attacker: Segment
    """The decoder against which each client learns; nothing where none does."""
    beside: Mapping[str, int]
    """Numbers in the states of terms at the cut."""
    mixes_rows: bool
    """Whether the server passes all rows of a step at once, since its BatchNorm looks at all of them."""
    deeper: Network | None = None
    """The same as rich clients have it, where they have another cut."""

    @property
    def cuts(self) -> tuple[Network, ...]:
        """By kind of clients (``wealth.kinds``)."""
        return (self.deeper, self) if self.deeper else (self,)


@dataclass(frozen=True)
class Experiment:
    """One experiment: its configuration with precision and backend decided, its images, its network."""

    config: Config
    images: ImageSet
    network: Network

    @property
    def weight(self) -> int:
        """Bytes of one number in weights, views and features."""
        return MASTERS[self.config.compute.precision].itemsize

    @property
    def activation(self) -> int:
        """Bytes of one number in activations and at the cut."""
        return ACTIVATIONS[self.config.compute.precision].itemsize

    @property
    def rows(self) -> int:
        """Rows of one step that the main server passes: the pool's, or where clients have pieces of them the images."""
        return self.config.rows_per_client * (1 if self.config.vertical else self.batches)

    @property
    def rows_by_kind(self) -> list[int]:
        """The same by kind of the clients whose they are."""
        *first, _ = self.batches_by_kind
        rows = [self.config.rows_per_client * batches for batches in first]
        return [*rows, self.rows - sum(rows)]

    @property
    def batches(self) -> int:
        """Batches of the pool's clients in a step, those of the rich as multiples; of a pool with its share of them."""
        return int(factors(self.config).sum()) * self.config.pool_size // self.config.client.count

    @property
    def batches_by_kind(self) -> list[int]:
        """The same of each kind of clients."""
        own, of_kind, config = factors(self.config), kinds(self.config), self.config
        first = [int(own[of_kind == kind].sum()) * config.pool_size // config.client.count for kind in (0, 1)]
        return [first[0], self.batches - first[0]][: len(self.network.cuts)]

    @property
    def sizes(self) -> WireSizes:
        """Bytes of one message of a simulated client; of poor ones, where the rich have another cut."""
        return self.sizes_by_kind[-1]

    @property
    def sizes_by_kind(self) -> list[WireSizes]:
        """Bytes of one message of each kind of clients."""
        return self._sizes(self.config)

    def _sizes(self, config: Config) -> list[WireSizes]:
        features = config.rows_per_client * self.network.features * self.weight
        return [
            WireSizes.of(
                config,
                cut.smashed,
                self.activation,
                features,
                self.alignment.traffic(self.weight, cut.bottom.parameters),
            )
            for cut in self.network.cuts
        ]

    @property
    def moved_bytes(self) -> int:
        """Bytes that ranks move in a step: everything in full, whatever simulated clients send."""
        full = self._sizes(self.config.model_copy(update={"communication": Communication()}))
        each = zip(self.batches_by_kind, full, strict=True)
        return sum(batches * sum(sizes.step.values()) for batches, sizes in each)

    @property
    def smashed_bytes(self) -> int:
        """Bytes of a client's smashed data of one encoder as ranks move them, whatever simulated clients send."""
        return self.config.rows_per_client * self.network.smashed * self.activation

    @property
    def replay_bytes(self) -> int:
        """Bytes of smashed data that rank 0 may come to keep."""
        if not self.config.communication.loss_threshold:
            return 0
        return saving.replay_bytes(self.config, self.steps, self.network.smashed, self.activation)

    def check(self) -> None:
        """Refuse what the run would refuse before it begins (BadInput)."""
        saving.check(self.config, self.steps, self.network.smashed, self.activation)

    @property
    def algorithm(self) -> Algorithm:
        """The method's row."""
        return ALGORITHMS[self.config.method]

    @cached_property
    def alignment(self) -> Alignment:
        """What synchronisations make common to all clients. BadInput where it names layers that they do not have."""
        deepest = self.network.cuts[0]
        return alignment(
            self.config, deepest.layers, deepest.spans, deepest.filters, self.network.keys, self.network.beside
        )

    @property
    def server_memory(self) -> int:
        """Numbers in the main server's feature memory."""
        none = self.config.whole_network or self.config.supervised
        return 0 if none else self.config.contrast.memory_length * self.network.keys

    @property
    def private(self) -> int:
        """Numbers that each client keeps for itself between epochs."""
        return sum(keep.numbers for keep in self.alignment.kept)

    @property
    def working(self) -> int:
        """Numbers in all states of a client at work: its models, its past keys, what it keeps for the alignment."""
        widths, kept = self.alignment.widths, self.alignment.kept
        beside = {keep.state for keep in kept} - set(widths)
        return sum(widths.values()) + len(beside) * self.network.cuts[0].bottom.parameters

    @property
    def shared(self) -> int:
        """Numbers that are kept once for all clients: as many, and the mean online model where it is not common."""
        average = any(keep.state == "online" and not keep.lapses for keep in self.alignment.kept)
        judged = self.config.pool_size if self.config.vertical else 1
        return self.working + average * judged * self.network.cuts[0].bottom.parameters

    @cached_property
    def owners(self) -> Problem:
        """Who owns which images. BadInput where the partition is impossible."""
        parts = owners(self.config, self.images.labels, len(self.images.classes), Streams(self.config.seed))
        return Problem(np.empty(0, dtype=np.uint8), parts, (), (), auxiliary=self._auxiliary)

    @property
    def _auxiliary(self) -> Auxiliary | None:
        """An expert's other images, of which only the number is known."""
        if not self.config.mixes_sources:
            return None
        return Auxiliary(np.empty((self.images.auxiliary, 0), dtype=np.uint8), (), ())

    @cached_property
    def steps(self) -> int:
        """Steps of an epoch. BadInput where the partition is impossible."""
        return self.owners.steps_per_epoch(self.config)

    @cached_property
    def sync_steps(self) -> list[int]:
        """The steps of an epoch after which models are synchronised."""
        frequency = self.config.sync_freq
        return [] if self.config.client.frozen else [s for s in range(self.steps) if due(s, self.steps, frequency)]

    @property
    def syncs(self) -> int:
        """Synchronisations of an epoch."""
        return len(self.sync_steps)

    def pools(self) -> Iterator[npt.NDArray[np.int64]]:
        """The clients that take part in every epoch, as the run will draw them."""
        streams = Streams(self.config.seed)
        reliability = Reliability(self.config, streams)
        for epoch in range(self.config.epochs):
            yield reliability.survivors(epoch, pool(self.config, streams, epoch, self.owners.images))

    @cached_property
    def participants(self) -> int:
        """Clients that take part in any epoch."""
        seen = np.zeros(self.config.client.count, dtype=bool)
        for members in self.pools():
            seen[members] = True
            if seen.all():
                break
        return int(seen.sum())

    @property
    def server_flops(self) -> dict[str, int]:
        """FLOPs of the main server in one step, by kind."""
        *deeper, costs = (cut.trunk.costs for cut in self.network.cuts)
        *more, rows = self.rows_by_kind
        work = self._passed(costs, rows)
        work["optimiser"] *= self.algorithm.server_updates(self.config)
        for costs, rows in zip(deeper, more, strict=True):
            also = self._passed(costs, rows)
            for kind in WORK[:3]:
                work[kind] += also[kind]
        return work

    def _passed(self, costs: Costs, rows: int) -> dict[str, int]:
        """FLOPs of the main server for ``rows`` of one cut, and one update of the layers behind it."""
        first = costs.last if self.config.client.frozen else costs.answering
        work = totals(first, steps=1, rows=rows, frozen=False, momentum=self.algorithm.momentum)
        if symmetry(self.config).server_swap:
            again = totals(costs.last, steps=1, rows=rows, frozen=False)
            for kind in WORK[:3]:
                work[kind] += again[kind]
        return work

    def resized(self, *, clients: int | None = None, batch: int | None = None) -> Experiment:
        """The same experiment with another number of clients or another batch."""
        client = self.config.client
        values = {"count": clients or client.count, "batch_size": batch or client.batch_size}
        return replace(self, config=self.config.model_copy(update={"client": client.model_copy(update=values)}))


@dataclass(frozen=True)
class Elsewhere:
    """What `auto` is on a machine that is not at hand."""

    precision: str
    fused: bool

    def chosen(self, compute: Compute) -> str:
        """Precision there."""
        return self.precision if compute.precision == "auto" else compute.precision

    def engine(self, compute: Compute, network: SplitNetwork) -> Engine:
        """Precision and backend there, as far as they can be told from here."""
        chosen, backend = self.chosen(compute), "stacked" if compute.compile else compute.backend
        if backend in ("auto", "fused"):
            parts = [network.first, *([network.trunk.backbone] if network.trunk else [])]
            known = all(take_apart(part) is not None for part in parts)
            backend = "fused" if self.fused and chosen != "fp64" and known else "stacked"
        return Engine(chosen, backend)


def experiment(config: Config, images: ImageSet, machine: Kernels | Elsewhere | None) -> Experiment:
    """The experiment as it is computed here with these kernels (None: there are none), or elsewhere.

    Raises
    ------
    BadInput
        The network does not fit the images, or has no layers of the names that are to be aligned.
    """
    away = machine if isinstance(machine, Elsewhere) else None
    kernels = None if isinstance(machine, Elsewhere) else machine
    chosen = away.chosen(config.compute) if away else precision(config.compute, kernels)
    dtype = MASTERS[chosen]
    size = config.views.size or images.side
    split = build_network(config, images.channels, size, len(images.classes), Streams(config.seed), dtype)
    engine = away.engine(config.compute, split) if away else choose(config.compute, kernels, split)
    network = _network(config, split, engine)
    found = Experiment(config.computed(engine.precision, engine.backend), images, network)
    assert found.alignment  # refuses layers that are not there
    return found


def _network(config: Config, split: SplitNetwork, engine: Engine) -> Network:
    """The network in numbers, as this engine computes it."""
    fused, itemsize = engine.backend == "fused", engine.activations.itemsize
    bottom = segment(split.first, split.input_shape, fused=fused, itemsize=itemsize)
    if split.last is not None:
        shape = (backbones.feature_dim(config.model),)
        bottom = both_ends(bottom, segment(split.last, shape, fused=False, itemsize=engine.weights.itemsize))
    guarded = guard_cost(config, split)
    bottom = replace(bottom, costs=Costs(*(costs + guarded for costs in bottom.costs)))
    attacker, beside = NO_SEGMENT, {}
    if config.resists:
        opponent, size = (
            resistance.attacker(config, split, Streams(config.seed), engine.weights),
            engine.weights.itemsize,
        )
        attacker = segment(resistance.Opponent(opponent), split.smashed_shape, fused=False, itemsize=size)
        bottom = replace(bottom, costs=bottom.costs._replace(last=resistance.added(config, split, bottom.costs.last)))
        beside = {resistance.STATE: resistance.width(opponent)}
    return Network(
        bottom=bottom,
        attacker=attacker,
        beside=beside,
        trunk=segment(split.trunk, split.trunk_shape, fused=fused, itemsize=itemsize) if split.trunk else NO_SEGMENT,
        layers=tuple(name for name, _ in split.bottom.named_parameters()),
        spans=tuple(pairwise(accumulate((p.numel() for p in split.bottom.parameters()), initial=0))),
        filters=tuple(filters(split.bottom)),
        smashed=split.smashed_floats,
        input=math.prod(split.input_shape),
        features=backbones.feature_dim(config.model),
        keys=split.key_dim,
        mixes_rows=split.trunk is not None and mixes_rows(split.trunk),
        deeper=_network(config, split.deeper, engine) if split.deeper else None,
    )
