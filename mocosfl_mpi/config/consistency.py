"""Settings that do not go together: each refused with the remedy (ValueError), before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.sections import Communication, Defence, Federation, Pretraining, Views
from mocosfl_mpi.methods import METHODS, MIXING, MOMENTUM_ALIGNED
from mocosfl_mpi.networks import BLOCKS, LAST_BATCH_NORM, NO_SHORTCUTS, entries

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config


def check(config: Config) -> None:
    """Refuse an experiment that cannot be carried out, or whose settings would have no effect (ValueError)."""
    _check_model(config)
    pool = config.pool_size
    if pool < 1:
        raise ValueError(
            f"client.sampling_ratio = {config.client.sampling_ratio} of client.count = {config.client.count} clients "
            f"leaves an empty pool; raise one of them"
        )
    if config.whole_network:
        _check_whole_network(config)
    if config.client.holds_labels and not config.vertical:
        raise ValueError(
            f"client.holds_labels = true is for method = split_vertical, and method is {config.method!r}; leave it out"
        )
    if config.supervised:
        _check_supervised(config)
    elif not config.contrast.share_features:
        _check_private_memories(config)
    if len(config.evaluation.probe_l2) > 1 and config.data.validation_images == 0:
        raise ValueError(
            f"evaluation.probe_l2 = {list(config.evaluation.probe_l2)} needs a choice; data.validation_images = 0 "
            f"leaves nothing to choose by; hold out some images or name one penalty"
        )
    if not config.evaluation.probe_l2:
        raise ValueError("evaluation.probe_l2 is empty; name at least one penalty, for example [1e-3]")
    _check_own_models(config)
    _check_alignment(config)
    _check_communication(config)
    _check_sampling(config, pool)
    _check_reliability(config, pool)
    _check_wealth(config)
    _check_defence(config)
    _check_pretraining(config)
    shares = config.evaluation.label_shares
    if len(set(shares)) < len(shares):
        raise ValueError(f"evaluation.label_shares = {list(shares)} names a share twice; name each once")
    if config.evaluation.transfer == config.data.source:
        raise ValueError(
            f"evaluation.transfer = {config.evaluation.transfer!r} is data.source itself; name another data set, or "
            f"leave it empty"
        )
    if config.data.source == "image-folder" and not (config.data.folder and config.data.image_size):
        raise ValueError("data.source = image-folder needs data.folder and data.image_size")


def _check_private_memories(config: Config) -> None:
    if not config.whole_network and config.contrast.memory_length < config.client.count:
        raise ValueError(
            f"contrast.memory_length = {config.contrast.memory_length} shared out among client.count = "
            f"{config.client.count} private memories leaves them empty; raise memory_length to at least "
            f"{config.client.count}, or set contrast.share_features = true"
        )
    micro_batch = config.server.micro_batch
    largest = config.rows_per_client * config.client.rich_batch_factor
    if micro_batch and micro_batch % largest:
        raise ValueError(
            f"server.micro_batch = {micro_batch} must hold whole clients when memories are private; choose "
            f"a multiple of {largest} rows"
        )


def _check_model(config: Config) -> None:
    model, last = config.model, entries(config.model.backbone)
    if model.cut_layer > last:
        raise ValueError(
            f"model.cut_layer = {model.cut_layer} lies beyond {model.backbone}, which has {last} entries; "
            f"choose 1 to {last}"
        )
    if not model.client_residual and model.backbone in NO_SHORTCUTS:
        raise ValueError(
            f"model.client_residual = false changes nothing: {model.backbone} has no shortcuts; leave it true"
        )
    if not model.weight_standardization and model.backbone in BLOCKS:
        raise ValueError(
            f"model.weight_standardization = false changes nothing: {model.backbone} has no standardised "
            f"convolutions; leave it true"
        )
    if config.server.micro_batch is None or config.supervised:
        return
    if model.head == "largeV2":
        raise ValueError(
            "server.micro_batch changes the statistics of the BatchNorm in model.head = largeV2; "
            "leave it empty, or use head V2"
        )
    if model.client_residual and model.cut_layer < LAST_BATCH_NORM.get(model.backbone, 0):
        raise ValueError(
            f"server.micro_batch changes the statistics of the BatchNorm in {model.backbone}; leave it empty, "
            f"or use mobilenetv2"
        )


def _check_whole_network(config: Config) -> None:
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


def _check_supervised(config: Config) -> None:
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


def _check_alignment(config: Config) -> None:
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


def _check_reliability(config: Config, pool: int) -> None:
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


def _check_wealth(config: Config) -> None:
    """Refuse rich clients that are not there, that nothing distinguishes, or whose deal is unknown (ValueError)."""
    client, deal = config.client, config.partition
    more = client.rich_batch_factor > 1 or deal.rich_data is not None
    if client.rich_share and not config.rich_clients:
        raise ValueError(
            f"client.rich_share = {client.rich_share} of client.count = {client.count} clients is none; raise either"
        )
    if more and not client.rich_share:
        raise ValueError(
            "client.rich_batch_factor and partition.rich_data are about rich clients; say how many are with "
            "client.rich_share, or leave them out"
        )
    if client.rich_batch_factor > 1 and config.supervised and not config.whole_network:
        raise ValueError(
            f"client.rich_batch_factor = {client.rich_batch_factor}: with method = {config.method!r} the server takes "
            f"batches of one size; leave it out (partition.rich_data may stay)"
        )
    if client.rich_share and not more:
        raise ValueError(
            f"client.rich_share = {client.rich_share}, and rich clients have nothing more than others; set "
            f"client.rich_batch_factor or partition.rich_data"
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


def _check_own_models(config: Config) -> None:
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


def _check_communication(config: Config) -> None:
    """Refuse settings of the traffic at the cut that would have no effect (ValueError)."""
    settings = config.communication
    fields = Communication.model_fields
    changed = {name for name in fields if getattr(settings, name) != fields[name].default}
    if not changed:
        return
    named = " and ".join(f"communication.{name} = {getattr(settings, name)!r}" for name in fields if name in changed)
    if config.whole_network:
        raise ValueError(
            f"method = {config.method} sends nothing in a step, since clients hold the whole network: {named} cannot "
            f"save anything; leave it out, or choose method = mocosfl or monacosfl"
        )
    if config.supervised:
        raise ValueError(
            f"{named} is for methods with query and key data, which method = {config.method} has not; leave it out"
        )
    if settings.loss_threshold and (config.reliability.anything or config.client.rich_batch_factor > 1):
        raise ValueError(
            "communication.loss_threshold replays whole pools of equal batches, as published; leave it out, or "
            "[reliability] and client.rich_batch_factor"
        )
    if not settings.loss_threshold and changed & {"warmup_epochs", "replay_mib"}:
        raise ValueError(
            f"{named} of a saving that is off (communication.loss_threshold = 0); set loss_threshold, or leave "
            f"warmup_epochs and replay_mib out"
        )
    full = max(settings.warmup_epochs, 1) + 1  # the first epoch's loss has none before it to compare with
    if settings.loss_threshold and config.epochs <= full:
        raise ValueError(
            f"communication.loss_threshold = {settings.loss_threshold} saves nothing: with communication.warmup_epochs "
            f"= {settings.warmup_epochs} everything travels in the first {full} epochs, and epochs = {config.epochs}; "
            + (f"lower warmup_epochs to at most {config.epochs - 2}, or " if config.epochs > 2 else "")
            + f"raise epochs to at least {full + 1}"
        )
    if config.client.frozen and changed & {"download_every", "gradient"}:
        raise ValueError(
            f"{named}, and client.frozen = true: no gradient comes down at all; leave download_every and gradient out"
        )
    if "topk" in changed and "topk" not in (settings.smashed, settings.gradient):
        raise ValueError(
            f"communication.topk = {settings.topk} is used by smashed = topk and gradient = topk only, and neither is "
            f"set; set one, or leave topk out"
        )
    if config.compute.precision == "bf16" and "bf16" in (settings.smashed, settings.gradient):
        raise ValueError(
            f"{named}: with compute.precision = bf16 all that travels at the cut is in bfloat16 already; leave it out"
        )


def _check_defence(config: Config) -> None:
    """Refuse a resistance term that nobody computes, or settings of one that is off (ValueError)."""
    settings, method = config.defence, METHODS[config.method]
    changed = [name for name, field in Defence.model_fields.items() if getattr(settings, name) != field.default]
    resistance = [name for name in changed if name.startswith("resistance")]
    if not resistance:
        return
    named = " and ".join(f"defence.{name} = {getattr(settings, name)!r}" for name in resistance)
    if not settings.resistance:
        raise ValueError(f"{named} of a term that is off (defence.resistance = 0); set resistance, or leave it out")
    if config.whole_network:
        raise ValueError(
            f"{named}: clients of method = {config.method} hold the whole network and send no smashed data; leave it "
            f"out, or choose a method with a cut"
        )
    if config.client.frozen and not method.pretrained:
        raise ValueError(
            f"{named}, and client.frozen = true: clients that never learn cannot learn to resist; leave one out"
        )


def _check_pretraining(config: Config) -> None:
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
    if config.supervised and settings.target_share:
        raise ValueError(
            f"pretraining.target_share = {settings.target_share}: the expert of method = {config.method} learns from "
            f"labels, of pretraining.auxiliary alone; leave it out"
        )
    if settings.auxiliary_images and not settings.auxiliary:
        raise ValueError("pretraining.auxiliary_images of no data set; name it with pretraining.auxiliary")


def _check_sampling(config: Config, pool: int) -> None:
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
