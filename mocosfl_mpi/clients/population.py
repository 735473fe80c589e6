"""All simulated clients: what they share, what each keeps for itself, and where that lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.placement import Deal, deal
from mocosfl_mpi.config import Config
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.split.stacked import StackedModel

CLIENT_DECAY = 0.2
STATES = ("online", "momentum", "velocity", "memory")
"""In this order in every row of a checkpoint; `memory`: past keys of a client that keeps its own."""
SLAB = 2**26
"""Bytes of clients' rows that travel at once for a checkpoint."""

Ids = npt.NDArray[np.int64]


class Population:
    """The clients of this run; this rank holds the blocks that were dealt to it.

    After a synchronisation most state is common to all clients and is kept once (``shared``). What is private
    (momentum models in MocoSFL, velocities unless reset or averaged) waits, for clients that are not in the
    pool, on the rank that used it last, and travels when the client is dealt elsewhere. Clients that never took
    part have no state of their own at all.

    ``initial``: values ``[width]`` of the states that this method has, of `online`, `momentum`, `velocity`, `memory`.
    """

    def __init__(
        self,
        config: Config,
        model: StackedModel,
        initial: dict[str, Tensor],
        aligned: Sequence[str],
        feed: Feed,
        cluster: Cluster,
        exchange: Exchange,
        meter: Meter,
    ) -> None:
        self._config = config
        self._model = model
        self._feed = feed
        self._cluster = cluster
        self._exchange = exchange
        self._meter = meter
        self._symmetry = symmetry(config)
        self.dtype = initial["online"].dtype
        self.shared = {name: initial[name] for name in STATES if name in initial}
        common = set(aligned)
        if config.client.velocity_at_sync != "kept":
            common.add("velocity")
        own = tuple(s for s in self.shared if s not in common and s != "online")
        self.private = () if config.client.frozen else own
        self._parked: dict[int, Tensor] = {}
        self._where = np.full(config.client.count, -1, dtype=np.int64)
        self._steps = np.zeros(config.client.count, dtype=np.int64)
        self._deal: Deal | None = None
        self._ahead: tuple[tuple[int, int] | None, list[tuple[Tensor, Tensor]]] = None, []
        self.blocks: list[Block] = []
        self.rates = np.zeros(config.pool_size)
        """Learning rates of the pool's clients at the latest step (0 while frozen)."""

    # ------------------------------------------------------------------------------------ taking part

    def enter(self, pool: npt.NDArray[np.int64]) -> None:
        """Deal the epoch's pool to the hosts, in blocks, and bring private state to where it is needed."""
        self._deal = deal(pool, self._config.block_size, self._cluster.hosts)
        self._exchange.begin(self._deal)
        owners = self._deal.owner_of_clients()
        if self.private:
            moves = [
                (int(c), int(self._where[c]), int(o)) for c, o in zip(pool, owners, strict=True) if self._where[c] >= 0
            ]
            width = sum(self._widths(self.private))
            self._parked |= self._exchange.relocate(self._parked, width, self.dtype, moves)
            self._where[pool] = owners
        self.blocks = [
            Block(clients, self._states(clients), self._model, self._config.client)
            for clients, owner in zip(self._deal.blocks, self._deal.owners, strict=True)
            if owner == self._cluster.rank
        ]

    def leave(self) -> None:
        """Park what is private to the pool's clients and count their steps."""
        for block in self.blocks:
            for lane, client in enumerate(block.clients):
                if self.private:
                    self._parked[int(client)] = torch.cat([block.state[name][lane] for name in self.private])
        self.blocks = []
        self._deal = None

    def _widths(self, states: Iterable[str]) -> list[int]:
        return [len(self.shared[name]) for name in states]

    def _states(self, clients: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """Stacked states ``[lanes, width]`` of ``clients``: shared values, overlaid by what is parked here."""
        stacks = {name: value.expand(len(clients), -1).clone() for name, value in self.shared.items()}
        for lane, client in enumerate(clients):
            row = self._parked.pop(int(client), None)
            if row is not None:
                for name, part in zip(self.private, row.split(self._widths(self.private)), strict=True):
                    stacks[name][lane] = part
        return {"momentum": stacks["online"], **stacks}

    @property
    def lanes(self) -> list[int]:
        """Clients in each block of this rank."""
        return [len(block.clients) for block in self.blocks]

    # ----------------------------------------------------------------------------------------- a step

    def update_momentum(self) -> None:
        """Move every momentum model towards its online model (frozen clients have nothing to follow)."""
        if self._config.client.frozen:
            return
        with self._meter.phase("client_forward"):
            for block in self.blocks:
                block.update_momentum(self._config.contrast.momentum)

    def look_ahead(self, epoch: int, step: int) -> None:
        """Draw the views of a coming step while the server is at work: they depend on nothing but (epoch, step)."""
        with self._meter.phase("views"):
            self._ahead = (epoch, step), [self._draw(block, epoch, step) for block in self.blocks]

    def _draw(self, block: Block, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        return self._symmetry.assign(*self._feed.draw(block.clients, epoch, step))

    def forward(self, epoch: int, step: int) -> tuple[list[Tensor], list[Tensor]]:
        """Draw the batches and compute smashed data: query and key, ``[lanes, rows, C, h, w]`` per block.

        No keys where clients have no momentum model.
        """
        queries: list[Tensor] = []
        keys: list[Tensor] = []
        if self._ahead[0] != (epoch, step):
            self.look_ahead(epoch, step)
        views = self._ahead[1]
        self._ahead = None, []
        for block, (query, key) in zip(self.blocks, views, strict=True):
            with self._meter.phase("client_forward"):
                smashed = block.forward(query, key)
            queries.append(smashed[0])
            keys += [smashed[1]] if smashed[1] is not None else []
        return queries, keys

    def backward(self, gradients: Sequence[Tensor], epoch: int) -> None:
        """Every client resumes from its rows of the gradient at the cut and takes one SGD step."""
        assert self._deal is not None
        pool = self._deal.pool
        self.rates = self._learning_rates(pool, epoch)
        with self._meter.phase("client_backward"):
            for block, gradient in zip(self.blocks, gradients, strict=True):
                rates = self.rates[np.searchsorted(pool, block.clients)]
                block.backward(gradient, torch.as_tensor(rates, dtype=self.dtype))
        self._steps[pool] += 1

    def steps_of(self, block: Block) -> npt.NDArray[np.int64]:
        """Training steps that each client of ``block`` has done since the run began ``[lanes]``."""
        return self._steps[block.clients]

    def _learning_rates(self, clients: npt.NDArray[np.int64], epoch: int) -> npt.NDArray[np.float64]:
        """Learning rates ``[n]`` of ``clients``: by epoch, or by their own step counts as published."""
        settings = self._config.client
        counts = self._steps[clients] if settings.schedule_step == "published" else np.full(len(clients), epoch)
        return np.array(
            [
                learning_rate(settings.schedule, settings.lr, int(count), self._config.epochs, CLIENT_DECAY)
                for count in counts
            ]
        )

    # ------------------------------------------------------------------------------------------ state

    def load(self, name: str, mean: Tensor) -> None:
        """Make ``mean [P]`` the value of state ``name`` for every client, in the pool or not."""
        self.shared[name] = mean
        for block in self.blocks:
            block.state[name].copy_(mean.expand_as(block.state[name]))

    def state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Everything that training changes, a bounded part at a time: on the server; nothing elsewhere (collective).

        ``shared``; ``parked-…`` private rows ``[n, width]`` of clients that wait; ``pool-…`` all states
        ``[n, width]`` of the clients at work, in the middle of an epoch. Clients in order.
        """
        if self._cluster.serves:
            yield "shared", self.shared | {"steps": torch.from_numpy(self._steps)}
        parked = self._where >= 0
        working = self._deal
        if working is not None:
            parked[working.pool] = False
        waiting = np.flatnonzero(parked)
        yield from self._rows("parked", waiting, self._where[waiting], self.private, self._parked)
        if working is not None:
            rows = {
                int(client): torch.cat([block.state[name][lane] for name in self.shared])
                for block in self.blocks
                for lane, client in enumerate(block.clients)
            }
            yield from self._rows("pool", working.pool, working.owner_of_clients(), tuple(self.shared), rows)

    def _rows(
        self, kind: str, clients: Ids, owners: Ids, states: Sequence[str], rows: Mapping[int, Tensor]
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Rows of ``clients`` from their owners to the server, in slabs."""
        width = sum(self._widths(states))
        slab = max(1, SLAB // max(1, width * self.dtype.itemsize))
        for number, start in enumerate(range(0, len(clients), slab)):
            part, sources = clients[start : start + slab], owners[start : start + slab]
            mine = {int(c): rows[int(c)] for c, o in zip(part, sources, strict=True) if o == self._cluster.rank}
            moves = [(int(c), int(o), 0) for c, o in zip(part, sources, strict=True)]
            mine |= self._exchange.relocate(mine, width, self.dtype, moves)
            if self._cluster.serves:
                stacked = torch.stack([mine[int(c)] for c in part])
                yield f"{kind}-{number:06d}", {"clients": torch.from_numpy(part), "rows": stacked}

    def restore(self, saved: Mapping[str, Tensor] | None, parked: Iterable[Mapping[str, Tensor]]) -> None:
        """The inverse of ``state`` between two epochs, for any number of ranks; arguments count on the server."""
        for name, vector in self.shared.items():
            if saved is not None:
                vector.copy_(saved[name])
            self._exchange.broadcast(vector)
        steps = torch.from_numpy(self._steps)
        if saved is not None:
            steps.copy_(saved["steps"])
        self._exchange.broadcast(steps)
        hosts = self._cluster.hosts
        for clients, arrived in self._scatter(parked, self.private, lambda c: hosts[c % len(hosts)]):
            self._parked |= arrived
            self._where[clients] = [hosts[c % len(hosts)] for c in clients]

    def restore_pool(self, pool: Iterable[Mapping[str, Tensor]]) -> None:
        """The inverse of ``state`` in the middle of an epoch, after ``enter``."""
        assert self._deal is not None
        owners = dict(zip(self._deal.pool.tolist(), self._deal.owner_of_clients().tolist(), strict=True))
        rows: dict[int, Tensor] = {}
        for _, arrived in self._scatter(pool, tuple(self.shared), owners.__getitem__):
            rows |= arrived
        for block in self.blocks:
            for lane, client in enumerate(block.clients):
                for name, part in zip(self.shared, rows[int(client)].split(self._widths(self.shared)), strict=True):
                    block.state[name][lane] = part

    def _scatter(
        self, parts: Iterable[Mapping[str, Tensor]], states: Sequence[str], owner: Callable[[int], int]
    ) -> Iterator[tuple[list[int], dict[int, Tensor]]]:
        """Slabs of rows from the server to their owners: all clients of a slab, and the rows that came here."""
        source = iter(parts)
        while True:
            part = next(source, None) if self._cluster.serves else None
            clients = self._cluster.broadcast_json(part["clients"].tolist() if part else None)
            if clients is None:
                return
            rows = dict(zip(clients, part["rows"], strict=True)) if part else {}
            width = sum(self._widths(states))
            arrived = self._exchange.relocate(rows, width, self.dtype, [(c, 0, owner(c)) for c in clients])
            yield clients, rows | arrived

    def digests(self) -> list[list[str]]:
        """``[client, sha256]`` of the private state parked on this rank (as strings; all clients must have left)."""
        return [
            [str(client), hashlib.sha256(row.numpy().tobytes()).hexdigest()] for client, row in self._parked.items()
        ]

    def digest_shared(self) -> str:
        """sha256 of what all clients share and of their step counts."""
        digest = hashlib.sha256(self._steps.tobytes())
        for value in self.shared.values():
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()
