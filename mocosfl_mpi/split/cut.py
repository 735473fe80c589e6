"""The network cut in two: the bottom on every client; trunk and projector on the main server. Or not cut at all."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mocosfl_mpi.config import Model
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.networks import entries
from mocosfl_mpi.split import backbones, heads
from mocosfl_mpi.split.bottleneck import Bottleneck
from mocosfl_mpi.split.layers import initialise, seeded
from mocosfl_mpi.streams import Streams


class Trunk(nn.Module):
    """The main server's part: remaining layers, global average pool, projector head."""

    def __init__(self, backbone: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, smashed: Tensor) -> Tensor:
        """Smashed data ``[n, C, h, w]`` to pooled backbone features ``[n, feature_dim]``."""
        return self.pool(self.backbone(smashed))

    def pool(self, maps: Tensor) -> Tensor:
        """Global average of the backbone's maps ``[n, C, h, w]``, in the type of the head's weights."""
        return maps.to(next(self.head.parameters()).dtype).mean(dim=(2, 3))

    def forward(self, smashed: Tensor) -> Tensor:
        """Smashed data ``[n, C, h, w]`` to projections ``[n, key_dim]`` (not normalised)."""
        return self.head(self.features(smashed))  # type: ignore[no-any-return]


class Headless(Trunk):
    """A main server's part that ends in the pooled features: what stands behind them is the client's."""

    def __init__(self, backbone: nn.Sequential, dtype: torch.dtype) -> None:
        super().__init__(backbone, nn.Identity())
        self._dtype = dtype

    def pool(self, maps: Tensor) -> Tensor:
        """Global average of the backbone's maps ``[n, C, h, w]``, in the type of the weights."""
        return maps.to(self._dtype).mean(dim=(2, 3))


