"""The backend ``fused``: a network's lanes through compiled kernels, channels last, in bfloat16 or float32.

A network is taken apart into units of one shape: convolution, GroupNorm, addition of a residual, ReLU. Forward and
backward passes are written out, so nothing is recorded but what the gradient needs, weights are standardised once
per preparation however many micro-batches follow, and no intermediate is visited twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mocosfl_mpi.native.kernels import Kernels, Shape, lanes_last
from mocosfl_mpi.split.backbones.resnet import BottleneckBlock
from mocosfl_mpi.split.layers import BasicBlock, Stem, WSConv2d

Span = tuple[int, int]
LARGE_MAP, SMALL_MAP = 32, 4
"""Widths of maps from which the kernels, and up to which matrix products, are the server's faster way."""
Pullback = Callable[[Tensor, bool], Tensor | None]


@dataclass(frozen=True)
class Unit:
    """Convolution, then GroupNorm (``groups`` > 0) with an optional residual, then ReLU."""

    weight: Span
    bias: Span | None
    norm: tuple[Span, Span] | None
    shape: tuple[int, ...]
    stride: int
    padding: int
    output_padding: int | None
    """Of a transposed convolution; None otherwise."""
    standardised: bool
    groups: int
    relu: bool


@dataclass(frozen=True)
class Residual:
    """A residual block: its units in order, and that of its shortcut; ``identity`` where the input itself is added.

    The sum is taken in the last unit.
    """

    path: tuple[Unit, ...]
    shortcut: Unit | None
    identity: bool


def take_apart(module: nn.Module) -> list[Unit | Residual] | None:
    """The network as units, in order; None if it holds anything else."""
    spans: dict[int, Span] = {}
    start = 0
    for parameter in module.parameters():
        spans[id(parameter)] = (start, start + parameter.numel())
        start += parameter.numel()

    def unit(conv: nn.Module, norm: nn.Module | None, *, relu: bool) -> Unit:
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        return Unit(
            weight=spans[id(conv.weight)],
            bias=spans[id(conv.bias)] if conv.bias is not None else None,
            norm=(spans[id(norm.weight)], spans[id(norm.bias)]) if isinstance(norm, nn.GroupNorm) else None,
            shape=tuple(conv.weight.shape),
            stride=conv.stride[0],
            padding=int(conv.padding[0]),
            output_padding=conv.output_padding[0] if isinstance(conv, nn.ConvTranspose2d) else None,
            standardised=isinstance(conv, WSConv2d),
            groups=norm.num_groups if isinstance(norm, nn.GroupNorm) else 0,
            relu=relu,
        )

    units: list[Unit | Residual] = []
    for layer in module.children():
        if isinstance(layer, Stem):
            units.append(unit(layer.conv, layer.norm, relu=True))
        elif isinstance(layer, BasicBlock | BottleneckBlock):
            mapped = isinstance(layer.shortcut, nn.Sequential)
            path = [(layer.conv1, layer.norm1), (layer.conv2, layer.norm2)]
            if isinstance(layer, BottleneckBlock):
                path.append((layer.conv3, layer.norm3))
            units.append(
                Residual(
                    tuple(unit(conv, norm, relu=True) for conv, norm in path),
                    unit(layer.shortcut[0], layer.shortcut[1], relu=False) if mapped else None,  # type: ignore[index]
                    identity=layer.residual and not mapped,
                )
            )
        elif isinstance(layer, nn.Sequential):  # a bottleneck: convolutions, each perhaps with a ReLU
            parts = list(layer)
            if not all(isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.ReLU) for part in parts):
                return None
            for part, follower in zip(parts, [*parts[1:], None], strict=True):
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                    units.append(unit(part, None, relu=isinstance(follower, nn.ReLU)))
        else:
            return None
    return units


