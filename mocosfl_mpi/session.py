"""The life of one rank: simulate, tell, and end as all ranks have agreed to."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput, RunFailed, Stopped
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.record.schema import FILE_NAME
from mocosfl_mpi.record.show import show
from mocosfl_mpi.resumption import Resumption
from mocosfl_mpi.signals import ignore
from mocosfl_mpi.simulation import Conduct, Simulation
from mocosfl_mpi.speaker import console


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


def run_here(config: Config, conduct: Conduct) -> Path:
    """Compute a run with one rank in a process that has a life of its own, and return the run's directory.

    No hook is set, and whatever goes wrong is raised, with the directory left as a command would leave it.

    Raises
    ------
    BadInput, RunFailed, Stopped
        As ``run_as_rank`` says with its exit codes.
    """
    threads = torch.get_num_threads()
    cluster = Cluster.alone()
    resumption = Resumption(config, cluster, conduct.out, conduct.preset, conduct.resume)
    try:
        if not resumption.completed:
            simulation = Simulation(cluster, resumption, conduct)
            try:
                simulation.run()
            finally:
                simulation.results.close()
    finally:
        resumption.release()
        torch.set_num_threads(threads)
    if not conduct.quiet:
        _tell(resumption)
    return resumption.out


def _session(config: Config, conduct: Conduct, cluster: Cluster) -> int:
    resumption = simulation = None
    try:
        resumption = Resumption(config, cluster, conduct.out, conduct.preset, conduct.resume)
        if not resumption.completed:
            simulation = Simulation(cluster, resumption, conduct)
            simulation.run()
        ignore()
        if cluster.serves and not conduct.quiet:
            _tell(resumption)
    except Stopped as stop:
        if cluster.serves:
            print(f"mocosfl: {stop}", file=sys.stderr)
        return stop.exit_code
    except (BadInput, RunFailed) as error:
        return cluster.ended_by(error)
    finally:
        if simulation is not None:
            simulation.results.close()
        if resumption is not None:
            resumption.release()
    return 0


def _tell(resumption: Resumption) -> None:
    path = resumption.out / FILE_NAME
    if resumption.completed:
        print(f"{path} is complete; nothing is left to do.")
    with open_run(path) as run:
        show(run, console())
