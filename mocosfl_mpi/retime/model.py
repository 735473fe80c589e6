"""The simulated federation's time and energy, from the ledger of a recorded run: nothing is trained again.

Synchronous steps. The pool of an epoch first fetches models that are out of date (the slowest client counts). Then
every step lasts as long as its slowest client, who computes, sends its smashed data and gets its gradient, plus the
server's computing, which needs everybody's data; every synchronisation as long as the slowest exchange of models.

The ledger has one row per epoch and member. Steps of an epoch are equal, so a step's share is the row divided by the
epoch's number of steps (``steps/epoch``), a synchronisation's share by their number (``syncs/epoch``). Where gradients
come down in some of the steps only, that share is their mean. In an epoch without uploads the server replays the rows
that it was sent last, and clients wait. What a synchronisation exchanges has one size in both directions; models that
came down without one going up were fetched when the epoch began.

Not in the model: overlap of computing and sending, the server's averaging, evaluations, drop-outs, and the memory
traffic of the device beyond what its sustained speed says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.record.reader import Run
from mocosfl_mpi.record.schema import setting
from mocosfl_mpi.retime.profiles import Device, Network, Server
from mocosfl_mpi.streams import Streams

Array = npt.NDArray[np.float64]

PARTS: Final = ("fetch", "compute", "upload", "server", "download", "latency", "synchronise")
"""Where the slowest client's time goes; they add up to an epoch."""
ENERGY: Final = ("compute", "idle", "radio")
RICH: Final = "cost/rich_flops_per_image"
_MODELS: Final = ("weights", "momentum", "velocity")
_STEP: Final = {
    "query_up": "up", "key_up": "up", "labels_up": "up", "gradient_up": "up",
    "features_down": "down", "gradient_down": "down",
}  # fmt: skip


@dataclass(frozen=True)
class Retimed:
    """Simulated time and energy of the run's whole epochs; ``[epoch]`` throughout, seconds and joules."""

    parts: dict[str, Array]
    """Seconds by ``PARTS``."""
    energy: dict[str, Array | None]
    """Joules of all clients of the pool together by ``ENERGY``; None where a profile does not say the power."""
    steps: npt.NDArray[np.int64]
    syncs: npt.NDArray[np.int64]
    bytes_used: Array
    """Payload for which time was spent, all members together: what the ledger recorded."""
    flops_used: Array
    """The same for the clients' computing."""
    members: int
    slowdown: tuple[float, float]
    """Smallest and largest factor of a client that took part."""

    @property
    def seconds(self) -> Array:
        """Simulated wall time of each epoch."""
        return _add(self.parts.values())

    @property
    def joules(self) -> Array | None:
        """Energy of all clients together, or None where some of it is not known."""
        known = [joules for joules in self.energy.values() if joules is not None]
        return _add(known) if len(known) == len(self.energy) else None


@dataclass(frozen=True)
class Target:
    """When the simulated federation first reached an accuracy."""

    accuracy: float
    """kNN accuracy asked for, in %."""
    reached: float | None
    """kNN accuracy of the first evaluation that is at least as good; None = never."""
    epoch: int | None
    """Epochs completed by then."""
    seconds: float | None
    """Simulated time by then."""


def slowdowns(clients: npt.NDArray[np.int64], sigma: float, seed: int) -> Array:
    """Factors exp(N(0, sigma)) of ``clients``, of their shape; a client's depends on (seed, client) alone."""
    if not 0.0 <= sigma <= 10.0:
        raise BadInput(f"--stragglers {sigma}: the spread of a log-normal factor lies between 0 (none) and 10")
    ids, places = np.unique(clients, return_inverse=True)
    if sigma == 0.0:
        return np.ones(clients.shape)
    streams = Streams(seed)
    draws = [streams.generator("straggler", int(client)).normal(0.0, sigma) for client in ids]
    factors: Array = np.exp(np.array(draws))[places].reshape(clients.shape)
    return factors


