"""ResNets: [stem, block 1, block 2, …] (He et al. 2016; spec: MocoSFL, models/resnet.py)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.config import Model
from mocosfl_mpi.networks import EXPANSION, STAGES
from mocosfl_mpi.split.layers import BasicBlock, Stem, convolution, group_norm


class BottleneckBlock(nn.Module):
    """conv1x1-GN-ReLU-conv3x3-GN-ReLU-conv1x1-GN plus shortcut, ReLU; the stride lies in the 3x3 convolution.

    The shortcut is as in ``BasicBlock``, but its convolution is always weight-standardised, as published.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int, *, residual: bool, standardised: bool
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 1, standardised=standardised)
        self.norm1 = group_norm(width)
        self.conv2 = convolution(width, width, 3, stride, standardised=standardised)
        self.norm2 = group_norm(width)
        self.conv3 = convolution(width, outputs, 1, standardised=standardised)
        self.norm3 = group_norm(outputs)
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if residual and (stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), group_norm(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """``[n, inputs, H, W]`` to ``[n, outputs, H/stride, W/stride]``."""
        out = F.relu(self.norm1(self.conv1(images)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return F.relu(out + self.shortcut(images) if self.residual else out)


def features(model: Model) -> int:
    """Channels of the last stage."""
    stages = len(STAGES[model.backbone])
    return int(model.width * 2 ** (stages - 1) * EXPANSION.get(model.backbone, 1))


def layers(model: Model, channels: int, image_size: int) -> list[tuple[str, nn.Module]]:
    """Stem and blocks; those below the cut lose their shortcut when ``model.client_residual`` is false."""
    found: list[tuple[str, nn.Module]] = [("stem", Stem(channels, model.width, image_size))]
    inputs, expansion = model.width, EXPANSION.get(model.backbone, 1)
    for stage, repeats in enumerate(STAGES[model.backbone]):
        width = model.width * 2**stage
        outputs = width * expansion
        for repeat in range(repeats):
            index = len(found)
            stride = 2 if stage > 0 and repeat == 0 else 1
            residual = model.client_residual or index >= model.cut_layer
            standardised = model.weight_standardization
            block: nn.Module
            if expansion == 1:
                block = BasicBlock(inputs, outputs, stride, residual=residual, standardised=standardised)
            else:
                block = BottleneckBlock(inputs, width, outputs, stride, residual=residual, standardised=standardised)
            found.append((f"block{index}", block))
            inputs = outputs
    return found
