"""Alignments that a method has not, or that would have no effect: refused (ValueError)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.sections import Federation
from mocosfl_mpi.methods import METHODS, MOMENTUM_ALIGNED

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config


def check_own_models(config: Config) -> None:
    """Refuse another alignment for methods that consist in theirs, and settings of other methods (ValueError)."""
    federation, method = config.federation, METHODS[config.method]
    changed = {name for name, value in federation if value != type(federation).model_fields[name].default}
    others = changed & {"alignment", "momentum_every", "momentum_compression", "aligned_layers"}
    if others and not method.chosen:
        raise ValueError(
            f"method = {config.method} is itself a way to align models; leave "
            f"{', '.join(f'federation.{name}' for name in sorted(others))} out, or choose method = fl_moco or fl_byol"
        )
    for name, owner in (("divergence_threshold", "fedu"), ("divergence_target", "fedema")):
        if name in changed and config.method != owner:
            raise ValueError(f"federation.{name} is for method = {owner}, which is {config.method!r}; leave it out")
    if config.own_models and config.vertical:
        raise ValueError(
            f"evaluation.own_models = {config.own_models}: with method = {config.method!r} a client sees its piece of "
            f"the images only, and classifies nothing by itself; leave it out"
        )
    if config.own_models and config.aligned not in {"none", "mixed"} and not federation.aligned_layers:
        raise ValueError(
            f"evaluation.own_models = {config.own_models} finds no client with an encoder of its own: all share the "
            f"common one (method = {config.method!r}, federation.alignment = {federation.alignment!r}); leave it out"
        )
    if config.judged_apart and not config.own_models:
        raise ValueError(
            f"evaluation.own_models = 0 leaves nothing to judge: method = {config.method} has no common model; name at "
            f"least one client, or leave it out"
        )


def check_alignment(config: Config) -> None:
    """Refuse settings of the alignment that would have no effect (ValueError)."""
    federation = config.federation
    strategy = config.aligned
    changes = [
        f"federation.{name} = {getattr(federation, name)!r}"
        for name in ("momentum_every", "momentum_compression")
        if getattr(federation, name) != Federation.model_fields[name].default
    ]
    if not METHODS[config.method].momentum and (changes or strategy in MOMENTUM_ALIGNED):
        named = [*([f"federation.alignment = {strategy!r}"] if strategy in MOMENTUM_ALIGNED else []), *changes]
        raise ValueError(
            f"{' and '.join(named)} speaks of momentum models, and clients of method = {config.method!r} have none; "
            f"set federation.alignment to online or none and leave momentum_every and momentum_compression out, or "
            f"choose method = fl_moco or fl_byol"
        )
    if changes and strategy != "online_and_momentum":
        raise ValueError(
            f"{' and '.join(changes)} of momentum models that are not averaged (method = {config.method!r}, "
            f"federation.alignment = {federation.alignment!r}); set federation.alignment = online_and_momentum"
        )
    if federation.aligned_layers and strategy == "none":
        raise ValueError(
            "federation.aligned_layers of federation.alignment = none; name what is aligned with "
            "federation.alignment, or leave aligned_layers empty"
        )
    if strategy == "none" and config.client.velocity_at_sync != "kept":
        raise ValueError(
            f"client.velocity_at_sync = {config.client.velocity_at_sync!r} belongs to the averaging of models, and "
            f"federation.alignment = none averages none; set velocity_at_sync = kept"
        )
    if config.client.frozen and (changes or federation.aligned_layers or federation.alignment != "method"):
        raise ValueError(
            "client.frozen = true synchronises no model, so nothing in federation can choose what is aligned; set "
            "client.frozen = false, or leave alignment, momentum_every, momentum_compression and aligned_layers out"
        )
