"""What is computed on the stand-in in a process of its own, as ``from tests.device import scenes; scenes.NAME()``.

Torch asks a device that it has met at many places, so tests that follow in the same process would meet it too.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from mocosfl_mpi.clients.feed import Feed
from mocosfl_mpi.clients.labelled import LabelledFeed
from mocosfl_mpi.clients.mixed import MixedFeed
from mocosfl_mpi.config import Compute, Evaluation, Views, parse
from mocosfl_mpi.data.images import Images
from mocosfl_mpi.data.views import ViewMaker
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.evaluation import judge as judge_module
from mocosfl_mpi.evaluation.judge import Judge
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.engine import CPU, SHARE, Accelerator, Engine
from mocosfl_mpi.streams import Streams
from tests.device import standin
from tests.unit.server.traffic import one_step

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (40, 3, 12, 12), dtype=np.uint8)
LABELS = RANDOM.integers(0, 4, 40)
PIXELS.flags.writeable = False  # as ranks see them
PARTS = [np.arange(0, 25), np.arange(25, 40)]


def images_lie_on_the_device_once() -> None:
    """The same views as on processors; where the device has no room for all images, they come batch by batch."""
    maker = ViewMaker(Views(), 12, (0.5,) * 3, (0.25,) * 3, torch.float64)

    def feeds(device):
        plain = Feed(PIXELS, PARTS, 4, maker, Streams(0), device=device)
        labelled = LabelledFeed(PIXELS, LABELS, PARTS, 4, maker, Streams(0), device=device)
        return plain, labelled, MixedFeed([plain, plain])

    for memory, lies in ((SHARE * PIXELS.nbytes, True), (SHARE * PIXELS.nbytes - 1, False)):
        standin.MEMORY = memory
        for here, there in zip(feeds(CPU), feeds(standin.device()), strict=True):
            for step in range(2):
                wanted, found = (feed.draw(np.array([0, 1]), 1, step) for feed in (here, there))
                for own, other in zip(wanted, found, strict=True):
                    assert other.device == standin.device()
                    torch.testing.assert_close(other.cpu(), own, rtol=0, atol=0)
            for feed in there._feeds if isinstance(there, MixedFeed) else (there,):
                assert (feed._there is not None) == lies
        assert feeds(CPU)[0]._there is None


def classifiers_are_computed_where_there_is_room() -> None:
    """With the accuracies of the processor."""
    places = []

    def watch(name):
        compute = getattr(judge_module, name)

        def computed(*arguments, **options):
            found = {part.device for part in arguments if isinstance(part, torch.Tensor)}
            places.append(found)
            return compute(*arguments, **options)

        setattr(judge_module, name, computed)

    watch("knn_top1")
    watch("linear_probe")
    train, held_out, test = Images(PIXELS, LABELS), Images(PIXELS[:8], LABELS[:8]), Images(PIXELS[8:20], LABELS[8:20])
    settings = Evaluation(neighbours=5, probe_l2=(1e-3, 1e-2))

    def verdict(device):
        return Judge(
            settings, train, held_out, test, 4, lambda pixels: pixels.double() / 255.0, None, device=device
        ).verdict(lambda images: (images.flatten(1), images.flatten(1)[:, :7]))

    there = standin.device()
    wanted, needed = verdict(CPU), 8 * (len(train) + len(test)) * PIXELS[0].size
    assert {CPU} == set().union(*places)
    for memory, place in ((SHARE * needed, there), (SHARE * needed // 16, CPU)):
        standin.MEMORY = memory
        places.clear()
        assert verdict(there) == wanted
        assert len(places) == 3
        assert places[0] == places[2] == {place}


def a_pool_passes_at_once() -> None:
    """Up to 256 rows, where processors take 64; with the same loss and gradient."""
    config = parse(
        {
            "model": {"width": 4, "key_dim": 8, "cut_layer": 8},
            "contrast": {"memory_length": 300},
            "client": {"count": 260, "batch_size": 1},
        },
        "test",
    )
    network = cut.build(config.model, 1, 8, Streams(0), torch.float64)
    servers = {
        device: MainServer(
            config, copy.deepcopy(network.trunk), 8, Streams(0), Engine("fp64", "stacked", device=device)
        )
        for device in (CPU, standin.device())
    }
    for rows, here, there in ((100, [50, 50], [100]), (256, [64] * 4, [256]), (260, [52] * 5, [130, 130])):
        query, key = torch.randn(2, rows, *network.smashed_shape, dtype=torch.float64)
        results = []
        for (device, server), expected in zip(servers.items(), (here, there), strict=True):
            passed, forward = [], server._online_passes.forward_with_pullback

            def watch(part, forward=forward, passed=passed, **options):
                passed.append(len(part))
                return forward(part, **options)

            server._online_passes.forward_with_pullback = watch
            results.append(one_step(server, query.to(device), key.to(device), np.arange(rows)))
            server._online_passes.forward_with_pullback = forward
            assert passed == [part for part in expected for _ in range(2)]
        (gradient, report), (other, found) = results
        torch.testing.assert_close(other.cpu(), gradient, rtol=1e-9, atol=1e-12)
        assert abs(found.loss - report.loss) < 1e-9


def what_torch_cannot_compile_for_is_refused() -> None:
    """Inductor knows no stand-in."""
    from mocosfl_mpi import devices
    from tests.device.test_device import Ranks

    class One(Ranks):
        def gather_json(self, own):
            return [own]

    devices._gpu = lambda compute, cluster: Accelerator(standin.device(), bfloat16=True)
    try:
        devices.common(Compute(device="cuda", compile=True), One(0, [1] * 4))
    except BadInput as error:
        assert "cannot compile on rank 0 on a: " in str(error), error
        assert standin.NAME in str(error), error
    else:
        raise AssertionError("compiled for a device that inductor does not know")
