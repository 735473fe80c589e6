"""The kernels' shared library: compiled once per machine type by the user's own compiler, kept in the user's cache."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cpp")
CACHE = "MOCOSFL_CACHE"
"""Names the cache directory; default `$XDG_CACHE_HOME/mocosfl_mpi` or `~/.cache/mocosfl_mpi`."""
COMPILERS = ("c++", "g++", "clang++")
COMPILE = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp", "-w")
TIMEOUT = 300  # seconds


class NoKernelsError(Exception):
    """There are no compiled kernels here, and why."""


def library() -> ctypes.CDLL:
    """The shared library, compiled at the first use on this type of machine.

    Raises
    ------
    NoKernelsError
        No compiler, an error of the compiler, or a cache that others could write to.
    """
    compiler = _compiler()
    directory = cache_directory()
    path = directory / f"kernels-{_key(compiler)}.so"
    with (directory / "lock").open("w") as lock:  # the ranks of a node start together; one compiles
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compile(compiler, path)
    _refuse_foreign(path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernelsError(f"{path} cannot be loaded: {error}") from None


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else COMPILERS:
        path = shutil.which(name)
        if path:
            return path
    raise NoKernelsError(f"no C++ compiler found ({wanted or ', '.join(COMPILERS)})")


def cache_directory() -> Path:
    """Where compiled kernels and measurements are kept, the user's own; NoKernelsError where there can be none."""
    base = os.environ.get(CACHE)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = Path(base) if base else Path(home) / "mocosfl_mpi"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise NoKernelsError(f"no cache directory ({error}); set {CACHE}") from None
    _refuse_foreign(directory)
    if not os.access(directory, os.W_OK):
        raise NoKernelsError(f"cannot write to the cache {directory}; set {CACHE}")
    return directory


def _refuse_foreign(path: Path) -> None:
    """What is loaded is executed: it must be the user's own, and nobody else's to change."""
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoKernelsError(f"{path} is not yours alone to write; remove it, or set {CACHE}")


def _key(compiler: str) -> str:
    """Source, compiler and instruction set of this machine (a home directory serves many types of machines)."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    openmp = str(_openmp())
    parts = (SOURCE.read_bytes(), version.encode(), processor().encode(), openmp.encode(), " ".join(COMPILE).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def processor() -> str:
    """What tells this machine's instruction set from others."""
    try:
        return next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return os.uname().machine


def _openmp() -> Path | None:
    """The OpenMP runtime that torch has loaded: two in one process would keep two pools of threads."""
    try:
        names = re.findall(r"\S*/lib[gi]omp\S*\.so\S*", Path("/proc/self/maps").read_text())
    except OSError:
        return None
    return Path(names[0]) if names else None


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        unit, built = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
        openmp = _openmp()
        link = [str(openmp)] if openmp and "iomp" not in openmp.name else ["-fopenmp"]
        for command in (
            [compiler, *COMPILE, "-c", str(SOURCE), "-o", str(unit)],
            [compiler, "-shared", str(unit), "-o", str(built), *link],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NoKernelsError(f"the compiler failed: {error}") from None
            if done.returncode:
                first = (done.stderr.strip() or "no message").splitlines()[0]
                raise NoKernelsError(f"{compiler} failed: {first}")
        built.chmod(0o700)
        built.replace(path)
