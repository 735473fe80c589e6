"""Measuring this machine: rehearsals of the experiment itself, each in fresh processes started as a run is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mocosfl_mpi import __version__
from mocosfl_mpi.comm.environment import LAUNCHED
from mocosfl_mpi.config import Communication, Config, Partition, to_toml
from mocosfl_mpi.errors import BadInput, RunFailed
from mocosfl_mpi.launch import environment, find_mpiexec
from mocosfl_mpi.plan.experiment import Experiment, experiment
from mocosfl_mpi.plan.images import ImageSet
from mocosfl_mpi.plan.memory import rank_memory
from mocosfl_mpi.plan.profile import Machine, Profile, Rehearsal
from mocosfl_mpi.plan.rehearse import IMAGES, TEST_IMAGES
from mocosfl_mpi.plan.timing import Layout, explained, load

EPOCHS = 4
"""The first is left out, of the others the median is taken."""
BUDGET = 1.5
"""Seconds that an epoch of a rehearsal should take, at ``GUESS`` FLOPs per second."""
GUESS = 1e11
FEWEST_STEPS, MOST_STEPS = 2, 10
TIMEOUT = 300.0  # seconds
CODECS = ("smashed", "gradient", "topk")
"""What a rehearsal keeps of `communication`: which steps are saved depends on a whole run."""
TRAINING = ("views", "client_forward", "exchange", "server", "client_backward", "synchronise")
SHAPES = ((4, 2, 6, 2), (8, 1, 5, 40), (16, 2, 10, 10), (32, 3, 16, 5), (64, 1, 16, 4), (64, 3, 16, 4))
"""(width, cut, clients, images each) of the rehearsals for a stored profile, beside the experiment itself."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Memory of this machine, or what a control group grants of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # no such file, or `max`
            continue
    return total


def rehearsed(planned: Experiment, layout: Layout) -> Experiment:
    """The experiment as it is rehearsed: few steps, everybody takes part, and where a step would be long fewer clients.

    Blocks, rows of a client, memory per client and threads are those of the experiment; where clients are rich, one at
    least is rich and one is not.
    """
    config = planned.config
    clients = config.pool_size
    work = sum(planned.server_flops.values()) + planned.rows * 4 * planned.network.bottom.costs.last.forward
    if work / GUESS > BUDGET:
        fewer = int(clients * BUDGET * GUESS / work)
        clients = min(clients, max(fewer, layout.hosts, 4))
    share = config.client.rich_share
    if config.rich_clients:
        clients = max(clients, 2)
        share = min(clients - 1, max(1, round(share * clients))) / clients
    seconds = work * clients / config.pool_size / GUESS
    steps = min(MOST_STEPS, max(FEWEST_STEPS, int(BUDGET / seconds)))
    memory = config.contrast.memory_length
    if not config.contrast.share_features:
        memory = memory // config.client.count * clients
    small = {
        "epochs": EPOCHS,
        "steps_per_epoch": steps,
        "partition": Partition(
            kind="overlapping", classes_per_client=1, images_per_client=1
        ),  # a few images, for however many clients
        "contrast": config.contrast.model_copy(update={"memory_length": memory}),
        "client": config.client.model_copy(
            update={
                "count": clients,
                "sampling_ratio": 1.0,
                "sampling": "uniform",
                "availability": (),
                "rich_share": share,
                "lr": 1e-3,
                "pretrained": "",
            }
        ),
        "server": config.server.model_copy(update={"lr": 1e-3, "pretrained": True}),
        "federation": config.federation.model_copy(update={"sync_freq": 1}),
        "communication": Communication(**{name: getattr(config.communication, name) for name in CODECS}),
        "evaluation": config.evaluation.plain().model_copy(update={"every": 0, "linear_probe": False}),
        "compute": config.compute.model_copy(
            update={
                "device": "cpu",
                "compile": False,
                "pipeline": "off",  # phases that overlap would tell nothing about each other
                "block_size": config.block_size,
                "server_threads": layout.server_threads,
                "host_threads": layout.host_threads,
            }
        ),
    }
    images = replace(
        planned.images,
        stored=0,
        labels=np.arange(IMAGES, dtype=np.int64) % 2,
        validation=0,
        test=TEST_IMAGES,
        classes=("a", "b"),
    )
    return replace(planned, config=config.model_copy(update=small), images=images)


