"""Kernels in C++ for what torch is slow at: many small convolutions, GroupNorm, weight standardisation."""

from mocosfl_mpi.native.kernels import Kernels, NoKernelsError, load

__all__ = ["Kernels", "NoKernelsError", "load"]
