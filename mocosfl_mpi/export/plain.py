"""Weights under the names of torchvision's ResNets, or of a plain ``nn.Sequential``, and the lines that load them.

Weight-standardised filters are stored as they convolve, standardised: then a plain convolution computes the same. A
ResNet is torchvision's with GroupNorm, its stem as small images want it, and no max-pool; a compression pair at the cut
stands in the max-pool's place, before a block or before the average. VGGs are a list of torch's own layers. MobileNetV2
and the transformer differ from torchvision's beyond their norms, and are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.export.encoder import Released
from mocosfl_mpi.networks import EXPANSION, STAGES, VGG
from mocosfl_mpi.split.backbones import feature_dim
from mocosfl_mpi.split.backbones.resnet import BottleneckBlock
from mocosfl_mpi.split.layers import BasicBlock, ConvUnit, Stem, WSConv2d

WEIGHTS, EXAMPLE = "encoder.safetensors", "load_encoder.py"
METADATA = "mocosfl_encoder"
RESIZE = "resize"
"""Beside the weights, where images are resized: the matrix that does so."""
WIDTH = 64
"""Of torchvision's ResNets."""

Named = Iterator[tuple[str, Tensor]]


def write(encoder: Released, folder: Path) -> None:
    """Write weights and the lines that load them. BadInput for a network that plain code cannot build."""
    refuse(encoder)
    weights = {name: tensor.contiguous().clone() for name, tensor in state(encoder)}
    resize = encoder.resize
    if resize is not None:
        weights[RESIZE] = resize.contiguous()
    facts = {
        **encoder.facts,
        "backbone": encoder.config.model.backbone,
        "width": encoder.config.model.width,
        "features": feature_dim(encoder.config.model),
        "input": [encoder.scale.channels, encoder.scale.side, encoder.scale.side],
        "resized_to": encoder.size,
        "mean": encoder.scale.mean,
        "std": encoder.scale.std,
        "filters": "as they convolve: standardised where the run's layers standardise them",
    }
    save_file(weights, folder / WEIGHTS, {"format": "pt", METADATA: json.dumps(facts)})
    (folder / EXAMPLE).write_text(example(encoder), encoding="utf-8")


def refuse(encoder: Released) -> None:
    """Refuse a network that plain code cannot build (BadInput)."""
    model = encoder.config.model
    if model.backbone not in STAGES and model.backbone not in VGG:
        raise BadInput(
            f"--to torch: torchvision's networks of the family of {model.backbone} differ from it in more than norms, "
            f"so its weights load there in no sense; resnet18, resnet34, resnet50, vgg11, vgg13 and vgg16 do. In "
            f"Python, mocosfl_mpi.export.encoder.released(RUN) has its layers as torch modules"
        )
    if not all(block.residual for _, block in encoder.layers if isinstance(block, BasicBlock | BottleneckBlock)):
        raise BadInput(
            "--to torch: with model.client_residual = false the client's blocks have no shortcut, and torchvision's "
            "always have one. In Python, mocosfl_mpi.export.encoder.released(RUN) has the layers as torch modules"
        )


def state(encoder: Released) -> Named:
    """All weights under the names that ``example`` gives its layers."""
    if encoder.config.model.backbone in VGG:
        for number, layer in enumerate(_plain_layers(encoder)):
            yield from _prefixed(f"{number}.", _own(layer))
        return
    places = _places(encoder)
    for place, (_, layer) in enumerate(encoder.layers):
        if isinstance(layer, Stem):
            yield from _prefixed("conv1.", _own(layer.conv))
            yield from _prefixed("bn1.", _own(layer.norm))
        else:
            yield from _prefixed(places[place], _resnet(layer))


def _resnet(layer: nn.Module) -> Named:
    """A block's weights as torchvision names them; those of a compression pair by their number."""
    for name, part in layer.named_modules():
        if any(True for _ in part.children()) or not any(True for _ in part.parameters(recurse=False)):
            continue
        yield from _prefixed(name.replace("norm", "bn").replace("shortcut", "downsample") + ".", _own(part))


def _places(encoder: Released) -> dict[int, str]:
    """By place among the layers, the prefix of its names in torchvision's ResNet."""
    found: dict[int, str] = {}
    pair: list[int] = []
    stage, repeat = 0, 0
    stages = STAGES[encoder.config.model.backbone]
    for place, (_, layer) in enumerate(encoder.layers):
        if isinstance(layer, Stem):
            continue
        if not isinstance(layer, BasicBlock | BottleneckBlock):
            pair.append(place)
            continue
        inside, between = f"layer{stage + 1}.{repeat}.", bool(pair) and pair[-1] == place - 1 and place > 3
        found[place] = f"{inside}2." if between else inside
        if between:
            found |= {pair[0]: f"{inside}0.", pair[1]: f"{inside}1."}
        repeat += 1
        if repeat == stages[stage]:
            stage, repeat = stage + 1, 0
    for number, place in enumerate(pair):  # right behind the stem, or at the very end
        found.setdefault(place, f"{'maxpool' if place < 3 else 'avgpool'}.{number}.")
    return found


def _prefixed(prefix: str, tensors: Named) -> Named:
    return ((prefix + name, tensor) for name, tensor in tensors)


