"""What this machine is and what it can do at most: the measure of every other figure."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch


def description() -> dict[str, object]:
    """Processor, cores, memory and library versions."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    found = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags.split()]
    return {
        "processor": names[0] if names else platform.processor(),
        "instructions": found,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_initialized() else {}),
    }


def settle() -> None:
    """Wait until a GPU, if one is at work, has done all that was begun."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def best(work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest repeat, after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        settle()
        start = time.perf_counter()
        work()
        settle()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def limits(device: str = "cpu") -> dict[str, float]:
    """Rates of matrix product, convolution (forward) and copy, with the present number of threads."""
    rates: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        square = torch.randn(2048, 2048).to(device, dtype)
        rates[f"gemm_{name}_gflops"] = 2 * 2048**3 / best(lambda m=square: m @ m) / 1e9
        images = torch.randn(64, 64, 32, 32).to(device, dtype).contiguous(memory_format=torch.channels_last)
        filters = torch.randn(64, 64, 3, 3).to(device, dtype).contiguous(memory_format=torch.channels_last)
        work = 2 * 64 * 1024 * 64 * 64 * 9
        rates[f"convolution_{name}_gflops"] = (
            work / best(lambda x=images, w=filters: torch.conv2d(x, w, padding=1)) / 1e9
        )
    source = torch.empty(2**26, device=device).normal_()
    target = torch.empty_like(source)
    rates["copy_gbytes_per_s"] = 2 * source.nbytes / best(lambda: target.copy_(source)) / 1e9
    return rates


Layer = tuple[int, int, int, int, int]


def convolution_seconds(layers: list[Layer], rows: int, dtype: torch.dtype, device: str = "cpu") -> dict[str, float]:
    """Seconds that oneDNN (or cuDNN) needs for the bare convolutions of ``layers`` on ``rows`` images, both ways.

    A layer is (inputs, outputs, kernel, stride, side of its input map). The sums over all layers are what a pass
    would take if everything else were free.
    """
    forward = backward = flops = 0.0
    for inputs, outputs, kernel, stride, side in layers:
        x = torch.randn(rows, inputs, side, side).to(device, dtype).contiguous(memory_format=torch.channels_last)
        w = torch.randn(outputs, inputs, kernel, kernel).to(device, dtype).contiguous(memory_format=torch.channels_last)
        y = torch.conv2d(x, w, None, stride, kernel // 2)
        forward += best(lambda x=x, w=w, s=stride, k=kernel: torch.conv2d(x, w, None, s, k // 2), 3)
        backward += best(
            lambda x=x, w=w, y=y, s=stride, k=kernel: torch.ops.aten.convolution_backward(
                y, x, w, None, [s, s], [k // 2] * 2, [1, 1], False, [0, 0], 1, [True, True, False]
            ),
            3,
        )
        flops += 2.0 * y.numel() * inputs * kernel**2
    return {"forward": forward, "backward": backward, "forward_gflop": flops / 1e9}
