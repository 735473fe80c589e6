"""One experiment, complete and consistent."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import Field, model_validator

from mocosfl_mpi.config import consistency
from mocosfl_mpi.config.sections import (
    ADDED,
    Client,
    Communication,
    Compute,
    Contrast,
    Data,
    Defence,
    Evaluation,
    Federation,
    Method,
    Model,
    Partition,
    Positive,
    Pretraining,
    Reliability,
    Section,
    Server,
    Views,
)
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.methods import METHODS, Alignment

SHARES = 24
"""Blocks that 1, 2, 3, 4, 6, 8, 12 and 24 hosts share evenly."""
MOST_LANES = 16
"""Most clients in a block, whose activations should stay in a processor's caches."""


class Config(Section):
    """One experiment, complete."""

    method: Method = "mocosfl"
    """Published method: `mocosfl` averages the clients' online models, `monacosfl` their momentum models too;
    `fl_moco`, `fl_byol`, `fl_simclr`, `fl_simsiam` average whole networks; `fedu` and `fedema` mix the mean with each
    client's own; `standalone` averages nothing; `central` is one client with all images.
    With labels: `fedavg` averages whole networks; `sfl_v1`, `sfl_v2` are SplitFed, with a trunk for each client or one
    for all; `split_vanilla` is split learning, one client after the other; in `split_u_shaped` labels stay there; in
    `split_vertical` every client sees its own piece of the same images.
    `taressfl` is MocoSFL with the frozen clients of an expert that `mocosfl pretrain` has made resist reconstruction;
    `ressfl` is `sfl_v2` that goes on from one."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234
    """Seed of every random stream."""
    epochs: Positive = 10
    """Epochs. In one epoch each client of the pool passes once over a mean client's images."""
    steps_per_epoch: Positive | None = None
    """Steps per epoch; empty = images per client (mean, rounded up) / batch size (rounded up), times
    `client.local_epochs`."""
    data: Data = Data()
    partition: Partition = Partition()
    views: Views = Views()
    model: Model = Model()
    contrast: Contrast = Contrast()
    server: Server = Server()
    client: Client = Client()
    federation: Federation = Federation()
    reliability: Reliability = Reliability()
    communication: Communication = Communication()
    defence: Defence = Defence()
    pretraining: Pretraining = Pretraining()
    evaluation: Evaluation = Evaluation()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        consistency.check(self)
        return self

    @property
    def whole_network(self) -> bool:
        """Whether clients hold the whole network: no cut, no main server."""
        return METHODS[self.method].whole_network

    @property
    def supervised(self) -> bool:
        """Whether clients learn from labels: one view of each image, no contrast."""
        return METHODS[self.method].supervised

    @property
    def one_at_a_time(self) -> bool:
        """Whether an epoch of the run is the turn of one client."""
        return METHODS[self.method].one_at_a_time

    @property
    def keeps_labels(self) -> bool:
        """Whether labels and the end of the network stay with the clients."""
        return METHODS[self.method].keeps_labels

    @property
    def vertical(self) -> bool:
        """Whether all clients have the same images, each a piece of every one."""
        return METHODS[self.method].vertical

    @property
    def resists(self) -> bool:
        """Whether clients compute the resistance term: frozen ones learn nothing, and need none."""
        return self.defence.resistance > 0 and not self.client.frozen

    @property
    def learns_defence(self) -> bool:
        """Whether clients add terms of their own to the gradient at the cut."""
        return self.resists or (self.defence.nopeek > 0 and not self.client.frozen)

    @property
    def mixes_sources(self) -> bool:
        """Whether this is the first stage of a contrastive method: batches of target and auxiliary images."""
        return self.pretraining.expert and not self.supervised

    @property
    def auxiliary_data(self) -> Data | None:
        """The expert's other data set, where this run needs it."""
        settings = self.pretraining
        if not self.mixes_sources or not settings.auxiliary:
            return None
        return Data(
            source=settings.auxiliary,
            train_images=settings.auxiliary_images,
            allow_unofficial=self.data.allow_unofficial,
        )

    @property
    def shared_mean(self) -> bool:
        """Whether the gradient at the cut is that of one mean over the rows of all clients of the pool."""
        return not (self.whole_network or self.supervised) and self.client.gradient_scale == "published"

    @property
    def sync_freq(self) -> int:
        """Synchronisations per epoch: as set; or one, where the client whose turn it was hands over to the next."""
        return 1 if self.one_at_a_time else self.federation.sync_freq

    @property
    def views_each(self) -> int:
        """Views that a step takes of each image of a batch."""
        return 1 if self.supervised else 2

    @property
    def both_roles(self) -> bool:
        """Whether each client feeds both views to both of its encoders."""
        if self.supervised:
            return False
        return self.contrast.symmetric == "both_views" or (self.whole_network and self.contrast.symmetric != "off")

    @property
    def aligned(self) -> Alignment:
        """What synchronisations make common."""
        chosen = self.federation.alignment
        return METHODS[self.method].alignment if chosen == "method" else chosen

    @property
    def own_models(self) -> int:
        """Clients whose own models are judged at the end, where so many have one."""
        asked = self.evaluation.own_models
        return METHODS[self.method].own_models if asked is None else asked

    @property
    def judged_apart(self) -> bool:
        """Whether the method has no common model: it is judged by the clients' own ones."""
        return METHODS[self.method].alignment == "none" and not self.vertical

    @property
    def transfer_data(self) -> Data | None:
        """The data set of ``evaluation.transfer``, whole; None where no transfer is wanted."""
        if not self.evaluation.transfer:
            return None
        return Data(source=self.evaluation.transfer, allow_unofficial=self.data.allow_unofficial)

    @property
    def pool_size(self) -> int:
        """Clients that take part in an epoch: P = int(ratio · N), as published; or one, where they take turns;
        or all, where each has a piece of the images.
        """
        if self.one_at_a_time:
            return 1
        if self.vertical:
            return self.client.count
        return int(round(self.client.sampling_ratio * self.client.count, 9))

    @property
    def rich_clients(self) -> int:
        """How many clients are rich: int(share · N), as published."""
        return int(round(self.client.rich_share * self.client.count, 9))

    @property
    def blocks(self) -> int:
        """Blocks of a whole pool of like clients: a function of the pool alone, so that it never depends on the ranks.

        As few as `compute.block_size` allows; or, where it is not set, a multiple of ``SHARES`` or one per client.
        """
        if self.compute.block_size:
            return -(-self.pool_size // self.compute.block_size)
        return min(self.pool_size, SHARES * -(-self.pool_size // (SHARES * MOST_LANES)))

    @property
    def block_size(self) -> int:
        """Most lanes of a block: set, or those of ``blocks`` equal ones."""
        return self.compute.block_size or -(-self.pool_size // self.blocks)

    @property
    def rows_per_client(self) -> int:
        """Rows that one (poor) client sends per step and encoder: B, or 2B when both views take both roles."""
        return self.client.batch_size * (2 if self.both_roles else 1)

    def computed(self, precision: str, backend: str) -> Config:
        """The same configuration with `auto` replaced by what the machine gave: what is recorded with the results.

        Raises
        ------
        BadInput
            It cannot be together with another setting, which nobody could know before.
        """
        compute = self.compute.model_copy(update={"precision": precision, "backend": backend})
        found = self.model_copy(update={"compute": compute})
        try:
            consistency.check(found)
        except ValueError as error:
            raise BadInput(f"compute.precision = auto is {precision} on this machine: {error}") from None
        return found

    def hash(self) -> str:
        """sha256 of the canonical JSON text of this configuration."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """The configuration as JSON with sorted keys: what is hashed and stored with the results.

        It is complete but for settings of ``ADDED`` at their defaults, and sections of which nothing is left.
        """
        values = self.model_dump(mode="json")
        for name in ADDED:
            section, key = name.split(".")
            group = getattr(self, section)
            if getattr(group, key) == type(group).model_fields[key].default:
                del values[section][key]
        values = {name: value for name, value in values.items() if value != {}}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))
