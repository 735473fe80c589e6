"""The run's file from its first byte to its last: what is known beforehand, the verdicts, the hash of the state."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.chronicle import ages, keys_per_update
from mocosfl_mpi.clients.population import Population
from mocosfl_mpi.clients.wealth import dealt
from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.comm.environment import launcher
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost import memory
from mocosfl_mpi.cost.flops import NOTHING, Costs, SegmentCost, codec_work, kinds_of_work, measure, per_image, per_step
from mocosfl_mpi.data.partition import counts
from mocosfl_mpi.encoders import Encode
from mocosfl_mpi.evaluation.judge import Encoder, Judge, Monitor, Verdict
from mocosfl_mpi.evaluation.several import mean_monitor, mean_verdict
from mocosfl_mpi.meter import PHASES
from mocosfl_mpi.objectives.contrast import symmetry
from mocosfl_mpi.privacy.exposure import protection
from mocosfl_mpi.privacy.resistance import device_memory
from mocosfl_mpi.privacy.streamed import arithmetic, with_guard
from mocosfl_mpi.problem import Problem, Source
from mocosfl_mpi.record.attributes import run_attributes, software_versions
from mocosfl_mpi.record.schema import FILE_NAME, MEMORY, WORK
from mocosfl_mpi.record.writer import Recorder
from mocosfl_mpi.resumption import Resumption
from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.split.backbones import feature_dim
from mocosfl_mpi.split.cut import SplitNetwork
from mocosfl_mpi.split.stacked import StackedModel


def open_record(
    resumption: Resumption,
    config: Config,
    cluster: Cluster,
    preset: str,
    command: str,
    source: Source | None,
    network: SplitNetwork,
    model: StackedModel,
    costs: Sequence[SegmentCost],
    hosts: list[str],
    server_threads: int,
    beside: int,
    more: Mapping[str, Any],
) -> Recorder:
    """Create ``run.h5`` with all that is known before training, or with the rows of the run it continues (rank 0).

    ``command``: what was typed to start it. ``costs``: of clients by kind. ``beside``: bytes that a client keeps beside
    its models for their alignment; ``more``: further fixed entries.
    """
    assert source is not None
    frozen = config.client.frozen
    algorithm = ALGORITHMS[config.method]
    server_costs = [measure(cut.trunk, cut.trunk_shape) if cut.trunk else NOTHING for cut in network.cuts]
    flops = [_flops_per_image(config, *of_kind) for of_kind in zip(network.cuts, costs, server_costs, strict=True)]
    server_work = per_step(server_costs[-1].last, False, algorithm.momentum)
    server_work["optimiser"] *= algorithm.server_updates(config)
    work = kinds_of_work(config)
    step_flops = np.zeros((len(costs) + 1, len(work)), dtype=np.int64)
    client_work = [per_step(cost, frozen, algorithm.momentum) for cost in costs]
    step_flops[:, : len(WORK)] = [list(found.values()) for found in (*client_work, server_work)]
    if "defence" in work:
        step_flops[:-1, work.index("defence")] = [cost.attacker_step for cost in costs]
    client_memory = memory.measure(
        network.first,
        network.input_shape,
        config.rows_per_client,
        frozen,
        algorithm.momentum,
        beside,
        config.views_each,
    )
    rich_memory, rich = client_memory, network.cuts[0]
    if config.client.rich_batch_factor > 1 or network.deeper:
        rows = config.rows_per_client * config.client.rich_batch_factor
        rich_memory = memory.measure(
            rich.first, rich.input_shape, rows, frozen, algorithm.momentum, beside, config.views_each
        )
    if network.last is not None:
        shape, rows = (feature_dim(config.model),), config.rows_per_client
        last = memory.measure(network.last, shape, rows, frozen=False, momentum=False, views=1)
        client_memory = memory.both_ends(client_memory, last)
    defended, itemsize = config.defence.anything, next(network.first.parameters()).element_size()
    if defended:
        rows = config.rows_per_client
        client_memory = with_guard(client_memory, config, network.smashed_floats, rows, itemsize)
        rich_memory = with_guard(
            rich_memory, config, network.smashed_floats, rows * config.client.rich_batch_factor, itemsize
        )
    exposed, remarks = _protection(config, source) if defended else ({}, [])
    own_memory = algorithm.widths(config, model.parameters, network.key_dim).get("memory", 0)
    placed = dealt(config, np.arange(config.pool_size), cluster.hosts)
    threads = [server_threads if rank == 0 else config.compute.host_threads for rank in range(cluster.size)]
    sizes: dict[str, Any] = {
        "client": config.client.count,
        "member": config.pool_size,
        "class": list(source.data.classes),
        "layer": model.names,
        "rank": cluster.size,
        "phase": list(PHASES),
        "work": list(work),
        "age": ages(config),
    }
    fixed: dict[str, Any] = {
        "partition/counts": counts(source.parts, source.train.labels, source.data.class_count),
        "hardness/batch_keys": keys_per_update(config),
        "hardness/memory_keys": config.contrast.memory_length,
        "cost/flops_per_image": flops[-1],
        "cost/macs_per_image": _macs(config, network, flops[-1]),
        "cost/flops_per_step": step_flops[-2:],
        "cost/client_feature_memory": own_memory * 4,
        "cost/client_memory": [getattr(client_memory, kind) for kind in MEMORY],
        **({"cost/rich_client_memory": [getattr(rich_memory, kind) for kind in MEMORY]} if config.rich_clients else {}),
        **(
            {"cost/rich_flops_per_image": flops[0], "cost/rich_flops_per_step": step_flops[0]} if network.deeper else {}
        ),
        **exposed,
        **_decoders(config, network),
        **more,
        "ranks/host": hosts,
        "ranks/threads": threads,
        "ranks/clients": [placed.clients_of(rank) for rank in range(cluster.size)],
    }
    started = launcher()
    attributes = run_attributes(
        config,
        preset=preset,
        command=command,
        launcher=started.name if started else "none",
        host=cluster.host_name,
        ranks=cluster.size,
        server_threads=server_threads,
        host_threads=config.compute.host_threads,
        versions=software_versions(cluster.library()),
        notes=[*source.data.notes, *remarks],
    )
    earlier = resumption.earlier()
    if earlier is not None:
        sizes["rank"] = max(cluster.size, len(earlier[0]["rank"]))
        extra = sizes["rank"] - cluster.size
        fixed |= {"ranks/host": [*hosts, *[""] * extra], "ranks/threads": [*threads, *[0] * extra]}
        fixed["ranks/clients"] += [0] * extra
    return Recorder.create(resumption.out / FILE_NAME, sizes, attributes, fixed, earlier)


def _protection(config: Config, source: Source) -> tuple[dict[str, Any], list[str]]:
    """How often an image is exposed at most, and what is guaranteed of it; why nothing is, where something could be.

    An expert's images are the server's own.
    """
    if config.pretraining.expert:
        return {"privacy/sends": 0, "privacy/epsilon": math.nan}, []
    steps = Problem(np.empty(0, dtype=np.uint8), source.parts, (), ()).steps_per_epoch(config)
    found = protection(config, steps, source.parts)
    known = found.epsilon is not None
    values = {"privacy/sends": found.sends, "privacy/epsilon": found.epsilon if known else math.nan}
    return values, [found.text] if config.defence.private and not known else []


def _decoders(config: Config, network: SplitNetwork) -> dict[str, int]:
    """What a client's own decoder takes of its memory, and a rich client's."""
    if not config.resists:
        return {}
    found = {"cost/defence_memory": device_memory(config, network)}
    if config.rich_clients:
        found["cost/rich_defence_memory"] = device_memory(config, network, config.client.rich_batch_factor)
    return found


def _flops_per_image(
    config: Config, network: SplitNetwork, client: SegmentCost, server: Costs
) -> npt.NDArray[np.int64]:
    """FLOPs of an image on both sides of one cut: ``[segments, work]``."""
    frozen, momentum = config.client.frozen, ALGORITHMS[config.method].momentum
    flops = np.array(
        [
            list(per_image(client, frozen, momentum).values()),
            list(per_image(server.last if frozen else server.answering, False, momentum).values()),
        ]
    )
    if symmetry(config).server_swap:  # the second loss passes the trunk again, and no further down
        flops[1] += list(per_image(server.last, False).values())
    work = kinds_of_work(config)
    found = np.zeros((len(flops), len(work)), dtype=np.int64)
    found[:, : len(WORK)] = flops
    if "codec" in work:
        found[0, work.index("codec")] = sum(codec_work(config, network.smashed_floats).values())
    if "defence" in work:
        found[0, work.index("defence")] = client.defence + client.attacker
    return found


def _macs(config: Config, network: SplitNetwork, flops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The multiplications and additions among ``flops [segments, work]``: those of networks, decoders among them."""
    work, guarded, found = kinds_of_work(config), arithmetic(config, network), flops.copy()
    if "codec" in work:
        found[:, work.index("codec")] = 0
    if "defence" in work:
        found[0, work.index("defence")] -= guarded.defence
    found[0, : len(WORK)] -= list(per_image(guarded, config.client.frozen, ALGORITHMS[config.method].momentum).values())
    return found // 2


