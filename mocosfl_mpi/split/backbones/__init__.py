"""Backbones as flat lists of named layers, of which a cut gives the first so many to the client.

One module per family, each with ``layers(model, channels, image_size)`` and ``features(model)``. A new family is one
more module, its row in ``FAMILIES``, its tables in ``networks.py`` and its names in ``config.Backbone``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.networks import BLOCKS, STAGES, VGG
from mocosfl_mpi.split.backbones import mobilenetv2, resnet, vgg, vit


class Family(NamedTuple):
    """How the networks of one family are built."""

    layers: Callable[[Model, int, int], list[tuple[str, nn.Module]]]
    features: Callable[[Model], int]


FAMILIES = {
    **dict.fromkeys(STAGES, Family(resnet.layers, resnet.features)),
    **dict.fromkeys(VGG, Family(vgg.layers, vgg.features)),
    **dict.fromkeys(("mobilenetv2", "mobilenetv2_published"), Family(mobilenetv2.layers, mobilenetv2.features)),
    **dict.fromkeys(BLOCKS, Family(vit.layers, vit.features)),
}
"""The family of each backbone."""


def feature_dim(model: Model) -> int:
    """Channels of the last map: the width of the features that evaluation uses."""
    return FAMILIES[model.backbone].features(model)


def build(model: Model, channels: int, image_size: int) -> list[tuple[str, nn.Module]]:
    """The layers with their names, first to last: as many as ``networks.entries`` says.

    Each takes a map ``[n, C, h, w]`` to another; ``channels`` and ``image_size`` are those of the images.
    """
    return FAMILIES[model.backbone].layers(model, channels, image_size)
