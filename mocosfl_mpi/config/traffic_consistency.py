"""What travels at the cut: settings that save nothing are refused (ValueError)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.sections import Communication

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config


def check_communication(config: Config) -> None:
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