def retime(run: Run, device: Device, network: Network, server: Server, *, sigma: float = 0.0, seed: int = 0) -> Retimed:
    """Time and energy of the run's whole epochs on these profiles.

    Raises
    ------
    BadInput
        No whole epoch yet, or a ledger that contradicts itself.
    """
    epochs = run.rows["epoch"]
    if not epochs:
        raise BadInput(f"{run.path} holds no whole epoch yet, so there is nothing to time")
    clients = run["epochs/clients"]
    slow = slowdowns(clients, sigma, seed)
    steps, syncs = _occurrences(run, "steps/epoch", epochs), _occurrences(run, "syncs/epoch", epochs)
    _require(run, bool((steps > 0).all()), "an epoch without steps")
    ledger = _Ledger(run)
    each_step, each_sync = steps[:, None].astype(np.float64), np.maximum(syncs, 1)[:, None].astype(np.float64)
    _require(run, not ledger.exchanged[syncs == 0].any(), "models were exchanged in an epoch without synchronisation")
    link = _Link(network, server, slow)

    step, sync = _share(ledger.step, each_step), _share(ledger.sync, each_sync)
    compute = ledger.flops.sum(axis=2) / each_step / (device.compute_gigaflop_per_second * 1e9) * slow
    up, down = link.seconds("up", step["up"][0]), link.seconds("down", step["down"][0])
    latency = link.latency(step["up"][1], ledger.trips) + link.latency(step["down"][1], ledger.trips)
    worst = np.argmax(compute + up + down + latency, axis=1)[:, None]
    exchange = link.seconds("up", sync["up"][0]) + link.seconds("down", sync["down"][0])
    delay = link.latency(sync["up"][1]) + link.latency(sync["down"][1])
    fetch = link.seconds("down", ledger.fetch[0])
    parts = {
        "fetch": (fetch + link.latency(ledger.fetch[1])).max(axis=1),
        "compute": steps * _at(compute, worst),
        "upload": steps * _at(up, worst),
        "server": steps * _server_seconds(run, ledger, steps, server),
        "download": steps * _at(down, worst),
        "latency": steps * _at(latency, worst),
        "synchronise": syncs * (exchange + delay).max(axis=1),
    }

    used = (
        each_step * (step["up"][0] + step["down"][0]) + each_sync * (sync["up"][0] + sync["down"][0]) + ledger.fetch[0]
    )
    recorded = ledger.bytes.sum(axis=2)
    _require(run, bool(np.allclose(used, recorded, rtol=1e-9, atol=0.5)), "bytes that belong to no known message")
    computing = compute * each_step
    radio = each_step * (up + down) + each_sync * exchange + fetch
    total = _add(parts.values())
    return Retimed(
        parts,
        _energy(device, network, computing, total[:, None] - computing, radio, used),
        steps,
        syncs,
        used.sum(axis=1),
        (computing / slow * device.compute_gigaflop_per_second * 1e9).sum(axis=1),
        clients.shape[1],
        (float(slow.min()), float(slow.max())),
    )


def time_to_accuracy(run: Run, seconds: Array, target: float | None = None) -> Target | None:
    """The first evaluation with kNN accuracy of at least ``target`` % (default: 95 % of the run's best).

    None where the run has no evaluations. Evaluations themselves take no simulated time.
    """
    accuracy, epoch = run["evaluations/knn_top1"], run["evaluations/epoch"]
    # An evaluation's row may be in the file while its epoch's is not: a killed run.
    known = np.isfinite(accuracy) & (epoch >= 0) & (epoch <= len(seconds))
    if not known.any():
        return None
    wanted = float(0.95 * accuracy[known].max()) if target is None else target
    good = np.flatnonzero(known & (accuracy >= wanted))
    if not len(good):
        return Target(wanted, None, None, None)
    first, completed = good[0], int(epoch[good[0]])
    return Target(wanted, float(accuracy[first]), completed, float(seconds[:completed].sum()))


class _Ledger:
    """The recorded bytes and messages, split into those of steps, of synchronisations and of the epoch's beginning.

    ``step``, ``sync``: by way, (bytes, messages), each ``[epoch, member]``, summed over the epoch; ``fetch`` alike.
    ``trips``: round trips of a step; two where features come down and their gradient goes up.
    """

    def __init__(self, run: Run) -> None:
        self.bytes = run["simulated/bytes"].astype(np.float64)
        messages = run["simulated/messages"].astype(np.float64)
        self.flops = run["simulated/client_flops"].astype(np.float64)
        _require(run, all((a >= 0).all() for a in (self.bytes, messages, self.flops)), "negative amounts")
        _require(run, not self.bytes[messages == 0].any(), "bytes without messages")
        self.work = [str(label) for label in run["work"]]
        kinds = [str(label) for label in run["message"]]
        columns = {kind: (self.bytes[:, :, i], messages[:, :, i]) for i, kind in enumerate(kinds)}
        nothing = (np.zeros(self.bytes.shape[:2]), np.zeros(self.bytes.shape[:2]))

        def of(names: Iterable[str]) -> tuple[Array, Array]:
            found = [columns.get(name, nothing) for name in names]
            return _pair(found)

        self.step = {way: of(kind for kind, its in _STEP.items() if its == way) for way in ("up", "down")}
        self.trips: Array = np.where(columns.get("features_down", nothing)[1] > 0, 2.0, 1.0)
        self.exchanged = of(f"{model}_up" for model in _MODELS)[1]
        together: list[tuple[Array, Array]] = []
        fetched: list[tuple[Array, Array]] = []
        for model in _MODELS:
            size, count = columns.get(f"{model}_down", nothing)
            sent, sendings = columns.get(f"{model}_up", nothing)
            paired = np.minimum(count, sendings)
            answer = sent * paired / np.maximum(sendings, 1)  # what is exchanged has one size in both directions
            answers = np.where(count > paired, np.minimum(size, answer), size)
            together.append((answers, paired))
            fetched.append((size - answers, count - paired))
        self.sync = {"up": of(f"{model}_up" for model in _MODELS), "down": _pair(together)}
        self.fetch = _pair(fetched)


