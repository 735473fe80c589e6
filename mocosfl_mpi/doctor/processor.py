"""Processors, memory shared by ranks, and limits of the operating system."""

from __future__ import annotations

import fnmatch
import math
import os
import resource
from pathlib import Path

from mocosfl_mpi.doctor.finding import Finding, Patient, ok, warning

SHM = Path("/dev/shm")  # noqa: S108 - where MPI libraries keep what ranks share
INFINIBAND = Path("/sys/class/infiniband")
LEFTOVERS = ("mpich_shm_*", "sm_segment.*", "psm*", "vader_segment.*")
_LEAST_SHM = 256 << 20
_LEAST_FILES = 1024


def cpu_limit(root: Path = Path("/")) -> float:
    """Processors that the control group lets this process use (infinity = no limit), below ``root`` for tests."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    limit = math.inf
    for line in groups:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            top, files = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        path = top / name.lstrip("/")
        for place in (path, *path.parents):  # a limit above holds below
            try:
                words = " ".join((place / file).read_text() for file in files).split()
                quota, period = float(words[0]), float(words[1])
            except (OSError, ValueError, IndexError):
                continue
            if quota > 0 and period > 0:
                limit = min(limit, quota / period)
            if place == top:
                break
    return limit


def threads(patient: Patient) -> Finding:
    """Do the ranks' threads fit the processors? The server takes all it may see, every other rank one."""
    seen, limit = len(os.sched_getaffinity(0)), cpu_limit()
    text = f"{seen} processors" + (f", {limit:g} by the control group" if limit < seen else "")
    if limit < seen:
        fits = max(1, int(limit))
        return warning(f"{text}: the main server would start {seen} threads", f"--set compute.server_threads={fits}")
    hosts = max(1, patient.ranks - 1)
    if hosts > seen:
        return warning(
            f"{text} for {hosts} ranks that host clients", f"-n {seen + 1} or fewer: more ranks only take turns"
        )
    return ok(f"{text}: server {seen} threads, {hosts} hosting rank(s) with 1 each, which wait for each other in turn")


def shared_memory(_: Patient) -> Finding:
    """Is there room in /dev/shm, where ranks of one machine share data, and what did dead jobs leave there?"""
    if not SHM.is_dir():
        return warning(f"{SHM} does not exist", "mount a tmpfs there; ranks of a machine share memory through it")
    status = os.statvfs(SHM)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    left = leftovers()
    if left:
        total = sum(path.stat().st_size for path in left if path.exists())
        patterns = [str(SHM / p) for p in LEFTOVERS if any(fnmatch.fnmatch(path.name, p) for path in left)]
        return warning(
            f"{len(left)} files of dead MPI jobs of yours hold {total / 2**20:.0f} MiB of {SHM}",
            f"while no MPI job of yours runs: rm {' '.join(patterns)}",
        )
    if free < _LEAST_SHM:
        return warning(
            f"{SHM} has {free / 2**20:.0f} MiB free of {size / 2**20:.0f} MiB",
            "make it larger: mount -o remount,size=4G /dev/shm, or docker run --shm-size=4g",
        )
    return ok(f"{SHM} has {free / 2**30:.1f} GiB free, nothing left behind by dead jobs")


def leftovers(folder: Path | None = None, processes: Path = Path("/proc")) -> list[Path]:
    """Shared-memory files of the user's that no living process has mapped."""
    mine = []
    for path in sorted((folder or SHM).iterdir()):
        try:
            owned = path.stat().st_uid == os.geteuid()
        except OSError:  # gone meanwhile
            continue
        if owned and any(fnmatch.fnmatch(path.name, pattern) for pattern in LEFTOVERS):
            mine.append(path)
    if not mine:
        return []
    used = set()
    for maps in processes.glob("[0-9]*/maps"):
        try:
            used |= {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if "/" in line}
        except (OSError, IndexError):
            continue
    return [path for path in mine if str(path) not in used]


def limits(_: Patient) -> Finding:
    """Limits on open files and file sizes, and on locked memory where there is InfiniBand."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    size, _hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    locked, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if size != resource.RLIM_INFINITY:
        return warning(f"files may have at most {size / 2**20:.0f} MiB", "ulimit -f unlimited")
    if files != resource.RLIM_INFINITY and files < _LEAST_FILES:
        return warning(f"only {files} open files per process", f"ulimit -n {_LEAST_FILES}")
    if INFINIBAND.is_dir() and locked != resource.RLIM_INFINITY:
        return warning(
            f"InfiniBand is there, but only {locked / 2**20:.0f} MiB may be locked",
            "ulimit -l unlimited (set by the administrator, in the batch system's limits)",
        )
    return ok(f"{'unlimited' if files == resource.RLIM_INFINITY else files} open files, unlimited file sizes")
