"""Every network: the published tables at every cut, all image sizes, and lanes at once as one after the other."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from mocosfl_mpi.config import Backbone, Compute, Model
from mocosfl_mpi.networks import LAST_BATCH_NORM, MOBILENETV2, NO_SHORTCUTS, entries
from mocosfl_mpi.split import backbones, cut
from mocosfl_mpi.split.backbones.mobilenetv2 import InvertedResidual
from mocosfl_mpi.split.backbones.resnet import BottleneckBlock
from mocosfl_mpi.split.backbones.vit import Attention, Patches, heads, positions
from mocosfl_mpi.split.engine import Engine, choose
from mocosfl_mpi.split.layers import BatchNorm, PlainConv2d, WSConv2d, mixes_rows
from mocosfl_mpi.split.stacked import StackedModel
from mocosfl_mpi.streams import Streams

NAMES = get_args(Backbone)


def build(size=32, channels=3, dtype=torch.float32, **model):
    return cut.build(Model(**model), channels, size, Streams(0), dtype)


def shapes_only(size=32, channels=3, **model):
    """The network without numbers: quick at full width."""
    with torch.device("meta"):
        return build(size, channels, **model)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# Spec 1.2 to 1.4: network, cut, smashed shape, parameters of a client.
PUBLISHED = [
    ("resnet50", 2, (256, 32, 32), 76_864),
    ("resnet50", 4, (256, 32, 32), 217_664),
    ("resnet50", 8, (512, 16, 16), 1_437_248),
    ("resnet50", 14, (1024, 8, 8), 8_535_616),
    ("resnet50", 17, (2048, 4, 4), 23_500_352),
    ("vgg11", 1, (64, 32, 32), 1_920),
    ("vgg11", 2, (64, 16, 16), 1_920),
    ("vgg11", 3, (128, 16, 16), 76_032),
    ("vgg11", 4, (128, 8, 8), 76_032),
    ("vgg11", 5, (256, 8, 8), 371_712),
    ("vgg11", 6, (256, 8, 8), 962_304),
    ("vgg11", 7, (256, 4, 4), 962_304),
    ("vgg11", 8, (512, 4, 4), 2_143_488),
    ("vgg11", 9, (512, 4, 4), 4_504_320),
    ("vgg11", 10, (512, 2, 2), 4_504_320),
    ("vgg11", 11, (512, 2, 2), 6_865_152),
    ("vgg11", 12, (512, 2, 2), 9_225_984),
    ("vgg11", 13, (512, 1, 1), 9_225_984),
    *(
        (network, layer, shape, client)
        for network in ("vgg13", "vgg16")
        for layer, shape, client in (
            (1, (64, 32, 32), 1_920),
            (2, (64, 32, 32), 38_976),
            (3, (64, 16, 16), 38_976),
            (4, (128, 16, 16), 113_088),
        )
    ),
    ("vgg13", 5, (128, 16, 16), 260_928),
    ("vgg13", 6, (128, 8, 8), 260_928),
    ("vgg13", 7, (256, 8, 8), 556_608),
    ("vgg13", 8, (256, 8, 8), 1_147_200),
    ("vgg13", 9, (256, 4, 4), 1_147_200),
    ("vgg13", 10, (512, 4, 4), 2_328_384),
    ("vgg13", 11, (512, 4, 4), 4_689_216),
    ("vgg13", 12, (512, 2, 2), 4_689_216),
    ("vgg13", 13, (512, 2, 2), 7_050_048),
    ("vgg13", 14, (512, 2, 2), 9_410_880),
    ("vgg13", 15, (512, 1, 1), 9_410_880),
    ("vgg16", 18, (512, 1, 1), 9_410_880 + (256 * 256 + 4 * 512 * 512 - 2 * 512 * 512) * 9 + 3 * 256 + 2 * 3 * 512),
    *(
        (network, layer, shape, client)
        for network in ("mobilenetv2", "mobilenetv2_published")
        for layer, shape, client in (
            (1, (32, 32, 32), 928),
            (2, (16, 32, 32), 3_456),
            (3, (24, 32, 32), 17_856),
            (4, (32, 16, 16), 57_552),
            (5, (64, 8, 8), 241_424),
            (6, (96, 8, 8), 550_928),
            (7, (160, 4, 4), 1_346_192),
            (8, (320, 4, 4), 1_871_952),
            (9, (1280, 4, 4), 2_284_112),
        )
    ),
]


@pytest.mark.parametrize(("backbone", "layer", "shape", "client"), PUBLISHED)
def test_published_tables(backbone, layer, shape, client):
    network = shapes_only(backbone=backbone, cut_layer=layer)
    assert (network.smashed_shape, network.bottom_parameters) == (shape, client)


def test_published_whole_networks():
    assert sum(map(parameters, (lambda n: (n.bottom, n.trunk))(shapes_only(backbone="mobilenetv2")))) == 4_645_456
    head = shapes_only(backbone="resnet50", cut_layer=17).trunk
    assert [layer.out_features for layer in head.head if isinstance(layer, nn.Linear)] == [4096, 1024]
    assert parameters(head) == 2048 * 4096 + 4096 + 4096 * 1024 + 1024


def test_small_vision_transformer():
    d = 192
    patches, block = 3 * 16 * d + d, 12 * d * d + 13 * d
    for layer, client in ((1, patches), (2, patches + block), (13, patches + 12 * block)):
        network = shapes_only(backbone="vit", cut_layer=layer)
        assert (network.smashed_shape, network.bottom_parameters) == ((d, 8, 8), client)
    assert shapes_only(backbone="vit", cut_layer=14).bottom_parameters == patches + 12 * block + 2 * d


@pytest.mark.parametrize("backbone", NAMES)
def test_list_has_the_stated_length_and_every_size_passes(backbone):
    model = Model(backbone=backbone, width=4)
    for size, channels in ((28, 1), (32, 3), (64, 3), (96, 3), (224, 3), (8, 3), (31, 1)):
        with torch.device("meta"):
            layers = backbones.build(model, channels, size)
            maps = torch.empty(2, channels, size, size)
            for _, layer in layers:
                maps = layer(maps)
                assert maps.ndim == 4
        assert len(layers) == len({name for name, _ in layers}) == entries(backbone)
        assert maps.shape[:2] == (2, backbones.feature_dim(model))


@pytest.mark.parametrize("backbone", NAMES)
def test_features_are_one_row_per_image_at_the_first_and_the_last_cut(backbone):
    for layer in (1, entries(backbone)):
        network = build(28, 1, backbone=backbone, width=4, cut_layer=layer, key_dim=8)
        images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        smashed = network.bottom(images)
        assert smashed.shape[1:] == network.smashed_shape
        features = network.trunk.features(smashed)
        assert features.shape == (2, backbones.feature_dim(Model(backbone=backbone, width=4)))
        assert network.trunk(smashed).shape == (2, 8)
        assert features.isfinite().all()


@pytest.mark.parametrize("backbone", NAMES)
def test_same_seed_gives_the_same_function_at_every_cut(backbone):
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    outputs = []
    for layer in range(1, entries(backbone) + 1, 3):
        network = build(16, backbone=backbone, width=4, cut_layer=layer, key_dim=8)
        outputs.append(network.trunk(network.bottom(images)))
    assert all(torch.equal(outputs[0], other) for other in outputs)


# ------------------------------------------------------------------------------------------------ backends

DEEP = {  # as many entries as hold every kind of layer of the family
    "resnet18": 4,
    "resnet50": 6,
    "vgg11": 5,
    "mobilenetv2": 6,
    "mobilenetv2_published": 6,
    "vit": 3,
    "vit's last norm": 14,
}


def stack(network, lanes=3, rows=2, dtype=torch.float64):
    """Weights of different lanes, and images."""
    flat = StackedModel(network.bottom, Engine("fp64", "loop")).flat(network.bottom)
    generator = torch.Generator().manual_seed(1)
    weights = flat + 0.05 * torch.randn(lanes, len(flat), generator=generator, dtype=dtype)
    images = torch.randn(lanes, rows, *network.input_shape, generator=generator, dtype=dtype)
    return weights, images


@pytest.mark.parametrize("size", [16, 31])
@pytest.mark.parametrize("name", DEEP)
def test_stacked_equals_loop(name, size):
    torch.set_num_threads(1)
    backbone = name.partition("'")[0]
    network = build(size, dtype=torch.float64, backbone=backbone, width=16, cut_layer=DEEP[name])
    weights, images = stack(network)
    found = []
    for backend in ("loop", "stacked"):
        model = StackedModel(network.bottom, Engine("fp64", backend))
        out, pullback = model.forward_with_pullback(weights, images)
        assert torch.allclose(model.forward(weights, images), out, rtol=0, atol=1e-12)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        found.append((out, pullback(gradient)))
    for one, other in zip(*found, strict=True):
        assert one.isfinite().all()
        assert (one - other).abs().max() <= 1e-10 * max(1.0, one.abs().max())
    _, gradients = found[0]
    spans = StackedModel(network.bottom, Engine("fp64", "loop"))
    for span, parameter in zip(spans.spans, spans.names, strict=True):
        if parameter.endswith("attention.key.bias"):  # adds the same to all logits of a query
            assert gradients[:, slice(*span)].abs().max() < 1e-9
        else:
            assert gradients[:, slice(*span)].abs().max() > 1e-9, f"{parameter} learns nothing"


@pytest.mark.parametrize("backend", ["loop", "stacked"])
@pytest.mark.parametrize("name", DEEP)
def test_bf16(name, backend):
    """Outputs are about right; weights and their gradients stay in float32."""
    torch.set_num_threads(1)
    backbone = name.partition("'")[0]
    network = build(16, dtype=torch.float64, backbone=backbone, width=16, cut_layer=DEEP[name])
    weights, images = stack(network)
    right = StackedModel(network.bottom, Engine("fp64", "loop")).forward(weights, images)
    network.bottom.float()
    model = StackedModel(network.bottom, Engine("bf16", backend))
    out, pullback = model.forward_with_pullback(weights.float(), images.float())
    assert out.dtype is torch.bfloat16
    assert ((out.double() - right).norm() / right.norm()) < 0.1
    gradient = pullback(torch.ones_like(out))
    assert gradient.dtype is torch.float32
    assert gradient.isfinite().all()


@pytest.mark.parametrize("backbone", NAMES)
def test_what_the_kernels_do_not_know_falls_back(backbone):
    class Everything:
        """Kernels that would convolve in any type."""

        convolves = (torch.float32, torch.bfloat16)

    network = build(16, backbone=backbone, width=8)
    chosen = choose(Compute(backend="fused", precision="fp32"), Everything(), network)
    assert chosen.backend == ("fused" if backbone.startswith("resnet") else "stacked")


# ---------------------------------------------------------------------------------------------- the families


def test_bottleneck_block_by_hand():
    torch.manual_seed(0)
    block = BottleneckBlock(8, 4, 16, 2, residual=True, standardised=False).double()
    images = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    out = torch.relu(block.norm1(block.conv1(images)))
    out = torch.relu(block.norm2(block.conv2(out)))
    out = block.norm3(block.conv3(out)) + block.shortcut(images)
    assert torch.equal(block(images), torch.relu(out))
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [(1, 1), (2, 2), (1, 1)]
    assert [type(conv) for conv in (block.conv1, block.conv2, block.conv3)] == [PlainConv2d] * 3
    assert type(block.shortcut[0]) is WSConv2d, "as published, whatever the rest of the block"


def test_vgg_convolutions_have_biases_and_keep_torchs_initialisation():
    layers = dict(backbones.build(Model(backbone="vgg11", width=8), 3, 32))
    assert list(layers)[:5] == ["conv1", "pool2", "conv3", "pool4", "conv5"]
    for name, layer in layers.items():
        if name.startswith("conv"):
            assert type(layer.conv) is WSConv2d
    bottom = build(backbone="vgg11", width=8).bottom
    assert bottom.conv1.conv.bias.abs().max() > 0, "a standardised convolution is not initialised anew"
    plain = build(backbone="vgg11", width=8, weight_standardization=False).bottom
    assert type(plain.conv1.conv) is PlainConv2d
    assert not plain.conv1.conv.bias.any()


def test_vgg_pools_what_is_odd():
    sides = []
    maps = torch.empty(1, 1, 28, 28, device="meta")
    with torch.device("meta"):
        for name, layer in backbones.build(Model(backbone="vgg11", width=4), 1, 28):
            maps = layer(maps)
            sides += [maps.shape[-1]] if name.startswith("pool") else []
    assert sides == [14, 7, 4, 2, 1]


def test_mobilenetv2_as_published_and_corrected():
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    published, corrected = (
        build(backbone=name, width=16, cut_layer=9, key_dim=8).bottom
        for name in ("mobilenetv2_published", "mobilenetv2")
    )
    assert published.stem(images).min() < 0 == corrected.stem(images).min()
    assert published(images).min() < 0 == corrected(images).min()
    norms = [module for module in published.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 4, "where the width changes at stride 1: 16, 24, 96 and 320 channels"
    assert not mixes_rows(corrected)
    assert parameters(published) == parameters(corrected)
    blocks = [module for module in corrected.modules() if isinstance(module, InvertedResidual)]
    assert len(blocks) == sum(repeats for _, _, repeats, _ in MOBILENETV2) == 17
    assert sum(block.shortcut is not None for block in blocks) == 17 - 3
    depthwise = blocks[1].depthwise.conv
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels


def test_depthwise_standardisation_is_per_filter():
    torch.manual_seed(0)
    layer = WSConv2d(4, 4, 3, padding=1, groups=4, bias=False).double()
    images = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    for channel in range(4):
        filters = layer.weight[channel : channel + 1]
        filters = (filters - filters.mean()) / (filters.std() + 1e-5)
        own = nn.functional.conv2d(images[:, channel : channel + 1], filters, padding=1)
        assert torch.allclose(layer(images)[:, channel : channel + 1], own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backbone", [name for name in NAMES if name not in NO_SHORTCUTS])
def test_client_residual_is_a_matter_of_the_client(backbone):
    def shortcuts(module):
        return [
            part.residual if hasattr(part, "residual") else part.shortcut is not None
            for part in module.modules()
            if hasattr(part, "residual") or isinstance(part, InvertedResidual)
        ]

    network = build(16, backbone=backbone, width=8, cut_layer=4, client_residual=False)
    assert shortcuts(network.bottom)
    assert not any(shortcuts(network.bottom))
    assert any(shortcuts(network.trunk.backbone)) == (backbone != "mobilenetv2_published")


@pytest.mark.parametrize("backbone", NAMES)
def test_table_of_batch_norms_is_right(backbone):
    last = 0
    with torch.device("meta"):
        for number, (_, layer) in enumerate(backbones.build(Model(backbone=backbone), 3, 32), start=1):
            last = number if mixes_rows(layer) else last
    assert last == LAST_BATCH_NORM.get(backbone, 0)


def test_batch_norm_is_torchs_in_training_and_keeps_nothing():
    torch.manual_seed(0)
    mine, torchs = BatchNorm(4).double(), nn.BatchNorm2d(4).double()
    nn.init.uniform_(mine.weight)
    torchs.load_state_dict({**torchs.state_dict(), **mine.state_dict()})
    images = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    assert torch.allclose(mine(images), torchs(images), rtol=0, atol=1e-12)
    assert torch.equal(mine.eval()(images), mine.train()(images))
    assert not list(mine.buffers())
    assert mine(torch.randn(1, 4, 1, 1, dtype=torch.float64)).abs().max() < 1e-10, "one value alone is its own mean"
    assert mixes_rows(nn.Sequential(mine))


def test_patches_by_hand():
    torch.manual_seed(0)
    layer = Patches(1, 12, 7)  # 8 tokens a side would be less than a pixel
    assert layer.conv.kernel_size == (1, 1)
    layer = Patches(2, 12, 31).double()  # 8 patches of 4 pixels, the last of 3
    images = torch.randn(3, 2, 31, 31, dtype=torch.float64)
    maps = layer(images)
    assert maps.shape == (3, 12, 8, 8)
    place = positions(maps.shape[1:], layer.conv.weight)
    token = (layer.conv.weight * images[1, :, 4:8, 8:12]).sum(dim=(1, 2, 3)) + layer.conv.bias + place[:, 1, 2]
    assert torch.allclose(maps[1, :, 1, 2], token, rtol=0, atol=1e-12)
    corner = (layer.conv.weight[..., :3, :3] * images[0, :, 28:, 28:]).sum(dim=(1, 2, 3))
    assert torch.allclose(maps[0, :, 7, 7] - place[:, 7, 7], corner + layer.conv.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "patch", "side"), [(28, 4, 7), (32, 4, 8), (64, 8, 8), (96, 12, 8), (224, 16, 14)])
def test_patch_by_image_size(size, patch, side):
    network = shapes_only(size, backbone="vit", width=4)
    assert network.bottom.patches.conv.kernel_size == (patch, patch)
    assert network.smashed_shape == (12, side, side)


def test_positions_are_sines_and_cosines_of_row_and_column():
    place = positions(torch.Size((8, 5, 6)), torch.empty(0, dtype=torch.float64))
    for row, column in ((0, 0), (3, 5), (4, 1)):
        for index, frequency in enumerate((1.0, 0.01)):
            found = place[index::2, row, column].tolist()
            angles = [frequency * row, frequency * column]
            assert found == pytest.approx([f(a) for a in angles for f in (math.sin, math.cos)], abs=1e-12)
    assert len(place.flatten(1).T.unique(dim=0)) == 30, "every place is another"


@pytest.mark.parametrize(("width", "number"), [(192, 6), (96, 3), (48, 1), (12, 1), (228, 6), (264, 8)])
def test_heads(width, number):
    assert heads(width) == number


def test_attention_is_torchs():
    torch.manual_seed(0)
    mine = Attention(96).double()
    torchs = nn.MultiheadAttention(96, 3, batch_first=True).double()
    inner = (mine.query, mine.key, mine.value)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([part.weight for part in inner]))
        torchs.in_proj_bias.copy_(torch.cat([part.bias for part in inner]))
        torchs.out_proj.load_state_dict(mine.out.state_dict())
    tokens = torch.randn(2, 10, 96, dtype=torch.float64)
    assert torch.allclose(mine(tokens), torchs(tokens, tokens, tokens)[0], rtol=0, atol=1e-12)
