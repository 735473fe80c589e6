"""Resident memory of every rank beyond the program itself, by use, in bytes.

What is held all the time is added up; of what comes and goes, the moment that needs most counts, since freed memory is
kept and used again (see ``launch.MALLOC``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mocosfl_mpi.clients.wealth import dealt
from mocosfl_mpi.comm.exchange import SLAB
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.plan.experiment import Experiment
from mocosfl_mpi.privacy import nopeek
from mocosfl_mpi.privacy.transforms import guard
from mocosfl_mpi.server.main_server import MICRO_BATCH

PAGE = 4096
EVALUATED = 250
"""Images whose features are computed at once (`evaluation.features.extract`)."""
SIMILARITIES = 64 * 2**20
"""Bytes of query-bank similarities at once (`evaluation.knn`)."""
LATER = 80 * 2**20
"""Bytes of the program that arise only after the images have been read: kernels, threads, workspaces (measured)."""
DOUBLE = 8
WORKSPACE = {"none": 0, "bf16": 8, "int8": 16, "topk": 24}
"""Bytes for each number while a codec is at work: float32 intermediates, and the positions of a sort."""
Uses = dict[str, int]


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank: what it holds, and what its moments need on top."""

    clients: int
    """Clients of the pool that it computes."""
    held: Uses
    moments: Uses
    shared: int
    """Of what it holds, pages that other ranks of the same node use too."""

    @property
    def moment(self) -> str:
        """The moment that needs most."""
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def peak(self) -> int:
        """Most bytes at one time, without the program."""
        return sum(self.held.values()) + self.moments[self.moment]

    @property
    def uses(self) -> Uses:
        """The peak by use, largest first."""
        everything = self.held | {self.moment: self.moments[self.moment]}
        return dict(sorted(everything.items(), key=lambda item: -item[1]))


def rank_memory(experiment: Experiment, ranks: int, *, evaluates: bool = True) -> list[RankMemory]:
    """Every rank's memory, rank 0 (the servers) first; ``evaluates``: with reading and evaluation."""
    hosts = [0] if ranks == 1 else list(range(1, ranks))
    config = experiment.config
    placed = dealt(config, np.arange(config.pool_size), hosts)
    found = []
    for rank in range(ranks):
        held, moments, clients = _common(experiment), {"nothing": 0}, placed.clients_of(rank)
        shared = 0
        if rank in hosts:
            held |= _client_models(experiment, clients, len(hosts))
            batches = [placed.work_of(rank, kind) for kind in range(len(experiment.network.cuts))]
            moments = _client_moments(experiment, clients, batches)
        if rank == 0:
            beside = moments["training step"] if ranks == 1 else 0
            held |= _server_models(experiment) | {"smashed data to replay": experiment.replay_bytes}
            held |= {"data set": _pixels(experiment)}
            moments = _server_moments(experiment, beside)
            if evaluates:
                before = max(0, _reading(experiment) - LATER - sum(held.values()))  # before the rest is there
                moments |= _evaluation(experiment) | {"reading the images": before}
        if ranks > 1:
            shared = _window(experiment, 1.0 if rank == 0 else _touched(experiment, len(hosts)))
            held["data set of the node"] = shared
        found.append(RankMemory(clients, held, moments, shared))
    return found


# ------------------------------------------------------------------------------------------------------- clients


def _common(x: Experiment) -> Uses:
    """What every rank has: the states that clients share."""
    return {"shared client states": x.shared * x.weight}


def _client_models(x: Experiment, clients: int, hosts: int) -> Uses:
    return {
        "models of the pool": clients * x.working * x.weight,
        "models that wait for their turn": x.private * x.weight * x.participants // hosts,
    }


