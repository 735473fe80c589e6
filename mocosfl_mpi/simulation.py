"""One experiment from configuration to results: every part is built here, and here is THE loop."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mocosfl_mpi.algorithms import ALGORITHMS, alignment
from mocosfl_mpi.algorithms import network as build_network
from mocosfl_mpi.boundary import GO, STOP, Boundary, seconds_left
from mocosfl_mpi.cadence import Cadence
from mocosfl_mpi.checkpoints import Checkpoints
from mocosfl_mpi.chronicle import Chronicle, Simulated, WireSizes
from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.labelled import LabelledFeed
from mocosfl_mpi.clients.participation import pool as draw_pool
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.vertical import VerticalFeed
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import SegmentCost, measure
from mocosfl_mpi.data.normalise import evaluation_images
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.encoders import BehindTheCut, BetweenEnds, Encode, FromPieces, InOnePiece
from mocosfl_mpi.errors import BadInput, RunFailed, Stopped
from mocosfl_mpi.evaluation.further import Further
from mocosfl_mpi.evaluation.judge import Judge
from mocosfl_mpi.label_routes import LabelsUp, UShaped
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.native import Kernels, NoKernelsError, load
from mocosfl_mpi.objectives.feature_memory import noise
from mocosfl_mpi.problem import Problem, Source, read
from mocosfl_mpi.record.attributes import software_versions
from mocosfl_mpi.record.checkpoint import Checkpoint, Manifest
from mocosfl_mpi.record.output import Resume
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import FILE_NAME
from mocosfl_mpi.record.show import show
from mocosfl_mpi.results import Results, open_record
from mocosfl_mpi.resumption import Found, Resumption
from mocosfl_mpi.routes import AtClient, AtServer, Route
from mocosfl_mpi.server.fed_server import FedServer, due, number
from mocosfl_mpi.server.middle import Middle
from mocosfl_mpi.server.protocol import LossServer
from mocosfl_mpi.signals import ignore
from mocosfl_mpi.speaker import Speaker, console
from mocosfl_mpi.split.backbones import feature_dim
from mocosfl_mpi.split.cut import Ends, SplitNetwork, WholeNetwork
from mocosfl_mpi.split.ends import StackedEnds
from mocosfl_mpi.split.engine import MASTERS, Engine, choose, precision
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams


@dataclass(frozen=True)
class Conduct:
    """How a run is carried out: nothing here changes its result."""

    preset: str
    out: Path | None = None
    data_dir: Path | None = None
    quiet: bool = False
    resume: Resume = "auto"
    cadence: Cadence = field(default_factory=Cadence)
    max_hours: float | None = None
    patience: float = 3600.0
    """Seconds without word from the other ranks after which a rank ends."""
    keep_going: bool = False
    """Whether the ranks that are left go on when one dies (an MPI with ULFM)."""


def run_as_rank(config: Config, conduct: Conduct) -> int:
    """Be one rank of a run; returns the exit code. What all ranks refuse together ends quietly, all else at once.

    With ``keep_going`` the ranks that are left after one has died begin again from the newest checkpoint: the dead
    rank's clients are dealt out to them, and as results do not depend on ranks, the outcome is the same.
    """
    cluster = Cluster()
    while True:
        cluster.abort_on_error()
        cluster.watch(conduct.patience)
        try:
            code = _session(config, conduct, cluster)
        except Exception as error:
            if not (conduct.keep_going and cluster.is_loss(error)):
                raise
            size, place = cluster.size, cluster.place or "the beginning"
            cluster = cluster.survivors()
            if cluster.size == size:  # nobody died: it was another failure
                raise
            if cluster.serves:
                print(
                    f"mocosfl: {size - cluster.size} of {size} ranks died at {place}; going on with {cluster.size} "
                    f"from the newest checkpoint",
                    file=sys.stderr,
                )
        else:
            if conduct.keep_going:
                cluster.leave_at_once(code)
            return code


def _session(config: Config, conduct: Conduct, cluster: Cluster) -> int:
    resumption = simulation = None
    try:
        resumption = Resumption(config, cluster, conduct.out, conduct.preset, conduct.resume)
        path = resumption.out / FILE_NAME
        if not resumption.completed:
            simulation = Simulation(cluster, resumption, conduct)
            simulation.run()
        ignore()
        if cluster.serves and not conduct.quiet:
            if resumption.completed:
                print(f"{path} is complete; nothing is left to do.")
            with open_run(path) as run:
                show(run, console())
    except Stopped as stop:
        if cluster.serves:
            print(f"mocosfl: {stop}", file=sys.stderr)
        return stop.exit_code
    except (BadInput, RunFailed) as error:
        agreed = cluster.agreed(error)
        if cluster.serves or not agreed:
            print(f"mocosfl: {error}", file=sys.stderr)
        if not agreed:
            cluster.end_everything(error.exit_code)
        return error.exit_code
    finally:
        if simulation is not None:
            simulation.results.close()
        if resumption is not None:
            resumption.release()
    return 0


def common_kernels(config: Config, cluster: Cluster) -> tuple[Kernels | None, str]:
    """The compiled kernels, where every rank has them alike and they may be wanted; or None, and a line that says why.

    A rank that computed otherwise than its neighbours would make results depend on who hosts whom.
    """
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


def judge(config: Config, source: Source, prepare: Callable[[Tensor], Tensor], streams: Streams) -> Judge:
    """The judge of this run's encoders (rank 0)."""
    settings, test, classes = config.evaluation, source.data.test, source.data.class_count
    further = Further(settings, source.train, test, classes, source.parts, source.transfer, prepare, streams)
    train, validation = source.train, source.validation
    return Judge(settings, train, validation, test, classes, prepare, further, classifies=config.supervised)


