"""One step computed for an attack is the step that a run does."""

import numpy as np
import pytest
import torch

from mocosfl_mpi import parts
from mocosfl_mpi.attacks.steps import at_features, gradients_at_cut, local_gradient, sgd
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.problem import Problem
from tests.unit.attacks.victims import victim

ONE_STEP = ("epochs=1", "steps_per_epoch=1", "client.count=1", "client.sampling_ratio=1.0", "federation.sync_freq=1")

RESISTS = ("defence.resistance=2", "defence.resistance_ssim=0", "defence.resistance_decoder=conv_normN0C4")


def batch(found):
    """The first batch of client 0: views normalised, first ones and then second ones; and labels."""
    data, source, config = found.source.data, found.source, found.config
    problem = Problem(source.train.pixels, source.parts, data.mean, data.std, source.train.labels, data.class_count)
    views = ViewMaker(config.views, found.size, data.mean, data.std, torch.float32)
    first, second = parts.feed(config, problem, views, found.streams).draw(np.zeros(1, dtype=np.int64), 0, 0)
    return (first[0], second[0]) if config.supervised else (torch.cat([first[0], second[0]]), None)


@pytest.mark.parametrize(
    "settings",
    [
        ("method=mocosfl",),
        ("method=mocosfl", "contrast.symmetric=both_views"),
        ("method=mocosfl", "contrast.symmetric=off", "contrast.share_features=false"),
        ("method=fl_moco",),
        ("method=fl_moco", "contrast.symmetric=off"),
        ("method=fl_byol", "contrast.symmetric=both_views"),
        ("method=fl_simclr",),
        ("method=fedavg",),
        ("method=sfl_v2",),
        ("method=split_u_shaped",),
        ("method=mocosfl", "defence.clip=0.5", "defence.keep_share=0.3"),
        ("method=mocosfl", "defence.nopeek=2", "client.batch_size=4"),
        ("method=mocosfl", *RESISTS),
        ("method=mocosfl", "communication.smashed=topk", "communication.gradient=topk", "communication.topk=0.2"),
        ("method=sfl_v2", "defence.clip=0.5"),
    ],
    ids=" ".join,
)
def test_the_gradient_is_that_of_the_run(settings):
    before, after = (victim(*settings, *ONE_STEP, trained=trained) for trained in (False, True))
    views, labels = batch(before)
    client = before.client(0)
    above = None if before.config.whole_network else gradients_at_cut(before, client, views, labels)[1]
    gradient = local_gradient(before, client, labels, above)(views)
    told = sgd(before, client.online, gradient)
    settings = before.config.client
    names = [name for name, _ in client.online.named_parameters()]
    for name, was, now, slope, seen in zip(
        names, client.online.parameters(), after.client(0).online.parameters(), gradient, told, strict=True
    ):
        if before.config.keeps_labels and name.startswith("head"):
            continue  # a U-shaped client's classifier does not learn through the cut
        largest = float(slope.detach().abs().max())
        assert largest > 0
        done = (was - now) / settings.lr - settings.weight_decay * was
        torch.testing.assert_close(done.detach(), slope.detach(), rtol=1e-2, atol=2e-3 * largest)
        torch.testing.assert_close(seen, slope.detach(), rtol=1e-2, atol=1e-3 * largest)


def test_gradients_at_the_features_are_probabilities_minus_labels_through_the_classifier():
    found = victim("method=split_u_shaped", *ONE_STEP)
    views, labels = batch(found)
    client = found.client(0)
    with torch.no_grad():
        smashed = client.online(views)
        wrong = torch.softmax(client.online.head(found.trunk.features(smashed)), dim=1)
        wrong[torch.arange(len(labels)), labels] -= 1.0
        expected = wrong @ client.online.head.weight
    torch.testing.assert_close(at_features(found, client, smashed, labels), expected)


def test_exposures_are_the_batches_of_the_run():
    found = victim("method=mocosfl", "epochs=3", "steps_per_epoch=5")
    config = found.config
    assert found.exposures.sum() == 3 * 5 * config.pool_size * config.client.batch_size
    assert not victim("method=mocosfl", "epochs=3", "steps_per_epoch=5", trained=False).exposures.any()
    owners = {client for client, part in enumerate(found.source.parts) if found.exposures[part].any()}
    with_rows = set(found._rows)
    assert owners == with_rows, "whoever was drawn has a momentum model of its own"
