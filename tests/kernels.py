"""The compiled kernels, for tests that are about them."""

import pytest
import torch

from mocosfl_mpi.native import Kernels, NoKernelsError, load


def kernels_or_skip(*dtypes: torch.dtype) -> Kernels:
    """The kernels of this machine, with convolutions in ``dtypes``; the test is skipped where it has none."""
    try:
        kernels = load()
    except NoKernelsError as reason:
        if "do not agree" in str(reason):
            raise
        pytest.skip(f"no compiled kernels here: {reason}")
    for dtype in dtypes:
        if dtype not in kernels.convolves:
            pytest.skip(f"this processor has no instruction for convolutions in {dtype}")
    return kernels
