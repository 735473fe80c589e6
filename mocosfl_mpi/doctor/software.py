"""Compiler and kernels, torch's accelerators, versions of the libraries."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from mocosfl_mpi.doctor.finding import Finding, Patient, failure, ok, warning

TESTED = Path(__file__).parents[2] / "constraints.txt"
"""The tested set of versions; in a checkout of the repository only."""
_NEEDED = ("numpy", "torch", "torchvision", "mpi4py", "h5py", "pydantic", "rich", "safetensors")


def kernels(_: Patient) -> Finding:
    """Are there compiled kernels, or can they be built?"""
    from mocosfl_mpi.native import NoKernelsError, load

    try:
        found = load()
    except NoKernelsError as error:
        return warning(
            f"no compiled kernels ({error}); torch computes instead, more slowly", "install a C++ compiler, or set CXX"
        )
    types = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found.convolves))
    if not types:
        return ok("compiled, but for convolutions this processor lacks AVX-512: torch computes them")
    return ok(f"compiled and compared with torch; convolutions in {types}")


def accelerator(_: Patient) -> Finding:
    """What GPUs does torch see? None is needed."""
    import torch

    if not torch.cuda.is_available():
        return ok("torch sees none; none is used")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ok(f"torch sees {', '.join(names)}; compute.device = cuda computes there")


def versions(_: Patient) -> Finding:
    """Are all libraries there, and of the major versions that were tested?"""
    found, missing = {}, []
    for name in _NEEDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return failure(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    told = ", ".join(f"{name} {version}" for name, version in found.items())
    if not TESTED.is_file():
        return ok(f"{told} (the tested set is not known here)")
    tested = dict(line.split("==") for line in TESTED.read_text().splitlines() if "==" in line and line[0] != "#")
    odd = [
        f"{name} {version} (tested: {tested[name]})"
        for name, version in found.items()
        if name in tested and version.partition(".")[0] != tested[name].partition(".")[0]
    ]
    if odd:
        return warning(
            f"other major versions than the tested ones: {', '.join(odd)}", "pip install -c constraints.txt ."
        )
    return ok(told)
