"""Was this image among the other clients' latest? A client plants it and looks at the gradient that comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.attacks.attack import Guess, NotApplicable
from mocosfl_mpi.attacks.guards import Sending, answered, sending
from mocosfl_mpi.attacks.ranking import chance, separation
from mocosfl_mpi.attacks.scenes.draws import public, raw
from mocosfl_mpi.attacks.scenes.reconstruction import look
from mocosfl_mpi.attacks.steps import at_cut, keys_of
from mocosfl_mpi.attacks.victim import Client, Victim
from mocosfl_mpi.attacks.view import Role
from mocosfl_mpi.server.main_server import MainServer

AT_ONCE = 64


@dataclass(eq=False)
class Probing:
    """Half of the other clients' images have filled the feature memory with their keys; which half?

    Half of the adversary's own images are in it too, and it knows which: the rehearsal that tells it whether what is in
    the memory makes gradients longer or shorter. Each is encoded by its owner's momentum model and the momentum trunk,
    in views, and defended, as in training. The adversary (``client``) has ``count`` images of either half, sends each
    ``probes`` times in two views of its own, and gets the gradients at the cut. ``exact``: it has even the view that is
    in the memory, and plants that as its query: what no client can do, and the most that could be learnt.
    ``unrelated``: the memory holds random unit vectors: the control.

    Kept beside the truth: the ``memory`` ``[K, d]``, and what was ``planted`` as queries ``[m, probes, C, h, w]``.
    """

    victim: Victim
    role: Role = "client"
    client: int = 0
    count: int = 200
    probes: int = 4
    exact: bool = False
    unrelated: bool = False
    own: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        victim, source = self.victim, self.victim.source
        self._require()
        streams = victim.streams
        draw = streams.generator("attack: probing", self.seed)
        others = [c for c in range(len(source.parts)) if c != self.client]
        owners = np.concatenate([np.full(len(source.parts[c]), c) for c in others])
        order = draw.permutation(len(owners))
        images, owners = np.concatenate([source.parts[c] for c in others])[order], owners[order]
        places = victim.config.contrast.memory_length
        mine = draw.permutation(source.parts[self.client])
        known = min(len(mine) // 2, max(places // 4, 1), self.count)
        half = min(len(images) // 2, places - known)
        pixels, own = raw(source.train.take(images)), raw(source.train.take(mine[: 2 * known]))
        kept = torch.cat([own[:known], pixels[:half]])
        views = victim.augment(kept, -(-places // len(kept)), streams.torch_seed("attack: keys", self.seed))
        memory = self._memory(views, np.append(np.full(known, self.client), owners[:half]))[:places]
        views = views[known:]
        if self.unrelated:
            memory = F.normalize(torch.from_numpy(draw.standard_normal(memory.shape)).float(), dim=1)
        self.memory = memory
        number = min(self.count, half, len(images) - half)
        asked = torch.cat([pixels[:number], pixels[half : half + number]])
        self.truth = torch.arange(2 * number) < number
        probes = victim.augment(asked, 2 * self.probes, streams.torch_seed("attack: probes", self.seed))
        if self.exact:
            stand_in = victim.augment(asked[number:], 1, streams.torch_seed("attack: stand-ins", self.seed))
            probes[:, ::2] = torch.cat([views[:number, :1], stand_in])
        self.planted = probes[:, ::2]
        hand = public(victim, self.seed, self.own)
        seen = look(victim, self.role, self.client, hand.pixels, None)
        rehearsed = victim.augment(own, 2 * self.probes, streams.torch_seed("attack: rehearsed", self.seed))
        self.view = replace(
            seen, candidates=asked, received=self._received(probes, memory), augment=victim.augment,
            rehearsed=self._received(rehearsed, memory), rehearsal=torch.arange(2 * known) < known,
        )  # fmt: skip

    def score(self, guess: Guess) -> dict[str, float]:
        """How well ``values`` ``[m]`` tell images in the memory from others (`ranking.separation`)."""
        return separation(guess.values, self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """Chance."""
        return {"chance": chance()}

    def _memory(self, views: Tensor, owners: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        """Unit keys of all ``views`` ``[n, count, C, h, w]``: first every image's first, then the second …"""
        keys: Tensor | None = None
        for owner in np.unique(owners).tolist():
            mine = torch.from_numpy(np.flatnonzero(owners == owner))
            rows = views[mine]
            made = self._keys(self.victim.client(owner), rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
            keys = made.new_zeros(*views.shape[:2], made.shape[2]) if keys is None else keys
            keys[mine] = made
        assert keys is not None
        return keys.transpose(0, 1).flatten(0, 1)

    def _keys(self, client: Client, pixels: Tensor) -> Tensor:
        return keys_of(self.victim, self._smashed(client.momentum, pixels, sending(self.victim, client.number)))

    def _smashed(self, module: torch.nn.Module | None, pixels: Tensor, send: Sending | None = None) -> Tensor:
        """Smashed data of ``pixels``, as they are sent."""
        assert module is not None
        data = self.victim.source.data
        mean, std = (torch.tensor(v)[:, None, None] for v in (data.mean, data.std))
        generator = torch.Generator().manual_seed(self.victim.streams.torch_seed("attack: defended keys", self.seed))
        found = []
        with torch.no_grad():
            for part in pixels.split(AT_ONCE):
                images = (part - mean) / std
                made = module(images)
                found.append(made if send is None else send(made, generator, images)[0])
        return torch.cat(found)

    def _received(self, probes: Tensor, memory: Tensor) -> Tensor:
        """Gradients ``[m, probes, c, h, w]``, as they come down: odd views are queries, even ones keys.

        An adversary does not defend what it plants.
        """
        me = self.victim.client(self.client)
        query, key = (probes[:, start::2].flatten(0, 1) for start in (0, 1))
        found = at_cut(self.victim, self._smashed(me.online, query), self._smashed(me.momentum, key), memory)
        return answered(self.victim, found).view(len(probes), self.probes, *found.shape[1:])

    def _require(self) -> None:
        config = self.victim.config
        if config.supervised or ALGORITHMS[config.method].server is not MainServer or config.whole_network:
            raise NotApplicable(f"{config.method} has no feature memory that clients share")
        if not config.contrast.share_features:
            raise NotApplicable("every client has a feature memory of its own (contrast.share_features = false)")
        if config.client.frozen:
            raise NotApplicable("no gradient comes back to frozen clients (client.frozen = true)")
        if len(self.victim.source.parts) < 2:
            raise NotApplicable("there is no other client")
        if len(self.victim.source.parts[self.client]) < 2:
            raise NotApplicable(
                f"client {self.client} has one image, and cannot find out by its own what a memory does to gradients"
            )
