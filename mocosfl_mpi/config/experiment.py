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
    Evaluation,
    Federation,
    Method,
    Model,
    Partition,
    Positive,
    Section,
    Server,
    Views,
)
from mocosfl_mpi.methods import METHODS


class Config(Section):
    """One experiment, complete."""

    method: Method = "mocosfl"
    """Published method: `mocosfl` averages the clients' online models, `monacosfl` their momentum models too;
    `fl_moco`, `fl_byol`, `fl_simclr`, `fl_simsiam` average whole networks; `central` is one client with all images."""
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
    communication: Communication = Communication()
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
    def both_roles(self) -> bool:
        """Whether each client feeds both views to both of its encoders."""
        return self.contrast.symmetric == "both_views" or (self.whole_network and self.contrast.symmetric != "off")

    @property
    def transfer_data(self) -> Data | None:
        """The data set of ``evaluation.transfer``, whole; None where no transfer is wanted."""
        if not self.evaluation.transfer:
            return None
        return Data(source=self.evaluation.transfer, allow_unofficial=self.data.allow_unofficial)

    @property
    def pool_size(self) -> int:
        """Clients that take part in an epoch: P = int(ratio · N), as published."""
        return int(round(self.client.sampling_ratio * self.client.count, 9))

    @property
    def block_size(self) -> int:
        """Lanes of a block: set, or derived from the pool alone, so that it never depends on the ranks."""
        return self.compute.block_size or min(16, max(1, self.pool_size // 16))

    @property
    def rows_per_client(self) -> int:
        """Rows that one client sends per step and encoder: B, or 2B when both views take both roles."""
        return self.client.batch_size * (2 if self.both_roles else 1)

    def computed(self, precision: str, backend: str) -> Config:
        """The same configuration with `auto` replaced by what the machine gave: what is recorded with the results."""
        return self.model_copy(
            update={"compute": self.compute.model_copy(update={"precision": precision, "backend": backend})}
        )

    def hash(self) -> str:
        """sha256 of the canonical JSON text of this configuration."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """The configuration as JSON with sorted keys: what is hashed and stored with the results.

        It is complete but for settings of ``ADDED`` at their defaults.
        """
        values = self.model_dump(mode="json")
        for name in ADDED:
            section, key = name.split(".")
            group = getattr(self, section)
            if getattr(group, key) == type(group).model_fields[key].default:
                del values[section][key]
                if not values[section]:
                    del values[section]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))
