"""MobileNetV2: [stem, stage 1, …, stage 7, last convolution] (Sandler et al. 2018; spec: models/mobilenetv2.py).

``mobilenetv2_published`` is what the published code computes: no ReLU after stem and last convolution, shortcuts of a
plain convolution with BatchNorm where a block of stride 1 changes the width, ``client_residual = false`` meaning all
blocks. ``mobilenetv2`` has the two ReLUs, GroupNorm in those shortcuts, and heeds the cut.
"""

from __future__ import annotations

from torch import Tensor, nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.networks import MOBILENETV2
from mocosfl_mpi.split.layers import BatchNorm, ConvUnit, convolution, group_norm, stem_stride

STEM, LAST = 32, 1280


class InvertedResidual(nn.Module):
    """conv1x1-GN-ReLU, depthwise conv3x3-GN-ReLU, conv1x1-GN; plus shortcut where the stride is 1.

    The shortcut is the identity, or ``shortcut`` where the width changes.
    """

    def __init__(
        self, inputs: int, outputs: int, expansion: int, stride: int, shortcut: nn.Module | None, *, standardised: bool
    ) -> None:
        super().__init__()
        hidden = expansion * inputs
        self.expand = ConvUnit(convolution(inputs, hidden, 1, standardised=standardised))
        self.depthwise = ConvUnit(convolution(hidden, hidden, 3, stride, standardised=standardised, groups=hidden))
        self.project = ConvUnit(convolution(hidden, outputs, 1, standardised=standardised), relu=False)
        self.shortcut = shortcut

    def forward(self, images: Tensor) -> Tensor:
        """``[n, inputs, H, W]`` to ``[n, outputs, H/stride, W/stride]``."""
        out: Tensor = self.project(self.depthwise(self.expand(images)))
        return out if self.shortcut is None else out + self.shortcut(images)


def _channels(model: Model, published: int) -> int:
    return max(4, 4 * round(published * model.width / 256))


def _shortcut(model: Model, inputs: int, outputs: int) -> nn.Module:
    if inputs == outputs:
        return nn.Identity()
    if model.backbone == "mobilenetv2_published":
        return nn.Sequential(convolution(inputs, outputs, 1, standardised=False), BatchNorm(outputs))
    return nn.Sequential(
        convolution(inputs, outputs, 1, standardised=model.weight_standardization), group_norm(outputs)
    )


def features(model: Model) -> int:
    """Channels of the last convolution."""
    return _channels(model, LAST)


def layers(model: Model, channels: int, image_size: int) -> list[tuple[str, nn.Module]]:
    """Stem, stages with all their blocks, last convolution; channels in multiples of 4, so that groups are whole.

    The stem is 3x3, with stride 2 where a ResNet's has it (the published code builds 32 pixels only).
    """
    standardised, published = model.weight_standardization, model.backbone == "mobilenetv2_published"
    inputs = _channels(model, STEM)
    stem = convolution(channels, inputs, 3, stem_stride(image_size), standardised=standardised)
    found: list[tuple[str, nn.Module]] = [("stem", ConvUnit(stem, relu=not published))]
    for expansion, width, repeats, first_stride in MOBILENETV2:
        number, outputs, stage = len(found), _channels(model, width), nn.Sequential()
        residual = model.client_residual or (number >= model.cut_layer and not published)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            shortcut = _shortcut(model, inputs, outputs) if residual and stride == 1 else None
            stage.append(InvertedResidual(inputs, outputs, expansion, stride, shortcut, standardised=standardised))
            inputs = outputs
        found.append((f"stage{number}", stage))
    last = convolution(inputs, _channels(model, LAST), 1, standardised=standardised)
    found.append(("last", ConvUnit(last, relu=not published)))
    return found
