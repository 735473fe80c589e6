"""An update gives its images away where the whole network is on the client and they are one; a few layers do not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort, NotApplicable
from mocosfl_mpi.attacks.guards import guard_of
from mocosfl_mpi.attacks.jobs import Orders, plan
from mocosfl_mpi.attacks.registry import ATTACKS
from mocosfl_mpi.attacks.scenes import pixels_of
from mocosfl_mpi.attacks.scenes.draws import public, raw
from mocosfl_mpi.attacks.scenes.inversion import Inversion
from mocosfl_mpi.attacks.stage import scene_of
from mocosfl_mpi.attacks.view import View, unguarded
from mocosfl_mpi.config import Data
from mocosfl_mpi.data.sources import load
from mocosfl_mpi.split.layers import seeded
from mocosfl_mpi.streams import Streams
from tests.unit.attacks.victims import victim

DLG, COSINE = ATTACKS["dlg"], ATTACKS["inverting_gradients"]


def lenet(batch, noise=0.0):
    """What a fed server sees of one step of a LeNet with sigmoids on ``batch`` images of 16 pixels; and these."""
    data = load(Data(train_images=50, test_images=10), None, Streams(0))
    images = pixels_of(data.train, 16)
    truth, labels = images[:batch], torch.from_numpy(data.train.labels[:batch])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inputs, stride in ((images.shape[1], 2), (12, 2), (12, 1)):
            layers += [nn.Conv2d(inputs, 12, 5, padding=2, stride=stride), nn.Sigmoid()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 10))
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
    bare = View("fed_server", data.mean, data.std, tuple(images.shape[1:]), images)

    def simulate(pixels):
        loss = F.cross_entropy(model(bare.normalise(pixels)), labels)
        return torch.autograd.grad(loss, list(model.parameters()), create_graph=True)

    generator = torch.Generator().manual_seed(1)
    seen = [part.detach() for part in simulate(truth)]
    seen = [part + noise * part.std() * torch.randn(part.shape, generator=generator) for part in seen]
    return replace(bare, update=tuple(seen), simulate=simulate, unknowns=batch), truth


def convolutions(width=16):
    """The same of four convolutions with ReLUs, as torch begins them."""
    data = load(Data(train_images=50, test_images=10), None, Streams(0))
    images, label = pixels_of(data.train, 16), torch.from_numpy(data.train.labels[:1])
    layers: list[nn.Module] = []
    with seeded(0):
        for inputs, stride in ((images.shape[1], 1), (width, 2), (width, 1), (width, 2)):
            layers += [nn.Conv2d(inputs, width, 3, stride, padding=1), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 10))
    bare = View("fed_server", data.mean, data.std, tuple(images.shape[1:]), images)

    def simulate(pixels):
        loss = F.cross_entropy(model(bare.normalise(pixels)), label)
        return torch.autograd.grad(loss, list(model.parameters()), create_graph=True)

    seen = tuple(part.detach() for part in simulate(images[:1]))
    return replace(bare, update=seen, simulate=simulate, unknowns=1), images[:1]


def test_one_image_comes_back_as_it_was():
    view, truth = lenet(1)
    guess = DLG.run(view, 0, Effort(0.1))
    assert metrics.mse(guess.values, truth).item() <= 1e-4
    assert guess.notes["gradient_error"] < 1e-6


def test_a_tenth_of_noise_on_the_update_is_noise_in_the_image():
    (exact, truth), (noisy, _) = lenet(1), lenet(1, noise=0.1)
    effort = Effort(0.04)
    errors = [metrics.mse(DLG.run(view, 0, effort).values, truth).item() for view in (exact, noisy)]
    assert errors[0] <= 1e-4 < errors[1]


def test_a_small_network_with_relus_gives_its_image_away_to_the_cosine():
    view, truth = convolutions()
    found = metrics.score(COSINE.run(view, 0, Effort(0.1)).values, truth)
    assert found["mse"] < metrics.mse(metrics.constant_mean(view.own, 1), truth).item() / 10
    assert found["ssim"] > 0.8


def test_the_cosine_alone_gets_far_below_what_a_blind_guesser_has():
    view, truth = lenet(1)
    floor = metrics.mse(metrics.constant_mean(view.own, 1), truth).item()
    assert metrics.mse(COSINE.run(view, 0, Effort(0.08)).values, truth).item() < floor / 3


@pytest.mark.slow
def test_several_images_come_back_too():
    view, truth = lenet(4)
    guess = DLG.run(view, 0, Effort(1 / 3)).values
    order = [int((guess - one).square().flatten(1).mean(1).argmin()) for one in truth]
    assert metrics.mse(guess[order], truth).mean() < 0.07


@pytest.mark.parametrize(
    ("settings", "role", "views"),
    [
        (("method=fl_moco",), "fed_server", 2),
        (("method=fl_byol",), "fed_server", 2),
        (("method=fedavg",), "fed_server", 1),
        (("method=mocosfl", "contrast.symmetric=both_views"), "server", 2),
        (("method=mocosfl",), "server", 1),
        (("method=sfl_v2",), "server", 1),
    ],
    ids=str,
)
def test_the_true_views_and_no_others_give_the_update(settings, role, views):
    scene = Inversion(victim(*settings), role, informed=True)
    view = scene.view
    assert view.unknowns == len(scene.truth) == views
    assert (view.smashed is None) == victim(*settings).config.whole_network
    seen = torch.cat([part.flatten() for part in view.update])
    right, wrong = (
        torch.cat([part.flatten() for part in view.simulate(pixels)]).detach()
        for pixels in (scene.truth, view.own[:views])
    )
    assert (right - seen).norm() < 0.02 * seen.norm()
    assert (wrong - seen).norm() > 0.2 * seen.norm()
    assert scene.score(replace_values(scene.truth.flip(0)))["mse"] == 0.0, "which view is which does not matter"


def replace_values(values):
    from mocosfl_mpi.attacks.attack import Guess

    return Guess(values, {})


@pytest.mark.parametrize("method", ["fl_moco", "fl_byol"])
def test_without_the_momentum_model_and_the_keys_it_is_guesswork(method):
    """And these stay with the client: what `mocosfl attack` mounts has to guess."""
    found = victim(f"method={method}")
    job = plan(Orders(("dlg",), seeds=1), ATTACKS, defended=False)[0]
    scenes = [Inversion(found, "fed_server", informed=True), scene_of(DLG, found, job, unguarded)]
    errors = []
    for scene in scenes:
        seen = torch.cat([part.flatten() for part in scene.view.update])
        found = torch.cat([part.flatten() for part in scene.view.simulate(scene.truth)]).detach()
        errors.append(float((found - seen).norm() / seen.norm()))
    assert errors[1] > 10 * errors[0]


def test_a_few_layers_weights_leak_far_less_than_their_smashed_data():
    """P10: smashed data tell more than each image's own mean colour, the weights of the layers before them do not.

    What is sent are views, and so are the images that the decoder of smashed data is fitted on. The oracle knows how
    bright each is, which is lost behind a GroupNorm: it is structure that is compared.
    """
    found = victim("data.train_images=600", "data.test_images=800", "model.cut_layer=1")
    scene = Inversion(found, "server", images=8)
    own = found.augment(raw(public(found, 0, 400).own), 1, 0)[:, 0]
    smashed = scene.score(ATTACKS["ridge"].run(replace(scene.view, own=own), 0, Effort()))
    weights = scene.score(COSINE.run(scene.view, 0, Effort(0.05)))
    oracle = scene.floors()["own_mean"]
    assert smashed["ssim"] > oracle["ssim"] + 0.1
    assert weights["ssim"] < oracle["ssim"]
    assert weights["mse"] > 2.0 * smashed["mse"]


@pytest.mark.parametrize(
    ("settings", "role", "reason"),
    [
        (("method=mocosfl",), "fed_server", "gradient at the cut, which the main server alone sends"),
        (("method=mocosfl",), "wire", "does not see what a client's weights become"),
        (("client.frozen=true",), "server", "never change"),
        (("method=standalone",), "fed_server", "nobody but the client itself ever sees its model in standalone"),
        (("method=split_vertical", "client.count=4", "client.sampling_ratio=1.0"), "server", "pieces of images"),
    ],
    ids=str,
)
def test_where_it_cannot_be_mounted(settings, role, reason):
    with pytest.raises(NotApplicable, match=reason):
        Inversion(victim(*settings, trained=False), role)


def test_the_server_sees_and_answers_defended_data_and_the_client_s_own_terms_stay_its_own():
    found = victim("defence.clip=0.5", "client.batch_size=4")
    scene = Inversion(found, "server", images=2, guard=guard_of(found, 0))
    assert scene.view.smashed.flatten(1).norm(dim=1).max() < 0.5001
    seen, believed = (
        torch.cat([part.flatten() for part in parts]).detach()
        for parts in (scene.view.update, scene.view.simulate(scene.truth))
    )
    assert (believed - seen).norm() > 0.02 * seen.norm(), "the way back through the clip is the client's"
