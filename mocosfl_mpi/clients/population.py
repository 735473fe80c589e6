"""All simulated clients: what they share, what each keeps for itself, and where that lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mocosfl_mpi.clients.block import Block
from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.keep import Keep, lay
from mocosfl_mpi.clients.shield import Pull, Shield, Unshielded
from mocosfl_mpi.clients.slabs import Slabs
from mocosfl_mpi.clients.terms import CutTerm
from mocosfl_mpi.clients.wealth import dealt, factors, kinds
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.placement import Deal
from mocosfl_mpi.config import Config
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.schedules import learning_rate
from mocosfl_mpi.split.engine import CPU
from mocosfl_mpi.split.stacked import StackedModel

CLIENT_DECAY = 0.2
STATES = ("online", "momentum", "velocity", "memory", "scale")
"""In this order in every row of a checkpoint; `memory`: past keys of a client that keeps its own; `scale`: a number.
States of terms at the cut follow.
"""

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Population:
    """The clients of this run; this rank holds the blocks that were dealt to it.

    After a synchronisation most state is common to all clients and is kept once (``shared``). What is private
    (momentum models in MocoSFL, velocities unless reset or averaged: what no synchronisation made common) waits, for
    clients that are not in the pool, on the rank that used it last, and travels when the client is dealt elsewhere.
    Clients that never took part have no state of their own at all.

    ``initial``: values ``[width]`` of those of ``STATES`` that this method has. ``model``: what clients compute with,
    those with the most layers; ``others``: the further kinds of clients (``wealth.kinds``), whose weights are the first
    columns of the same rows. What stands behind them in a row of theirs is nobody's, and is not read. ``terms``: what
    clients add to the gradient at the cut, each with states of its own. ``shield``: what protects smashed data when
    they leave. ``device``: where the clients at work have their states, and compute; all others lie in host memory.
    """

    def __init__(
        self,
        config: Config,
        model: StackedModel,
        initial: Mapping[str, Tensor],
        private: Sequence[Keep],
        feed: Feed,
        cluster: Cluster,
        exchange: Exchange,
        meter: Meter,
        others: Sequence[StackedModel] = (),
        terms: Sequence[CutTerm] = (),
        shield: Shield | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._config = config
        self._device = device
        self._terms = tuple(terms)
        self.model = model
        """What the clients with the most layers compute with: names, places and shapes of its weights."""
        self.models = (model, *others)
        """By kind of clients."""
        self._kinds = kinds(config)
        self._feed = feed
        self._cluster = cluster
        self._exchange = exchange
        self._slabs = Slabs(cluster, exchange, initial["online"].dtype)
        self._meter = meter
        self._symmetry = symmetry(config)
        self._shield = shield or Unshielded()
        self._pulls: list[Pull] = []
        """Of each block: from the gradient at what it has sent to that at its smashed data."""
        self._factors = factors(config)
        self.dtype = initial["online"].dtype
        self.shared = {name: initial[name] for name in STATES if name in initial}
        for term in self._terms:
            self.shared |= {name: value.clone() for name, value in term.initial.items()}
        self.private = tuple(private)
        self._widths = {name: len(value) for name, value in self.shared.items()}
        """Numbers of each state of a client at work."""
        for state in dict.fromkeys(keep.state for keep in private if keep.state not in self.shared):
            # What clients keep for the alignment alone, the fed server keeps too.
            self._widths[state] = model.parameters
            self.shared[f"server_{state}"] = torch.zeros_like(initial["online"])
        if any(keep.state == "online" and not keep.lapses for keep in private):
            self.shared["average"] = initial["online"].repeat(config.pool_size if config.vertical else 1)
        self._width = sum(keep.numbers for keep in private)
        self._lapsing = list(dict.fromkeys(keep.state for keep in private if keep.lapses))
        self._loads = np.zeros(len(self._lapsing), dtype=np.int64)
        """Times that each state which lapses was made common."""
        self._left = np.zeros((len(self._lapsing), config.client.count), dtype=np.int64)
        """``_loads`` when each client was last at work."""
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
        self._deal = dealt(self._config, pool, self._cluster.hosts)
        self._exchange.begin(self._deal)
        self.rates = np.zeros(len(pool))
        owners = self._deal.owner_of_clients()
        if self.private:
            moves = [
                (int(c), int(self._where[c]), int(o)) for c, o in zip(pool, owners, strict=True) if self._where[c] >= 0
            ]
            self._parked |= self._exchange.relocate(self._parked, self._width, self.dtype, moves)
            self._where[pool] = owners
        self.blocks = [
            Block(
                clients,
                self._states(clients),
                self.models[self._kinds[clients[0]]],
                self._config.client,
                self._terms,
            )
            for clients, owner in zip(self._deal.blocks, self._deal.owners, strict=True)
            if owner == self._cluster.rank
        ]
        for block in self.blocks:
            block.move(self._device)
            for term in self._terms:
                term.begin_epoch(block)

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """While models are exchanged and averaged the clients at work have theirs in host memory, as messages are."""
        for block in self.blocks:
            block.move(CPU)
        yield
        for block in self.blocks:
            block.move(self._device)

    def leave(self) -> dict[str, npt.NDArray[np.float64]]:
        """Park what is private to the pool's clients; what terms at the cut have to tell ``[P]``, on the server."""
        assert self._deal is not None
        told = self._readings()
        pieces = [(keep.state, slice(*span)) for keep in self.private for span in keep.columns]
        for block in self.blocks:
            block.move(CPU)
            for lane, client in enumerate(block.clients):
                if pieces:
                    self._parked[int(client)] = torch.cat([block.state[name][lane, part] for name, part in pieces])
        self._left[:, self._deal.pool] = self._loads[:, None]
        self.blocks = []
        self._deal = None
        return told

    def _readings(self) -> dict[str, npt.NDArray[np.float64]]:
        """Series of the record by name, of the pool's clients in order; on the server, nothing elsewhere."""
        told = {}
        for term in self._terms:
            found = [term.readings(block) for block in self.blocks]
            for name in term.recorded:
                rows = self._exchange.up([part[name].to(torch.float64)[:, None] for part in found], [1], torch.float64)
                if rows is not None:
                    told[name] = rows[:, 0].numpy()
        return told

    def _states(self, clients: npt.NDArray[np.int64]) -> dict[str, Tensor]:
        """Stacked states ``[lanes, width]`` of ``clients``: shared values, overlaid by what is parked here."""
        nothing = torch.zeros_like(self.shared["velocity"])
        stacks = {name: self.shared.get(name, nothing).expand(len(clients), -1).clone() for name in self._widths}
        for lane, client in enumerate(clients):
            row = self._parked.pop(int(client), None)
            if row is None:
                continue
            self._lay(row, client, {name: stack[lane] for name, stack in stacks.items()})
        return {"momentum": stacks["online"], **stacks}

    def _lay(self, row: Tensor, client: int, states: Mapping[str, Tensor]) -> None:
        """Lay what a client has kept ``[width]``, and what of it still counts, over its ``states``, in place."""
        lapsed = dict(zip(self._lapsing, self._left[:, client] != self._loads, strict=True))
        lay(self.private, row, lapsed, states)

    def having(self, model: StackedModel) -> Mask:
        """Who of the pool's clients has the last layers of ``model``, one of ``models``, too ``[P]``."""
        assert self._deal is not None
        return np.array([len(model.spans) <= len(self.models[kind].spans) for kind in self._kinds[self._deal.pool]])

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

    def forward(self, epoch: int, step: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Draw the batches and compute smashed data: query and key, ``[lanes, rows, C, h, w]``, block after block.

        As they are sent: with all that protects them.
        No keys where clients have no momentum model; labels ``[lanes, rows]`` in their place where clients have some.
        """
        if self._ahead[0] != (epoch, step):
            self.look_ahead(epoch, step)
        views = self._ahead[1]
        self._ahead, self._pulls = (None, []), []
        for block, (query, key) in zip(self.blocks, views, strict=True):
            with self._meter.phase("client_forward"):
                smashed = block.forward(query, key)
                sent, pull = self._shield.query(block, query, smashed[0], epoch, step)
                self._pulls.append(pull)
                beside = smashed[1]
                if self._config.supervised:
                    beside = key
                elif beside is not None:
                    beside = self._shield.key(block, key, beside, epoch, step)
            yield sent, beside

    def backward(self, gradients: Iterable[Tensor], epoch: int, answered: Mask, heard: Mask) -> None:
        """Clients resume from their rows of the gradient at the cut; those who are ``answered [P]`` do an SGD step.

        ``gradients``: of each block, as they come. ``heard [P]``: over whose rows the server took its mean.
        """
        assert self._deal is not None
        pool = self._deal.pool
        self.rates = self._learning_rates(pool, epoch)
        for block, gradient, pull in zip(self.blocks, gradients, self._pulls, strict=True):
            with self._meter.phase("client_backward"):
                own = np.searchsorted(pool, block.clients)
                rates = torch.as_tensor(self.rates[own], dtype=self.dtype, device=self._device)
                block.backward(pull(gradient), rates, torch.from_numpy(answered[own]), self._share(block, heard))
        self._steps[pool] += answered

    def _share(self, block: Block, heard: Mask) -> float:
        """Of what a client's gradient is the mean, its own part: its rows among those that were heard, or all."""
        assert self._deal is not None
        if not self._config.shared_mean:
            return 1.0
        return float(self._factors[block.clients[0]] / max(1, self._factors[self._deal.pool[heard]].sum()))

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

    def reach(self, present: Mask) -> None:
        """Of the pool's clients those who are ``present [P]`` get what is loaded from here on."""
        assert self._deal is not None
        for block in self.blocks:
            block.reached = torch.from_numpy(present[np.searchsorted(self._deal.pool, block.clients)])

    def load(self, name: str, mean: Tensor, columns: Sequence[tuple[int, int]] | None = None) -> None:
        """Make ``mean [P]`` the value of state ``name`` for every client, in the pool or not; in ``columns`` if given.

        Clients that are not in the pool get it when they come back; those of it who are not reached keep their own.
        """
        self.share(name, mean, columns)
        for start, stop in ((0, len(mean)),) if columns is None else columns:
            for block in self.blocks:
                block.state[name][block.reached, start:stop] = mean[start:stop]

    def share(self, name: str, value: Tensor, columns: Sequence[tuple[int, int]] | None = None) -> None:
        """Make ``value [P]`` what clients get of state ``name`` that enter without one of their own that counts.

        Clients at work keep theirs; ``columns`` as in ``load``.
        """
        common = self.shared[name].clone()
        for start, stop in ((0, len(value)),) if columns is None else columns:
            common[start:stop] = value[start:stop]
        self.shared[name] = common
        self._loads += np.array([name == state for state in self._lapsing], dtype=np.int64)

    def averaged(self, online: Tensor) -> None:
        """Take note of the mean ``[P]`` of the pool's online models, where it is not what clients share anyway.

        Of all models ``[clients·P]``, one after the other, where each belongs to another piece of the images.
        """
        if "average" in self.shared:
            self.shared["average"] = online

    @property
    def average(self) -> Tensor:
        """What is evaluated: the mean ``[P]`` of the pool's online models at the last synchronisation; or all."""
        return self.shared.get("average", self.shared["online"])

    @property
    def independent(self) -> Ids:
        """Clients with an online model of their own that counts, in order (all must have left)."""
        kept = [keep for keep in self.private if keep.state == "online"]
        if not kept:
            return np.empty(0, dtype=np.int64)
        parked = self._where >= 0
        if all(keep.lapses for keep in kept):
            online = self._lapsing.index("online")
            parked &= self._left[online] == self._loads[online]
        return np.flatnonzero(parked)

    def own(self, client: int) -> Tensor | None:
        """The online model ``[P]`` of an independent client, on the server; None elsewhere (collective)."""
        return self.held(client, ("online",)).get("online")

    def held(self, client: int, states: Sequence[str]) -> dict[str, Tensor]:
        """Those of ``states`` that clients have, as a client that has left has them: its own or the common ones.

        On the server; nothing elsewhere (collective).
        """
        found = {name: self.shared[name].clone() for name in states if name in self.shared}
        if self.private and self._where[client] >= 0:
            number = np.array([client])
            for _, part in self._slabs.gather("own", number, self._where[number], self._width, self._parked):
                self._lay(part["rows"][0], client, found)
        return found if self._cluster.serves else {}

    def state(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Everything that training changes, a bounded part at a time: on the server; nothing elsewhere (collective).

        ``shared``; ``parked-…`` private rows ``[n, width]`` of clients that wait; ``pool-…`` all states
        ``[n, width]`` of the clients at work, in the middle of an epoch. Clients in order.
        """
        if self._cluster.serves:
            yield "shared", self.shared | self._counts()
        parked = self._where >= 0
        working = self._deal
        if working is not None:
            parked[working.pool] = False
        waiting = np.flatnonzero(parked)
        yield from self._slabs.gather("parked", waiting, self._where[waiting], self._width, self._parked)
        if working is not None:
            rows = {
                int(client): torch.cat([block.state[name][lane] for name in self._widths]).cpu()
                for block in self.blocks
                for lane, client in enumerate(block.clients)
            }
            width = sum(self._widths.values())
            yield from self._slabs.gather("pool", working.pool, working.owner_of_clients(), width, rows)

    def _counts(self) -> dict[str, Tensor]:
        """Whole numbers that belong to the state, in place: steps, and what tells whether private state has lapsed."""
        counts = {"steps": torch.from_numpy(self._steps)}
        if self._lapsing:
            counts |= {"left": torch.from_numpy(self._left.reshape(-1)), "loads": torch.from_numpy(self._loads)}
        return counts

    def restore(self, saved: Mapping[str, Tensor] | None, parked: Iterable[Mapping[str, Tensor]]) -> None:
        """The inverse of ``state`` between two epochs, for any number of ranks; arguments count on the server."""
        for name, vector in self.shared.items():
            if saved is not None:
                vector.copy_(saved[name])
            self._exchange.broadcast(vector)
        for name, vector in self._counts().items():
            if saved is not None:
                vector.copy_(saved[name])
            self._exchange.broadcast(vector)
        hosts = self._cluster.hosts
        for clients, arrived in self._slabs.scatter(parked, self._width, lambda c: hosts[c % len(hosts)]):
            self._parked |= arrived
            self._where[clients] = [hosts[c % len(hosts)] for c in clients]

    def restore_pool(self, pool: Iterable[Mapping[str, Tensor]]) -> None:
        """The inverse of ``state`` in the middle of an epoch, after ``enter``."""
        assert self._deal is not None
        owners = dict(zip(self._deal.pool.tolist(), self._deal.owner_of_clients().tolist(), strict=True))
        rows: dict[int, Tensor] = {}
        widths = list(self._widths.values())
        for _, arrived in self._slabs.scatter(pool, sum(widths), owners.__getitem__):
            rows |= arrived
        for block in self.blocks:
            for lane, client in enumerate(block.clients):
                for name, part in zip(self._widths, rows[int(client)].split(widths), strict=True):
                    block.state[name][lane] = part

    def digests(self) -> list[list[str]]:
        """``[client, sha256]`` of the private state parked on this rank (as strings; all clients must have left)."""
        return [
            [str(client), hashlib.sha256(row.numpy().tobytes()).hexdigest()] for client, row in self._parked.items()
        ]

    def digest_shared(self) -> str:
        """sha256 of what is kept once for all clients, and of their step counts."""
        digest = hashlib.sha256(self._steps.tobytes())
        for vector in self.shared.values():
            digest.update(vector.numpy().tobytes())
        return digest.hexdigest()
