"""The parts of an experiment of which there are several kinds: each chosen here, by the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.labelled import LabelledFeed
from mocosfl_mpi.clients.mixed import MixedFeed
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.shield import Shield
from mocosfl_mpi.clients.terms import CutTerm
from mocosfl_mpi.clients.vertical import VerticalFeed
from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.codecs import codec
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.comm.stream import has_own_cores, stream
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import SegmentCost, measure
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.encoders import BehindTheCut, BetweenEnds, Encode, FromPieces, InOnePiece, OnDevice
from mocosfl_mpi.evaluation.further import Further
from mocosfl_mpi.evaluation.judge import Judge
from mocosfl_mpi.experts import Beginning
from mocosfl_mpi.label_routes import LabelsUp, UShaped
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.native import Kernels, NoKernelsError, load
from mocosfl_mpi.objectives.feature_memory import noise
from mocosfl_mpi.privacy import resistance
from mocosfl_mpi.privacy.nopeek import NoPeek
from mocosfl_mpi.privacy.streamed import Streamed, guard_cost
from mocosfl_mpi.privacy.transforms import guard
from mocosfl_mpi.problem import Auxiliary, Problem, Source
from mocosfl_mpi.routes import AtClient, AtServer, Route
from mocosfl_mpi.saving import Saving
from mocosfl_mpi.server.alignments import Alignment
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.server.middle import Middle
from mocosfl_mpi.server.protocol import LossServer, Server
from mocosfl_mpi.simulated import WireSizes
from mocosfl_mpi.split.backbones import feature_dim
from mocosfl_mpi.split.cut import Ends, SplitNetwork, WholeNetwork
from mocosfl_mpi.split.ends import StackedEnds
from mocosfl_mpi.split.engine import CPU, Engine
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams


def common_kernels(config: Config, cluster: Cluster) -> tuple[Kernels | None, str]:
    """The compiled kernels, where every rank has them alike and they may be wanted; or None, and a line that says why.

    A rank that computed otherwise than its neighbours would make results depend on who hosts whom.
    """
    if config.compute.device != "cpu":
        return None, ""
    if config.compute.backend in ("loop", "stacked") and config.compute.precision != "auto":
        return None, ""
    kernels, found = None, "none"
    try:
        kernels = load()
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in kernels.convolves))
    except NoKernelsError as error:
        problem = str(error)
    else:
        problem = ""
    everyone = cluster.gather_json([found, problem])
    verdict = None
    if everyone is not None:
        problems = [text for _, text in everyone if text]
        kinds = {kind for kind, _ in everyone}
        verdict = problems[0] if problems else f"the ranks' processors differ: {kinds}" if len(kinds) > 1 else ""
    verdict = cluster.broadcast_json(verdict)
    return (
        (None, f"No compiled kernels ({verdict}); torch computes instead, more slowly.") if verdict else (kernels, "")
    )


def judge(
    config: Config, source: Source, prepare: Callable[[Tensor], Tensor], streams: Streams, device: torch.device = CPU
) -> Judge:
    """The judge of this run's encoders, who computes on ``device`` (rank 0)."""
    settings, test, classes = config.evaluation, source.data.test, source.data.class_count
    further = Further(settings, source.train, test, classes, source.parts, source.transfer, prepare, streams)
    train, validation = source.train, source.validation
    classifies = config.supervised
    return Judge(settings, train, validation, test, classes, prepare, further, classifies=classifies, device=device)


def feed(config: Config, problem: Problem, views: ViewMaker, streams: Streams, device: torch.device = CPU) -> Feed:
    """Where clients get their batches: two views of each image, or one and its label; made on ``device``."""
    size = config.client.batch_size
    if problem.auxiliary is not None:
        return MixedFeed(_feeds(config, problem, problem.auxiliary, views, streams, device))
    if config.supervised:
        kind = VerticalFeed if config.vertical else LabelledFeed
        return kind(problem.pixels, problem.labels, problem.parts, size, views, streams, factors(config), device)
    return Feed(problem.pixels, problem.parts, size, views, streams, factors(config), device)


def _feeds(
    config: Config, problem: Problem, auxiliary: Auxiliary, views: ViewMaker, streams: Streams, device: torch.device
) -> list[Feed]:
    """Of an expert: its target images, if any, then the auxiliary ones, with draws and statistics of their own."""
    size = config.pretraining.batch
    target = [Feed(problem.pixels, problem.parts, size, views, streams, device=device)] if len(problem.parts[0]) else []
    other = ViewMaker(views.config, views.size, auxiliary.mean, auxiliary.std, views.dtype)
    everything = [np.arange(len(auxiliary.pixels))]
    own = Streams(streams.torch_seed("auxiliary"))
    return [*target, Feed(auxiliary.pixels, everything, size, other, own, device=device)]


def main_server(
    config: Config, network: SplitNetwork, streams: Streams, engine: Engine, begun: Beginning | None
) -> Server | None:
    """What lies behind the cut, if there is one (rank 0)."""
    if network.trunk is None:
        return None
    server = ALGORITHMS[config.method].server(config, network.trunk, network.key_dim, streams, engine)
    if begun is not None:
        begun.take_over_server(server)
    return server


def stacked(network: SplitNetwork, engine: Engine) -> StackedModel:
    """The clients' part of the network, vectorised."""
    part = network.bottom
    return StackedEnds(part, engine) if isinstance(part, Ends) else StackedModel(part, engine)