class Results:
    """Verdicts on the encoder, and the end of the run. Collective; rank 0 judges and writes."""

    def __init__(
        self,
        config: Config,
        out: Path,
        recorder: Recorder | None,
        clients: Population,
        server: Server | None,
        encode: Encode | None,
        judge: Judge | None,
        cluster: Cluster,
    ) -> None:
        self._config = config
        self.path = out / FILE_NAME
        self._recorder = recorder
        self._clients = clients
        self._server = server
        self._encode = encode
        self._judge = judge
        self._cluster = cluster

    def encoder(self) -> Encoder:
        """The global encoder: the clients' mean model, and behind it the server's trunk if there is one (rank 0)."""
        assert self._encode is not None
        return partial(self._encode, self._clients.average)

    def _models(self) -> Iterator[tuple[int, Tensor]]:
        """Of at most `evaluation.own_models` clients, evenly spread over those that have one: number and own model.

        On rank 0, one after the other; elsewhere nothing (collective).
        """
        having = self._clients.independent
        count = min(self._config.own_models, len(having))
        for client in (int(having[place * len(having) // count]) for place in range(count)):
            weights = self._clients.own(client)
            if weights is not None:
                yield client, weights

    def monitor(self) -> Monitor | None:
        """The cheap look during the run, on rank 0 (collective)."""
        looks = []
        if self._config.judged_apart:
            looks = [self._look(weights) for _, weights in self._models()]
        if self._judge is None:
            return None
        return mean_monitor(looks) if looks else self._look(self._clients.average)

    def _look(self, weights: Tensor) -> Monitor:
        assert self._judge is not None
        assert self._encode is not None
        return self._judge.monitor(partial(self._encode, weights))

    def _verdict(self, weights: Tensor, *, further: bool) -> Verdict:
        assert self._judge is not None
        assert self._encode is not None
        return self._judge.verdict(
            partial(self._encode, weights), partial(self._encode.module, weights) if further else None
        )

    def _put(self, values: dict[str, Any]) -> None:
        if self._recorder is not None:
            for name, value in values.items():
                self._recorder.put(f"result/{name}", value)
            self._recorder.flush()

    def untrained(self) -> None:
        """What the classifiers achieve on raw pixels, and on the untrained network, which all clients begin with."""
        if self._judge is None:
            return
        pixels = self._judge.pixels()
        self._put({"knn_top1_pixels": pixels.knn_top1, "linear_top1_pixels": pixels.linear_top1})
        verdict = self._verdict(self._clients.average, further=True)
        self._put(
            {
                "knn_top1_untrained": verdict.knn_top1,
                "knn_projector_top1_untrained": verdict.knn_projector_top1,
                "linear_top1_untrained": verdict.linear_top1,
                **{f"{name}_untrained": value for name, value in verdict.further.items()},
            }
        )

    def trained(self) -> None:
        """What they achieve on the trained network after the last epoch, and on clients' own ones (collective)."""
        apart = self._config.judged_apart
        own = {client: self._verdict(weights, further=apart) for client, weights in self._models()}
        if self._judge is None:
            return
        verdict = mean_verdict(list(own.values())) if apart else self._verdict(self._clients.average, further=True)
        if self._config.own_models:
            for name in ("knn_top1", "linear_top1"):
                figures = np.full(self._config.client.count, np.nan)
                figures[list(own)] = [getattr(found, name) for found in own.values()]
                self._put({f"own_{name}": figures})
        self._put(
            {
                "knn_top1": verdict.knn_top1,
                "knn_projector_top1": verdict.knn_projector_top1,
                "linear_top1": verdict.linear_top1,
                "probe_l2": verdict.probe_l2,
                **verdict.further,
            }
        )

    def complete(self, wall_seconds: float, distance: float) -> None:
        """The normal end: hash the state and mark the file as completed."""
        state = self._state_sha256()
        if self._recorder is not None:
            self._put({"wall_seconds": wall_seconds, "online_momentum_distance": distance})
            self._recorder.complete(state)
            self._recorder.close()

    def close(self) -> None:
        """Write what is kept and close the file of a run that will be continued."""
        if self._recorder is not None:
            self._recorder.close()

    def _state_sha256(self) -> str:
        """sha256 of all trained state: the server's, what clients share, and each client's own, in client order."""
        gathered = self._cluster.gather_json(self._clients.digests())
        if gathered is None:
            return ""
        digest = hashlib.sha256()
        for kind in self._server.state().values() if self._server else ():
            for tensor in kind.values():
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(self._clients.digest_shared().encode())
        for client, own in sorted((int(c), d) for rank in gathered for c, d in rank):
            digest.update(f"{client}:{own}".encode())
        return digest.hexdigest()