def rehearse(planned: Experiment, layout: Layout) -> tuple[Rehearsal, Machine]:
    """Rehearse ``planned`` on this machine.

    Raises
    ------
    BadInput
        There is no launcher for several ranks.
    RunFailed
        The rehearsal failed.
    """
    small = rehearsed(planned, layout)
    found = _start(small, layout.ranks)
    columns = {name: index for index, name in enumerate(found["phase"])}
    steps = small.config.steps_per_epoch or 1
    hosts = [0] if layout.ranks == 1 else list(range(1, layout.ranks))
    epochs = np.asarray(found["seconds"])[1:]

    def busiest(*phases: str) -> float:
        """Seconds per step of the host that needs most, in the middle epoch."""
        seconds = epochs[:, :, [columns[phase] for phase in phases]].sum(axis=2)
        return max(float(median(seconds[:, rank])) for rank in hosts) / steps

    # A host waits for others in the exchange, the last one waits for nobody: its phase is the synchronisation itself.
    averaging = float(median(epochs[:, hosts, columns["synchronise"]].min(axis=1)))
    clients, views = busiest("client_forward", "client_backward"), busiest("views")
    server = float(median(epochs[:, 0, columns["server"]])) / steps
    whole = float(median(epochs[:, 0][:, [columns[phase] for phase in TRAINING]].sum(axis=1)))
    step = (whole - averaging) / steps
    own = max(server - views * layout.crowding(cores()), 0.1 * server)
    flops = small.network.bottom.costs.last.forward + small.network.trunk.costs.last.forward
    resident = found["resident_bytes"][-1]
    memory = rank_memory(small, layout.ranks, evaluates=False)
    program = [max(0, int(resident[0]) - memory[0].peak)]
    if layout.ranks > 1:
        program.append(int(median(max(0, int(resident[r]) - memory[r].peak) for r in hosts)))
    compute = small.config.compute
    assert compute.precision != "auto"
    assert compute.backend != "auto"
    rehearsal = Rehearsal(
        precision=compute.precision,
        backend=compute.backend,
        ranks=layout.ranks,
        server_threads=layout.server_threads,
        host_threads=layout.host_threads,
        load=load(small, layout.ranks),
        server=max(own, 1e-9),  # a method without a main server has none, and a rate is a positive number
        clients=clients,
        views=views,
        other=max(0.0, step - explained(server, clients, views, layout.ranks, steps)),
        synchronisation=averaging,
        encoding=flops / found["encoding"],
        program=program,
    )
    machine = Machine(
        processor=_processor(),
        cores=cores(),
        memory=memory_bytes(),
        products=found["products"],
        double_products=found["double_products"],
    )
    return rehearsal, machine


def _start(small: Experiment, ranks: int) -> dict[str, Any]:
    """What the ranks of a rehearsal report."""
    kind, command = "none", [sys.executable, "-m", "mocosfl_mpi.plan.rehearse"]
    if ranks > 1:
        path, kind = find_mpiexec()
        command = [path, "-n", str(ranks), *command]
    with tempfile.TemporaryDirectory(prefix="mocosfl-plan-") as folder:
        file = Path(folder) / "config.toml"
        file.write_text(to_toml(small.config), encoding="utf-8")
        images = small.images
        arguments = [str(file), str(Path(folder) / "run"), str(images.channels), str(images.side)]
        try:
            done = subprocess.run(
                [*command, *arguments],
                env=environment(kind, os.environ, ranks=ranks),
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise RunFailed(f"a rehearsal with {ranks} ranks took more than {TIMEOUT:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1][:300]
        raise RunFailed(f"a rehearsal with {ranks} ranks failed: {reason}")
    return dict(json.loads(lines[-1]))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [os.uname().machine])[0][:200]


def profile_of(planned: Experiment, layout: Layout, *, fused: bool, precision: str, thorough: bool = False) -> Profile:
    """A profile of this machine from a rehearsal of ``planned``; ``thorough``: and of other sizes of network."""
    rehearsal, machine = rehearse(planned, layout)
    more = [rehearse(other, layout)[0] for other in _others(planned)] if thorough else []
    return Profile.model_validate(
        {
            "software_version": __version__,
            "machine": machine,
            "precision": precision,
            "fused": fused,
            "rehearsals": (rehearsal, *more),
        }
    )


def _others(planned: Experiment) -> list[Experiment]:
    """Experiments of other sizes, in the precision and backend of ``planned``."""
    from mocosfl_mpi.native import load as kernels

    compute = planned.config.compute
    found = []
    for width, cut, clients, batch in SHAPES:
        config = Config.model_validate(
            {
                "model": {"width": width, "cut_layer": cut},
                "client": {"count": clients, "batch_size": batch},
                "contrast": {"memory_length": 2000},
                "compute": {"precision": compute.precision, "backend": compute.backend},
            }
        )
        images = ImageSet(0, planned.images.labels, 0, TEST_IMAGES, 3, 32, planned.images.classes)
        found.append(experiment(config, images, kernels() if compute.backend == "fused" else None))
    return found


def check_launched() -> None:
    """Refuse to measure inside a launcher's ranks, which would each start their own."""
    from mocosfl_mpi.comm.environment import launcher

    started = launcher()
    if LAUNCHED in os.environ or started:
        name = started.name if started else "a launcher"
        raise BadInput(f"`mocosfl plan` measures with processes of its own; start it without {name}")
