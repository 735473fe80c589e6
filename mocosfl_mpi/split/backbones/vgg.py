"""VGGs: every convolution and every pooling is an entry (Simonyan & Zisserman 2015; spec: MocoSFL, models/vgg.py)."""

from __future__ import annotations

from torch import nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.networks import VGG
from mocosfl_mpi.split.layers import ConvUnit, convolution


def _channels(model: Model, published: int) -> int:
    return published * model.width // 64


def features(model: Model) -> int:
    """Channels of the last convolution."""
    return _channels(model, 512)


def layers(model: Model, channels: int, _image_size: int) -> list[tuple[str, nn.Module]]:
    """3x3 convolutions with bias, GroupNorm and ReLU; 2x2 max-poolings. No stride, whatever the image size.

    Poolings keep an odd last row or column as a window of its own, so that 28 pixels survive five of them. The
    published code flattens the last map, which works for 32 pixels only; here it is averaged, as everywhere.
    """
    found: list[tuple[str, nn.Module]] = []
    inputs = channels
    for number, entry in enumerate(VGG[model.backbone], start=1):
        if isinstance(entry, str):
            found.append((f"pool{number}", nn.MaxPool2d(2, ceil_mode=True)))
            continue
        outputs = _channels(model, entry)
        conv = convolution(inputs, outputs, 3, standardised=model.weight_standardization, bias=True)
        found.append((f"conv{number}", ConvUnit(conv)))
        inputs = outputs
    return found
