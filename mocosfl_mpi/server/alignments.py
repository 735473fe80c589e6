"""What the fed server makes equal across clients at a synchronisation, and what travels for it.

An alignment is a row of parts, one for each state that becomes common. What no part covers stays with the client.
docs/alignment.md has the strategies, their equations and their bytes on one page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mocosfl_mpi.clients.keep import Keep
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.codecs import Codec
from mocosfl_mpi.errors import BadInput

KINDS = {"online": "weights", "momentum": "momentum", "velocity": "velocity"}
"""What a message that carries a state is called in the ledger."""

Spans = tuple[tuple[int, int], ...]


class Means:
    """Means over the pool at one synchronisation, each taken once. Collective."""

    def __init__(
        self,
        over: Callable[[Sequence[Tensor]], Tensor],
        clients: Population,
        vacant: Spans = (),
        momentum: Spans = (),
    ) -> None:
        self.over = over
        """The mean ``[P]`` of rows ``[lanes, P]`` per block; 0 in ``vacant`` columns, which nobody present has."""
        self._vacant = vacant
        self._momentum = momentum
        """Columns in which momentum models are aligned."""
        self._clients = clients
        self._known: dict[str, Tensor] = {}

    def of(self, state: str) -> Tensor:
        """The mean ``[P]`` of a state, as it was when first asked for; what is common in vacant columns.

        Of momentum models NaN where these are not aligned: nothing is common then, and it is a mean of nobody.
        """
        if state not in self._known:
            mean = self.over([block.state[state] for block in self._clients.blocks])
            for start, stop in self._vacant:
                mean[start:stop] = self._common(state)[start:stop]
            self._known[state] = mean
        return self._known[state]

    def _common(self, state: str) -> Tensor:
        common = self._clients.shared[state]
        if state != "momentum":
            return common
        found = torch.full_like(common, torch.nan)
        for start, stop in self._momentum:
            found[start:stop] = common[start:stop]
        return found


@dataclass(frozen=True)
class Scope:
    """Which of a client's ``parameters`` numbers are aligned: (start, stop) of each aligned parameter tensor."""

    spans: Spans
    parameters: int
    layers: tuple[str, ...] = ()
    """The layer to which each of these tensors belongs."""
    filters: Spans = ()
    """The backbone's weights proper, by which divergence is measured, aligned or not."""

    def of(self, layer: str) -> Spans:
        """Those of one layer."""
        return tuple(span for span, name in zip(self.spans, self.layers, strict=True) if name == layer)

    @property
    def columns(self) -> Spans:
        """The same with neighbours joined."""
        joined: list[tuple[int, int]] = []
        for start, stop in self.spans:
            if joined and joined[-1][1] == start:
                joined[-1] = joined[-1][0], stop
            else:
                joined.append((start, stop))
        return tuple(joined)

    @property
    def rest(self) -> Spans:
        """What is not aligned."""
        edges = [0, *(edge for span in self.columns for edge in span), self.parameters]
        return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)

    @property
    def numbers(self) -> int:
        """How many numbers are aligned."""
        return sum(stop - start for start, stop in self.spans)

    def first(self, parameters: int) -> Scope:
        """What is aligned of the network's first ``parameters`` numbers, at which a tensor ends."""
        within = sum(stop <= parameters for _, stop in self.spans)
        filters = tuple(span for span in self.filters if span[1] <= parameters)
        return Scope(self.spans[:within], parameters, self.layers[:within], filters)


@dataclass(frozen=True)
class Traffic:
    """Messages of one kind: bytes each way at every ``every``-th synchronisation, and of a full copy; and the work."""

    kind: str
    each_way: int
    copy: int
    """What a client downloads that enters with a value that is out of date."""
    every: int
    answered: bool = True
    """Whether what became of it comes back at once: not where the next client is the one that needs it."""
    flops: int = 0
    """What a client computes each time, for what it sends and of what comes back."""


class Part(Protocol):
    """How one state becomes common to all clients."""

    @property
    def state(self) -> str:
        """The state that becomes common."""

    @property
    def every(self) -> int:
        """At every so-manieth synchronisation of the run."""

    @property
    def own(self) -> tuple[str, ...]:
        """States that every client needs for this alone, always private."""

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:
        """What of it stays each client's own between epochs all the same, within the scope."""

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> Sequence[Tensor] | None:
        """Make it common; the shares of their own that clients keep ``[lanes]`` per block, if any do. Collective."""

    def traffic(self, scope: Scope, itemsize: int) -> Traffic | None:
        """What travels for it, with weights of ``itemsize`` bytes; None = nothing."""


