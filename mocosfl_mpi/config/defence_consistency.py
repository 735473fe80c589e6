"""Defences that do not go together, or would have no effect: each refused with the remedy (ValueError)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mocosfl_mpi.config.sections import Defence
from mocosfl_mpi.methods import METHODS

if TYPE_CHECKING:
    from mocosfl_mpi.config.experiment import Config

FEWEST_ROWS = 3
"""Rows for a distance correlation that says something: of one it is 0/0, of two always 1."""
SIGNIFICAND = {"bf16": 8}
"""Bits of a number at the cut, by precision; the others have more than any `defence.levels` can ask for."""


def check_defence(config: Config) -> None:
    """Refuse defences that this experiment cannot have (ValueError)."""
    defence, fields = config.defence, Defence.model_fields
    changed = [name for name in fields if getattr(defence, name) != fields[name].default and name[:6] != "resist"]
    if changed and config.whole_network:
        named = " and ".join(f"defence.{name} = {getattr(defence, name)!r}" for name in changed)
        raise ValueError(
            f"method = {config.method} sends nothing at a cut, since clients hold the whole network: {named} has "
            f"nothing to protect there; leave it out, or choose a method with a cut such as mocosfl or sfl_v2"
        )
    if defence.anything and config.model.rich_cut_layer:
        raise ValueError(
            f"model.rich_cut_layer = {config.model.rich_cut_layer} makes smashed data of two shapes, and defences are "
            f"for one; leave it out, or everything in [defence]"
        )
    _check_noise(defence)
    _check_resistance(config)
    if defence.keep != "per_sample" and defence.keep_share == 1.0:
        raise ValueError(
            f"defence.keep = {defence.keep!r} chooses among what defence.keep_share = 1.0 sends, which is everything; "
            f"set keep_share below 1, or leave keep out"
        )
    _check_compression(config)
    _check_levels(config)
    _check_nopeek(config)
    if defence.adversarial and not config.resists:
        why = "client.frozen = true trains none" if config.client.frozen else "defence.resistance = 0 trains none"
        raise ValueError(
            f"defence.adversarial = {defence.adversarial} goes against the client's own decoder, and {why}; "
            + ("leave one of them out" if config.client.frozen else "set defence.resistance, or leave adversarial out")
        )


def _check_noise(defence: Defence) -> None:
    if defence.noise == "none" and defence.noise_scale:
        raise ValueError(
            f"defence.noise_scale = {defence.noise_scale} of noise that is off; set defence.noise to gaussian or "
            f"laplace, or leave noise_scale out"
        )
    if defence.noise != "none" and not defence.noise_scale:
        raise ValueError(
            f"defence.noise = {defence.noise} with defence.noise_scale = 0 adds nothing; set noise_scale, in the units "
            f"of the smashed data, or leave noise out"
        )
    if defence.delta != Defence.model_fields["delta"].default and not defence.private:
        raise ValueError(
            f"defence.delta = {defence.delta} is that of a guarantee, and there is none without defence.clip and "
            f"defence.noise = gaussian; set both, or leave delta out"
        )


def _check_compression(config: Config) -> None:
    """Codecs of `communication.smashed` take what the defences leave: what would undo or repeat them is refused."""
    defence, sent = config.defence, config.communication
    if sent.smashed == "topk" and defence.keep_share < 1.0:
        if defence.keep == "published":
            raise ValueError(
                "communication.smashed = topk sends as many numbers of each sample, and defence.keep = published keeps "
                "different ones; set defence.keep = per_sample, or another codec"
            )
        if sent.topk < defence.keep_share:
            raise ValueError(
                f"communication.topk = {sent.topk} sends fewer numbers than defence.keep_share = {defence.keep_share} "
                f"keeps, so that this has no effect; set topk = {defence.keep_share} to send just what is kept, or "
                f"leave keep_share out"
            )
    if sent.smashed in ("bf16", "int8") and defence.levels is not None:
        raise ValueError(
            f"defence.levels = {defence.levels} and communication.smashed = {sent.smashed} round one after the other, "
            f"to different values, and what arrives has not the levels; leave one of them out"
        )


def _check_levels(config: Config) -> None:
    """Refuse more levels than numbers at the cut can tell apart: what arrives would have others than those asked for.

    Of a range from 0 to a power of two, numbers with b bits hold 2^b evenly spaced ones; a finer grid is rounded.
    """
    levels, precision = config.defence.levels, config.compute.precision
    most = 2 ** SIGNIFICAND.get(precision, 24)
    if levels is not None and levels > most:
        raise ValueError(
            f"defence.levels = {levels}: with compute.precision = {precision} numbers at the cut have "
            f"{SIGNIFICAND[precision]} significant bits, which tell {most} evenly spaced values apart; set levels to "
            f"at most {most}, or compute.precision = fp32"
        )


def _check_nopeek(config: Config) -> None:
    weight = config.defence.nopeek
    if weight and config.client.frozen:
        raise ValueError(
            f"defence.nopeek = {weight} is a term of the clients' loss, and client.frozen = true: they do not learn; "
            f"leave one of them out"
        )
    if weight and config.client.rich_batch_factor > 1:
        raise ValueError(
            f"defence.nopeek = {weight} depends on the size of a batch, and client.rich_batch_factor = "
            f"{config.client.rich_batch_factor} gives clients different ones; leave one of them out"
        )
    if weight and config.rows_per_client < FEWEST_ROWS:
        raise ValueError(
            f"defence.nopeek = {weight} correlates the distances within a client's batch, and client.batch_size = "
            f"{config.client.batch_size} gives {config.rows_per_client} row(s): of one there is none, of two it is "
            f"always 1; set client.batch_size to at least {FEWEST_ROWS} (better many: small batches overstate it)"
        )


def _check_resistance(config: Config) -> None:
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