class FusedNetwork:
    """A network of units as a function of flat weights ``[lanes, P]``.

    ``library``: one lane with many images, whose convolutions oneDNN computes at its best; otherwise many lanes with
    few images each, computed by the kernels.
    """

    def __init__(self, module: nn.Module, kernels: Kernels, dtype: torch.dtype, *, library: bool) -> None:
        units = take_apart(module)
        if units is None:
            raise ValueError("a layer that the fused backend does not know")
        self.units = units
        self.flat = [part for unit in units for part in _parts(unit)]
        self.kernels = kernels
        self.dtype = dtype
        self.library = library

    @staticmethod
    def supports(module: nn.Module, kernels: Kernels, dtype: torch.dtype, *, library: bool) -> bool:
        """Whether ``module`` can be computed so in ``dtype`` on this machine."""
        units = take_apart(module)
        if units is None or dtype not in (torch.float32, torch.bfloat16):
            return False
        flat = [part for unit in units for part in _parts(unit)]
        if any(unit.norm and (unit.shape[0] % 4 or unit.groups == 0) for unit in flat):
            return False
        if library:
            return True
        even = all(unit.shape[1] % 2 == 0 or index == 0 for index, unit in enumerate(flat))
        even &= all(unit.shape[0] % 2 == 0 for unit in flat)  # gradients pass turned filters, two outputs a unit
        return dtype in kernels.convolves and even and all(unit.output_padding is None for unit in flat)

    def prepare(self, flat: Tensor) -> Prepared:
        """Filters of all lanes for weights ``[lanes, P]``, ready for any number of passes."""
        return Prepared(self, flat)


def _parts(unit: Unit | Residual) -> list[Unit]:
    if isinstance(unit, Unit):
        return [unit]
    return [*unit.path, *([unit.shortcut] if unit.shortcut else [])]


def _patches(x: Tensor, shape: Shape) -> Tensor:
    """What each pixel of the output sees: ``[n·h·w, k·k·I]``."""
    k, s, p = shape.kernel, shape.stride, shape.padding
    framed = torch.nn.functional.pad(x.permute(0, 2, 3, 1), (0, 0, p, p, p, p))
    n, row, pixel, channel = framed.stride()
    seen = (len(x), shape.out_height, shape.out_width, k, k, shape.inputs)
    return framed.as_strided(seen, (n, s * row, s * pixel, row, pixel, channel)).reshape(-1, k * k * shape.inputs)


@dataclass
class _Saved:
    """What a unit's gradient needs of its forward pass."""

    x: Tensor
    shape: Shape
    z: Tensor | None = None
    stats: Tensor | None = None
    y: Tensor | None = None