class _Link:
    """Seconds on the way between each client and the server; ``slow`` ``[epoch, member]`` divides a client's rates."""

    def __init__(self, network: Network, server: Server, slow: Array) -> None:
        self._network = network
        pool = slow.shape[1]
        self._rates = {}
        for way, own, shared in (
            ("up", network.up_megabit_per_second, server.receive_megabit_per_second),
            ("down", network.down_megabit_per_second, server.send_megabit_per_second),
        ):
            self._rates[way] = np.minimum(own / slow, np.inf if shared is None else shared / pool) * 1e6

    def seconds(self, way: str, size: Array) -> Array:
        """Seconds in which ``size`` bytes ``[epoch, member]`` go through the link."""
        return size * 8.0 / self._rates[way]

    def latency(self, messages: Array, trips: Array | float = 1.0) -> Array:
        """Half of each round trip where there is anything to move, and the overhead of each message."""
        network = self._network
        half = np.minimum(messages, trips) * network.round_trip_millisecond / 2  # in some steps only: their share
        return (half + messages * network.message_overhead_millisecond) / 1000.0


def _server_seconds(run: Run, ledger: _Ledger, steps: npt.NDArray[np.int64], server: Server) -> Array:
    """Seconds of the server's computing in one step, ``[epoch]``: FLOP per image times all rows, and per step."""
    segments = [str(label) for label in run["segment"]]
    known = "query_forward" in ledger.work and {"client", "server"} <= set(segments)
    _require(run, known, "labels of another version")
    forward = ledger.work.index("query_forward")
    step = run["cost/flops_per_step"].astype(np.float64)
    client, main = segments.index("client"), segments.index("server")
    each = _per_image(run)
    _require(run, bool((each[..., client, forward] > 0).all()), "clients that compute nothing")
    rows = ledger.flops[:, :, forward] / each[..., client, forward]  # of each member
    work = (rows * each[..., main, :].sum(axis=-1)).sum(axis=1) / steps
    newest = np.maximum.accumulate(np.where(work > 0, np.arange(len(work)), 0))
    work = work[newest]  # an epoch without uploads replays the rows that were sent last
    if (method := METHODS.get(run.attrs["method"])) is not None and method.vertical:
        work /= ledger.flops.shape[1]  # the members' rows are pieces of the same images
    flops: Array = work + step[main].sum()
    return flops / (server.compute_gigaflop_per_second * 1e9)


def _per_image(run: Run) -> Array:
    """FLOPs of an image of each member, ``[epoch, member, segment, work]``: rich ones may have another cut."""
    clients, each = run["epochs/clients"], run["cost/flops_per_image"].astype(np.float64)
    found = np.broadcast_to(each, (*clients.shape, *each.shape))
    config = run.attrs.get("config", {})
    if not setting(config, "model.rich_cut_layer"):
        return found
    share, count = setting(config, "client.rich_share"), setting(config, "client.count")
    known = isinstance(share, float) and isinstance(count, int) and RICH in run.names
    _require(run, known, "a second cut, and nothing about rich clients")
    rich = clients < int(round(share * count, 9))
    return np.where(rich[:, :, None, None], run[RICH], found)


def _energy(
    device: Device, network: Network, computing: Array, waiting: Array, radio: Array, size: Array
) -> dict[str, Array | None]:
    """Joules by ``ENERGY``, summed over the members; arguments are seconds (``size``: bytes) ``[epoch, member]``."""

    def joules(power: float | None, amount: Array) -> Array | None:
        return None if power is None else power * amount.sum(axis=1)

    per_byte = network.radio_joule_per_megabyte
    return {
        "compute": joules(device.compute_watt, computing),
        "idle": joules(device.idle_watt, waiting),
        "radio": joules(network.radio_watt, radio) if per_byte is None else joules(per_byte, size / 1e6),
    }


def _occurrences(run: Run, name: str, epochs: int) -> npt.NDArray[np.int64]:
    """How often each whole epoch occurs in the dataset; rows of an epoch that was cut off are left out."""
    numbers = run[name]
    return np.bincount(numbers[(numbers >= 0) & (numbers < epochs)], minlength=epochs).astype(np.int64)


def _at(values: Array, member: npt.NDArray[np.int64]) -> Array:
    return np.take_along_axis(values, member, axis=1)[:, 0]


def _share(pairs: Mapping[str, tuple[Array, Array]], times: Array) -> dict[str, tuple[Array, Array]]:
    """(bytes, messages) of one of ``times`` equal events, by way."""
    return {way: (size / times, count / times) for way, (size, count) in pairs.items()}


def _add(arrays: Iterable[Array]) -> Array:
    """The sum of at least one array."""
    first, *rest = arrays
    return sum(rest, start=first)


def _pair(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """(bytes, messages) of several kinds together."""
    return _add(size for size, _ in pairs), _add(count for _, count in pairs)


def _require(run: Run, holds: bool, reason: str) -> None:
    if not holds:
        raise BadInput(f"the ledger of {run.path} contradicts itself ({reason}); it cannot be timed again")
