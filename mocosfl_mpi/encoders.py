"""The network that is judged: bottom and trunk, or what clients have in one piece (rank 0)."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor, nn

from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.ends import StackedEnds
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.split.pieces import Pieces, apart, together
from mocosfl_mpi.split.stacked import StackedModel


class Encode(Protocol):
    """From a client's weights ``[P]``, with what belongs to them on the main server, to features."""

    def __call__(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared images ``[n, C, H, W]`` to (features ``[n, f]``, projections ``[n, d]``)."""

    def module(self, weights: Tensor) -> nn.Module:
        """Images to features as a plain module that may be trained: it shares no weight."""


class OnDevice:
    """Another one, whose network lies on ``device``: what comes and goes is in host memory."""

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode = encode
        self._device = device

    def __call__(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Encode``."""
        features, projections = self._encode(weights.to(self._device), images.to(self._device))
        return features.cpu(), projections.cpu()

    def module(self, weights: Tensor) -> nn.Module:
        """See ``Encode``."""
        return self._encode.module(weights).cpu()


class BehindTheCut:
    """The client's part, and the main server's trunk behind it; of two cuts, at the one where the trunk begins."""

    def __init__(self, model: StackedModel, server: Server) -> None:
        self._model = model
        self._server = server

    def __call__(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Encode``."""
        return self._server.encode(self._model.forward(self._own(weights)[None], images[None])[0])

    def _own(self, weights: Tensor) -> Tensor:
        """Of a row of weights what the model has: the first of it."""
        return weights[: self._model.parameters]

    def module(self, weights: Tensor) -> nn.Module:
        """See ``Encode``."""
        return cut.Encoder(self._model.module(self._own(weights)), copy.deepcopy(self._server.online))


class BetweenEnds:
    """The client's first layers, the server's middle, and the client's classifier."""

    def __init__(self, model: StackedEnds, server: Server) -> None:
        self._model = model
        self._server = server

    def __call__(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Encode``; projections are logits."""
        features, _ = self._server.encode(self._model.forward(weights[None], images[None])[0])
        return features, self._model.classify(weights[None], features[None])[0][0]

    def module(self, weights: Tensor) -> nn.Module:
        """See ``Encode``."""
        return cut.Encoder(self._model.module(weights), copy.deepcopy(self._server.online))


class FromPieces:
    """The parts of all clients, each on its own piece of an image, and the main server's trunk behind them."""

    def __init__(self, model: StackedModel, server: Server, clients: int) -> None:
        self._model = model
        self._server = server
        self._clients = clients

    def __call__(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Encode``; ``weights`` ``[clients·P]``."""
        pieces = torch.stack(apart(images, self._clients))
        smashed = self._model.forward(weights.view(self._clients, -1), pieces)
        return self._server.encode(together(list(smashed)))

    def module(self, weights: Tensor) -> nn.Module:
        """See ``Encode``."""
        parts = [self._model.module(own) for own in weights.view(self._clients, -1)]
        return cut.Encoder(Pieces(parts), copy.deepcopy(self._server.online))


class InOnePiece:
    """The client's whole network; a predictor has no part in it."""

    def __init__(self, network: cut.WholeNetwork, key_dim: int, engine: Engine) -> None:
        self._model = StackedModel(cut.Encoding(network), engine)
        self._key_dim = key_dim

    def __call__(self, weights: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Encode``."""
        both = self._model.forward(weights[None], images[None])[0]
        return both[:, : -self._key_dim], both[:, -self._key_dim :]

    def module(self, weights: Tensor) -> nn.Module:
        """See ``Encode``."""
        encoding = self._model.module(weights)
        assert isinstance(encoding, cut.Encoding)
        return cut.Encoder(nn.Identity(), encoding.network)
