"""Photographs, small clients, and what an adversary sees of them."""

from functools import cache

import torch
from torch.nn import functional as F

from mocosfl_mpi.attacks.view import View, unguarded
from mocosfl_mpi.config import Model
from mocosfl_mpi.split.cut import build
from mocosfl_mpi.streams import Streams

MEAN, STD = (0.45, 0.45, 0.45), (0.25, 0.25, 0.25)


@cache
def photographs(size, shrink=2):
    """Patches ``[n, 3, size, size]`` of four sample photographs, none over another, in a random order."""
    from skimage import data

    patches = []
    for picture in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255.0
        pixels = F.avg_pool2d(pixels, shrink)
        rows, columns = (length // size for length in pixels.shape[2:])
        pixels = pixels[:, :, : rows * size, : columns * size]
        patches.append(F.unfold(pixels, size, stride=size)[0].T.reshape(-1, 3, size, size))
    every = torch.cat(patches)
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]


def client(cut, *, size, bottleneck="", width=8, seed=0):
    """The first layers of a ResNet-18 with random weights."""
    model = Model(cut_layer=cut, width=width, bottleneck=bottleneck, key_dim=8, hidden_dim=8)
    return build(model, 3, size, Streams(seed), torch.float32).bottom.eval().requires_grad_(False)


def seen(weights, private, own, *, guard=unguarded, adaptive=True, architecture=None):
    """What a server has in hand when a client with ``weights`` has sent the pixels ``private``."""
    shape = tuple(own.shape[1:])
    bare = View("server", MEAN[: shape[0]], STD[: shape[0]], shape, own)
    with torch.no_grad():
        smashed = guard(weights(bare.normalise(private)), torch.Generator().manual_seed(99), bare.normalise(private))
    return View(
        "server", bare.mean, bare.std, shape, own, smashed=smashed, weights=weights, architecture=architecture,
        guard=guard if adaptive else unguarded,
    )  # fmt: skip
