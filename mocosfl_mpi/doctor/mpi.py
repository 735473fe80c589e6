"""MPI: library, launcher, and whether the two really start ranks that see each other."""

from __future__ import annotations

import os

from mocosfl_mpi.doctor.finding import Finding, Patient, failure, ok, warning
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.launch import find_mpiexec

_INSTALL = "`pip install 'mocosfl-mpi[mpich]'`, or load your cluster's MPI module"


def library(patient: Patient) -> Finding:
    """Does mpi4py find an MPI library, and which?"""
    alone = patient.started(1)
    if not alone.reports or alone.problem:
        return failure(f"no MPI library can be loaded ({alone.problem or 'it says nothing'})", _INSTALL)
    return ok(str(alone.reports[0]["library"]))


def launcher(patient: Patient) -> Finding:
    """Is there an mpiexec, and is it of the same family as the library?"""
    try:
        path, kind = find_mpiexec()
    except BadInput as error:
        return warning(str(error), _INSTALL) if patient.ranks == 1 else failure(str(error), _INSTALL)
    alone = patient.started(1)
    if alone.reports:
        name = str(alone.reports[0]["library"])
        if ("Open MPI" in name) != (kind == "openmpi"):
            family = "Open MPI" if kind == "openmpi" else "MPICH or a relative"
            return failure(
                f"{path} belongs to {family}, mpi4py loads {name}",
                "put the mpiexec of that library first on PATH, or install one of the two only",
            )
    return ok(path)


def ranks_start(patient: Patient) -> Finding:
    """Do two ranks start and see each other?"""
    if patient.ranks == 1:
        return ok("not tried: -n 1 needs no launcher")
    return _start(patient, 2)


def slots(patient: Patient) -> Finding:
    """Do as many ranks start as the user wants?"""
    return _start(patient, patient.ranks)


def _start(patient: Patient, ranks: int) -> Finding:
    job = patient.started(ranks)
    if job.problem:
        return failure(
            f"{ranks} ranks do not start: {job.problem}",
            f"try `mpiexec -n {ranks} hostname`; in a batch job ask for {ranks} tasks; `mocosfl run -n 1` needs no MPI",
        )
    sizes = [int(report["size"]) for report in job.reports]
    if sizes != [ranks] * ranks:
        seen = f"{len(sizes)} ranks that each see {', '.join(map(str, sorted(set(sizes))))}" if sizes else "no rank"
        return failure(
            f"mpiexec -n {ranks} started {seen}: launcher and MPI library do not match",
            "use the mpiexec of the library that mpi4py loads; under SLURM try srun --mpi=pmi2 (MPICH) or --mpi=pmix",
        )
    hosts = sorted({str(report["host"]) for report in job.reports})
    return ok(f"{ranks} ranks started and met on {', '.join(hosts)}")


def binding(patient: Patient) -> Finding:
    """Does the launcher tie ranks to fewer processors than this process may use?"""
    reports = patient.started(patient.ranks).reports
    if not reports:
        return warning("not known: no rank started", "see above")
    mine = len(os.sched_getaffinity(0))
    fewest = min(len(report["cpus"]) for report in reports)
    if fewest < mine and len({str(report["host"]) for report in reports}) == 1:
        return warning(
            f"the launcher binds ranks to {fewest} of {mine} processors; the main server would compute with "
            f"{len(reports[0]['cpus'])} threads",
            "start with `mocosfl run -n`, or give mpiexec --bind-to none, srun --cpu-bind=none",
        )
    return ok(f"ranks may use all {fewest} processors")
