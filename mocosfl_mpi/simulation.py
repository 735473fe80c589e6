"""One experiment from configuration to results: every part is built here, and here is THE loop."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from mocosfl_mpi import __version__, devices, parts, saving
from mocosfl_mpi.algorithms import ALGORITHMS, alignment
from mocosfl_mpi.algorithms import network as build_network
from mocosfl_mpi.boundary import GO, STOP, Boundary, seconds_left
from mocosfl_mpi.cadence import Cadence
from mocosfl_mpi.checkpoints import Checkpoints
from mocosfl_mpi.chronicle import Chronicle
from mocosfl_mpi.clients.participation import pool as draw_pool
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.clients.terms import widths
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.exchange import Exchange
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.flops import SegmentCost
from mocosfl_mpi.data.normalise import evaluation_images
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.errors import BadInput, Stopped
from mocosfl_mpi.experts import Keeper, beginning, recorded
from mocosfl_mpi.meter import Meter
from mocosfl_mpi.problem import Problem, Source, read
from mocosfl_mpi.record.attributes import software_versions
from mocosfl_mpi.record.checkpoint import Checkpoint, Manifest
from mocosfl_mpi.record.misfit import SOFTWARE
from mocosfl_mpi.record.output import Resume
from mocosfl_mpi.results import Results, open_record
from mocosfl_mpi.resumption import Found, Resumption
from mocosfl_mpi.routes import Smashed
from mocosfl_mpi.server.fed_server import FedServer, due, number
from mocosfl_mpi.signals import ignore
from mocosfl_mpi.simulated import Simulated
from mocosfl_mpi.speaker import Speaker
from mocosfl_mpi.split.engine import CPU, MASTERS, Engine, choose, precision
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
    command: str = field(default_factory=lambda: shlex.join(["mocosfl", *sys.argv[1:]]))
    """What was typed to start it, for the record."""


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
        config, found = resumption.config, resumption.found
        streams = self.streams = Streams(config.seed)
        kernels, notice = parts.common_kernels(config, cluster)
        accelerator = devices.common(config.compute, cluster)
        dtype = MASTERS[precision(config.compute, kernels, accelerator)]
        server_threads = cluster.broadcast_json(config.compute.server_threads or len(os.sched_getaffinity(0)))
        self.meter = Meter(server_threads, config.compute.host_threads, devices.settle(accelerator))
        exchange = Exchange(cluster)

        source = cluster.root_decides(lambda: source or read(config, conduct.data_dir, streams))
        self.problem = Problem.share(cluster, source)
        self.steps = cluster.everywhere(lambda: self.problem.steps_per_epoch(config))
        channels, size = self.problem.pixels.shape[1], config.views.size or self.problem.pixels.shape[-1]
        network = cluster.everywhere(
            lambda: build_network(config, channels, size, self.problem.classes, streams, dtype)
        )
        begun = cluster.root_decides(lambda: beginning(config, network, found.run if found else None))
        engine = choose(config.compute, kernels, network, accelerator)
        config = self.config = cluster.everywhere(lambda: resumption.config.computed(engine.precision, engine.backend))
        model, *others = (parts.stacked(cut, engine) for cut in network.cuts)
        terms = cluster.everywhere(lambda: parts.terms(config, self.problem, network, engine, streams))
        aligned = cluster.everywhere(
            lambda: alignment(config, model.names, model.spans, model.filters, network.key_dim, widths(terms))
        )
        views = ViewMaker(config.views, size, self.problem.mean, self.problem.std, dtype)
        prepare = partial(evaluation_images, size=size, mean=self.problem.mean, std=self.problem.std, dtype=dtype)
        self.clients = Population(
            config,
            model,
            parts.initial(config, network, model, streams, exchange, begun),
            aligned.kept,
            parts.feed(config, self.problem, views, streams, engine.device),
            cluster,
            exchange,
            self.meter,
            others,
            terms,
            parts.shield(config, streams, terms),
            engine.device,
        )
        self.main_server = parts.main_server(config, network, streams, engine, begun) if cluster.serves else None
        cluster.everywhere(
            lambda: saving.check(config, self.steps, network.smashed_floats, engine.activations.itemsize)
        )
        self.saving = saving.Saving(config, self.steps, streams, engine.activations, cluster)
        self.reliability = Reliability(config, streams)
        self.pipelined = parts.pipelined(config, cluster, server_threads)
        self.route = parts.route(
            config, network, model, engine, self.main_server, self.clients, self.saving, exchange, self.meter,
            eager=self.pipelined,
        )  # fmt: skip
        self.fed_server = FedServer(config, aligned, model, exchange, self.meter, self.main_server)

        # Rank 0 counts for all: the counter alone takes a second to import.
        counted = [asdict(parts.client_cost(config, cut)) for cut in network.cuts] if cluster.serves else None
        costs = [SegmentCost(**counts) for counts in cluster.broadcast_json(counted)]
        sizes = [
            parts.wire_sizes(config, *of_kind, engine, aligned)
            for of_kind in zip(network.cuts, self.clients.models, strict=True)
        ]
        facts = cluster.root_decides(lambda: self._facts(source, server_threads, found))
        hosts = cluster.gather_json(cluster.host_name)
        recorder = cluster.root_decides(
            lambda: open_record(
                resumption,
                config,
                cluster,
                conduct.preset,
                conduct.command,
                source,
                network,
                model,
                costs,
                hosts or [],
                server_threads,
                aligned.copies * engine.weights.itemsize,
                recorded(begun),
            )
        )
        self.results = Results(
            config,
            resumption.out,
            recorder,
            self.clients,
            self.main_server,
            parts.encode(config, network, self.clients.models[-1], engine, self.main_server),
            parts.judge(config, source, prepare, streams, engine.device) if source else None,
            cluster,
        )
        self.speaker = Speaker(config.epochs * self.steps, silent=conduct.quiet or not cluster.serves)
        self.chronicle = Chronicle(
            config,
            cluster,
            exchange,
            self.meter,
            self.speaker,
            recorder,
            Simulated(config, sizes, costs, momentum=ALGORITHMS[config.method].momentum),
            self.results.path,
        )
        self.keeper = (
            Keeper(config, network, model, self.clients, self.main_server) if config.pretraining.expert else None
        )
        self.checkpoints = Checkpoints(
            resumption.out, facts, cluster, self.clients, self.main_server, self.saving, self.chronicle, recorder,
            self.speaker, self.keeper,
        )  # fmt: skip
        self.saved = found.saved if found else None
        self.position = resumption.position or (0, 0)
        """Epoch and step that come next."""
        self.boundary = Boundary(cluster, conduct.cadence, seconds_left(conduct.max_hours))
        self.resumed = resumption.position is not None
        if self.resumed:
            self.checkpoints.restore(self.saved)
        notes = self._notes(facts, found, [*([notice] if notice else []), *(source.data.notes if source else ())])
        for line in (*self._introduction(size, server_threads, engine), *notes):
            self.speaker.say(line)

    def _facts(self, source: Source | None, server_threads: int, found: Found | None) -> Manifest:
        """What every checkpoint of this run says about it, position aside (rank 0). BadInput for other data."""
        assert source is not None
        digest = hashlib.sha256(source.train.pixels.tobytes())
        digest.update(source.train.labels.tobytes())
        if source.auxiliary is not None:
            digest.update(source.auxiliary.train.pixels.tobytes())
        facts = Manifest(
            config_hash=self.config.hash(),
            data_sha256=digest.hexdigest(),
            versions={SOFTWARE: __version__} | software_versions(self.cluster.library()) | self._blocks(),
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

    def _blocks(self) -> dict[str, str]:
        """In how many blocks a pool is cut where that follows from the pool: a rule that decides last bits."""
        config = self.config
        derived = not config.compute.block_size and config.blocks < config.pool_size
        return {"blocks": f"{config.blocks}, larger first"} if derived else {}

    def _notes(self, facts: Manifest | None, found: Found | None, here: list[str]) -> list[str]:
        """What the user should know before it begins (rank 0); ``here``: of this machine and these data."""
        if found is None:
            return here
        going_on = [self._going_on(found.saved)] if found.saved else []
        return [*going_on, *here, *found.notes, *self._changes(facts, found.saved)]

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
        if SOFTWARE not in then:  # the first checkpoints do not name it
            now.pop(SOFTWARE, None)
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
                with self.meter.phase("evaluate"):
                    self.results.trained()
                    if self.keeper is not None:
                        self.keeper.write(self.results.path.parent, self.chronicle.similarity)
        except Stopped:
            ignore()
            self.cluster.close()
            raise
        self.cluster.close()  # all ranks together: a rank that fails must not wait here for the others
        self.results.complete(self.chronicle.wall_seconds, self.chronicle.online_momentum_distance)

    def _before(self) -> None:
        with self.meter.phase("evaluate"):
            self.results.untrained()
        self._monitor(0)

    def train(self) -> Iterator[int]:
        """THE loop, a step at a time; yields the epoch.

        Order of work as published: client EMA, forwards, server step, client steps, synchronisation.
        """
        config, clients, chronicle = self.config, self.clients, self.chronicle
        begin, first = self.position
        self.speaker.begin(chronicle.steps)
        for epoch in range(begin, config.epochs):
            drawn = draw_pool(config, self.streams, epoch, self.problem.images)
            pool = self.reliability.survivors(epoch, drawn)
            clients.enter(pool)
            chronicle.enter(drawn, pool, self.main_server.begin_epoch(epoch) if self.main_server else 0.0)
            if first:
                self.checkpoints.restore_pool(self.saved)
            for step in range(first, self.steps):
                last = step == self.steps - 1
                self.boundary.cast(last=last)
                self.cluster.place = f"epoch {epoch}, step {step}"
                delivery = self.reliability.delivery(self.saving.trip(epoch, step), pool)
                smashed: Smashed = iter(())
                if delivery.trip.up:
                    clients.update_momentum()
                    smashed = clients.forward(epoch, step)
                ahead = None if last else partial(clients.look_ahead, epoch, step + 1)
                gradient = self.route.gradient_at_cut(smashed, pool, delivery, keep_memory=last, meanwhile=ahead)
                if gradient is not None:
                    clients.backward(gradient, epoch, delivery.answered, delivery.heard)
                chronicle.step(delivery, self.route.report, clients.rates)
                if not config.client.frozen and due(step, self.steps, config.sync_freq):
                    sync = number(epoch, step, self.steps, config.sync_freq)
                    present = self.reliability.present(epoch, step, pool)
                    with clients.at_home():
                        drift = self.fed_server.synchronise(clients, self.problem.images[pool], sync, present)
                    chronicle.synchronised(epoch, drift, present)
                yield epoch
                if not last:
                    self._between(epoch, step + 1)
            first = 0
            told = clients.leave()
            chronicle.leave(self.saving.conclude(epoch, chronicle.loss), told)
            if config.evaluation.every and (epoch + 1) % config.evaluation.every == 0:
                self._monitor(epoch + 1)
            self._between(epoch + 1, 0)

    def _between(self, epoch: int, step: int) -> None:
        """A step is done, the next is ``step`` of ``epoch``: save or stop if that is due. The end is always saved."""
        with self.meter.phase("exchange"):  # for others, as far as they are behind
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
        with self.meter.phase("evaluate"):
            monitor = self.results.monitor()
        self.chronicle.evaluated(epoch, monitor)
        if self.keeper is not None and epoch:
            self.keeper.consider(epoch, monitor, self.chronicle.similarity)

    def _introduction(self, size: int, server_threads: int, engine: Engine) -> list[str]:
        config, cluster = self.config, self.cluster
        hosting = f"{len(cluster.hosts)} hosting clients" if cluster.size > 1 else "hosting the clients too"
        ranks = f"{cluster.size} rank{'s' * (cluster.size > 1)} on {cluster.host_name}"
        threads = f"the server with {server_threads} thread{'s' * (server_threads > 1)}"
        on = "" if engine.device == CPU else f"{engine.device}, "
        waves = "wave by wave, " if self.pipelined else ""
        machine = (
            f"{ranks}: {threads}, {hosting} with {config.compute.host_threads} each; {waves}{on}"
            f"{config.compute.precision}, {config.compute.backend} backend; {cluster.library()}"
        )
        place = "whole on the client" if config.whole_network else f"cut at {config.model.cut_layer}"
        if config.model.rich_cut_layer:
            place += f", of {config.rich_clients} rich clients at {config.model.rich_cut_layer}"
        own = self.problem.images
        images = own.max() if config.vertical else own.sum()  # pieces of the same images are no more of them
        source = config.data.source + (f" and {config.pretraining.auxiliary}" if self.problem.auxiliary else "")
        experiment = (
            f"{ALGORITHMS[config.method].title}: {source} ({images} images, views of "
            f"{size} pixels), {config.client.count} clients, {config.pool_size} per epoch with batches of "
            f"{config.client.batch_size}; {config.model.backbone} of width {config.model.width}, {place}; "
            f"{config.epochs} epochs of {self.steps} steps into {self.results.path.parent}"
        )
        return [machine, experiment]
