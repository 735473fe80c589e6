"""On what a rank computes: the processor, or a GPU of its node. In host memory is what MPI moves, and what is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Compute
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.split import compiling
from mocosfl_mpi.split.engine import CPU, Accelerator


def common(compute: Compute, cluster: Cluster) -> Accelerator | None:
    """The GPU of this rank, by its place among the ranks of its node, which may share one; None = the processor.

    Collective. Ranks that computed on different kinds of devices, or compiled where others do not, would make results
    depend on who hosts whom.

    Raises
    ------
    BadInput
        On every rank: a GPU is asked for, and a rank sees none; or compiled passes, and torch cannot compile on a rank.
    """
    found = None if compute.device == "cpu" else _gpu(compute, cluster)
    if compute.compile:
        problem = compiling.problem(found.device if found else CPU)
        everyone = cluster.gather_json([cluster.host_name, problem])
        cluster.root_decides(lambda: _refuse_uncompiled(everyone or []))
    return found


def _gpu(compute: Compute, cluster: Cluster) -> Accelerator:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    everyone = cluster.gather_json([cluster.host_name, count, bool(count) and torch.cuda.is_bf16_supported()])
    found = cluster.root_decides(lambda: _deal(everyone or [], compute))
    places, narrow = cluster.broadcast_json(found)
    device = torch.device(compute.device, places[cluster.rank])
    _prepare(device)
    return Accelerator(device, narrow)


def _refuse_uncompiled(everyone: list[list[str]]) -> None:
    """BadInput if there is a problem; of (host, problem) by rank."""
    for rank, (host, problem) in enumerate(everyone):
        if problem:
            raise BadInput(
                f"compute.compile = true, and torch {torch.__version__} cannot compile on rank {rank} on {host}: "
                f"{problem}; install g++ or name a C++ compiler in CXX, or leave compute.compile out"
            )


def _deal(everyone: list[list[Any]], compute: Compute) -> tuple[list[int], bool]:
    """Which GPU of its node is each rank's, and whether all compute in bfloat16; of (host, GPUs, bfloat16) by rank."""
    blind = [f"rank {rank} on {host}" for rank, (host, count, _) in enumerate(everyone) if not count]
    if blind:
        raise BadInput(
            f"compute.device = {compute.device}, and torch {torch.__version__} sees no GPU on {', '.join(blind[:3])}"
            f"{' and others' if len(blind) > 3 else ''}; install a torch build with CUDA, ask the scheduler for GPUs, "
            f"or leave compute.device out"
        )
    hosts = [host for host, _, _ in everyone]
    places = [hosts[:rank].count(host) % count for rank, (host, count, _) in enumerate(everyone)]
    return places, all(narrow for _, _, narrow in everyone)


def _prepare(device: torch.device) -> None:
    """The same bits every time, as far as the libraries have algorithms for that; they warn where not.

    cuDNN chooses no algorithm by timing, products of float32 are in float32, and cuBLAS has one workspace
    (docs.nvidia.com/cuda/cublas, results reproducibility).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def settle(accelerator: Accelerator | None) -> Callable[[], None]:
    """What waits until all that was begun on the device is done."""
    if accelerator is None or accelerator.device.type != "cuda":
        return lambda: None
    return partial(torch.cuda.synchronize, accelerator.device)
