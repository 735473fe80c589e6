"""The published methods, one record each: the table of contents of the field.

A method is a row of small pieces; the training loop knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mocosfl_mpi.codecs import codec
from mocosfl_mpi.config import Config, Federation
from mocosfl_mpi.objectives.local import BYOL, MOCO, SIMCLR, SIMSIAM, SUPERVISED, LocalObjective
from mocosfl_mpi.server.alignments import (
    MOMENTUM,
    ONLINE,
    ONLINE_AND_MOMENTUM,
    STRATEGIES,
    Alignment,
    Averaged,
    Cleared,
    Compressed,
    HandedOver,
    Part,
    scope,
)
from mocosfl_mpi.server.copies import Copies
from mocosfl_mpi.server.main_server import MainServer
from mocosfl_mpi.server.merged import Merged
from mocosfl_mpi.server.middle import Middle
from mocosfl_mpi.server.mixing import MIXTURES, TARGET, TUNED
from mocosfl_mpi.server.protocol import Server
from mocosfl_mpi.server.sequential import Sequential
from mocosfl_mpi.split import cut
from mocosfl_mpi.split.cut import SplitNetwork
from mocosfl_mpi.split.pieces import GRIDS
from mocosfl_mpi.streams import Streams


@dataclass(frozen=True)
class Algorithm:
    """The pieces of one method, and the paper that defines it."""

    title: str
    paper: str
    alignment: tuple[Part, ...]
    local: LocalObjective | None = None
    """What clients minimise by themselves, with the whole network; None = the main server does, behind the cut."""
    server: type[Server] = MainServer
    """The main server, where there is one."""

    @property
    def momentum(self) -> bool:
        """Whether clients have momentum models."""
        return self.local.momentum if self.local else self.server is MainServer

    def server_updates(self, config: Config) -> int:
        """SGD steps that the main server does in a step: one for all rows, or in SplitFed one for each client."""
        return config.pool_size if self.server in (Sequential, Copies) else 1

    def server_copies(self, config: Config) -> int:
        """Copies of the trunk that the main server keeps beside it, each with its velocity."""
        return config.pool_size if self.server is Copies else 0

    def widths(self, config: Config, parameters: int, key_dim: int) -> dict[str, int]:
        """Numbers in each state of a client whose network has ``parameters``; past keys have ``key_dim`` each."""
        widths = dict.fromkeys(("online", "momentum", "velocity"), parameters)
        if not self.momentum:
            del widths["momentum"]
        if self.local and self.local.memory:
            widths["memory"] = config.contrast.memory_length * key_dim
        if TARGET in self.alignment:
            widths["scale"] = 1
        return widths


SPLITFED = "Thapa, Arachchige, Camtepe, Sun: SplitFed: when federated learning meets split learning. AAAI 2022"
ALGORITHMS = {
    "mocosfl": Algorithm(
        "MocoSFL",
        "Li, Lyu, Iso, Chakrabarti, Spranger: MocoSFL: enabling cross-client collaborative self-supervised "
        "learning. ICLR 2023",
        ONLINE,
    ),
    "monacosfl": Algorithm(
        "MonAcoSFL",
        "Przewięźlikowski, Osial, Zieliński, Śmieja: A deep cut into split federated self-supervised learning. "
        "ECML PKDD 2024",
        ONLINE_AND_MOMENTUM,
    ),
    "fl_moco": Algorithm(
        "FL-MoCo",
        "McMahan et al.: Communication-efficient learning of deep networks from decentralized data. AISTATS 2017, with "
        "He et al.: Momentum contrast for unsupervised visual representation learning. CVPR 2020; the baseline of "
        "MocoSFL",
        ONLINE,
        MOCO,
    ),
    "fl_byol": Algorithm(
        "FL-BYOL",
        "Grill et al.: Bootstrap your own latent. NeurIPS 2020, with federated averaging as in Zhuang, Wen, Zhang: "
        "Divergence-aware federated self-supervised learning. ICLR 2022",
        ONLINE,
        BYOL,
    ),
    "fl_simclr": Algorithm(
        "FL-SimCLR",
        "Chen, Kornblith, Norouzi, Hinton: A simple framework for contrastive learning of visual representations. "
        "ICML 2020, with federated averaging",
        ONLINE,
        SIMCLR,
    ),
    "fl_simsiam": Algorithm(
        "FL-SimSiam",
        "Chen, He: Exploring simple Siamese representation learning. CVPR 2021, with federated averaging",
        ONLINE,
        SIMSIAM,
    ),
    "fedu": Algorithm(
        "FedU",
        "Zhuang, Gan, Wen, Zhang, Zhang, Yi: Collaborative unsupervised visual representation learning from "
        "decentralized data. ICCV 2021",
        MIXTURES["predictor_mixed"],
        BYOL,
    ),
    "fedema": Algorithm(
        "FedEMA",
        "Zhuang, Wen, Zhang: Divergence-aware federated self-supervised learning. ICLR 2022",
        MIXTURES["mixed"],
        BYOL,
    ),
    "standalone": Algorithm(
        "MoCo, each client alone",
        "He et al.: Momentum contrast for unsupervised visual representation learning. CVPR 2020; the lower bound: "
        "nothing is shared",
        (),
        MOCO,
    ),
    "central": Algorithm(
        "MoCo, central",
        "He et al.: Momentum contrast for unsupervised visual representation learning. CVPR 2020; the upper bound: one "
        "client owns all images",
        ONLINE,
        MOCO,
    ),
    "fedavg": Algorithm(
        "FedAvg",
        "McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-efficient learning of deep networks from "
        "decentralized data. AISTATS 2017",
        ONLINE,
        SUPERVISED,
    ),
    "sfl_v1": Algorithm("SplitFed V1", SPLITFED, ONLINE, server=Copies),
    "sfl_v2": Algorithm("SplitFed V2", SPLITFED, ONLINE, server=Sequential),
    "split_vanilla": Algorithm(
        "Split learning",
        "Gupta, Raskar: Distributed learning of deep neural network over multiple agents. Journal of Network and "
        "Computer Applications 2018, and Vepakomma, Gupta, Swedish, Raskar: Split learning for health. 2018",
        ONLINE,
        server=Sequential,
    ),
    "split_u_shaped": Algorithm(
        "U-shaped split learning",
        "Vepakomma, Gupta, Swedish, Raskar: Split learning for health: distributed deep learning without sharing raw "
        "patient data. 2018",
        ONLINE,
        server=Middle,
    ),
    "split_vertical": Algorithm(
        "Vertical split learning",
        "Vepakomma, Gupta, Swedish, Raskar: Split learning for health: distributed deep learning without sharing raw "
        "patient data. 2018",
        (),
        server=Merged,
    ),
    "taressfl": Algorithm(
        "TAResSFL",
        "Li, Lyu, Iso, Chakrabarti, Spranger: MocoSFL: enabling cross-client collaborative self-supervised "
        "learning. ICLR 2023, section 3.3: target-aware ResSFL",
        ONLINE,
    ),
    "ressfl": Algorithm(
        "ResSFL",
        "Li, Rakin, Chen, He, Fan, Chakrabarti: ResSFL: a resistance transfer framework for defending model inversion "
        "attack in split federated learning. CVPR 2022",
        ONLINE,
        server=Sequential,
    ),
}


def network(
    config: Config, channels: int, image_size: int, classes: int, streams: Streams, dtype: torch.dtype
) -> SplitNetwork:
    """The method's network for images ``[channels, image_size, image_size]``: cut in two, or whole on the client.

    It ends in a projector, or for methods that learn from labels in a classifier of ``classes``.

    Raises
    ------
    BadInput
        The bottleneck does not fit the map it compresses, or images cannot be cut into pieces.
    """
    local, ends = ALGORITHMS[config.method].local, classes if config.supervised else None
    if local is None:
        found = cut.build(config.model, channels, image_size, streams, dtype, classes=ends)
        if config.vertical:
            return cut.in_pieces(found, *GRIDS[config.client.count])
        return cut.u_shaped(found) if config.keeps_labels else found
    return cut.whole(config.model, channels, image_size, streams, dtype, predictor=local.predictor, classes=ends)


VELOCITIES: dict[str, tuple[Part, ...]] = {
    "kept": (),
    "reset": (Cleared("velocity"),),
    "averaged": (Averaged("velocity"),),
}
"""What `client.velocity_at_sync` adds to an alignment."""

MOMENTA: dict[str, Callable[[Federation], Part]] = {
    "none": lambda f: Averaged("momentum", f.momentum_every),
    "int8": lambda f: Compressed("momentum", codec("int8", f.momentum_topk), f.momentum_every),
    "topk": lambda f: Compressed("momentum", codec("topk", f.momentum_topk), f.momentum_every),
}
"""How momentum models are aligned where they are, by `federation.momentum_compression`."""


def alignment(
    config: Config,
    names: Sequence[str],
    spans: Sequence[tuple[int, int]],
    filters: Sequence[tuple[int, int]],
    key_dim: int,
    beside: Mapping[str, int] | None = None,
) -> Alignment:
    """What is aligned: the method's row or what replaces it, on a client with parameter tensors of these spans.

    ``filters``: the spans among them of the backbone's weights proper. ``beside``: numbers in the states of terms at
    the cut, which nothing makes common.

    Raises
    ------
    BadInput
        `federation.aligned_layers` names a layer that clients do not have.
    """
    federation, algorithm = config.federation, ALGORITHMS[config.method]
    row = algorithm.alignment if federation.alignment == "method" else STRATEGIES[federation.alignment]
    tuned = TUNED | {MOMENTUM: MOMENTA[federation.momentum_compression]}
    parts = (
        *(tuned[part](federation) if part in tuned else part for part in row),
        *VELOCITIES[config.client.velocity_at_sync],
    )
    if config.one_at_a_time:
        parts = tuple(HandedOver(part.state) if isinstance(part, Averaged) else part for part in parts)
    aligned = scope(federation.aligned_layers, names, spans, filters)
    widths = algorithm.widths(config, aligned.parameters, key_dim) | dict(beside or {})
    return Alignment(parts, aligned, widths, config.client.frozen, config.reliability.sync_miss > 0)
