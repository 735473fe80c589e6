"""How much of their own clients keep, in cases that can be worked out by hand."""

import pytest
import torch
from torch import nn

from mocosfl_mpi.server.alignments import Means, Scope
from mocosfl_mpi.server.mixing import Inherited, Mixed, Near, Scaled
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.stacked import StackedModel

COLUMNS = 9 + 1 + 2
"""backbone.weight, which counts for the divergence, its bias and the predictor."""
SCOPE = Scope(((0, 9), (9, 10), (10, 12)), COLUMNS, ("0", "0", "predictor"), ((0, 9),))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 3)
        self.predictor = nn.Linear(1, 1)


class Block:
    def __init__(self, rows):
        self.state = {"online": torch.tensor(rows), "scale": torch.zeros(len(rows), 1)}


class Clients:
    """The blocks of a pool, and what is common."""

    def __init__(self, *blocks):
        self.model = StackedModel(Network(), Engine("fp32", "stacked"))
        self.blocks = [Block(rows) for rows in blocks]
        self.shared = {}

    def share(self, name, value, columns):
        assert columns == ((0, COLUMNS),)
        self.shared[name] = value.clone()


def mean(stacks):
    return torch.cat(list(stacks)).mean(dim=0)


def row(value, bias=0.0):
    """A client whose nine filter weights are ``value``: its distance from zero is three times that."""
    return [value] * 9 + [bias] + [10 * value] * 2


def test_the_filters_are_those_of_the_backbone():
    assert Clients().model.filters == [(0, 9)]


def test_a_client_keeps_the_target_at_first_and_then_by_its_divergence():
    clients = Clients([row(1.0), row(-1.0)], [row(3.0, 100.0), row(-3.0, -100.0)])
    part = Mixed(Scaled(0.5))
    shares = part.synchronise(clients, Means(mean, clients), SCOPE)
    assert torch.cat(shares).tolist() == pytest.approx([0.5] * 4)
    assert torch.cat([block.state["scale"] for block in clients.blocks]).flatten().tolist() == pytest.approx(
        [0.5 / 3, 0.5 / 3, 0.5 / 9, 0.5 / 9]
    )
    assert clients.shared["online"].tolist() == [0.0] * COLUMNS
    models = torch.cat([block.state["online"] for block in clients.blocks])
    assert torch.allclose(models, torch.tensor([row(0.5), row(-0.5), row(1.5, 50.0), row(-1.5, -50.0)]))
    clients.blocks[1].state["online"] = torch.tensor([row(30.0), row(-30.0)])
    before = clients.blocks[1].state["online"].clone()
    shares = part.synchronise(clients, Means(mean, clients), SCOPE)
    assert torch.cat(shares).tolist() == pytest.approx([0.25, 0.25, 1.0, 1.0])
    assert torch.equal(clients.blocks[1].state["online"], before), "who keeps all keeps every bit"


def test_equal_clients_stay_equal_and_have_no_scale_yet():
    clients = Clients([row(2.0), row(2.0)])
    (shares,) = Mixed(Scaled(0.7)).synchronise(clients, Means(mean, clients), SCOPE)
    assert shares.tolist() == [0.0, 0.0]
    assert not clients.blocks[0].state["scale"].any()
    assert clients.blocks[0].state["online"].tolist() == [row(2.0)] * 2


def test_a_predictor_is_kept_by_whom_the_mean_is_far_from():
    clients = Clients([row(1.0, 4.0), row(-1.0), row(0.0)])
    (shares,) = Mixed(Near(3.0)).synchronise(clients, Means(mean, clients), SCOPE)
    assert shares.tolist() == [1.0, 1.0, 0.0]
    encoder = clients.blocks[0].state["online"][:, :10]
    assert torch.equal(encoder, clients.shared["online"][:10].expand(3, -1)), "every encoder is the mean"
    assert clients.blocks[0].state["online"][:, 10:].tolist() == [[10.0] * 2, [-10.0] * 2, [0.0] * 2]


def test_momentum_models_stay_and_others_inherit_the_mean():
    clients = Clients([row(1.0), row(3.0)])
    assert Inherited("momentum", "online", lapses=True).synchronise(clients, Means(mean, clients), SCOPE) is None
    assert clients.shared["momentum"].tolist() == row(2.0)
