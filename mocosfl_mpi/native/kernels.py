"""The compiled kernels as functions of tensors, checked against torch when they are loaded."""

from __future__ import annotations

import ctypes
from dataclasses import astuple, dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.native.compiled import NoKernelsError, library

__all__ = ["Kernels", "NoKernelsError", "Shape", "load"]

NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}
EPSILON = 1e-5
CHANNELS_LAST = torch.channels_last
_int = ctypes.c_int
_long = ctypes.c_int64


@dataclass(frozen=True)
class Shape:
    """One convolution: sizes of the input and output maps and of the kernel (square)."""

    height: int
    width: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    out_height: int
    out_width: int


def _p(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None else None)


def _apart(lanes: Tensor) -> ctypes.c_int64:
    """Numbers from the beginning of a lane to that of the next, in each of which they lie without gaps."""
    assert lanes[0].is_contiguous()
    return _long(lanes.stride(0))


def images(count: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """An empty ``[count, channels, height, width]`` that lies in memory with the channels last."""
    return torch.empty((count, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)


def lanes_last(tensor: Tensor) -> Tensor:
    """The same values with the channels last in memory, whatever torch says of the strides of length-1 axes."""
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Kernels:
    """Functions over ``[samples, channels, height, width]`` that lie channels-last; samples belong to lanes in order.

    Float32 or bfloat16 images, float32 weights; each function uses torch's current number of threads and gives the
    same bits for any number.
    """

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self._library = compiled
        bits = compiled.capabilities()
        self.convolves = frozenset(dtype for dtype, bit in ((torch.float32, 1), (torch.bfloat16, 2)) if bits & bit)
        """Types whose convolutions this machine can compute here (AVX-512, and its bfloat16 extension)."""
        self.matrix_units = bool(bits & 4)
        """Whether the processor has AMX, with which oneDNN's convolutions are twice as fast as those here."""

    def _call(self, name: str, dtype: torch.dtype, *arguments: object) -> None:
        function = getattr(self._library, f"{name}_{NAMES[dtype]}")
        function.restype = None
        function(*arguments, _int(torch.get_num_threads()))

    def group_norm(
        self, x: Tensor, weight: Tensor, bias: Tensor, groups: int, residual: Tensor | None, *, relu: bool
    ) -> tuple[Tensor, Tensor]:
        """GroupNorm with per-lane affine ``[lanes, C]``, plus ``residual``, then ReLU; and the statistics."""
        n, c, h, w = x.shape
        y = images(n, c, h, w, x.dtype)
        stats = torch.empty(n, groups, 2)
        self._call(
            "group_norm_forward", x.dtype, _p(x), _p(residual), _p(y), _p(weight), _p(bias), _p(stats), _long(n),
            _long(n // len(weight)), _long(h * w), _long(c), _long(groups), _int(relu), ctypes.c_float(EPSILON),
        )  # fmt: skip
        return y, stats

    def group_norm_backward(
        self, dy: Tensor, x: Tensor, y: Tensor | None, stats: Tensor, weight: Tensor, bias: Tensor, *, relu: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Gradients at ``x``, at the residual (None without ``y``), at weight and bias ``[lanes, C]``.

        ``y`` is the output where a residual was added; otherwise the ReLU's mask is computed again from ``x``.
        """
        n, c, h, w = x.shape
        lanes = len(weight)
        dx = images(n, c, h, w, x.dtype)
        dresidual = images(n, c, h, w, x.dtype) if y is not None else None
        dweight, dbias = torch.empty(n, c), torch.empty(n, c)
        self._call(
            "group_norm_backward", x.dtype, _p(dy), _p(x), _p(y), _p(stats), _p(weight), _p(bias), _p(dx),
            _p(dresidual), _p(dweight), _p(dbias), _long(n), _long(n // lanes), _long(h * w), _long(c),
            _long(stats.shape[1]), _int(relu),
        )  # fmt: skip
        return dx, dresidual, dweight.view(lanes, -1, c).sum(1), dbias.view(lanes, -1, c).sum(1)

    def filters(self, weight: Tensor, dtype: torch.dtype, multiple: int, *, standardise: bool) -> tuple[Tensor, Tensor]:
        """Weights ``[lanes, O, I, k, k]`` to filters ``[lanes·O, k·k, I]`` in ``dtype``, and their statistics.

        I is filled up with zeros to a ``multiple``; statistics ``[lanes·O, 3]``. Lanes may lie apart in memory, as
        columns of a flat matrix do.
        """
        lanes, outputs, inputs, side, _ = weight.shape
        rows, taps, padded = lanes * outputs, side * side, -(-inputs // multiple) * multiple
        out = torch.empty((rows, taps, padded), dtype=dtype)
        stats = torch.empty(rows, 3)
        self._call(
            "filters_forward", dtype, _p(weight), _p(out), _p(stats), _long(rows), _long(outputs), _apart(weight),
            _long(inputs), _long(padded), _long(taps), _int(standardise),
        )  # fmt: skip
        return out, stats

    def filters_backward(
        self, gradient: Tensor, weight: Tensor, stats: Tensor, out: Tensor, *, standardise: bool
    ) -> None:
        """Gradient at filters ``[lanes, O, k·k, I]`` (float32, any strides) to that at ``weight``, into ``out``.

        Both ``[lanes, O, I, k, k]``; lanes may lie apart in memory.
        """
        lanes, outputs, taps, _ = gradient.shape
        strides = (_long(stride) for stride in gradient.stride())
        lane, output, tap, inputs = strides
        self._call(
            "filters_backward", torch.float32, _p(gradient), _p(weight), _p(stats), _p(out), _long(lanes * outputs),
            _long(outputs), _apart(weight), _apart(out), _long(weight.shape[2]), _long(taps), lane, output, tap, inputs,
            _int(standardise),
        )  # fmt: skip

    def sgd(
        self,
        weights: Tensor,
        velocity: Tensor,
        gradient: Tensor,
        rates: Tensor,
        answered: Tensor,
        *,
        momentum: float,
        decay: float,
    ) -> None:
        """SGD of float32 ``[lanes, P]`` in one pass, in place: v ← μ·v + (g + λ·w), w ← w - rate·v.

        ``rates [lanes]``; lanes that are not ``answered [lanes]`` (bool) are not touched. Lanes of weights and velocity
        may lie apart in memory.
        """
        assert gradient.is_contiguous()
        lanes, width = gradient.shape
        self._call(
            "sgd", torch.float32, _p(weights), _p(velocity), _p(gradient), _p(rates), _p(answered),
            _long(lanes), _long(width), _apart(weights), _apart(velocity), ctypes.c_float(momentum),
            ctypes.c_float(decay),
        )  # fmt: skip

    def convolve(
        self, x: Tensor, filters: Tensor, bias: Tensor | None, shape: Shape, lanes: int, *, relu: bool = False
    ) -> Tensor:
        """Each lane's images with its own filters ``[lanes·O, k·k, I]``."""
        n = len(x)
        y = images(n, shape.outputs, shape.out_height, shape.out_width, x.dtype)
        self._convolve(x, filters, bias, y, n // lanes, shape, spread=1, turned=False, relu=relu)
        return y

    def convolve_backward(self, dy: Tensor, filters: Tensor, shape: Shape, lanes: int) -> Tensor:
        """Gradient at the input of ``convolve``: a convolution of ``dy``, set apart by the stride, turned filters."""
        n = len(dy)
        dx = images(n, shape.inputs, shape.height, shape.width, dy.dtype)
        turned = Shape(
            shape.out_height, shape.out_width, shape.outputs, shape.inputs, shape.kernel, 1,
            shape.kernel - 1 - shape.padding, shape.height, shape.width,
        )  # fmt: skip
        self._convolve(dy, filters, None, dx, n // lanes, turned, spread=shape.stride, turned=True, relu=False)
        return dx

    def _convolve(
        self,
        x: Tensor,
        filters: Tensor,
        bias: Tensor | None,
        y: Tensor,
        per_lane: int,
        shape: Shape,
        *,
        spread: int,
        turned: bool,
        relu: bool,
    ) -> None:
        sizes = (_long * 9)(*astuple(shape))
        self._call(
            "conv_forward", x.dtype, _p(x), _p(filters), _p(bias), _p(y), _long(len(x)), _long(per_lane), sizes,
            _long(spread), _int(turned), _int(relu),
        )  # fmt: skip

    def filter_gradient(self, x: Tensor, dy: Tensor, shape: Shape, lanes: int, *, split: bool = False) -> Tensor:
        """Gradient at the filters, ``[lanes, O, k·k, I]`` in float32.

        Summed over each lane's samples in order; ``split``: a single lane's in parts, one thread each, whose number
        depends on nothing but its samples.
        """
        if split:
            parts = next(count for count in range(min(16, len(x)), 0, -1) if len(x) % count == 0)
            return self._filter_gradient(x, dy, shape, parts).sum(0, keepdim=True)
        return self._filter_gradient(x, dy, shape, lanes)

    def _filter_gradient(self, x: Tensor, dy: Tensor, shape: Shape, lanes: int) -> Tensor:
        taps = shape.kernel**2
        out = torch.empty(lanes, taps, shape.inputs, -(-shape.outputs // 16) * 16)
        self._call(
            "conv_weight_gradient", x.dtype, _p(x), _p(dy), _p(out), _long(lanes), _long(len(x) // lanes),
            (_long * 9)(*astuple(shape)),
        )  # fmt: skip
        return out[..., : shape.outputs].permute(0, 3, 1, 2)


@cache
def load() -> Kernels:
    """The kernels of this machine, compiled if need be, after a comparison with torch.

    Raises
    ------
    NoKernelsError
        They cannot be built here, or do not agree with torch.
    """
    kernels = Kernels(library())
    for dtype in NAMES:
        _verify(kernels, dtype)
    _verify_sgd(kernels)
    return kernels


def _verify_sgd(kernels: Kernels) -> None:
    """A step of two lanes in float64; the third has no answer."""
    generator = torch.Generator().manual_seed(0)
    weights, velocity, gradient = torch.randn(3, 3, 37, generator=generator)
    rates, answered = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([True, True, False])
    moved = 0.9 * velocity.double() + (gradient.double() + 0.05 * weights.double())
    after = weights.double() - rates.double()[:, None] * moved
    wanted = torch.where(answered[:, None], torch.stack([after, moved]), torch.stack([weights, velocity]).double())
    kernels.sgd(weights, velocity, gradient, rates, answered, momentum=0.9, decay=0.05)
    _agree(torch.stack([weights, velocity]), wanted, torch.float32)


def _agree(got: Tensor, right: Tensor, dtype: torch.dtype) -> None:
    """NoKernelsError if ``got`` is farther from ``right`` than rounding in ``dtype`` can bring it."""
    tolerance = 1e-4 if dtype is torch.float32 else 0.06
    distance = float((got.double() - right.detach()).norm() / right.detach().norm())
    if not distance < tolerance:
        raise NoKernelsError(f"the compiled kernels do not agree with torch in {dtype} (relative error {distance:.1e})")


def _verify(kernels: Kernels, dtype: torch.dtype) -> None:
    """Convolution, GroupNorm, standardised filters and all their gradients against float64 autograd."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    lanes, per_lane, inputs, outputs, side = 2, 2, 4, 12, 7
    x = lanes_last(noise(lanes * per_lane, inputs, side, side).to(dtype))
    weight, affine, shift = noise(lanes, outputs, inputs, 3, 3), noise(lanes, outputs), noise(lanes, outputs)
    filters, stats = kernels.filters(weight, dtype, 2, standardise=True)
    residual = lanes_last(noise(lanes * per_lane, outputs, 4, 4).to(dtype))
    dy = lanes_last(noise(lanes * per_lane, outputs, 4, 4).to(dtype))

    exact = [t.double().requires_grad_() for t in (x, weight, affine, shift, residual)]
    rows = exact[1].flatten(2)
    hats = ((rows - rows.mean(2, keepdim=True)) / (rows.std(2, keepdim=True) + 1e-5)).view_as(weight)
    maps = torch.cat(
        [F.conv2d(part, hats[lane], stride=2, padding=1) for lane, part in enumerate(exact[0].split(per_lane))]
    )
    wanted = torch.cat(
        [
            F.group_norm(part, outputs // 4, exact[2][lane], exact[3][lane], EPSILON)
            for lane, part in enumerate(maps.split(per_lane))
        ]
    )
    wanted = F.relu(wanted + exact[4])
    gradients = torch.autograd.grad(wanted, exact, dy.double())

    results: list[tuple[Tensor, Tensor]] = []
    shape = Shape(side, side, inputs, outputs, 3, 2, 1, 4, 4)
    if dtype in kernels.convolves:
        z = kernels.convolve(x, filters, None, shape, lanes)
        results.append((z, maps))
    else:
        z = lanes_last(maps.detach().to(dtype))
    y, statistics = kernels.group_norm(z, affine, shift, outputs // 4, residual, relu=True)
    dz, dresidual, daffine, dshift = kernels.group_norm_backward(dy, z, y, statistics, affine, shift, relu=True)
    assert dresidual is not None
    results += [(y, wanted), (daffine, gradients[2]), (dshift, gradients[3]), (dresidual, gradients[4])]
    if dtype in kernels.convolves:
        dweight = torch.empty_like(weight)
        kernels.filters_backward(kernels.filter_gradient(x, dz, shape, lanes), weight, stats, dweight, standardise=True)
        results += [(kernels.convolve_backward(dz, filters, shape, lanes), gradients[0]), (dweight, gradients[1])]
    for got, right in results:
        _agree(got, right, dtype)
