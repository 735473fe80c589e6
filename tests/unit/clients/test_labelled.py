"""Batches with labels: whose they are, and what they depend on."""

import numpy as np
import torch

from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.labelled import LabelledFeed
from mocosfl_mpi.clients.vertical import VerticalFeed
from mocosfl_mpi.config import Views
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.streams import Streams

LABELS = np.arange(40, dtype=np.int64) % 7
PIXELS = np.repeat(np.arange(40, dtype=np.uint8), 256).reshape(40, 1, 16, 16)
PARTS = [np.arange(start, 40, 4) for start in range(4)]
VIEWS = ViewMaker(Views(size=16), 16, (0.0,), (1.0,), torch.float64)


def feed(seed=3):
    return LabelledFeed(PIXELS, LABELS, PARTS, 3, VIEWS, Streams(seed))


def test_labels_are_those_of_the_images():
    """Every image is of one grey, its number, so that the middle pixel of a view tells which it is."""
    views, labels = feed().draw(np.arange(4), 1, 2)
    assert views.shape == (4, 3, 1, 16, 16)
    which = (views[:, :, 0, 8, 8] * 255).round().long().numpy()
    np.testing.assert_array_equal(labels.numpy(), LABELS[which])
    for client in range(4):
        assert set(which[client]) <= set(PARTS[client])
        np.testing.assert_array_equal(which[client], Feed(PIXELS, PARTS, 3, VIEWS, Streams(3)).indices(client, 1, 2))


def test_a_client_s_batch_does_not_depend_on_the_others():
    together, alone = feed().draw(np.array([0, 2, 3]), 0, 1), feed().draw(np.array([2]), 0, 1)
    assert torch.equal(together[0][1], alone[0][0])
    assert torch.equal(together[1][1], alone[1][0])
    assert not torch.equal(together[0], feed(4).draw(np.array([0, 2, 3]), 0, 1)[0])


def test_pieces_are_of_the_same_views():
    everything = [np.arange(40)] * 4
    whole = LabelledFeed(PIXELS, LABELS, everything, 3, VIEWS, Streams(3)).draw(np.array([0]), 1, 2)
    views, labels = VerticalFeed(PIXELS, LABELS, everything, 3, VIEWS, Streams(3)).draw(np.arange(4), 1, 2)
    assert views.shape == (4, 3, 1, 8, 8)
    assert torch.equal(torch.cat([torch.cat([*views[:2]], dim=3), torch.cat([*views[2:]], dim=3)], dim=2), whole[0][0])
    for own in labels:
        assert torch.equal(own, whole[1][0])
    alone = VerticalFeed(PIXELS, LABELS, everything, 3, VIEWS, Streams(3)).draw(np.array([2]), 1, 2)
    assert torch.equal(alone[0][0], views[2])
    left, right = VerticalFeed(PIXELS, LABELS, everything[:2], 3, VIEWS, Streams(3)).draw(np.arange(2), 1, 2)[0]
    assert torch.equal(torch.cat([left, right], dim=3), whole[0][0])