def _client_moments(x: Experiment, clients: int, batches: list[int]) -> Uses:
    """``batches``: of each kind of clients."""
    each, cuts = [own * x.config.rows_per_client for own in batches], x.network.cuts
    rows, bottom = sum(each), cuts[0].bottom
    views = x.config.views_each * rows * x.network.input * x.weight
    smashed = sum(own * cut.smashed for own, cut in zip(each, cuts, strict=True)) * x.activation
    if x.config.communication.smashed != "none":  # what is sent is no longer what was computed
        smashed = 2 * smashed + min(clients, x.config.block_size) * _workspace(x, x.config.communication.smashed)
    together = min(clients, x.config.block_size)
    passing = min(rows, together * x.config.rows_per_client * x.config.client.rich_batch_factor)
    block = 4 * bottom.largest * passing + 2 * together * bottom.parameters * x.weight
    saved = sum(own * cut.bottom.saved for own, cut in zip(each, cuts, strict=True))
    saved += clients * bottom.parameters * x.activation
    if x.config.client.frozen:
        saved = 0
    defence, peeking = _defending(x, passing, together), _peeking(x, passing, together)
    # The next step's views are drawn before the gradient comes; query, key and gradient are there with them. Before,
    # query and key are there twice: here and on their way.
    working = 3 * smashed + _kept(x, rows) + max(block + defence, peeking)
    return {
        "training step": saved + views + max(4 * smashed, working),
        "synchronisation": 2 * clients * bottom.parameters * x.weight + 2 * smashed,
    }


def _kept(x: Experiment, rows: int) -> int:
    """Bytes that defences keep of ``rows`` from the forward to the backward pass, on top of what was there anyway."""
    if x.config.client.frozen:
        return 0
    looked_at = x.activation if x.config.learns_defence else 0  # terms see what there was before it was sent
    return rows * (guard(x.config).kept(x.network.smashed, x.weight) + looked_at * x.network.smashed)


def _defending(x: Experiment, passing: int, together: int) -> int:
    """Bytes in which a block's ``passing`` rows are guarded, or its ``together`` clients' decoders learn."""
    attacker, numbers = x.network.attacker, x.network.smashed
    sending = passing * numbers * guard(x.config).workspace(x.weight)
    # Passes with smashed data and their gradient; gradient, and moments before and after.
    resisting = passing * (attacker.saved + 4 * attacker.largest) + 6 * together * attacker.parameters * x.weight
    resisting += 3 * passing * numbers * x.weight if x.config.resists else 0
    return max(sending, resisting)


