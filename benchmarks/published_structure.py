"""The structure of the published MocoSFL code, written plainly: the baseline of every speed that this project quotes.

One module, one momentum module, one SGD and one scheduler per client; views made image by image with PIL; float32,
channels first; the whole batch of the pool through the server at once; the queue cloned and the garbage collected at
every step. The arithmetic is that of the package's own layers, so both sides do the same floating-point work.
"""

from __future__ import annotations

import copy
import gc
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from machine import settle
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mocosfl_mpi.comm.cluster import Cluster
from mocosfl_mpi.config import Config, parse, read_toml
from mocosfl_mpi.data._torchvision import torchvision
from mocosfl_mpi.problem import Problem, read
from mocosfl_mpi.split import cut
from mocosfl_mpi.streams import Streams

PHASES = ("views", "client_forward", "exchange", "server", "client_backward", "garbage")


class Standardised(nn.Conv2d):
    """Weight-standardised convolution as published: mean, then ``std`` over the flattened filter."""

    def forward(self, images: Tensor) -> Tensor:
        """``[n, in, H, W]`` to ``[n, out, h, w]``."""
        centred = self.weight - self.weight.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(
            dim=3, keepdim=True
        )
        deviation = centred.view(centred.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(images, centred / deviation.expand_as(centred), self.bias, self.stride, self.padding)


def _as_published(module: nn.Module) -> nn.Module:
    """The same network with torch's own GroupNorm and the published convolution."""
    from mocosfl_mpi.split.layers import GroupNorm, WSConv2d

    for layer in module.modules():
        if isinstance(layer, WSConv2d):
            layer.__class__ = Standardised
        elif isinstance(layer, GroupNorm):
            layer.__class__ = nn.GroupNorm
    return module


class PublishedStructure:
    """MocoSFL's training step in the published arrangement, timed phase by phase."""

    def __init__(self, config: Config, problem: Problem, seed: int = 0, device: str = "cpu") -> None:
        self.config = config
        self.problem = problem
        self.size = config.views.size or problem.pixels.shape[-1]
        network = cut.build(config.model, problem.pixels.shape[1], self.size, Streams(seed), torch.float32)
        self.device = torch.device(device)
        bottom = _as_published(network.bottom).to(self.device)
        self.online = [copy.deepcopy(bottom) for _ in range(config.client.count)]
        self.momentum = [copy.deepcopy(bottom).requires_grad_(False) for _ in range(config.client.count)]
        self.optimisers = [self._sgd(model, config.client) for model in self.online]
        self.schedulers = [
            torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.epochs) for optimiser in self.optimisers
        ]
        self.trunk = _as_published(network.trunk).to(self.device)
        self.momentum_trunk = copy.deepcopy(self.trunk).requires_grad_(False)
        self.server_optimiser = self._sgd(self.trunk, config.server)
        generator = torch.Generator().manual_seed(seed)
        self.queue = F.normalize(
            torch.randn(network.key_dim, config.contrast.memory_length, generator=generator), dim=0
        ).to(self.device)
        self.position = 0
        transforms = torchvision().transforms
        channels = problem.pixels.shape[1]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(self.size, scale=(config.views.crop_scale_min, 1.0)),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([transforms.GaussianBlur(3, (0.1, 2.0))], p=0.5),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(problem.mean[:channels], problem.std[:channels]),
            ]
        )
        self.random = np.random.default_rng(seed)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.pool = np.sort(self.random.choice(config.client.count, config.pool_size, replace=False))

    @staticmethod
    def _sgd(model: nn.Module, settings: object) -> torch.optim.SGD:
        return torch.optim.SGD(
            model.parameters(),
            lr=settings.lr,  # type: ignore[attr-defined]
            momentum=settings.momentum,  # type: ignore[attr-defined]
            weight_decay=settings.weight_decay,  # type: ignore[attr-defined]
        )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's seconds to phase ``name``."""
        start = time.perf_counter()
        yield
        settle()
        self.seconds[name] += time.perf_counter() - start

    def _image(self, index: int) -> Image.Image:
        pixels = self.problem.pixels[index].transpose(1, 2, 0)
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def _views(self, client: int) -> tuple[Tensor, Tensor]:
        own = self.problem.parts[client]
        images = [self._image(int(i)) for i in self.random.choice(own, self.config.client.batch_size)]
        first, second = (torch.stack([self.transform(image) for image in images]) for _ in range(2))
        return first.to(self.device), second.to(self.device)

    @torch.no_grad()
    def _update(self, momentum: nn.Module, online: nn.Module) -> None:
        tau = self.config.contrast.momentum
        for old, new in zip(momentum.parameters(), online.parameters(), strict=True):
            old.data = old.data * tau + new.data * (1.0 - tau)

    def _term(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """InfoNCE of smashed data, and the keys."""
        unit = F.normalize(self.trunk(query), dim=1)
        with torch.no_grad():
            keys = F.normalize(self.momentum_trunk(key), dim=1)
        positive = torch.einsum("nc,nc->n", [unit, keys]).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", [unit, self.queue.clone().detach()])
        logits = torch.cat([positive, negative], dim=1) / self.config.contrast.temperature
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device)), keys

    def step(self) -> float:
        """One step of the whole pool; its loss."""
        queries, keys, smashed = [], [], []
        for client in self.pool:
            with self.phase("views"):
                first, second = self._views(int(client))
            with self.phase("client_forward"):
                queries.append(self.online[client](first))
                self._update(self.momentum[client], self.online[client])
                with torch.no_grad():
                    keys.append(self.momentum[client](second))
        with self.phase("exchange"):
            smashed = [query.detach().clone() for query in queries]
            query = torch.cat(smashed).requires_grad_()
            key = torch.cat(keys)
        with self.phase("server"):
            self._update(self.momentum_trunk, self.trunk)
            self.server_optimiser.zero_grad()
            loss, fresh = self._term(query, key)
            if self.config.contrast.symmetric == "published":
                other, swapped = self._term(key, query.detach())
                loss, fresh = loss + other, torch.cat([swapped, fresh])
            places = torch.arange(self.position, self.position + len(fresh)) % self.queue.shape[1]
            self.queue[:, places] = fresh.T
            self.position = (self.position + len(fresh)) % self.queue.shape[1]
            loss.backward()
            self.server_optimiser.step()
        assert query.grad is not None
        with self.phase("client_backward"):
            batch = self.config.client.batch_size
            for place, client in enumerate(self.pool):
                self.optimisers[client].zero_grad()
                queries[place].backward(query.grad[place * batch : (place + 1) * batch])
                self.optimisers[client].step()
                self.schedulers[client].step()
        with self.phase("garbage"):
            gc.collect()
        return float(loss.detach())


def main() -> None:
    config = parse(read_toml(Path(sys.argv[1])), sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    data_dir = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    problem = Problem.share(Cluster(), read(config, data_dir, Streams(config.seed)))
    structure = PublishedStructure(config, problem, device=sys.argv[3])
    for _ in sys.stdin:
        structure.seconds = dict.fromkeys(PHASES, 0.0)
        start = time.perf_counter()
        structure.step()
        print(json.dumps({"step": time.perf_counter() - start, "phases": structure.seconds}), flush=True)


if __name__ == "__main__":
    main()
