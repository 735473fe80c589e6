"""Shapes, parameters and work on both sides of the cut are those of the published networks."""

import hashlib

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mocosfl_mpi.config import Model
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams


def build(model, size=32, channels=3, seed=1):
    return cut.build(model, channels, size, Streams(seed), torch.float32)


def shapes_only(size=32, **model):
    """The network without numbers: quick at full width."""
    with torch.device("meta"):
        return build(Model(**model), size)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def macs(module, shape):
    rows = torch.empty(1, *shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(rows)
    return counter.get_total_flops() / 2


# Spec 1.2: cut, smashed shape, A, Pc, server parameters with V2 head, client and server MMAC per image.
RESNET18 = [
    (1, (64, 32, 32), 65536, 1_856, 12_741_888, 1.769, 555.2),
    (2, (64, 32, 32), 65536, 75_840, 12_667_904, 77.27, 479.7),
    (3, (64, 32, 32), 65536, 149_824, 12_593_920, 152.8, 404.2),
    (4, (128, 16, 16), 32768, 379_968, 12_363_776, 211.5, 345.5),
    (5, (128, 16, 16), 32768, 675_392, 12_068_352, 287.0, 270.0),
    (6, (256, 8, 8), 16384, 1_594_432, 11_149_312, 345.7, 211.3),
    (7, (256, 8, 8), 16384, 2_775_104, 9_968_640, 421.2, 135.8),
    (8, (512, 4, 4), 8192, 6_448_192, 6_295_552, 479.9, 77.1),
    (9, (512, 4, 4), 8192, 11_168_832, 1_574_912, 555.4, 1.57),
]


@pytest.mark.parametrize(("layer", "shape", "floats", "client", "server", "client_work", "server_work"), RESNET18)
def test_resnet18_at_every_cut(layer, shape, floats, client, server, client_work, server_work):
    network = shapes_only(cut_layer=layer)
    assert network.smashed_shape == shape
    assert network.smashed_floats == floats
    assert network.bottom_parameters == client
    assert parameters(network.trunk) == server
    assert network.key_dim == 1024
    assert macs(network.bottom, network.input_shape) / 1e6 == pytest.approx(client_work, rel=6e-4)
    assert macs(network.trunk, shape) / 1e6 == pytest.approx(server_work, rel=2e-3)


@pytest.mark.parametrize(
    ("layer", "shape", "client"),
    [
        (4, (64, 32, 32), 223_808),
        (8, (128, 16, 16), 1_340_224),
        (14, (256, 8, 8), 8_162_624),
        (17, (512, 4, 4), 21_276_992),
    ],
)
def test_resnet34(layer, shape, client):
    network = shapes_only(backbone="resnet34", cut_layer=layer)
    assert (network.smashed_shape, network.bottom_parameters) == (shape, client)


@pytest.mark.parametrize(
    ("size", "layer", "shape", "client"),
    [
        (224, 1, (64, 112, 112), 9_536),
        (224, 2, (64, 112, 112), 83_520),
        (224, 4, (128, 56, 56), 387_648),
        (64, 1, (64, 32, 32), 1_856),
        (64, 2, (64, 32, 32), 75_840),
        (64, 4, (128, 16, 16), 379_968),
        (96, 1, (64, 96, 96), 1_856),
        (96, 2, (64, 96, 96), 75_840),
        (96, 4, (128, 48, 48), 379_968),
    ],
)
def test_stem_depends_on_the_image_size(size, layer, shape, client):
    network = shapes_only(size, cut_layer=layer)
    assert (network.smashed_shape, network.bottom_parameters) == (shape, client)


def test_without_client_residuals():
    network = shapes_only(cut_layer=4, client_residual=False)
    assert network.bottom_parameters == 371_520
    whole = shapes_only(cut_layer=4)
    assert parameters(network.trunk) == parameters(whole.trunk), "the server keeps its shortcuts"


@pytest.mark.parametrize(
    ("option", "layer", "shape", "client", "more_on_server"),
    [
        ("C4S2", 1, (4, 16, 16), 4_164, 2_368),
        ("C4S2", 2, (4, 16, 16), 78_148, 2_368),
        ("C4S4", 1, (4, 8, 8), 1_856 + 2_308 + 148, 2_368 + 148),
        ("C8S1", 1, (8, 32, 32), 1_856 + 64 * 8 * 9 + 8, 64 * 8 * 9 + 64),
        ("C8", 1, (8, 32, 32), 1_856 + 64 * 8 * 9 + 8, 64 * 8 * 9 + 64),
        ("K1C8", 1, (8, 32, 32), 1_856 + 64 * 8 + 8, 64 * 8 + 64),
    ],
)
def test_bottleneck_at_the_cut(option, layer, shape, client, more_on_server):
    network = shapes_only(cut_layer=layer, bottleneck=option)
    assert network.smashed_shape == shape
    assert network.bottom_parameters == client
    assert parameters(network.trunk) == {row[0]: row[4] for row in RESNET18}[layer] + more_on_server
    keys = network.trunk(torch.empty(2, *shape, device="meta"))
    assert keys.shape == (2, 1024), "the decoder gives the backbone the map it expects"


def test_bottleneck_that_does_not_divide_the_map_is_refused():
    with pytest.raises(BadInput, match=r"C4S8.*does not divide the 4x4 map"):
        shapes_only(cut_layer=9, bottleneck="C4S8")


@pytest.mark.parametrize(
    ("head", "key_dim", "server"),
    [
        ("V1", 128, 512 * 128 + 128),
        ("smallV2", 512, 2 * (512 * 512 + 512)),
        ("V2", 1024, 1_574_912),
        ("largeV2", 2048, 512 * 4096 + 4096 + 2 * 4096 + 4096 * 2048 + 2048),
    ],
)
def test_heads(head, key_dim, server):
    network = shapes_only(cut_layer=9, head=head)
    assert network.key_dim == key_dim
    assert parameters(network.trunk) == server


def test_stated_dimensions_override_the_published_ones():
    network = build(Model(width=4, key_dim=6, hidden_dim=10), 16)
    assert [layer.out_features for layer in network.trunk.head if hasattr(layer, "out_features")] == [10, 6]
    assert network.trunk(torch.zeros(2, *network.smashed_shape)).shape == (2, 6)


def numbers(network):
    """Every parameter of the uncut network by its name, whichever side it lies on."""
    found = {f"layer.{name}": value for name, value in network.bottom.named_parameters()}
    found |= {f"layer.{name}": value for name, value in network.trunk.backbone.named_parameters()}
    return found | {f"head.{name}": value for name, value in network.trunk.head.named_parameters()}


@pytest.mark.parametrize("bottleneck", ["", "C4S2"])
def test_same_seed_gives_the_same_network_at_every_cut(bottleneck):
    first = numbers(build(Model(width=4, key_dim=8, cut_layer=1), 32))
    for layer in range(2, 10):
        other = numbers(build(Model(width=4, key_dim=8, cut_layer=layer, bottleneck=bottleneck), 32))
        other = {name: value for name, value in other.items() if "coder" not in name}
        assert other.keys() == first.keys()
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_network_is_a_function_of_the_seed_and_leaves_the_global_generator_alone():
    def digest(seed):
        values = torch.cat([v.reshape(-1) for v in numbers(build(Model(width=4), 16, seed=seed)).values()])
        return hashlib.sha256(values.detach().numpy().tobytes()).hexdigest()

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert digest(1) == digest(1) != digest(2)
    assert torch.equal(torch.rand(3), expected)


def test_cut_network_computes_what_the_uncut_one_does():
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    outputs = []
    for layer in (1, 4, 9):
        network = build(Model(width=4, key_dim=8, cut_layer=layer), 16)
        outputs.append(network.trunk(network.bottom(images)))
        assert network.bottom(images).shape[1:] == network.smashed_shape
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_features_are_the_pooled_maps_before_the_head():
    network = build(Model(width=4, key_dim=8), 16)
    smashed = torch.randn(2, *network.smashed_shape)
    features = network.trunk.features(smashed)
    assert features.shape == (2, 32)
    assert torch.equal(network.trunk.head(features), network.trunk(smashed))
