"""What a configuration must know of each method before torch is there; their pieces stand in ``algorithms``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Alignment = Literal["none", "online", "online_and_momentum", "momentum_reset", "mixed", "predictor_mixed"]


@dataclass(frozen=True)
class Method:
    """The demands of one method on an experiment."""

    alignment: Alignment = "online"
    """What its fed server makes common, as `federation.alignment` would say it; some only a method can say."""
    chosen: bool = True
    """Whether `federation` may choose another alignment."""
    whole_network: bool = False
    """Clients hold the whole network, projector included: there is no cut and no main server."""
    momentum: bool = True
    """Clients have momentum models. Without, the two views of a batch are compared with each other."""
    supervised: bool = False
    """Clients learn from the labels of their images: one view of each, a classifier in the projector's place."""
    one_at_a_time: bool = False
    """An epoch of the run is the turn of one client, at whose end it hands its part over to the next."""
    keeps_labels: bool = False
    """Labels and the end of the network stay with the clients, on the other side of the main server."""
    vertical: bool = False
    """All clients have the same images, each a piece of every one: two halves, or four quadrants."""
    clients: int | None = None
    """The only number of clients that makes sense."""
    demands: tuple[str, ...] = ()
    """Settings without which it cannot be; a preset, which was made for other methods, gives way to them."""
    expert: str = ""
    """The method by which `mocosfl pretrain` trains the expert of its first stage; empty = there is no such stage."""
    pretrained: bool = False
    """It begins with an expert, always."""
    frozen: bool = False
    """Its clients never learn."""
    own_models: int = 0
    """Clients whose own models are judged, unless `evaluation.own_models` says otherwise."""


METHODS = {
    "mocosfl": Method(expert="mocosfl"),
    "monacosfl": Method("online_and_momentum", expert="mocosfl"),
    "fl_moco": Method(whole_network=True),
    "fl_byol": Method(whole_network=True),
    "fl_simclr": Method(whole_network=True, momentum=False),
    "fl_simsiam": Method(whole_network=True, momentum=False),
    "fedu": Method("predictor_mixed", chosen=False, whole_network=True),
    "fedema": Method("mixed", chosen=False, whole_network=True, own_models=5),
    "standalone": Method("none", chosen=False, whole_network=True, own_models=5),
    "central": Method(
        whole_network=True, clients=1, demands=("client.count=1", "client.sampling_ratio=1.0", "partition.kind=iid")
    ),
    "fedavg": Method(whole_network=True, momentum=False, supervised=True),
    "sfl_v1": Method(momentum=False, supervised=True, expert="sfl_v2"),
    "sfl_v2": Method(momentum=False, supervised=True, expert="sfl_v2"),
    "split_vanilla": Method(momentum=False, supervised=True, one_at_a_time=True),
    "split_u_shaped": Method(momentum=False, supervised=True, one_at_a_time=True, keeps_labels=True),
    "split_vertical": Method("none", momentum=False, supervised=True, vertical=True, demands=("client.count=4",)),
    "taressfl": Method(expert="mocosfl", pretrained=True, frozen=True, demands=("client.frozen=true",)),
    "ressfl": Method(momentum=False, supervised=True, expert="sfl_v2", pretrained=True),
}
MOMENTUM_ALIGNED = frozenset({"online_and_momentum", "momentum_reset"})
"""Alignments that are about momentum models."""
MIXING = frozenset({"mixed", "predictor_mixed"})
"""Alignments by which clients mix the common model with their own."""
