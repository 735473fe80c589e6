"""What a method makes of the other settings: those that it cannot have are refused (ValueError)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.sections import Views
from mocosfl_mpi.methods import METHODS
from mocosfl_mpi.networks import entries

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config


def check_whole_network(config: Config) -> None:
    """Refuse what needs a cut, or says nothing where clients hold the whole network (ValueError)."""
    name = f"method = {config.method}: clients hold the whole network"
    if config.model.bottleneck:
        raise ValueError(
            f"{name}, and there is no cut for model.bottleneck = {config.model.bottleneck!r}; leave it out"
        )
    if config.client.frozen:
        raise ValueError(f"{name}, and nothing would learn with client.frozen = true; leave it out")
    if config.client.gradient_scale != "published":
        raise ValueError(f"{name}, and their losses are their own; leave client.gradient_scale out")
    if config.supervised:
        return
    if not METHODS[config.method].momentum and config.contrast.symmetric == "off":
        raise ValueError(f"method = {config.method} compares two views; contrast.symmetric = off is impossible with it")
    if config.method == "fl_simclr" and config.client.batch_size == 1:
        raise ValueError("method = fl_simclr has the batch as negatives; raise client.batch_size to 2 or more")
    if METHODS[config.method].clients not in (None, config.client.count):
        raise ValueError(
            f"method = central is one client that owns all images, not client.count = {config.client.count}; "
            f"set client.count = 1 and partition.kind = iid"
        )


def check_supervised(config: Config) -> None:
    """Refuse what says nothing where clients learn from labels (ValueError)."""
    name = f"method = {config.method} learns from labels"
    if config.views.exact or config.views.pipeline != Views.model_fields["pipeline"].default:
        raise ValueError(
            f"{name}, from one view that is cropped and flipped; views.pipeline = {config.views.pipeline!r} and "
            f"views.exact = {str(config.views.exact).lower()} are about the two views of contrastive methods; leave "
            f"both out"
        )
    if config.vertical:
        _check_vertical(config)
    model = config.model
    if config.keeps_labels and model.cut_layer == entries(model.backbone) and not model.bottleneck:
        raise ValueError(
            f"model.cut_layer = {model.cut_layer} leaves the main server nothing: with method = {config.method} the "
            f"classifier is the client's too; choose at most {model.cut_layer - 1}"
        )
    if config.one_at_a_time and config.client.sampling not in ("uniform", "round_robin"):
        raise ValueError(
            f"clients of method = {config.method} take turns; leave client.sampling = {config.client.sampling} out"
        )
    if config.client.frozen:
        raise ValueError(f"{name} on both sides of the cut; leave client.frozen = true out")
    if config.server.micro_batch is not None:
        raise ValueError(
            f"{name}, and a main server passes the rows of one client at a time; leave server.micro_batch = "
            f"{config.server.micro_batch} out"
        )
    if config.client.gradient_scale != "published":
        raise ValueError(
            f"{name}, and every client gets the gradient of its own rows' mean loss; leave client.gradient_scale out"
        )


def _check_vertical(config: Config) -> None:
    if config.client.count not in (2, 4):
        raise ValueError(
            f"method = {config.method} cuts every image into 2 halves or 4 quadrants, one for each client, and not "
            f"into client.count = {config.client.count} pieces; set client.count to 2 or 4"
        )
    if config.client.sampling not in ("uniform", "round_robin"):
        raise ValueError(
            f"all clients of method = {config.method} take part in every step; leave client.sampling = "
            f"{config.client.sampling} out"
        )
    if config.federation.alignment not in ("method", "none"):
        raise ValueError(
            f"clients of method = {config.method} see different pieces and are never averaged; leave "
            f"federation.alignment = {config.federation.alignment!r} out"
        )
