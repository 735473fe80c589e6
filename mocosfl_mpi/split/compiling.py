"""``compute.compile``: passes as code that torch.compile generates, few large kernels in the place of many small ones.

A pool of clients with one image each leaves a GPU waiting for the next launch; generated code has fewer of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mocosfl_mpi.errors import RunFailed
from mocosfl_mpi.native.compiled import NoKernelsError, cache_directory, processor

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Names torch's cache of generated code; default: a directory for this type of processor in the kernels' cache."""
GRAPHS = 256
"""Most shapes for which one function is compiled; torch has the same bound for functions that share their code."""


def compiled(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """``function`` of tensors on ``device``, compiled at the first call with each combination of shapes.

    Static shapes, since torch cannot compile GroupNorm under ``vmap`` with dynamic ones. A call never falls back to the
    function itself, whose last bits are others: results would depend on which shapes a rank had met before. No CUDA
    graphs: their outputs lie where the next call's will. Nothing is chosen by timing, as in ``devices``; on processors
    maps stay as they are laid out, because oneDNN is not safe with channels last (see ``fused``).

    Raises
    ------
    RunFailed
        From the call: torch cannot compile it.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # a second to import

    settings: dict[str, Any] = {
        "options": {"deterministic": True} | ({"layout_optimization": False} if device.type == "cpu" else {}),
        "recompile_limit": GRAPHS,
        "isolate_recompiles": True,
    }
    generated: Callable[..., Tensor] = torch.compile(function, fullgraph=True, dynamic=False, **settings)

    def call(*arguments: object) -> Tensor:
        try:
            return generated(*arguments)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            raise RunFailed(
                f"torch {torch.__version__} cannot compile this network: {_first_line(error)}; begin again in another "
                f"directory without compute.compile"
            ) from error

    return call


def problem(device: torch.device) -> str:
    """Why nothing can be compiled for ``device`` here, in a line; empty where it can. Settles where code is kept."""
    try:
        if CACHE not in os.environ:
            folder = cache_directory() / f"inductor-{hashlib.sha256(processor().encode()).hexdigest()[:20]}"
            folder.mkdir(mode=0o700, exist_ok=True)
            os.environ[CACHE] = str(folder)
        slope = torch.ones(2, device=device, requires_grad=True)
        compiled(_trial, device)(slope).sum().backward()
    except NoKernelsError as error:
        return str(error)
    except RunFailed as error:
        return _first_line(error.__cause__ or error)
    except Exception as error:  # whatever is wrong with compilers, drivers and an older torch
        return _first_line(error)
    return ""


def _trial(x: Tensor) -> Tensor:
    return torch.relu(2.0 * x + 1.0)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
