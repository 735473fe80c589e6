"""Small runs to be attacked, each done once."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.presets import load
from mocosfl_mpi.simulation import Conduct, Simulation

QUICK = ("evaluation.every=0", "evaluation.linear_probe=false", "compute.precision=fp32", "compute.backend=stacked")


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="victims-")


@functools.cache
def run(*settings: str) -> Path:
    """The directory of a finished run of the preset smoke with ``settings``."""
    _, values = load("smoke")
    out = Path(_directory().name) / str(run.cache_info().misses)
    config = parse(apply_settings(values, [*QUICK, *settings]), "test")
    Simulation.begin(config, Conduct("smoke", out, quiet=True)).run()
    return out


@functools.cache
def victim(*settings: str, trained: bool = True) -> Victim:
    """A run with ``settings`` under attack."""
    return Victim(run(*settings), None, trained=trained, pieces=True)
