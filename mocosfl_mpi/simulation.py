"""One experiment from configuration to results: every part is built here, and here is THE loop."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torch import Tensor

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.chronicle import Chronicle, Simulated, WireSizes
from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.participation import pool as draw_pool
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import measure
from mocosfl_mpi.data.normalise import evaluation_images
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.evaluation.judge import Judge
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.native import Kernels, NoKernelsError, load
from mocosfl_mpi.problem import Problem, read
from mocosfl_mpi.record.output import free_directory, give_back, prepare_output
from mocosfl_mpi.results import Results, open_record
from mocosfl_mpi.routes import AtServer
from mocosfl_mpi.server.fed_server import FedServer, due
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.speaker import Speaker, console
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import MASTERS, choose, precision
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams


def run_as_rank(config: Config, *, preset: str, out: Path | None, data_dir: Path | None, quiet: bool) -> int:
    """Be one rank of a run; returns the exit code. What all ranks refuse together ends quietly, all else at once."""
    cluster = Cluster()
    cluster.abort_on_error()
    try:
        path = Simulation(config, cluster, preset=preset, out=out, data_dir=data_dir, quiet=quiet).run()
        if cluster.serves and not quiet:
            from mocosfl_mpi.record.reader import open_run
            from mocosfl_mpi.record.show import show

            with open_run(path) as run:
                show(run, console())
    except (BadInput, RunFailed) as error:
        agreed = cluster.agreed(error)
        if cluster.serves:
            give_back(out)
        if cluster.serves or not agreed:
            print(f"mocosfl: {error}", file=sys.stderr)
        if not agreed:
            cluster.end_everything(error.exit_code)
        return error.exit_code
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


class Simulation:
    """All parts of one experiment on this rank.

    Raises
    ------
    BadInput
        Data, partition, network or output directory cannot be used; raised on every rank, before training.
    RunFailed
        The loss is not finite, or results cannot be written; raised on rank 0.
    """

    def __init__(
        self, config: Config, cluster: Cluster, *, preset: str, out: Path | None, data_dir: Path | None, quiet: bool
    ) -> None:
        self.cluster = cluster
        streams = self.streams = Streams(config.seed)
        kernels, notice = common_kernels(config, cluster)
        dtype = MASTERS[precision(config.compute, kernels)]
        cores = len(os.sched_getaffinity(0))
        server_threads = cluster.broadcast_json(config.compute.server_threads or cores)
        self.meter = Meter(server_threads, config.compute.host_threads)
        exchange = Exchange(cluster)

        source = cluster.root_decides(lambda: read(config, data_dir, streams))
        self.problem = Problem.share(cluster, source)
        self.steps = cluster.everywhere(lambda: self.problem.steps_per_epoch(config))
        channels, size = self.problem.pixels.shape[1], config.views.size or self.problem.pixels.shape[-1]
        network = cluster.everywhere(lambda: cut.build(config.model, channels, size, streams, dtype))
        engine = choose(config.compute, kernels, network)
        config = self.config = config.computed(engine.precision, engine.backend)
        model = StackedModel(network.bottom, engine)
        aligned = ALGORITHMS[config.method].alignment
        views = ViewMaker(config.views, size, self.problem.mean, self.problem.std, dtype)

        def prepare(pixels: Tensor) -> Tensor:
            return evaluation_images(pixels, size, self.problem.mean, self.problem.std, dtype)

        self.clients = Population(
            config,
            model,
            exchange.broadcast(model.flat(network.bottom)),
            aligned.states,
            Feed(self.problem.pixels, self.problem.parts, config.client.batch_size, views, streams),
            cluster,
            exchange,
            self.meter,
        )
        self.main_server = (
            MainServer(config, network.trunk, network.key_dim, streams, engine) if cluster.serves else None
        )
        self.route = AtServer(
            self.main_server,
            exchange,
            self.meter,
            config.rows_per_client,
            network.smashed_shape,
            engine.activations,
            frozen=config.client.frozen,
        )
        self.fed_server = FedServer(config, aligned, model, exchange, self.meter)

        cost = measure(network.bottom, network.input_shape, needs_input_gradient=False)
        sizes = WireSizes(
            config.rows_per_client * network.smashed_floats * engine.activations.itemsize,
            model.parameters * engine.weights.itemsize,
        )
        out = Path(cluster.broadcast_json(str(out or free_directory(preset)) if cluster.serves else None))
        cluster.root_decides(lambda: prepare_output(out))
        hosts = cluster.gather_json(cluster.host_name)
        recorder = cluster.root_decides(
            lambda: open_record(out, config, cluster, preset, source, network, model, cost, hosts or [], server_threads)
        )
        self.results = Results(out, recorder, self.clients, self.main_server, model, cluster)
        self.judge = (
            Judge(
                config.evaluation, source.train, source.validation, source.data.test, source.data.class_count, prepare
            )
            if source
            else None
        )
        self.speaker = Speaker(config.epochs * self.steps, silent=quiet or not cluster.serves)
        self.chronicle = Chronicle(
            config,
            cluster,
            exchange,
            self.meter,
            self.speaker,
            recorder,
            Simulated(config, sizes, cost, self.fed_server.states),
            self.results.path,
        )
        notes = source.data.notes if source else ()
        for line in (*self._introduction(size, server_threads), *([notice] if notice else ()), *notes):
            self.speaker.say(line)

    def run(self) -> Path:
        """Judge the untrained network, train, judge again; the path of the finished file."""
        start = time.monotonic()
        with self.speaker:
            if self.judge:
                with self.meter.phase("evaluate"):
                    self.results.pixels(self.judge.pixels())
                    self.results.untrained(self.judge.verdict(self.results.encoder()))
            self._monitor(0)
            for _ in self.train():
                pass
            if self.judge:
                with self.meter.phase("evaluate"):
                    self.results.trained(self.judge.verdict(self.results.encoder()))
        self.results.complete(time.monotonic() - start, self.chronicle.online_momentum_distance)
        self.cluster.close()
        return self.results.path

    def train(self) -> Iterator[int]:
        """THE loop, a step at a time; yields the epoch.

        Order of work as published: client EMA, forwards, server step, client steps, synchronisation.
        """
        config, clients, chronicle = self.config, self.clients, self.chronicle
        self.speaker.begin()
        for epoch in range(config.epochs):
            pool = draw_pool(config, self.streams, epoch)
            clients.enter(pool)
            chronicle.enter(pool, self.main_server.begin_epoch(epoch) if self.main_server else 0.0)
            for step in range(self.steps):
                clients.update_momentum()
                smashed = clients.forward(epoch, step)
                last = step == self.steps - 1
                ahead = None if last else partial(clients.look_ahead, epoch, step + 1)
                gradient = self.route.gradient_at_cut(smashed, pool, keep_memory=last, meanwhile=ahead)
                if gradient is not None:
                    clients.backward(gradient, epoch)
                chronicle.step(epoch, self.route.report)
                if not config.client.frozen and due(step, self.steps, config.federation.sync_freq):
                    drift = self.fed_server.synchronise(clients, self.problem.images[pool])
                    chronicle.synchronised(epoch, drift)
                yield epoch
            clients.leave()
            chronicle.leave(clients)
            if config.evaluation.every and (epoch + 1) % config.evaluation.every == 0:
                self._monitor(epoch + 1)

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
        experiment = (
            f"{ALGORITHMS[config.method].title}: {config.data.source} ({self.problem.images.sum()} images, views of "
            f"{size} pixels), {config.client.count} clients, {config.pool_size} per epoch with batches of "
            f"{config.client.batch_size}; {config.model.backbone} of width {config.model.width} cut at "
            f"{config.model.cut_layer}; {config.epochs} epochs of {self.steps} steps into {self.results.path.parent}"
        )
        return [machine, experiment]
