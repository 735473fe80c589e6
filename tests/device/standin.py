"""A device for tests where there is no GPU: ``compute.device=cuda`` means it once it is installed.

It computes what torch computes on processors, and refuses what a GPU refuses: operands that lie elsewhere. So it shows
whether everything is where it belongs, and nothing about speed or about the arithmetic of GPUs.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import types
from pathlib import Path

import torch

from mocosfl_mpi import devices
from mocosfl_mpi.native.compiled import COMPILERS, cache_directory
from mocosfl_mpi.split.engine import Accelerator

SOURCE = Path(__file__).with_name("standin.cpp")
NAME = "standin"
MEMORY = 2**30
"""Bytes that it says it has."""


def compiler() -> str | None:
    return next((path for path in map(shutil.which, COMPILERS) if path), None)


def library() -> Path:
    """The compiled stand-in, made at the first use for this torch."""
    folder = Path(torch.__file__).parent
    key = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:20]
    path = cache_directory() / f"standin-{key}.so"
    with path.with_suffix(".lock").open("w") as lock:  # the ranks of a node start together; one compiles
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            made = path.with_suffix(".making")
            flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-w", f"-I{folder}/include"]
            command = [compiler(), *flags, SOURCE, "-o", made, f"-L{folder}/lib", "-ltorch_cpu", "-lc10"]
            subprocess.run(command, check=True)
            made.replace(path)
    return path


def device() -> torch.device:
    """The device, in this process."""
    if not hasattr(torch, NAME):
        torch.ops.load_library(str(library()))
        torch.utils.rename_privateuse1_backend(NAME)
        module = types.ModuleType(f"torch.{NAME}")
        module.is_available = lambda: True
        module.device_count = lambda: 1
        module.current_device = lambda: 0
        module.mem_get_info = lambda device: (MEMORY, MEMORY)
        module._is_in_bad_fork = lambda: False
        module.manual_seed_all = lambda seed: None
        torch._register_device_module(NAME, module)
    return torch.device(NAME, 0)


def install() -> None:
    """From here on the program takes it for its GPU, in this process."""
    found = Accelerator(device(), bfloat16=True)
    devices.common = lambda compute, cluster: found if compute.device == "cuda" else None