def _peeking(x: Experiment, passing: int, together: int) -> int:
    """Bytes in which the distance correlations of a block are computed, while nothing else is."""
    if not x.config.defence.nopeek or x.config.client.frozen:
        return 0
    return together * nopeek.workspace(passing // together, x.network.input, x.network.smashed, x.weight)


def _workspace(x: Experiment, codec: str) -> int:
    """Bytes in which one client's smashed data or gradients are compressed."""
    return WORKSPACE[codec] * x.config.rows_per_client * x.network.smashed


def _touched(x: Experiment, hosts: int) -> float:
    """Share of the images that a host has read by the end: clients move between hosts where pools are drawn."""
    own = 1.0 / hosts
    if x.config.pool_size == x.config.client.count:
        return own
    once = x.config.pool_size / x.config.client.count * own
    return float(1.0 - (1.0 - once) ** x.config.epochs)


def _window(x: Experiment, share: float) -> int:
    """Bytes of the node's copy of the training pixels whose pages a rank has touched."""
    size = len(x.images.labels) * x.images.image_bytes + x.images.auxiliary_bytes
    together = max(1.0, PAGE / x.images.image_bytes)  # images on a page
    return int(size * (1.0 - (1.0 - share) ** together))


# ------------------------------------------------------------------------------------------------------ the server


def _pixels(x: Experiment) -> int:
    """Images that rank 0 keeps: as read, and once more where some of them are held out."""
    kept = len(x.images.labels) + x.images.validation
    return (kept * (2 if x.images.validation else 1) + x.images.test) * x.images.image_bytes + x.images.auxiliary_bytes


def _reading(x: Experiment) -> int:
    """The files' bytes, their images one by one, and all of them joined."""
    times = 1 if x.config.data.source == "image-folder" else 2 if x.config.data.source == "embedded" else 3
    return times * x.images.stored * x.images.image_bytes


def _server_models(x: Experiment) -> Uses:
    trunk = x.network.trunk.parameters
    if x.config.supervised:
        return {
            "trunk, velocity, gradient": 3 * trunk * x.weight + 2 * trunk * x.activation,
            "copies of the trunk": 2 * x.algorithm.server_copies(x.config) * trunk * x.weight,
        }
    return {
        "trunk, momentum, velocity, gradient": 4 * trunk * x.weight + 2 * trunk * x.activation,
        "feature memory": x.server_memory * x.weight,
    }


def _chunk(x: Experiment) -> int:
    """Rows that the server passes at once, as it chooses them."""
    if x.config.server.micro_batch:
        return min(x.config.server.micro_batch, x.rows)
    if x.network.mixes_rows:
        return x.rows
    if x.config.supervised:
        return x.config.rows_per_client * max(1, min(x.algorithm.server_copies(x.config), x.config.block_size))
    whole = 1 if x.config.contrast.share_features else x.config.client.rich_batch_factor
    parts, own = -(-x.rows // MICRO_BATCH), x.config.rows_per_client * whole
    return -(-x.rows // own // parts) * own


def _server_moments(x: Experiment, beside: int) -> Uses:
    """``beside``: bytes of the clients' training step where they live on the same rank."""
    trunk, chunk = x.network.trunk, _chunk(x)
    memory = 0 if x.config.supervised else x.config.contrast.memory_length
    by_kind = zip(x.batches_by_kind, x.network.cuts, strict=True)
    gathered = sum(own * cut.smashed for own, cut in by_kind) * x.config.rows_per_client * x.activation
    keys = 4 * x.rows * x.network.keys * x.weight
    logits = 4 * chunk * (memory if x.config.contrast.share_features else memory // x.config.client.count) * x.weight
    passes = chunk * (trunk.saved + 4 * trunk.largest) + logits + 2 * trunk.parameters * x.weight
    answer = x.config.pool_size * _workspace(x, x.config.communication.gradient)
    step = keys + max(3 * gathered + passes, 4 * gathered + answer)
    queries = x.rows * (2 if symmetry(x.config).server_swap else 1)
    hardness = 2 * memory * x.network.keys * (x.weight + DOUBLE) + 3 * queries * memory * DOUBLE
    wide = min(SLAB, x.config.pool_size * x.network.cuts[0].bottom.parameters)
    return {
        "training step": step + beside,
        "synchronisation": wide * x.weight + 2 * gathered + beside,
        "hardness of the memory": (hardness if x.config.contrast.share_features else 0) + beside,
    }


# ------------------------------------------------------------------------------------------------------ evaluation


def _evaluation(x: Experiment) -> Uses:
    passes = EVALUATED * (4 * x.network.bottom.largest + 3 * x.network.input * x.weight)
    arrived = (2 * x.private + x.network.bottom.parameters) * x.weight  # a client's rows and the model in them
    own = arrived if x.config.own_models else 0
    features = _classified(x, x.network.features)
    projected = _all(x) * (x.network.features + x.network.keys) * x.weight
    return {
        "classifiers on raw pixels": _all(x) * x.network.input * x.weight + _classified(x, x.network.input),
        "classifiers on features": own + projected + max(passes, features, _neighbours(x, x.network.keys)),
    }


def _all(x: Experiment) -> int:
    return len(x.images.labels) + x.images.validation + x.images.test


def _classified(x: Experiment, width: int) -> int:
    """The larger of kNN and linear probe on features of ``width`` numbers, beside the features themselves."""
    return max(_neighbours(x, width), _probe(x, width) if x.config.evaluation.linear_probe else 0)


def _neighbours(x: Experiment, width: int) -> int:
    bank = len(x.images.labels)
    similarities = min(SIMILARITIES // 4, bank * x.images.test) * x.weight
    return 2 * bank * width * x.weight + similarities


def _probe(x: Experiment, width: int) -> int:
    train, test, classes = len(x.images.labels), max(x.images.test, x.images.validation), len(x.images.classes)
    return max(train * (width + 3 * classes) * DOUBLE, 3 * test * width * DOUBLE)
