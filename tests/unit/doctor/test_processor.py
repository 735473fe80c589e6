"""Processors, shared memory and limits: each branch that warns is provoked."""

from __future__ import annotations

import os
import resource

import pytest

from mocosfl_mpi.doctor import processor
from mocosfl_mpi.doctor.finding import Patient


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, float("inf")),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, float("inf")),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            },
            2.0,  # of the group above
        ),
        (
            {
                "proc/self/cgroup": "3:cpuset:/\n1:cpu,cpuacct:/job\n0::/\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            float("inf"),
        ),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "nonsense\n"}, float("inf")),
    ],
)
def test_limits_of_control_groups(tmp_path, files, limit):
    write(tmp_path, files)
    assert processor.cpu_limit(tmp_path) == limit


def test_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(processor, "cpu_limit", lambda: float("inf"))
    assert processor.threads(Patient(ranks=5)).status == "ok"
    crowded = processor.threads(Patient(ranks=6))
    assert (crowded.status, "-n 5" in crowded.mend) == ("warning", True)
    monkeypatch.setattr(processor, "cpu_limit", lambda: 1.5)
    throttled = processor.threads(Patient(ranks=2))
    assert (throttled.status, throttled.mend) == ("warning", "--set compute.server_threads=1")
    assert "4 processors, 1.5 by the control group" in throttled.text


def test_leftovers_are_mine_dead_and_of_mpi(tmp_path):
    shm, proc = tmp_path / "shm", tmp_path / "proc"
    for name in ("mpich_shm_1_0", "mpich_shm_2_0", "sm_segment.node.0.1", "psm2_shm.3", "sem.other", "data"):
        write(shm, {name: "x"})
    used = shm / "mpich_shm_2_0"
    write(proc, {"17/maps": f"7f00-7f01 rw-s 00000000 00:15 9  {used}\n7f02-7f03 r-xp 0 00:00 0\n", "self/maps": ""})
    found = processor.leftovers(shm, proc)
    assert [path.name for path in found] == ["mpich_shm_1_0", "psm2_shm.3", "sm_segment.node.0.1"]
    assert len(list(shm.iterdir())) == 6, "nothing is removed"


def test_files_of_others_are_left_out(tmp_path, monkeypatch):
    write(tmp_path, {"mpich_shm_1_0": "x"})
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert processor.leftovers(tmp_path) == []


def test_shared_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "SHM", tmp_path)
    assert processor.shared_memory(Patient()).status == "ok"
    monkeypatch.setattr(processor, "_LEAST_SHM", 1 << 60)
    small = processor.shared_memory(Patient())
    assert (small.status, "--shm-size" in small.mend) == ("warning", True)
    write(tmp_path, {"mpich_shm_1_0": "x"})
    left = processor.shared_memory(Patient())
    assert (left.status, left.mend) == ("warning", f"while no MPI job of yours runs: rm {tmp_path}/mpich_shm_*")
    monkeypatch.setattr(processor, "SHM", tmp_path / "none")
    assert "does not exist" in processor.shared_memory(Patient()).text


@pytest.mark.parametrize(
    ("limit", "value", "mend"),
    [
        (resource.RLIMIT_FSIZE, 1 << 30, "ulimit -f unlimited"),
        (resource.RLIMIT_NOFILE, 64, "ulimit -n 1024"),
        (resource.RLIMIT_MEMLOCK, 1 << 16, "ulimit -l unlimited"),
        (None, 0, ""),
    ],
)
def test_limits(monkeypatch, limit, value, mend):
    def getrlimit(which):
        return (value, value) if which == limit else (resource.RLIM_INFINITY,) * 2

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    monkeypatch.setattr(processor, "INFINIBAND", processor.Path("/"))
    found = processor.limits(Patient())
    assert found.mend.startswith(mend)
    assert found.status == ("warning" if mend else "ok")


def test_locked_memory_matters_only_with_infiniband(monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 16 if which == resource.RLIMIT_MEMLOCK else -1, -1))
    monkeypatch.setattr(processor, "INFINIBAND", tmp_path / "none")
    assert processor.limits(Patient()).status == "ok"
