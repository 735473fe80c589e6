"""A first stage that cannot be, or a beginning that a method cannot have: refused with the remedy (ValueError)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.sections import Pretraining
from mocosfl_mpi.methods import METHODS

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config


def check_pretraining(config: Config) -> None:
    """Refuse a first stage that cannot be, or a beginning that a method cannot have (ValueError)."""
    settings, method = config.pretraining, METHODS[config.method]
    if method.frozen and not config.client.frozen:
        raise ValueError(
            f"method = {config.method} has frozen clients; set client.frozen = true (for clients that go on learning "
            f"from an expert: method = {method.expert} with client.pretrained)"
        )
    if config.client.pretrained and not method.expert:
        able = ", ".join(name for name, other in METHODS.items() if other.expert)
        raise ValueError(
            f"client.pretrained = {config.client.pretrained!r}: method = {config.method} cannot begin with an expert; "
            f"leave it out, or choose one of {able}"
        )
    if not config.server.pretrained and not (config.client.pretrained or method.pretrained):
        raise ValueError("server.pretrained = false, and client.pretrained names no expert; leave it out")
    changed = [name for name, field in Pretraining.model_fields.items() if getattr(settings, name) != field.default]
    if changed and not method.expert:
        raise ValueError(
            f"{' and '.join(f'pretraining.{name}' for name in changed)}: method = {config.method} has no first stage; "
            f"leave it out"
        )
    if settings.expert and (config.client.count != 1 or not settings.auxiliary):
        raise ValueError(
            "pretraining.expert = true is what `mocosfl pretrain` sets for the one client of a first stage; leave it "
            "out"
        )
    if config.supervised and settings.target_share:
        raise ValueError(
            f"pretraining.target_share = {settings.target_share}: the expert of method = {config.method} learns from "
            f"labels, of pretraining.auxiliary alone; leave it out"
        )
    if settings.auxiliary_images and not settings.auxiliary:
        raise ValueError("pretraining.auxiliary_images of no data set; name it with pretraining.auxiliary")
