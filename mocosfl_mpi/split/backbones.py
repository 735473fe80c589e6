"""Backbones as flat lists of named layers: [stem, block 1, block 2, …] (spec: MocoSFL, models/resnet.py)."""

from __future__ import annotations

from torch import nn

from mocosfl_mpi.config import STAGES, Model
from mocosfl_mpi.split.layers import BasicBlock, Stem


def feature_dim(model: Model) -> int:
    """Channels of the last stage: the width of the features that evaluation uses."""
    return int(model.width * 2 ** (len(STAGES[model.backbone]) - 1))


def entries(model: Model) -> int:
    """Layers of the backbone as cuts count them: the stem and every block."""
    return 1 + sum(STAGES[model.backbone])


def build(model: Model, channels: int, image_size: int) -> list[tuple[str, nn.Module]]:
    """The layers of the backbone with their names, first to last.

    Blocks below the cut lose their shortcut when ``model.client_residual`` is false.
    """
    layers: list[tuple[str, nn.Module]] = [("stem", Stem(channels, model.width, image_size))]
    inputs = model.width
    for stage, repeats in enumerate(STAGES[model.backbone]):
        outputs = model.width * 2**stage
        for repeat in range(repeats):
            index = len(layers)
            block = BasicBlock(
                inputs,
                outputs,
                stride=2 if stage > 0 and repeat == 0 else 1,
                residual=model.client_residual or index >= model.cut_layer,
                standardised=model.weight_standardization,
            )
            layers.append((f"block{index}", block))
            inputs = outputs
    return layers
