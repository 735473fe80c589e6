"""Who takes part, fails, or has more than others: what cannot be, or has no effect, is refused (ValueError)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.methods import METHODS, MIXING
from mocosfl_mpi.networks import entries

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config


def check_sampling(config: Config, pool: int) -> None:
    """Refuse a trace that is missing, unused, ragged, or leaves a pool short in any epoch (ValueError)."""
    rows, trace = config.client.availability, config.client.sampling == "trace"
    if trace != bool(rows):
        raise ValueError(
            'client.sampling = trace needs client.availability, for example ["110", "011"]'
            if trace
            else f"client.availability is for client.sampling = trace, which is {config.client.sampling!r}"
        )
    if not trace:
        return
    if len({len(row) for row in rows}) > 1:
        raise ValueError("client.availability has rows of different lengths; write one character per epoch in each")
    if len(rows) > config.client.count:
        raise ValueError(
            f"client.availability has {len(rows)} rows for client.count = {config.client.count} clients; "
            f"leave out those that nobody follows"
        )
    followers = [len(range(index, config.client.count, len(rows))) for index in range(len(rows))]
    for epoch in range(min(config.epochs, len(rows[0]))):
        there = sum(count for row, count in zip(rows, followers, strict=True) if row[epoch] == "1")
        if there < pool:
            raise ValueError(
                f"client.availability leaves {there} of {config.client.count} clients in epoch {epoch}, and a pool "
                f"takes {pool}; lower client.sampling_ratio to at most {there / config.client.count:.4g}, or "
                f"let more clients be there"
            )


def check_reliability(config: Config, pool: int) -> None:
    """Refuse failures that would have no effect, or that the experiment cannot bear (ValueError)."""
    chances = {name: value for name, value in config.reliability if value}
    lost = [f"reliability.{name} = {chances[name]}" for name in chances if name.endswith("_loss")]
    if lost and (config.whole_network or METHODS[config.method].supervised):
        raise ValueError(
            f"{' and '.join(lost)} of query data, key data and their gradients, and clients of method = "
            f"{config.method!r} send no such messages; leave it out"
        )
    if config.client.frozen and ("gradient_loss" in chances or "sync_miss" in chances):
        raise ValueError(
            "client.frozen = true sends no gradients and synchronises no model, so none can be missed; leave "
            "reliability.gradient_loss and reliability.sync_miss out"
        )
    if "sync_miss" in chances and METHODS[config.method].supervised and not config.whole_network:
        raise ValueError(
            f"reliability.sync_miss: with method = {config.method!r} the server moves on as well; leave it out"
        )
    if pool == 1 and ("client_dropout" in chances or "sync_miss" in chances):
        raise ValueError(
            f"reliability.client_dropout and sync_miss leave one client of the pool, and it has no more "
            f"(client.sampling_ratio = {config.client.sampling_ratio} of client.count = {config.client.count}); leave "
            f"them out, or draw more clients"
        )
    if "sync_miss" in chances and config.aligned in MIXING:
        raise ValueError(
            f"reliability.sync_miss: with method = {config.method!r} every client of the pool mixes; leave it out"
        )
    if "sync_miss" in chances and config.aligned == "none":
        raise ValueError("reliability.sync_miss of synchronisations at which nothing is aligned; leave it out")
    if "sync_miss" in chances and config.federation.momentum_compression != "none":
        raise ValueError(
            f"federation.momentum_compression = {config.federation.momentum_compression!r} sends updates of a model "
            f"that every client must have followed; set it to none, or leave reliability.sync_miss out"
        )
    if config.model.head == "largeV2" and config.rows_per_client == 1 and (lost or "client_dropout" in chances):
        raise ValueError(
            "the BatchNorm in model.head = largeV2 needs two rows, and clients that fail may leave one; raise "
            "client.batch_size, or use head V2"
        )


def check_wealth(config: Config) -> None:
    """Refuse rich clients that are not there, that nothing distinguishes, or whose deal is unknown (ValueError)."""
    client, deal = config.client, config.partition
    more = client.rich_batch_factor > 1 or deal.rich_data is not None or config.model.rich_cut_layer is not None
    if client.rich_share and not config.rich_clients:
        raise ValueError(
            f"client.rich_share = {client.rich_share} of client.count = {client.count} clients is none; raise either"
        )
    if more and not client.rich_share:
        raise ValueError(
            "client.rich_batch_factor, partition.rich_data and model.rich_cut_layer are about rich clients; say how "
            "many are with client.rich_share, or leave them out"
        )
    if client.rich_batch_factor > 1 and config.supervised and not config.whole_network:
        raise ValueError(
            f"client.rich_batch_factor = {client.rich_batch_factor}: with method = {config.method!r} the server takes "
            f"batches of one size; leave it out (partition.rich_data may stay)"
        )
    if client.rich_share and not more:
        raise ValueError(
            f"client.rich_share = {client.rich_share}, and rich clients have nothing more than others; set "
            f"client.rich_batch_factor, partition.rich_data or model.rich_cut_layer"
        )
    if deal.rich_data is not None and deal.kind == "overlapping":
        raise ValueError(
            "partition.kind = overlapping draws images for each client alone; leave partition.rich_data out"
        )
    if deal.rich_deal == "published" and (deal.rich_data is None or deal.kind not in ("iid", "shards")):
        raise ValueError(
            "partition.rich_deal = published needs partition.rich_data, and partition.kind = iid or shards; leave it "
            "out otherwise"
        )


def check_frozen(config: Config) -> None:
    """Refuse what says how clients learn where they never do (ValueError)."""
    client = config.client
    idle = [
        f"client.{name} = {value}"
        for name, value, default in (
            ("gradient_scale", client.gradient_scale, "published"),
            ("velocity_at_sync", client.velocity_at_sync, "kept"),
        )
        if value != default
    ]
    if client.frozen and idle:
        raise ValueError(
            f"{' and '.join(idle)}: with client.frozen = true no gradient comes down and no client has a velocity, so "
            f"that it would change nothing; leave it out, or set client.frozen = false"
        )


def check_cuts(config: Config) -> None:
    """Refuse a second cut where there is none to be had, or that other settings cannot bear (ValueError)."""
    model, last = config.model, entries(config.model.backbone)
    if model.rich_cut_layer is None:
        return
    name = f"model.rich_cut_layer = {model.rich_cut_layer}"
    if config.whole_network:
        raise ValueError(
            f"{name}: with method = {config.method} clients hold the whole network; leave it out, or choose method = "
            f"mocosfl or monacosfl"
        )
    if config.supervised:
        raise ValueError(
            f"{name}: with method = {config.method} the server takes smashed data of one shape; leave it out, or "
            f"choose method = mocosfl or monacosfl"
        )
    if not model.cut_layer < model.rich_cut_layer <= last:
        fitting = f"choose {model.cut_layer + 1} to {last}" if model.cut_layer < last else "lower model.cut_layer"
        raise ValueError(
            f"{name} gives rich clients more layers than model.cut_layer = {model.cut_layer} gives the others, and "
            f"{model.backbone} has {last} entries; {fitting}"
        )
    if config.client.pretrained or METHODS[config.method].pretrained:
        raise ValueError(
            f"{name}, and clients that begin with an expert (client.pretrained, method = taressfl) have its one cut; "
            f"leave either out"
        )
    if model.bottleneck:
        raise ValueError(
            f"{name}, and model.bottleneck = {model.bottleneck!r} compresses the maps of one cut; leave either out"
        )
    if not model.client_residual:
        raise ValueError(
            f"{name}, and model.client_residual = false takes shortcuts from layers of clients: those between the cuts "
            f"belong to rich clients and to the main server; leave either out"
        )
    if config.federation.momentum_compression != "none":
        raise ValueError(
            f"{name}, and federation.momentum_compression = {config.federation.momentum_compression!r} sends updates "
            f"of a model that every client must have followed in full; set it to none, or leave the cut out"
        )
    if config.communication.loss_threshold:
        raise ValueError(
            f"{name}, and communication.loss_threshold replays smashed data of equal shapes, as published; leave "
            f"either out"
        )
    if config.own_models:
        raise ValueError(
            f"{name}, and evaluation.own_models = {config.own_models} judges clients' own models behind one cut; leave "
            f"either out"
        )
