"""Settings that do not go together: each refused with the remedy (ValueError), before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.client_consistency import (
    check_cuts,
    check_frozen,
    check_reliability,
    check_sampling,
    check_wealth,
)
from mocosfl_mpi.config.defence_consistency import check_defence
from mocosfl_mpi.config.federation_consistency import check_alignment, check_own_models
from mocosfl_mpi.config.method_consistency import check_supervised, check_whole_network
from mocosfl_mpi.config.pretraining_consistency import check_pretraining
from mocosfl_mpi.config.traffic_consistency import check_communication
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
        check_whole_network(config)
    if config.client.holds_labels and not config.vertical:
        raise ValueError(
            f"client.holds_labels = true is for method = split_vertical, and method is {config.method!r}; leave it out"
        )
    if config.supervised:
        check_supervised(config)
    elif not config.contrast.share_features:
        _check_private_memories(config)
    if len(config.evaluation.probe_l2) > 1 and config.data.validation_images == 0:
        raise ValueError(
            f"evaluation.probe_l2 = {list(config.evaluation.probe_l2)} needs a choice; data.validation_images = 0 "
            f"leaves nothing to choose by; hold out some images or name one penalty"
        )
    if not config.evaluation.probe_l2:
        raise ValueError("evaluation.probe_l2 is empty; name at least one penalty, for example [1e-3]")
    if config.compute.device != "cpu" and config.compute.backend == "fused":
        raise ValueError(
            f"compute.backend = fused has kernels for processors, and compute.device is {config.compute.device!r}; "
            f"leave one of them out"
        )
    if config.compute.compile and config.compute.backend in ("fused", "loop"):
        raise ValueError(
            f"compute.compile = true is for compute.backend = stacked, and compute.backend is "
            f"{config.compute.backend!r}; leave one of them out"
        )
    check_own_models(config)
    check_alignment(config)
    check_communication(config)
    check_sampling(config, pool)
    check_reliability(config, pool)
    check_wealth(config)
    check_frozen(config)
    check_cuts(config)
    check_defence(config)
    check_pretraining(config)
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