def feed(config: Config, problem: Problem, views: ViewMaker, streams: Streams) -> Feed:
    """Where clients get their batches: two views of each image, or one and its label."""
    size = config.client.batch_size
    if config.supervised:
        kind = VerticalFeed if config.vertical else LabelledFeed
        return kind(problem.pixels, problem.labels, problem.parts, size, views, streams)
    return Feed(problem.pixels, problem.parts, size, views, streams)


def stacked(network: SplitNetwork, engine: Engine) -> StackedModel:
    """The clients' part of the network, vectorised."""
    part = network.bottom
    return StackedEnds(part, engine) if isinstance(part, Ends) else StackedModel(part, engine)


def client_cost(config: Config, network: SplitNetwork) -> SegmentCost:
    """FLOPs per image of all that a client computes."""
    cost = measure(network.first, network.input_shape).last
    if network.last is not None:
        cost += measure(network.last, (feature_dim(config.model),)).answering
    return cost


class Simulation:
    """All parts of one experiment on this rank.

    Raises
    ------
    BadInput
        Data, partition, network or output directory cannot be used; raised on every rank, before training.
    RunFailed
        The loss is not finite, or results cannot be written; raised on rank 0.
    """

    @classmethod
    def begin(cls, config: Config, conduct: Conduct, source: Source | None = None) -> Simulation:
        """A new run in ``conduct.out``, in this process and with its ranks; images are ``source``'s if given."""
        cluster = Cluster()
        return cls(cluster, Resumption(config, cluster, conduct.out, conduct.preset, "never"), conduct, source)

    def __init__(
        self, cluster: Cluster, resumption: Resumption, conduct: Conduct, source: Source | None = None
    ) -> None:
        self.cluster = cluster
        config = resumption.config
        found = resumption.found
        streams = self.streams = Streams(config.seed)
        kernels, notice = common_kernels(config, cluster)
        dtype = MASTERS[precision(config.compute, kernels)]
        cores = len(os.sched_getaffinity(0))
        server_threads = cluster.broadcast_json(config.compute.server_threads or cores)
        self.meter = Meter(server_threads, config.compute.host_threads)
        exchange = Exchange(cluster)

        source = cluster.root_decides(lambda: source or read(config, conduct.data_dir, streams))
        self.problem = Problem.share(cluster, source)
        self.steps = cluster.everywhere(lambda: self.problem.steps_per_epoch(config))
        channels, size = self.problem.pixels.shape[1], config.views.size or self.problem.pixels.shape[-1]
        network = cluster.everywhere(
            lambda: build_network(config, channels, size, self.problem.classes, streams, dtype)
        )
        engine = choose(config.compute, kernels, network)
        config = self.config = config.computed(engine.precision, engine.backend)
        model = stacked(network, engine)
        aligned = cluster.everywhere(lambda: alignment(config, model.names, model.spans, network.key_dim))
        views = ViewMaker(config.views, size, self.problem.mean, self.problem.std, dtype)

        def prepare(pixels: Tensor) -> Tensor:
            return evaluation_images(pixels, size, self.problem.mean, self.problem.std, dtype)

        self.clients = Population(
            config,
            model,
            self._initial(exchange.broadcast(model.flat(network.bottom)), network.key_dim),
            aligned.kept,
            feed(config, self.problem, views, streams),
            cluster,
            exchange,
            self.meter,
        )
        self.main_server = (
            ALGORITHMS[config.method].server(config, network.trunk, network.key_dim, streams, engine)
            if network.trunk is not None and cluster.serves
            else None
        )
        self.route = self._route(network, model, exchange, engine)
        self.fed_server = FedServer(config, aligned, model, exchange, self.meter, self.main_server)

        # Rank 0 counts for all: the counter alone takes a second to import.
        cost = SegmentCost(**cluster.broadcast_json(asdict(client_cost(config, network)) if cluster.serves else None))
        sizes = WireSizes.of(
            config,
            config.rows_per_client * network.smashed_floats * engine.activations.itemsize,
            config.rows_per_client * feature_dim(config.model) * engine.weights.itemsize,
            aligned.traffic(engine.weights.itemsize),
        )
        facts = cluster.root_decides(lambda: self._facts(source, server_threads, found))
        hosts = cluster.gather_json(cluster.host_name)
        recorder = cluster.root_decides(
            lambda: open_record(
                resumption,
                config,
                cluster,
                conduct.preset,
                source,
                network,
                model,
                cost,
                hosts or [],
                server_threads,
                aligned.copies * engine.weights.itemsize,
            )
        )
        self.results = Results(
            resumption.out, recorder, self.clients, self.main_server, self._encode(network, model, engine), cluster
        )
        self.judge = judge(config, source, prepare, streams) if source else None
        self.speaker = Speaker(config.epochs * self.steps, silent=conduct.quiet or not cluster.serves)
        self.chronicle = Chronicle(
            config,
            cluster,
            exchange,
            self.meter,
            self.speaker,
            recorder,
            Simulated(config, sizes, cost, momentum=ALGORITHMS[config.method].momentum),
            self.results.path,
        )
        self.checkpoints = Checkpoints(
            resumption.out, facts, cluster, self.clients, self.main_server, self.chronicle, recorder, self.speaker
        )
        self.saved = found.saved if found else None
        self.position = resumption.position or (0, 0)
        """Epoch and step that come next."""
        self.boundary = Boundary(cluster, conduct.cadence, seconds_left(conduct.max_hours))
        self.resumed = resumption.position is not None
        if self.resumed:
            self.checkpoints.restore(self.saved)
        notes = [self._going_on(found.saved)] if found and found.saved else []
        notes += [notice] if notice else []
        notes += [*source.data.notes] if source else []
        notes += [*found.notes, *self._changes(facts, found.saved)] if found else []
        for line in (*self._introduction(size, server_threads), *notes):
            self.speaker.say(line)

    def _initial(self, online: Tensor, key_dim: int) -> dict[str, Tensor]:
        """What every client begins with, in the states that clients of the method have."""
        states = ALGORITHMS[self.config.method].widths(self.config, len(online), key_dim)
        initial = {"online": online, "momentum": online.clone(), "velocity": torch.zeros_like(online)}
        if "memory" in states:
            length = self.config.contrast.memory_length
            initial["memory"] = noise(1, length, key_dim, self.streams, online.dtype).flatten()
        return {state: initial[state] for state in states}

    def _route(self, network: SplitNetwork, model: StackedModel, exchange: Exchange, engine: Engine) -> Route:
        config, local = self.config, ALGORITHMS[self.config.method].local
        if local is not None:
            return AtClient(config, local, self.clients, exchange, self.meter, network.key_dim)
        server, rows, shape = self.main_server, config.rows_per_client, network.smashed_shape
        if isinstance(model, StackedEnds):
            assert server is None or isinstance(server, Middle)
            features = feature_dim(config.model)
            return UShaped(server, self.clients, model, exchange, self.meter, rows, shape, features, engine.activations)
        assert server is None or isinstance(server, LossServer)
        if config.supervised:
            return LabelsUp(server, exchange, self.meter, rows, shape, engine.activations)
        return AtServer(
            server,
            exchange,
            self.meter,
            rows,
            shape,
            engine.activations,
            frozen=config.client.frozen,
            scale=config.pool_size if config.client.gradient_scale == "own_rows" else 1.0,
        )

    def _encode(self, network: SplitNetwork, model: StackedModel, engine: Engine) -> Encode | None:
        """How evaluation computes features (rank 0)."""
        if isinstance(network.bottom, WholeNetwork):
            return InOnePiece(network.bottom, network.key_dim, engine)
        if self.main_server is None:
            return None
        if isinstance(model, StackedEnds):
            return BetweenEnds(model, self.main_server)
        if self.config.vertical:
            return FromPieces(model, self.main_server, self.config.client.count)
        return BehindTheCut(model, self.main_server)

    def _facts(self, source: Source | None, server_threads: int, found: Found | None) -> Manifest:
        """What every checkpoint of this run says about it, position aside (rank 0). BadInput for other data."""
        assert source is not None
        digest = hashlib.sha256(source.train.pixels.tobytes())
        digest.update(source.train.labels.tobytes())
        facts = Manifest(
            config_hash=self.config.hash(),
            data_sha256=digest.hexdigest(),
            versions=software_versions(self.cluster.library()),
            threads={"server": server_threads, "host": self.config.compute.host_threads},
            epoch=0,
            step=0,
            steps=0,
            rows={},
        )
        if found and found.saved and found.saved.manifest.data_sha256 != facts.data_sha256:
            raise BadInput(
                f"the training images are not those with which {found.saved.path} was computed (their sha256 differs); "
                f"bring back the files of {self.config.data.source}, or start again in another directory"
            )
        return facts

    def _going_on(self, saved: Checkpoint) -> str:
        manifest = saved.manifest
        done = f"{manifest.steps} of {self.config.epochs * self.steps} steps"
        return f"Going on at epoch {manifest.epoch + 1}, step {manifest.step + 1}, {done} done, from {saved.path}"

    @staticmethod
    def _changes(facts: Manifest | None, saved: Checkpoint | None) -> list[str]:
        """Warnings about what may change last bits in a run that goes on."""
        if facts is None or saved is None:
            return []
        now, then = (
            m.versions | {f"{k} threads": str(n) for k, n in m.threads.items()} for m in (facts, saved.manifest)
        )
        changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if now[name] != then.get(name)]
        text = f"Warning: since the checkpoint {', '.join(changed)}: last bits may differ from an uninterrupted run's."
        return [text] if changed else []

    def run(self) -> None:
        """Judge the untrained network, train, judge again.

        Raises
        ------
        Stopped
            On every rank: a signal or the time limit asked for it; a checkpoint is saved.
        """
        self.chronicle.begin(self.position[0])
        try:
            with self.speaker:
                if not self.resumed:
                    self._before()
                for _ in self.train():
                    pass
                if self.judge:
                    with self.meter.phase("evaluate"):
                        self.results.trained(self.judge.verdict(self.results.encoder(), self.results.encoder_copy))
        except Stopped:
            ignore()
            self.cluster.close()
            raise
        self.cluster.close()  # all ranks together: a rank that fails must not wait here for the others
        self.results.complete(self.chronicle.wall_seconds, self.chronicle.online_momentum_distance)

    def _before(self) -> None:
        if self.judge:
            with self.meter.phase("evaluate"):
                self.results.pixels(self.judge.pixels())
                self.results.untrained(self.judge.verdict(self.results.encoder(), self.results.encoder_copy))
        self._monitor(0)

    def train(self) -> Iterator[int]:
        """THE loop, a step at a time; yields the epoch.

        Order of work as published: client EMA, forwards, server step, client steps, synchronisation.
        """
        config, clients, chronicle = self.config, self.clients, self.chronicle
        begin, first = self.position
        self.speaker.begin(chronicle.steps)
        for epoch in range(begin, config.epochs):
            pool = draw_pool(config, self.streams, epoch, self.problem.images)
            clients.enter(pool)
            chronicle.enter(pool, self.main_server.begin_epoch(epoch) if self.main_server else 0.0)
            if first:
                self.checkpoints.restore_pool(self.saved)
            for step in range(first, self.steps):
                last = step == self.steps - 1
                self.boundary.cast(last=last)
                self.cluster.place = f"epoch {epoch}, step {step}"
                clients.update_momentum()
                smashed = clients.forward(epoch, step)
                ahead = None if last else partial(clients.look_ahead, epoch, step + 1)
                gradient = self.route.gradient_at_cut(smashed, pool, keep_memory=last, meanwhile=ahead)
                if gradient is not None:
                    clients.backward(gradient, epoch)
                chronicle.step(epoch, self.route.report)
                if not config.client.frozen and due(step, self.steps, config.sync_freq):
                    sync = number(epoch, step, self.steps, config.sync_freq)
                    drift = self.fed_server.synchronise(clients, self.problem.images[pool], sync)
                    chronicle.synchronised(epoch, drift)
                yield epoch
                if not last:
                    self._between(epoch, step + 1)
            first = 0
            clients.leave()
            chronicle.leave(clients)
            if config.evaluation.every and (epoch + 1) % config.evaluation.every == 0:
                self._monitor(epoch + 1)
            self._between(epoch + 1, 0)

    def _between(self, epoch: int, step: int) -> None:
        """A step is done, the next is ``step`` of ``epoch``: save or stop if that is due. The end is always saved."""
        verdict = self.boundary.verdict()
        finished = epoch == self.config.epochs
        if verdict == GO and not finished:
            return
        with self.meter.phase("record"):
            self.boundary.saved(self.checkpoints.save(epoch, step, must=verdict == STOP and not finished))
        if verdict == STOP and not finished:
            done = f"after {epoch} epochs" + (f" and {step} of {self.steps} steps" if step else "")
            raise Stopped(f"stopped {done} by {self.boundary.reason}; the same command continues the run")

    def _monitor(self, epoch: int) -> None:
        if self.judge:
            with self.meter.phase("evaluate"):
                monitor = self.judge.monitor(self.results.encoder())
            self.chronicle.evaluated(epoch, monitor)

    def _introduction(self, size: int, server_threads: int) -> list[str]:
        config, cluster = self.config, self.cluster
        hosting = f"{len(cluster.hosts)} hosting clients" if cluster.size > 1 else "hosting the clients too"
        ranks = f"{cluster.size} rank{'s' * (cluster.size > 1)} on {cluster.host_name}"
        threads = f"the server with {server_threads} thread{'s' * (server_threads > 1)}"
        machine = (
            f"{ranks}: {threads}, {hosting} with {config.compute.host_threads} each; {config.compute.precision}, "
            f"{config.compute.backend} backend; {cluster.library()}"
        )
        place = "whole on the client" if config.whole_network else f"cut at {config.model.cut_layer}"
        own = self.problem.images
        images = own.max() if config.vertical else own.sum()  # pieces of the same images are no more of them
        experiment = (
            f"{ALGORITHMS[config.method].title}: {config.data.source} ({images} images, views of "
            f"{size} pixels), {config.client.count} clients, {config.pool_size} per epoch with batches of "
            f"{config.client.batch_size}; {config.model.backbone} of width {config.model.width}, {place}; "
            f"{config.epochs} epochs of {self.steps} steps into {self.results.path.parent}"
        )
        return [machine, experiment]