class Prepared:
    """A network with weights: passes over images, and the gradient that their pullbacks have accumulated."""

    def __init__(self, network: FusedNetwork, flat: Tensor) -> None:
        self._network = network
        self._flat = flat.detach()
        self._lanes = len(flat)
        self._kernels = network.kernels
        self._filters: dict[Span, tuple[Tensor, Tensor]] = {}
        self._affine: dict[Span, Tensor] = {}
        self._gradients: dict[Span, Tensor] = {}
        for index, unit in enumerate(network.flat):
            weight = self._of(unit, self._flat)
            if unit.output_padding is None:
                multiple = 4 if index == 0 and not network.library else 1  # images have 1 or 3 channels, maps even ones
                self._filters[unit.weight] = self._kernels.filters(
                    weight, network.dtype, multiple, standardise=unit.standardised
                )
            else:
                self._filters[unit.weight] = weight[0].to(network.dtype), weight  # the server's alone: one lane
            for span in (*(unit.norm or ()), *([unit.bias] if unit.bias else [])):
                self._affine[span] = self._flat[:, slice(*span)].contiguous()

    def _of(self, unit: Unit, flat: Tensor) -> Tensor:
        """The unit's part ``[lanes, O, I, k, k]`` of ``flat [lanes, P]``, in place."""
        return flat[:, slice(*unit.weight)].view(self._lanes, *unit.shape)

    # --------------------------------------------------------------------------------------------- forward

    def forward(self, images: Tensor) -> Tensor:
        """``[lanes·n, C, H, W]`` to the network's output, in the network's type, channels last."""
        return self._forward(images, None)

    def forward_with_pullback(self, images: Tensor) -> tuple[Tensor, Pullback]:
        """The output, and the function from its gradient to that at the images (where asked for).

        A pullback adds to this object's gradient; it may be called once.
        """
        saved: list[list[_Saved]] = []
        return self._forward(images, saved), lambda gradient, wants_input: self._backward(gradient, saved, wants_input)

    def _forward(self, images: Tensor, saved: list[list[_Saved]] | None) -> Tensor:
        y = self._enter(images)
        for unit in self._network.units:
            step: list[_Saved] = []
            if isinstance(unit, Unit):
                y = self._unit(unit, y, None, step)
            else:
                hidden = y
                for part in unit.path[:-1]:
                    hidden = self._unit(part, hidden, None, step)
                residual = y if unit.identity else None
                if unit.shortcut:
                    residual = self._unit(unit.shortcut, y, None, step)
                y = self._unit(unit.path[-1], hidden, residual, step)
            if saved is not None:
                saved.append(step)
        return y

    def _enter(self, images: Tensor) -> Tensor:
        """Channels last, in the network's type, channels filled up to those of the first filters."""
        y = images.to(self._network.dtype)
        first = next((unit for unit in self._network.units if isinstance(unit, Unit)), None)
        if first is not None and not self._network.library:
            missing = self._filters[first.weight][0].shape[2] - y.shape[1]
            if missing:
                y = torch.cat([y, y.new_zeros(len(y), missing, *y.shape[2:])], dim=1)
        return lanes_last(y)

    def _unit(self, unit: Unit, x: Tensor, residual: Tensor | None, saved: list[_Saved]) -> Tensor:
        shape = self._shape(unit, x)
        z = self._convolve(unit, x, shape)
        record = _Saved(x, shape)
        if unit.norm is not None:
            weight, bias = (self._affine[span] for span in unit.norm)
            y, record.stats = self._kernels.group_norm(z, weight, bias, unit.groups, residual, relu=unit.relu)
            record.z = z
            record.y = y if residual is not None else None
        else:
            y = z.relu_() if unit.relu else z
            record.y = y
        saved.append(record)
        return y

    def _shape(self, unit: Unit, x: Tensor) -> Shape:
        height, width = x.shape[2:]
        kernel = unit.shape[2]

        def after(size: int) -> int:
            if unit.output_padding is not None:
                return (size - 1) * unit.stride - 2 * unit.padding + kernel + unit.output_padding
            return (size + 2 * unit.padding - kernel) // unit.stride + 1

        outputs = unit.shape[0] if unit.output_padding is None else unit.shape[1]
        return Shape(height, width, x.shape[1], outputs, kernel, unit.stride, unit.padding, after(height), after(width))

    def _by_product(self, unit: Unit, shape: Shape) -> bool:
        """Whether the server convolves by a product with patches: on maps of a few pixels, in bfloat16.

        There oneDNN's products run at 1.3 times the rate of its convolutions. (In float32 the products are MKL's, which
        on some processors reach half of it.)
        """
        small = max(shape.out_width, shape.out_height) <= SMALL_MAP
        return small and unit.output_padding is None and self._network.dtype is torch.bfloat16

    def _own_gradient(self, unit: Unit, shape: Shape) -> bool:
        """Whether the kernels give the server's filter gradient: on large maps they are faster than oneDNN.

        Not where the processor has matrix units, which the kernels do not use.
        """
        kernels, dtype = self._kernels, self._network.dtype
        return (
            unit.output_padding is None
            and unit.shape[1] % 2 == 0
            and shape.out_width * unit.stride >= LARGE_MAP
            and dtype is torch.bfloat16
            and dtype in kernels.convolves
            and not kernels.matrix_units
        )

    def _library_filters(self, unit: Unit) -> Tensor:
        filters = self._filters[unit.weight][0]
        if unit.output_padding is not None:
            return filters
        kernel = unit.shape[2]
        return filters.view(len(filters), kernel, kernel, -1).permute(0, 3, 1, 2)

    def _convolve(self, unit: Unit, x: Tensor, shape: Shape) -> Tensor:
        bias = self._affine[unit.bias] if unit.bias else None
        if not self._network.library:
            return self._kernels.convolve(x, self._filters[unit.weight][0], bias, shape, self._lanes)
        if self._by_product(unit, shape) and bias is None:
            rows = _patches(x, shape) @ self._filters[unit.weight][0].flatten(1).t()
            return rows.view(len(x), shape.out_height, shape.out_width, shape.outputs).permute(0, 3, 1, 2)
        transposed = unit.output_padding is not None
        y = torch.convolution(
            x,
            self._library_filters(unit),
            bias.flatten().to(x.dtype) if bias is not None else None,
            [unit.stride] * 2,
            [unit.padding] * 2,
            [1, 1],
            transposed,
            [unit.output_padding or 0] * 2,
            1,
        )
        return lanes_last(y)

    # -------------------------------------------------------------------------------------------- backward

    def _backward(self, gradient: Tensor, saved: list[list[_Saved]], wants_input: bool) -> Tensor | None:
        dy: Tensor | None = lanes_last(gradient.to(self._network.dtype))
        for number in range(len(self._network.units) - 1, -1, -1):
            unit, step = self._network.units[number], saved.pop()
            wanted = wants_input or number > 0
            assert dy is not None
            if isinstance(unit, Unit):
                dy, _ = self._unit_backward(unit, step[0], dy, wanted)
                continue
            dy, dresidual = self._unit_backward(unit.path[-1], step[-1], dy, True)
            for place in range(len(unit.path) - 2, -1, -1):
                assert dy is not None
                dy, _ = self._unit_backward(unit.path[place], step[place], dy, wanted or place > 0)
            if unit.shortcut:
                assert dresidual is not None
                dresidual, _ = self._unit_backward(unit.shortcut, step[-2], dresidual, wanted)
            if wanted and dresidual is not None:
                assert dy is not None
                dy.add_(dresidual)
        return dy if wants_input else None

    def _unit_backward(
        self, unit: Unit, saved: _Saved, dy: Tensor, wants_input: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients at the unit's input and at its residual."""
        dresidual = None
        if unit.norm is not None:
            weight, bias = (self._affine[span] for span in unit.norm)
            assert saved.z is not None
            assert saved.stats is not None
            dz, dresidual, dweight, dbias = self._kernels.group_norm_backward(
                dy, saved.z, saved.y, saved.stats, weight, bias, relu=unit.relu
            )
            self._add(unit.norm[0], dweight)
            self._add(unit.norm[1], dbias)
        else:
            assert saved.y is not None
            dz = dy * (saved.y > 0) if unit.relu else dy
        if unit.bias is not None:
            sums = dz.float().sum(dim=(2, 3))
            self._add(unit.bias, sums.view(self._lanes, -1, sums.shape[1]).sum(1))
        if self._network.library:
            return self._library_backward(unit, saved.x, saved.shape, dz, wants_input), dresidual
        self._add(unit.weight, self._kernels.filter_gradient(saved.x, dz, saved.shape, self._lanes))
        if not wants_input:
            return None, dresidual
        filters = self._filters[unit.weight][0]
        return self._kernels.convolve_backward(dz, filters, saved.shape, self._lanes), dresidual

    def _library_backward(self, unit: Unit, x: Tensor, shape: Shape, dz: Tensor, wants_input: bool) -> Tensor | None:
        transposed = unit.output_padding is not None
        # oneDNN's filter gradient of 1x1 convolutions, channels last, writes past its memory for some small odd batches
        # with two threads or more (seen in torch 2.13: 3 images, 8 to 16 channels, stride 2).
        point = unit.shape[2] == 1 and not transposed
        by_product, own = point or self._by_product(unit, shape), self._own_gradient(unit, shape)
        dx = None
        if by_product:
            rows = dz.permute(0, 2, 3, 1).reshape(-1, shape.outputs)
            gradient = rows.t() @ _patches(x, shape)
            self._add(unit.weight, gradient.float().view(1, shape.outputs, -1, shape.inputs))
        elif own:
            self._add(unit.weight, self._kernels.filter_gradient(x, dz, shape, 1, split=True))
        if wants_input or not (by_product or own):
            dx, dfilters, _ = torch.ops.aten.convolution_backward(
                dz,
                x,
                self._library_filters(unit),
                None,
                [unit.stride] * 2,
                [unit.padding] * 2,
                [1, 1],
                transposed,
                [unit.output_padding or 0] * 2,
                1,
                [wants_input, not (by_product or own), False],
            )
            if not (by_product or own):
                dfilters = dfilters.float()
                if not transposed:
                    dfilters = dfilters.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
                self._add(unit.weight, dfilters[None])
        return lanes_last(dx) if wants_input and dx is not None else None

    def _add(self, span: Span, gradient: Tensor) -> None:
        if span in self._gradients:
            self._gradients[span].add_(gradient)
        else:
            self._gradients[span] = gradient

    def gradient(self) -> Tensor:
        """Gradient at the flat weights ``[lanes, P]``, float32; taken once."""
        flat = torch.empty_like(self._flat)
        for unit in self._network.flat:
            for span in (*(unit.norm or ()), *([unit.bias] if unit.bias else [])):
                flat[:, slice(*span)] = self._gradients.pop(span)
            gradient = self._gradients.pop(unit.weight)
            part = self._of(unit, flat)
            if unit.output_padding is not None:
                part.copy_(gradient.view_as(part))
                continue
            self._kernels.filters_backward(
                gradient, self._of(unit, self._flat), self._filters[unit.weight][1], part, standardise=unit.standardised
            )
        return flat
