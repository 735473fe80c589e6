"""Start a small MPI job exactly as a run is started, and hear what its ranks say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.launch import environment, find_mpiexec

TIMEOUT = 60.0
"""Seconds until a job that says nothing is given up."""


@dataclass(frozen=True)
class Start:
    """What came of a job."""

    reports: list[dict[str, Any]]
    """What the ranks said (``comm/probe.py``), by rank."""
    problem: str = ""
    """Why the job failed; empty where it ended well."""


def start(ranks: int, timeout: float | None = None) -> Start:
    """Start ``ranks`` probes, with mpiexec if there is more than one."""
    command, kind = [sys.executable, "-m", "mocosfl_mpi.comm.probe"], "none"
    if ranks > 1:
        try:
            path, kind = find_mpiexec()
        except BadInput as error:
            return Start([], str(error))
        command = [path, "-n", str(ranks), *command]
    seconds = TIMEOUT if timeout is None else timeout
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(kind, os.environ, ranks=ranks),
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Start([], f"{ranks} ranks did not end within {seconds:g} s")
    reports = _reports(said)
    if process.returncode:
        lines = [line for line in (errors + said).splitlines() if line.strip(" -=|")]
        told = next((line for line in lines if "rror" in line or "not" in line), lines[0] if lines else "no message")
        return Start(reports, f"exit code {process.returncode}: {told.strip()[:200]}")
    return Start(reports)


def _reports(said: str) -> list[dict[str, Any]]:
    found = []
    for line in said.splitlines():
        try:
            report = json.loads(line)
        except ValueError:
            continue  # a greeting of the launcher
        if isinstance(report, dict) and {"rank", "size", "cpus", "library"} <= report.keys():
            found.append(report)
    return sorted(found, key=lambda report: int(report["rank"]))
