"""The compression pair at the cut: option string ``[K<k>]C<c>[S<s>][noRELU]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.split.layers import PlainConv2d, PlainConvTranspose2d

_GRAMMAR = re.compile(r"(?:K(\d+))?C(\d+)(?:S(\d+))?(no(?:RELU|relu|ReLU))?")


@dataclass(frozen=True)
class Bottleneck:
    """A parsed option: ``channels`` maps at 1/``stride`` of the resolution."""

    channels: int
    stride: int = 1
    kernel: int = 3
    relu: bool = True

    @classmethod
    def parse(cls, option: str) -> Bottleneck:
        """Parse an option string; anything outside the grammar is refused (the published code falls back to C8S1)."""
        match = _GRAMMAR.fullmatch(option)
        remedy = "expected [K<k>]C<channels>[S<stride>][noRELU], for example C4S2 or K1C8"
        if not match:
            raise BadInput(f"model.bottleneck = {option!r} is not understood; {remedy}")
        kernel, channels, stride, no_relu = match.groups()
        parsed = cls(int(channels), int(stride or 1), int(kernel or 3), relu=no_relu is None)
        if parsed.channels < 1 or parsed.stride < 1 or parsed.stride & (parsed.stride - 1):
            raise BadInput(f"model.bottleneck = {option!r}: channels ≥ 1 and a stride that is a power of two; {remedy}")
        if parsed.kernel % 2 == 0:
            raise BadInput(f"model.bottleneck = {option!r}: the kernel must be odd; {remedy}")
        if kernel is not None and parsed.stride > 1:
            raise BadInput(f"model.bottleneck = {option!r}: K applies to stride 1 only (strided stages are 3x3)")
        return parsed

    def _stages(self, convolutions: list[nn.Module]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, nn.ReLU()] if self.relu else [convolution]
        return nn.Sequential(*layers)

    @property
    def _halvings(self) -> int:
        return self.stride.bit_length() - 1

    def encoder(self, inputs: int) -> nn.Sequential:
        """Client side: ``inputs`` to ``channels`` maps, halving the resolution log2(stride) times."""
        if self.stride == 1:
            return self._stages([PlainConv2d(inputs, self.channels, self.kernel, padding=self.kernel // 2)])
        widths = [inputs] + [self.channels] * self._halvings
        return self._stages([PlainConv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)])

    def decoder(self, outputs: int) -> nn.Sequential:
        """Server side mirror: ``channels`` back to ``outputs`` maps at the original resolution."""
        if self.stride == 1:
            return self._stages([PlainConv2d(self.channels, outputs, self.kernel, padding=self.kernel // 2)])
        widths = [self.channels] * self._halvings + [outputs]
        return self._stages(
            [PlainConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1) for a, b in pairwise(widths)]
        )