def wire_sizes(
    config: Config, network: SplitNetwork, model: StackedModel, engine: Engine, aligned: Alignment
) -> WireSizes:
    """Messages of the clients that have this part of the network."""
    return WireSizes.of(
        config,
        network.smashed_floats,
        engine.activations.itemsize,
        config.rows_per_client * feature_dim(config.model) * engine.weights.itemsize,
        aligned.traffic(engine.weights.itemsize, model.parameters),
    )


def client_cost(config: Config, network: SplitNetwork) -> SegmentCost:
    """FLOPs per image of all that a client with this part of the network computes."""
    cost = measure(network.first, network.input_shape).last + guard_cost(config, network)
    if network.last is not None:
        cost += measure(network.last, (feature_dim(config.model),)).answering
    return resistance.added(config, network, cost) if config.resists else cost


def initial(
    config: Config,
    network: SplitNetwork,
    model: StackedModel,
    streams: Streams,
    exchange: Exchange,
    begun: Beginning | None,
) -> dict[str, Tensor]:
    """What every client begins with, in the states that clients of the method have. Collective."""
    online = exchange.broadcast(model.flat(network.cuts[0].bottom))
    momentum = online.clone()
    if config.client.pretrained:
        momentum = exchange.broadcast(begun.momentum(model, online) if begun else momentum)
    states = ALGORITHMS[config.method].widths(config, len(online), network.key_dim)
    initial = {"online": online, "momentum": momentum, "velocity": torch.zeros_like(online)}
    if "memory" in states:
        length = config.contrast.memory_length
        initial["memory"] = noise(1, length, network.key_dim, streams, online.dtype).flatten()
    if "scale" in states:
        initial["scale"] = torch.zeros(1, dtype=online.dtype)
    return {state: initial[state] for state in states}


def shield(config: Config, streams: Streams, terms: Sequence[CutTerm]) -> Shield | None:
    """What protects smashed data when they leave; None where nothing does."""
    decoders = [term.slope for term in terms if isinstance(term, resistance.Resistance)]
    return Streamed(config, streams, *decoders) if guard(config) else None


def terms(config: Config, problem: Problem, network: SplitNetwork, engine: Engine, streams: Streams) -> list[CutTerm]:
    """What clients add to the gradient at the cut, each on its own.

    Raises
    ------
    BadInput
        A decoder that smashed data of this shape cannot have.
    """
    found: list[CutTerm] = []
    if config.defence.nopeek:
        found.append(NoPeek(config.defence.nopeek))
    if config.resists:
        opponent = resistance.attacker(config, network, streams, engine.weights)
        scale = resistance.Images(*problem.scales(config))
        found.append(resistance.Resistance(config.defence, opponent, scale, looped=engine.backend == "loop"))
    return found


def pipelined(config: Config, cluster: Cluster, server_threads: int) -> bool:
    """Whether the server begins with the first clients' rows, and not when all are there (collective)."""
    threads = server_threads if cluster.serves else config.compute.host_threads
    chosen = {"on": True, "off": False, "auto": has_own_cores(cluster, threads)}[config.compute.pipeline]
    return chosen and cluster.size > 1 and not (ALGORITHMS[config.method].local or config.supervised)


def route(
    config: Config,
    network: SplitNetwork,
    model: StackedModel,
    engine: Engine,
    server: Server | None,
    clients: Population,
    saving: Saving,
    exchange: Exchange,
    meter: Meter,
    *,
    eager: bool,
) -> Route:
    """The traffic of a step. ``server`` is None but on rank 0; ``eager``: it begins with the first clients' rows."""
    local = ALGORITHMS[config.method].local
    if local is not None:
        return AtClient(config, local, clients, exchange, meter, network.key_dim)
    rows = config.rows_per_client
    found = stream(
        exchange,
        ("smashed",) if config.supervised else ("query", "key"),
        rows,
        [(height, width, channels) for channels, height, width in (cut.smashed_shape for cut in network.cuts)],
        engine.activations,
        engine.device,
        eager=eager,
    )
    if isinstance(model, StackedEnds):
        assert server is None or isinstance(server, Middle)
        return UShaped(server, clients, model, found, exchange, meter, rows, feature_dim(config.model), engine)
    if config.supervised:
        assert server is None or isinstance(server, LossServer)
        return LabelsUp(server, found, exchange, meter, rows, engine)
    assert server is None or isinstance(server, MainServer)
    return AtServer(
        server,
        found,
        meter,
        rows,
        factors(config),
        engine.device,
        saving,
        smashed=codec(config.communication.smashed, config.communication.topk),
        gradient=codec(config.communication.gradient, config.communication.topk),
        own_rows=config.client.gradient_scale == "own_rows",
    )


def encode(
    config: Config, network: SplitNetwork, model: StackedModel, engine: Engine, server: Server | None
) -> Encode | None:
    """How evaluation computes features (rank 0)."""
    found = _encode(config, network, model, engine, server)
    return found if found is None or engine.device == CPU else OnDevice(found, engine.device)


def _encode(
    config: Config, network: SplitNetwork, model: StackedModel, engine: Engine, server: Server | None
) -> Encode | None:
    if isinstance(network.bottom, WholeNetwork):
        return InOnePiece(network.bottom, network.key_dim, engine)
    if server is None:
        return None
    if isinstance(model, StackedEnds):
        return BetweenEnds(model, server)
    if config.vertical:
        return FromPieces(model, server, config.client.count)
    return BehindTheCut(model, server)