def _own(layer: nn.Module) -> Named:
    """A layer's weights, filters as they convolve."""
    for name, parameter in layer.named_parameters(recurse=False):
        standard = isinstance(layer, WSConv2d) and name == "weight"
        yield name, layer.standardised() if standard and isinstance(layer, WSConv2d) else parameter.detach()


# ----------------------------------------------------------------------------------------- the lines that load them


def example(encoder: Released) -> str:
    """Code that needs torch, torchvision and safetensors only: it builds the network and loads the file beside it."""
    scale, resized = encoder.scale, encoder.resize is not None
    normalised = "(images / 255 - mean) / std"
    read = f'load_file(Path(__file__).with_name("{WEIGHTS}"))'
    vgg = encoder.config.model.backbone in VGG
    title = f"{encoder.facts['method']}, {encoder.facts['data']}: uint8 images [n, {scale.channels}, {scale.side}, "
    lines = [
        f'"""Encoder of {title}{scale.side}] to features [n, {feature_dim(encoder.config.model)}]."""',
        "from pathlib import Path",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import nn",
        *([] if vgg else [f"from torchvision.models.resnet import {_imports(encoder)}"]),
        "",
        *(_sequential(encoder) if vgg else _torchvision(encoder)),
        *(
            [f"weights = {read}", f'resize = weights.pop("{RESIZE}")', "encoder.load_state_dict(weights)"]
            if resized
            else [f"encoder.load_state_dict({read})"]
        ),
        f"mean, std = torch.tensor([{list(scale.mean)}, {list(scale.std)}])[:, :, None, None]",
        "",
        "@torch.no_grad()",
        "def features(images):",
        f"    return encoder.eval()({f'resize @ ({normalised}) @ resize.T' if resized else normalised})",
    ]
    return "\n".join(lines) + "\n"


def _imports(encoder: Released) -> str:
    model = encoder.config.model
    block = "Bottleneck" if model.backbone in EXPANSION else "BasicBlock"
    return model.backbone if model.width == WIDTH else f"{block}, ResNet"


def _torchvision(encoder: Released) -> Iterator[str]:
    """A ResNet of torchvision; narrower or wider ones get their stages by its own method."""
    model, stem = encoder.config.model, encoder.layers[0][1]
    assert isinstance(stem, Stem)
    norm = "norm_layer=lambda channels: nn.GroupNorm(max(channels // 4, 1), channels)"
    kernel, stride = stem.conv.kernel_size[0], stem.conv.stride[0]
    conv = f"nn.Conv2d({stem.conv.in_channels}, {model.width}, {kernel}, {stride}, {kernel // 2}, bias=False)"
    if model.width == WIDTH:
        yield f"encoder = {model.backbone}({norm})"
    else:
        block = "Bottleneck" if model.backbone in EXPANSION else "BasicBlock"
        stages, groups = list(STAGES[model.backbone]), max(model.width // 4, 1)
        yield f"encoder = ResNet({block}, {stages}, {norm})"
        yield f"encoder.inplanes, encoder.bn1 = {model.width}, nn.GroupNorm({groups}, {model.width})"
        yield f"for stage, blocks in enumerate({stages}):"
        yield f"    layers = encoder._make_layer({block}, {model.width} * 2**stage, blocks, stride=2 if stage else 1)"
        yield '    setattr(encoder, f"layer{stage + 1}", layers)'
    yield f"encoder.conv1 = {conv}"
    yield "encoder.maxpool = encoder.fc = nn.Identity()"
    yield from _compressed(encoder)


def _compressed(encoder: Released) -> Iterator[str]:
    """The compression pair at the cut, if there is one."""
    parts = [layer for name, layer in encoder.layers if name in ("encoder", "decoder")]
    if not parts:
        return
    calls = [", ".join(_constructor(layer) for layer in part.children()) for part in parts]
    pair = ", ".join(f"nn.Sequential({call})" for call in calls)
    number = [name for name, _ in encoder.layers].index("encoder")
    place = _places(encoder)[number].removesuffix(".0.").removesuffix(".")
    if place in ("maxpool", "avgpool"):
        behind = "" if place == "maxpool" else ", encoder.avgpool"
        yield f"encoder.{place} = nn.Sequential({pair}{behind})"
    else:
        stage, repeat = place.split(".")
        yield f"encoder.{stage}[{repeat}] = nn.Sequential({pair}, encoder.{stage}[{repeat}])"


def _sequential(encoder: Released) -> Iterator[str]:
    yield "encoder = nn.Sequential("
    yield from (f"    {_constructor(layer)}," for layer in _plain_layers(encoder))
    yield "    nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
    yield ")"


def _plain_layers(encoder: Released) -> Iterator[nn.Module]:
    """A network without shortcuts, layer by layer."""
    for _, layer in encoder.layers:
        if isinstance(layer, ConvUnit):
            yield from (layer.conv, layer.norm, nn.ReLU())
        elif isinstance(layer, nn.Sequential):
            yield from layer
        else:
            yield layer


def _constructor(layer: nn.Module) -> str:
    """The call that makes such a layer of torch's own."""
    kinds = (nn.ConvTranspose2d, nn.Conv2d, nn.GroupNorm, nn.MaxPool2d, nn.ReLU)
    kind = next(kind for kind in kinds if isinstance(layer, kind))
    return f"nn.{kind.__name__}({layer.extra_repr()})"
