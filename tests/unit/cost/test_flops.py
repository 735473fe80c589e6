import pytest
import torch
from torch import nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.cost import flops
from mocosfl_mpi.cost.flops import measure, per_image, per_step, totals
from mocosfl_mpi.record.schema import WORK
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams


def _conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _block():
    return nn.Sequential(_conv(64, 64), nn.GroupNorm(16, 64), nn.ReLU(), _conv(64, 64), nn.GroupNorm(16, 64))


def test_known_macs_of_resnet18():
    stem, block = measure(_conv(3, 64), (3, 32, 32)).last, measure(_block(), (64, 32, 32)).answering
    assert stem.macs == 64 * 3 * 9 * 32 * 32 == 1_769_472  # 1.769 MMAC, spec 1.2
    assert block.macs == 2 * 64 * 64 * 9 * 32 * 32 == 75_497_472  # 75.5 MMAC
    assert stem.forward == 2 * stem.macs
    assert block.parameters == 2 * 64 * 64 * 9 + 4 * 64


def test_an_image_needs_no_gradient_and_smashed_data_do():
    server, client = measure(_conv(3, 64), (3, 32, 32))
    assert client.backward_weights == server.backward_weights == client.forward
    assert client.backward_input == 0
    assert server.backward_input == server.forward
    assert server.backward == 2 * server.forward


def test_gradients_inside_a_segment_are_counted():
    net = nn.Sequential(_conv(3, 8), nn.ReLU(), _conv(8, 4))
    first, second = 2 * 3 * 8 * 9 * 64, 2 * 8 * 4 * 9 * 64
    client = measure(net, (3, 8, 8)).last
    assert client.forward == client.backward_weights == first + second
    assert client.backward_input == second
    assert measure(net, (3, 8, 8)).answering.backward_input == first + second


def test_what_does_not_learn_costs_no_weight_gradient():
    net = nn.Sequential(_conv(3, 8), _conv(8, 4))
    net[0].requires_grad_(False)
    cost = measure(net, (3, 8, 8)).last
    assert cost.backward_weights == 2 * 8 * 4 * 9 * 64
    assert cost.backward_input == 0  # nothing below the first layer that learns is needed
    assert cost.parameters == 8 * 4 * 9
    net.requires_grad_(False)
    assert measure(net, (3, 8, 8)).last.backward == 0


def test_linear_layers_and_batch_norm():
    head = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 10))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    cost = measure(head, (20,)).answering
    assert cost.forward == 2 * (20 * 30 + 30 * 10)
    assert cost.backward == 2 * cost.forward
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in head.parameters())


MOBILENETV2 = [  # spec 1.4: cut, client and server MMAC per image
    (1, 0.885, 92.62),
    (2, 3.277, 90.23),
    (3, 16.89, 76.61),
    (4, 29.12, 64.38),
    (5, 41.69, 51.81),
    (6, 61.06, 32.45),
    (7, 76.26, 17.24),
    (8, 84.59, 8.91),
    (9, 91.14, 2.36),
]


@pytest.mark.parametrize(
    ("backbone", "layer", "client", "server"),
    [
        *(("mobilenetv2", *row) for row in MOBILENETV2),
        # The convolutions are the same: the ends and the middle show it, the others run with the slow tests.
        *(
            pytest.param("mobilenetv2_published", *row, marks=[] if row[0] in (1, 5, 9) else pytest.mark.slow)
            for row in MOBILENETV2
        ),
    ],
)
def test_published_macs_of_mobilenetv2(backbone, layer, client, server):
    bottom, trunk = _network(backbone=backbone, cut_layer=layer)
    assert bottom.last.macs / 1e6 == pytest.approx(client, rel=6e-4)
    assert trunk.answering.macs / 1e6 == pytest.approx(server, rel=1e-3)
    assert trunk.answering.backward == 2 * trunk.answering.forward, "depthwise convolutions too"


def _network(**model):
    with torch.device("meta"):
        network = cut.build(Model(**model), 3, 32, Streams(0), torch.float32)
    return measure(network.bottom, network.input_shape), measure(network.trunk, network.smashed_shape)


def test_macs_of_vgg_by_hand():
    """Convolutions at 32, 16, 8, 8, 4, 4, 2, 2 pixels; poolings, norms and biases count nothing."""
    by_hand = [
        9 * inputs * outputs * side**2
        for inputs, outputs, side in ((3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 256, 8), (256, 512, 4))
    ]
    for layer, convolutions in ((1, 1), (2, 1), (3, 2), (5, 3), (6, 4), (7, 4), (8, 5)):
        assert _network(backbone="vgg11", cut_layer=layer)[0].last.macs == sum(by_hand[:convolutions])


def test_macs_of_resnet50_by_hand():
    stem, pixels = 9 * 3 * 64 * 32**2, 32**2
    first = (64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256) * pixels
    other = (256 * 64 + 9 * 64 * 64 + 64 * 256) * pixels
    strided = 256 * 128 * pixels + (9 * 128 * 128 + 128 * 512 + 256 * 512) * pixels // 4
    for layer, work in ((1, 0), (2, first), (4, first + 2 * other), (5, first + 2 * other + strided)):
        assert _network(backbone="resnet50", cut_layer=layer)[0].last.macs == stem + work


def test_macs_of_the_vision_transformer_by_hand():
    tokens, d = 64, 192
    patches, block = tokens * 48 * d, tokens * 12 * d * d + 2 * tokens * tokens * d
    for layer, blocks in ((1, 0), (2, 1), (13, 12), (14, 12)):
        bottom, trunk = _network(backbone="vit", cut_layer=layer)
        assert bottom.last.macs == patches + blocks * block
        assert trunk.answering.backward == 2 * trunk.answering.forward


def test_gradients_of_grouped_and_transposed_convolutions_cost_a_forward_each():
    for net, shape in (
        (nn.Conv2d(12, 24, 3, stride=2, padding=1, groups=4), (12, 8, 8)),
        (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (6, 8, 8)),
        (nn.Conv2d(3, 5, 3, bias=False), (3, 9, 7)),
    ):
        cost = measure(net, shape).answering
        assert cost.backward_weights == cost.backward_input == cost.forward > 0
    assert measure(nn.Conv2d(12, 12, 3, padding=1, groups=12), (12, 8, 8)).last.macs == 12 * 9 * 64


@pytest.mark.parametrize("rows", [1, 3])
def test_shapes_alone_count_what_a_cpu_counts(rows):
    net = _block()
    x = torch.randn(rows, 64, 8, 8, requires_grad=True)
    cost = measure(net, (64, 8, 8)).answering
    with torch.no_grad(), flops.FlopCounterMode(display=False) as forward:
        net(x)
    out = net(x)
    with flops.FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == rows * cost.forward
    assert backward.get_total_flops() == rows * cost.backward


def test_kinds_and_totals():
    cost = flops.SegmentCost(forward=10, backward_weights=7, backward_input=5, parameters=100)
    assert list(per_image(cost, False)) == list(per_step(cost, False)) == list(WORK)
    assert totals(cost, steps=2, rows=3, frozen=False) == {
        "query_forward": 60,
        "key_forward": 60,
        "backward": 72,
        "ema": 600,
        "optimiser": 1200,
    }
    assert totals(cost, steps=2, rows=3, frozen=True) == {
        "query_forward": 60,
        "key_forward": 60,
        "backward": 0,
        "ema": 0,
        "optimiser": 0,
    }
