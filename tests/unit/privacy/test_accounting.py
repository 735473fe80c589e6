"""ε of the Gaussian mechanism by hand and by other accountants, and how often an image is sent."""

import builtins
import math
import re

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent, pld, rdp

from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.participation import pool
from mocosfl_mpi.clients.reliability import Reliability
from mocosfl_mpi.clients.wealth import factors
from mocosfl_mpi.config import apply_settings, parse
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.privacy.accounting import epsilon, guarantee
from mocosfl_mpi.privacy.exposure import protection, sends
from mocosfl_mpi.streams import Streams

NOISY = ("defence.clip=2", "defence.noise=gaussian", "defence.noise_scale=8")


def configuration(*settings):
    small = {"epochs": 3, "client": {"count": 4, "batch_size": 3}, "partition": {"kind": "iid"}}
    return parse(apply_settings(small, list(settings)), "test")


def normal(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("multiplier", "times"), [(1.0, 1), (4.0, 1), (20.0, 50)])
def test_a_gaussian_mechanism_by_hand(multiplier, times):
    """Balle and Wang 2018, equation 6: δ(ε) = Φ(a/2 - ε/a) - exp(ε) Φ(-a/2 - ε/a), a = √times / multiplier."""
    delta, a = 1e-5, math.sqrt(times) / multiplier
    found = epsilon(multiplier, times, delta)
    back = normal(a / 2 - found / a) - math.exp(found) * normal(-a / 2 - found / a)
    assert back == pytest.approx(delta, rel=1e-6)


def test_a_known_figure():
    """σ = 1, δ = 1e-5: 4.377 in the literature (the classical formula, σ = √(2 ln(1.25/δ))/ε, has 4.845)."""
    assert epsilon(1.0, 1, 1e-5) == pytest.approx(4.377, abs=1e-3)
    assert epsilon(1.0, 1, 1e-5) < math.sqrt(2 * math.log(1.25e5))


def test_other_accountants_agree():
    event = SelfComposedDpEvent(GaussianDpEvent(5.0), 40)
    tight = pld.PLDAccountant().compose(event).get_epsilon(1e-5)
    loose = rdp.RdpAccountant().compose(event).get_epsilon(1e-5)
    found = epsilon(5.0, 40, 1e-5)
    assert found == pytest.approx(tight, rel=1e-3)
    assert found < loose


def test_it_grows_with_sends_and_falls_with_noise():
    by_sends = [epsilon(3.0, n, 1e-5) for n in (0, 1, 2, 10, 1000)]
    assert by_sends[0] == 0.0
    assert by_sends == sorted(set(by_sends))
    by_noise = [epsilon(m, 10, 1e-5) for m in (0.1, 1.0, 10.0, 100.0)]
    assert by_noise == sorted(set(by_noise), reverse=True)
    assert epsilon(3.0, 10, 1e-9) > epsilon(3.0, 10, 1e-3)


def test_sensitivities_are_those_of_the_two_adjacencies():
    found = guarantee(configuration(*NOISY), 6)
    assert found.epsilon == epsilon(8 / (2 * 2), 6, 1e-5)
    assert found.epsilon_absent == epsilon(8 / 2, 6, 1e-5)
    assert found.epsilon_once == epsilon(8 / (2 * 2), 1, 1e-5)
    assert f"ε = {found.epsilon:.4g} at δ = 1e-05" in found.text
    assert "sent up to 6 times" in found.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("defence.noise=gaussian", "defence.noise_scale=8"), "additive noise, no guarantee: .* not clipped"),
        (("defence.clip=1", "defence.noise=laplace", "defence.noise_scale=8"), "no guarantee: .* not Gaussian"),
        (("defence.clip=1",), "no noise, no guarantee"),
        (("defence.dropout=0.5",), "no noise, no guarantee"),
        ((*NOISY, "model.backbone=mobilenetv2_published"), "BatchNorm of mobilenetv2_published mixes images"),
    ],
)
def test_what_is_no_guarantee_is_not_called_one(settings, words):
    found = guarantee(configuration(*settings), 6)
    assert found.epsilon is None
    assert re.search(words, found.text), found.text


def test_without_the_package_the_remedy_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **named):
        if name.startswith("dp_accounting"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BadInput, match=r"pip install 'mocosfl-mpi\[privacy\]'"):
        epsilon(1.0, 1, 1e-5)
    found = guarantee(configuration(*NOISY), 6)
    assert found.epsilon is None
    assert "mocosfl-mpi[privacy]" in found.text


CASES = {
    "all take part": ((), 2),
    "both roles": (("contrast.symmetric=both_views",), 4),
    "labels": (("method=sfl_v2",), 1),
    "sampled": (("client.sampling_ratio=0.5", "epochs=5"), 2),
    "taking turns": (("method=split_vanilla", "epochs=6"), 1),
    "dropping out, rich and poor": (
        (
            "reliability.client_dropout=0.4",
            "client.rich_share=0.5",
            "client.rich_batch_factor=3",
            "partition.rich_data=0.5",
        ),
        2,
    ),
}


@pytest.mark.parametrize(("settings", "each"), CASES.values(), ids=CASES)
def test_sends_are_those_of_the_feed(settings, each):
    """Counted step by step from the batches that clients really draw."""
    config = configuration(*settings)
    parts = [np.array([0, 1, 2, 3, 4, 5, 6]), np.array([7, 8]), np.array([9, 10, 11, 12]), np.array([3, 3, 9])]
    streams, steps = Streams(config.seed), 4
    feed = Feed(None, parts, config.client.batch_size, None, streams, factors(config))
    wanted = np.zeros(13, dtype=int)
    images = np.array([7, 2, 4, 3])
    for epoch in range(config.epochs):
        drawn = pool(config, streams, epoch, images)
        for client in Reliability(config, streams).survivors(epoch, drawn):
            for step in range(steps):
                for image in feed.indices(int(client), epoch, step):
                    wanted[image] += each
    np.testing.assert_array_equal(sends(config, steps, parts), wanted)
    assert len(set(wanted.tolist())) > 1
    assert protection(config, steps, parts).sends == wanted.max()


def test_pieces_of_an_image_are_sent_by_all():
    config = configuration("method=split_vertical", "epochs=2", "client.batch_size=5")
    found = sends(config, 2, [np.arange(10)] * 4)
    assert found.tolist() == [2 * 4] * 10, "once an epoch, in quadrants"