def until_due(part: Part, scope: Scope) -> tuple[Keep, ...]:
    """What becomes common only now and then is each client's own until it does."""
    return (Keep(part.state, scope.columns, lapses=True),) if part.every > 1 else ()


@dataclass(frozen=True)
class Averaged:
    """x_i ← mean x_i: up and down in full."""

    state: str
    every: int = 1
    own: ClassVar[tuple[str, ...]] = ()

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:
        """Nothing once it is due."""
        return until_due(self, scope)

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> None:
        """Load the mean into every client."""
        clients.load(self.state, means.of(self.state), scope.columns)

    def traffic(self, scope: Scope, itemsize: int) -> Traffic:
        """One copy each way."""
        size = scope.numbers * itemsize
        return Traffic(KINDS[self.state], size, size, self.every)


@dataclass(frozen=True)
class HandedOver(Averaged):
    """x ← x_i of the one client at work: up, and down to whoever has its turn next. Split learning in turns."""

    def traffic(self, scope: Scope, itemsize: int) -> Traffic:
        """A copy up; the next client downloads it as it enters."""
        return replace(super().traffic(scope, itemsize), answered=False)


@dataclass(frozen=True)
class Copied:
    """x_i ← mean y_i, which every client receives anyway: nothing travels."""

    state: str
    source: str
    every: ClassVar[int] = 1
    own: ClassVar[tuple[str, ...]] = ()

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return ()

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> None:
        """Load the mean of the source into every client."""
        clients.load(self.state, means.of(self.source), scope.columns)

    def traffic(self, scope: Scope, itemsize: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Cleared:
    """x_i ← 0, which a client does itself."""

    state: str
    every: ClassVar[int] = 1
    own: ClassVar[tuple[str, ...]] = ()

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return ()

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> None:  # noqa: ARG002 - the protocol's
        """Load zeros into every client."""
        clients.load(self.state, torch.zeros_like(clients.shared[self.state]), scope.columns)

    def traffic(self, scope: Scope, itemsize: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Compressed:
    """x_i ← M, where M is moved by compressed differences, both ways with error feedback.

    Up: u_i = x_i - M + e_i, q_i = Q(u_i), e_i ← u_i - q_i. Down: u = mean q_i + E, q = Q(u), E ← u - q. Then M ← M + q
    on every client. Error feedback after Seide et al. (Interspeech 2014) and, both ways, Tang et al. (DoubleSqueeze,
    ICML 2019). A client keeps M and e_i beside its models; one that enters with an old M downloads it in full.
    """

    state: str
    compressor: Codec
    every: int = 1
    own: ClassVar[tuple[str, ...]] = ("residual",)

    def keeps(self, scope: Scope) -> tuple[Keep, ...]:
        """Nothing once it is due."""
        return until_due(self, scope)

    def synchronise(self, clients: Population, means: Means, scope: Scope) -> None:
        """Move the common value by what arrived, and load it into every client."""
        common = clients.shared[self.state]
        sent = []
        for block in clients.blocks:
            received, block.state["residual"] = self._send(
                block.state[self.state] - common + block.state["residual"], scope
            )
            sent.append(received)
        moved = means.over(sent) + clients.shared["server_residual"]
        received, left = self._send(moved[None], scope)
        clients.shared["server_residual"] = left[0]
        clients.load(self.state, common + received[0], scope.columns)

    def _send(self, rows: Tensor, scope: Scope) -> tuple[Tensor, Tensor]:
        """What arrives of ``rows [n, P]``, and what is left for the next time; zero outside the scope."""
        received, left = torch.zeros_like(rows), torch.zeros_like(rows)
        for start, stop in scope.spans:
            part = slice(start, stop)
            received[:, part] = self.compressor(rows[:, part])
            left[:, part] = rows[:, part] - received[:, part]
        return received, left

    def traffic(self, scope: Scope, itemsize: int) -> Traffic:
        """Compressed each way; a copy in full.

        A client's work is the equations', dense: of a number x - M + e, u - q and M + q are four, beside quantising u,
        having q_i again for e_i, and having q.
        """
        lengths, work = [stop - start for start, stop in scope.spans], self.compressor.work
        size = sum(self.compressor.bytes(length, itemsize) for length in lengths)
        flops = sum(4 * length + work.quantise(length) + 2 * work.restore(length) for length in lengths)
        return Traffic(KINDS[self.state], size, scope.numbers * itemsize, self.every, flops=flops)


ONLINE: tuple[Part, ...] = (Averaged("online"),)
"""MocoSFL (Li et al., ICLR 2023): the online models; momentum models keep drifting apart."""

MOMENTUM = Averaged("momentum")

ONLINE_AND_MOMENTUM: tuple[Part, ...] = (*ONLINE, MOMENTUM)
"""MonAcoSFL (Przewięźlikowski et al., ECML PKDD 2024): C ← mean C_i and C' ← mean C'_i."""

STRATEGIES: dict[str, tuple[Part, ...]] = {
    "none": (),
    "online": ONLINE,
    "online_and_momentum": ONLINE_AND_MOMENTUM,
    "momentum_reset": (*ONLINE, Copied("momentum", "online")),
}
"""What `federation.alignment` can name."""


@dataclass(frozen=True)
class Alignment:
    """The parts of one experiment's alignment, on a client's network."""

    parts: tuple[Part, ...]
    scope: Scope
    widths: Mapping[str, int]
    """Numbers in each state that clients of the method have."""
    frozen: bool = False
    """Clients that never learn are never synchronised and have no state of their own."""
    missed: bool = False
    """Clients may miss a synchronisation, and then have a value of their own of what it made common."""

    def due(self, number: int) -> Sequence[Part]:
        """The parts of synchronisation ``number``, counted from 1 over the whole run."""
        return [part for part in self.parts if number % part.every == 0]

    @property
    def momentum_columns(self) -> Spans:
        """Columns in which momentum models are ever made common."""
        return self.scope.columns if any(part.state == "momentum" for part in self.parts) else ()

    @property
    def kept(self) -> tuple[Keep, ...]:
        """What each client keeps for itself between epochs: all that was not made common at the last synchronisation.

        What becomes common only now and then, or may be missed, is kept until it does while the client is away.
        """
        if self.frozen:
            return ()
        parts = {part.state: part for part in self.parts}
        kept = []
        for state, width in self.widths.items():
            part = parts.get(state)
            kept.append(Keep(state, self.scope.rest if part else ((0, width),)))
            own_values = part.keeps(self.scope) if part else ()
            if part and self.missed and not own_values:
                own_values = (Keep(state, self.scope.columns, lapses=True),)
            kept += own_values
        own = [Keep(state, self.scope.columns) for part in self.parts for state in part.own]
        return tuple(keep for keep in (*kept, *own) if keep.columns)

    def traffic(self, itemsize: int, parameters: int | None = None) -> tuple[Traffic, ...]:
        """What travels at synchronisations, with weights of ``itemsize`` bytes.

        ``parameters``: of a client that has only the beginning of the deepest network.
        """
        scope = self.scope if parameters is None else self.scope.first(parameters)
        found = [part.traffic(scope, itemsize) for part in self.parts]
        return tuple(traffic for traffic in found if traffic is not None)

    @property
    def means(self) -> float:
        """States over which the pool's mean is taken at a synchronisation, on average.

        Those of online and momentum models are always taken, to measure how far they have drifted.
        """
        extra = [part for part in self.parts if part.own or (isinstance(part, Averaged) and part.state == "velocity")]
        return 2 + sum(1 / part.every for part in extra)

    @property
    def copies(self) -> int:
        """Numbers that a real client keeps beside its models and its velocity: references and residuals, a scale."""
        return sum(2 * self.scope.numbers for part in self.parts if part.own) + self.widths.get("scale", 0)


def scope(
    layers: Sequence[str],
    names: Sequence[str],
    spans: Sequence[tuple[int, int]],
    filters: Sequence[tuple[int, int]] = (),
) -> Scope:
    """The parameter tensors of ``layers`` (none = all), of a network with tensors of these names and spans.

    ``filters``: those of the backbone's weights proper.

    Raises
    ------
    BadInput
        A layer that the clients' part does not have.
    """
    known = list(dict.fromkeys(_layer(name) for name in names))
    strange = [layer for layer in layers if layer not in known]
    if strange:
        raise BadInput(
            f"federation.aligned_layers names {', '.join(map(repr, strange))}, and the clients' part of the network "
            f"consists of {', '.join(known)}; name some of these, or none for all"
        )
    chosen = set(layers or known)
    aligned = [(span, _layer(name)) for name, span in zip(names, spans, strict=True) if _layer(name) in chosen]
    spanned, named = tuple(span for span, _ in aligned), tuple(layer for _, layer in aligned)
    return Scope(spanned, spans[-1][1], named, tuple(filters))


def _layer(name: str) -> str:
    """Of a parameter tensor; those of the backbone have the same names whether clients hold its beginning or all."""
    return name.removeprefix("backbone.").partition(".")[0]