class Ends(nn.Module):
    """A client's part that has both ends of the network: the first layers, and the head. It computes the first."""

    def __init__(self, backbone: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` to smashed data ``[n, C, h, w]``."""
        return self.backbone(images)  # type: ignore[no-any-return]


class WholeNetwork(Trunk):
    """Backbone, pool and projector on one device, and a predictor behind them where the method has one."""

    def __init__(self, backbone: nn.Sequential, head: nn.Module, predictor: nn.Module | None) -> None:
        super().__init__(backbone, head)
        self.predictor = predictor

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[n, C, H, W]`` to projections ``[n, key_dim]``, or ``[prediction, projection]`` (not normalised)."""
        projections = super().forward(images)
        if self.predictor is None:
            return projections
        return torch.cat([self.predictor(projections), projections], dim=1)


class Encoding(nn.Module):
    """A network as evaluation sees it: ``[features, projections]`` side by side; its parameters, in its order."""

    def __init__(self, network: Trunk) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images or smashed data ``[n, C, H, W]`` to ``[n, feature_dim + key_dim]``."""
        features = self.network.features(images)
        return torch.cat([features, self.network.head(features)], dim=1)


class Encoder(nn.Module):
    """Bottom and trunk as one module, up to the pooled features."""

    def __init__(self, bottom: nn.Module, trunk: Trunk) -> None:
        super().__init__()
        self.bottom = bottom
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Prepared images ``[n, C, H, W]`` to features ``[n, feature_dim]``."""
        return self.trunk.features(self.bottom(images))


@dataclass(frozen=True)
class SplitNetwork:
    """Freshly initialised bottom and trunk, and the static shapes at the cut. No trunk: the clients have it all.

    ``key_dim``: numbers of a projection, or of a classifier's logits.
    """

    bottom: nn.Module
    trunk: Trunk | None
    input_shape: tuple[int, int, int]
    smashed_shape: tuple[int, ...]
    key_dim: int
    merged_shape: tuple[int, ...] = ()
    """Of smashed data that several clients' pieces make together; empty = there are no pieces."""
    deeper: SplitNetwork | None = None
    """The same network as rich clients have it: more of it is theirs, and their smashed data enter the trunk later."""

    @property
    def cuts(self) -> tuple[SplitNetwork, ...]:
        """The network as each kind of clients has it, the deepest cut first (``clients.wealth.kinds``)."""
        return (self.deeper, self) if self.deeper else (self,)

    @property
    def trunk_shape(self) -> tuple[int, ...]:
        """What the main server's layers see of an image."""
        return self.merged_shape or self.smashed_shape

    @property
    def first(self) -> nn.Module:
        """The client's layers below the cut."""
        return self.bottom.backbone if isinstance(self.bottom, Ends) else self.bottom

    @property
    def last(self) -> nn.Module | None:
        """The client's layers behind the server's, if it has such."""
        return self.bottom.head if isinstance(self.bottom, Ends) else None

    @property
    def smashed_floats(self) -> int:
        """A: numbers in one image's smashed data."""
        return math.prod(self.smashed_shape)

    @property
    def bottom_parameters(self) -> int:
        """Pc: parameters of one client."""
        return sum(p.numel() for p in self.bottom.parameters())


def build(
    model: Model, channels: int, image_size: int, streams: Streams, dtype: torch.dtype, *, classes: int | None = None
) -> SplitNetwork:
    """Initialise the network and cut it after ``model.cut_layer`` entries; with ``classes`` it ends in a classifier.

    Layers are drawn first to last from one stream and the bottleneck from another, so that the same seed gives
    the same network at every cut.

    Raises
    ------
    BadInput
        The bottleneck does not fit the map it compresses.
    """
    with seeded(streams.torch_seed("weights")):
        layers = backbones.build(model, channels, image_size)
        head = heads.classifier(model, classes) if classes else heads.projector(model, nn.BatchNorm1d)
        for _, layer in layers:
            initialise(layer)
        initialise(head)
    below, above = layers[: model.cut_layer], layers[model.cut_layer :]
    input_shape = (channels, image_size, image_size)
    if model.bottleneck:
        _, maps, height, width = _shape(nn.Sequential(OrderedDict(below)), input_shape)
        pair = Bottleneck.parse(model.bottleneck)
        if height % pair.stride or width % pair.stride:
            raise BadInput(
                f"model.bottleneck = {model.bottleneck!r}: stride {pair.stride} does not divide the {height}x{width} "
                f"map at model.cut_layer = {model.cut_layer}; use a smaller stride"
            )
        with seeded(streams.torch_seed("bottleneck")):
            encoder, decoder = pair.encoder(maps), pair.decoder(maps)
            initialise(encoder)
            initialise(decoder)
        below, above = [*below, ("encoder", encoder)], [("decoder", decoder), *above]
    bottom = nn.Sequential(OrderedDict(below)).to(dtype)
    trunk = Trunk(nn.Sequential(OrderedDict(above)), head).to(dtype)
    _, *smashed = _shape(bottom, input_shape)
    shape = (smashed[0], smashed[1], smashed[2])
    network = SplitNetwork(bottom, trunk, input_shape, shape, classes or heads.head_dims(model)[1])
    return replace(network, deeper=_deeper(network, model.between_cuts)) if model.between_cuts else network


def _deeper(network: SplitNetwork, entries: int) -> SplitNetwork:
    """The same network, its client with a copy of the trunk's first ``entries``; what is behind them is the same."""
    trunk, first = network.trunk, network.bottom
    assert trunk is not None
    assert isinstance(first, nn.Sequential)
    layers = list(trunk.backbone.named_children())
    named = [*first.named_children(), *layers[:entries]]
    bottom = copy.deepcopy(nn.Sequential(OrderedDict(named)))
    _, *smashed = _shape(bottom, network.input_shape)
    behind = Trunk(nn.Sequential(OrderedDict(layers[entries:])), trunk.head)
    return replace(network, bottom=bottom, trunk=behind, smashed_shape=tuple(smashed))


def u_shaped(network: SplitNetwork) -> SplitNetwork:
    """The same network, its head with the client; the main server keeps what lies between."""
    trunk, first = network.trunk, network.bottom
    assert trunk is not None
    assert isinstance(first, nn.Sequential)
    middle = Headless(trunk.backbone, next(first.parameters()).dtype)
    return replace(network, bottom=Ends(first, trunk.head), trunk=middle)


def in_pieces(network: SplitNetwork, rows: int, columns: int) -> SplitNetwork:
    """The same network for clients that see one of ``rows`` times ``columns`` pieces of an image each.

    Raises
    ------
    BadInput
        Images that cannot be cut so.
    """
    channels, height, width = network.input_shape
    if height % rows or width % columns:
        raise BadInput(
            f"images of {height} pixels a side cannot be cut into {rows} times {columns} equal pieces; set views.size "
            f"to an even number"
        )
    piece = channels, height // rows, width // columns
    _, maps, tall, wide = _shape(network.bottom, piece)
    merged = maps, tall * rows, wide * columns
    return replace(network, input_shape=piece, smashed_shape=(maps, tall, wide), merged_shape=merged)


def whole(
    model: Model,
    channels: int,
    image_size: int,
    streams: Streams,
    dtype: torch.dtype,
    *,
    predictor: bool,
    classes: int | None = None,
) -> SplitNetwork:
    """The same network, from the same stream, with everything on the client."""
    with seeded(streams.torch_seed("weights")):
        uncut = model.model_copy(update={"cut_layer": entries(model.backbone)})
        layers = backbones.build(uncut, channels, image_size)
        head = heads.classifier(model, classes) if classes else heads.projector(model, heads.BatchNorm)
        behind = heads.predictor(model) if predictor else None
        for part in (*(layer for _, layer in layers), head, *([behind] if behind else [])):
            initialise(part)
    bottom = WholeNetwork(nn.Sequential(OrderedDict(layers)), head, behind).to(dtype)
    key = classes or heads.head_dims(model)[1]
    return SplitNetwork(bottom, None, (channels, image_size, image_size), (key * (1 + predictor),), key)


def _shape(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        n, c, h, w = module(torch.zeros(1, *input_shape, dtype=dtype)).shape
    return n, c, h, w
