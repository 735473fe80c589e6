"""The networks by name, as tables of what a cut counts. Configurations are checked by them, hence no torch here."""

from __future__ import annotations

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""ResNets: residual blocks per stage."""
EXPANSION = {"resnet50": 4}
"""ResNets of bottleneck blocks: outputs of a block per channel of its stage."""
VGG = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg13": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}
"""VGGs: channels of each convolution at width 64; M is a pooling."""
MOBILENETV2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2: expansion, channels at width 64, blocks and stride of each stage."""
BLOCKS = {"vit": 12}
"""Vision transformers: blocks."""
LAST_BATCH_NORM = {"mobilenetv2_published": 8}
"""The last entry that holds a BatchNorm (in a shortcut), of networks that have one; all others normalise by groups."""
NO_SHORTCUTS = tuple(VGG)
"""Networks without residual blocks."""


def entries(backbone: str) -> int:
    """How many entries a cut may count, of the flat list that `split.backbones` builds."""
    if backbone in STAGES:
        return 1 + sum(STAGES[backbone])
    if backbone in VGG:
        return len(VGG[backbone])
    if backbone in BLOCKS:
        return 1 + BLOCKS[backbone] + 1
    return 1 + len(MOBILENETV2) + 1
