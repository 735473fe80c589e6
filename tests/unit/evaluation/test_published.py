import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.evaluation.checks import Labelled
from mocosfl_mpi.evaluation.published import published_few_labels, published_linear
from mocosfl_mpi.split.layers import initialise, seeded
from mocosfl_mpi.streams import Streams

STREAMS = Streams(5)


def blobs(n, spread, seed, classes=4, d=8):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return Labelled(4.0 * torch.eye(classes, d)[labels] + spread * torch.randn(n, d, generator=g), labels)


def probes(train, test, classes=4):
    yield published_linear(train, test, classes, STREAMS)
    yield published_few_labels(train, test, classes, 1.0, STREAMS)


def test_separable_features_are_separated():
    for reached in probes(blobs(1024, 0.1, 0, d=64), blobs(100, 0.1, 1, d=64)):
        assert reached.best == reached.last == 100.0


def test_without_a_relation_between_features_and_labels_they_guess():
    train, test = blobs(512, 1.0, 0), blobs(2000, 1.0, 1)
    shuffled = test.labels[torch.randperm(2000, generator=torch.Generator().manual_seed(2))]
    for reached in probes(train, Labelled(test.features, shuffled)):
        assert 20.0 < reached.last < 30.0
        assert reached.last <= reached.best < 33.0


def test_the_linear_probe_is_that_of_the_published_code():
    """Written again with torch's scheduler, stepped per batch, over the features in one fixed order."""
    train, test = blobs(300, 10.0, 0), blobs(400, 10.0, 1)
    with seeded(STREAMS.torch_seed("published linear probe")):
        head = nn.Linear(8, 4)
        initialise(head)
    order = torch.from_numpy(STREAMS.generator("published linear probe").permutation(300))
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=25)
    scores, rates = [], []
    for _ in range(100):
        for start in (0, 128, 256):
            rows = order[start : start + 128]
            optimiser.zero_grad()
            F.cross_entropy(head(train.features[rows]), train.labels[rows]).backward()
            optimiser.step()
            rates.append(optimiser.param_groups[0]["lr"])
            scheduler.step()
        scores.append(100.0 * float((head(test.features).argmax(1) == test.labels).double().mean()))
    assert rates[25] == pytest.approx(0.0, abs=1e-9)
    assert rates[50] == pytest.approx(1e-3), "the rate rises again"
    reached = published_linear(train, test, 4, STREAMS)
    assert (reached.best, reached.last) == (pytest.approx(max(scores)), pytest.approx(scores[-1]))
    assert reached.best > reached.last, "an example in which the choice of the epoch matters"


def test_few_labels_use_that_share_of_the_images_and_no_other():
    train, test = blobs(400, 1.0, 0), blobs(200, 1.0, 1)
    chosen = STREAMS.generator("published few labels").permutation(400)[:40]
    spoilt = Labelled(torch.full_like(train.features, 1e3), train.labels)
    spoilt.features[chosen] = train.features[chosen]
    assert published_few_labels(spoilt, test, 4, 0.1, STREAMS) == published_few_labels(train, test, 4, 0.1, STREAMS)


def test_a_last_batch_of_one_image_is_left_out():
    train, test = blobs(129, 0.1, 0), blobs(40, 0.1, 1)
    assert published_few_labels(train, test, 4, 1.0, STREAMS).best == 100.0


def test_the_global_generator_is_left_alone_and_results_repeat():
    train, test = blobs(200, 3.0, 0), blobs(200, 3.0, 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = list(probes(train, test))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert list(probes(train, test)) == first
