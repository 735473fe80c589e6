"""The first layers that a server has shipped, as a client of a run would judge them before it sends anything."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import Tensor, nn

from mocosfl_mpi.attacks.acceptance import Verdict, acceptance
from mocosfl_mpi.attacks.guards import guard_of
from mocosfl_mpi.attacks.scenes import pixels_of
from mocosfl_mpi.attacks.stage import Stage
from mocosfl_mpi.attacks.view import unguarded
from mocosfl_mpi.errors import BadInput

PREFIX = "client.online."
"""Before the names of a client's parameters, where a file holds others beside them."""


def judge(stage: Stage, client: int, file: Path | None, threshold: float) -> Verdict:
    """Whether ``client`` should take its first layers: those in ``file``, or of the run's checkpoint.

    Raises
    ------
    BadInput
        The run has no such client, or one with too few images; the file cannot be read, or is of other layers.
    """
    victim = stage.victim
    stage.check_client(client)
    if victim.config.vertical:
        raise BadInput(f"clients of {victim.config.method} have pieces of images: there is no extractor to judge")
    if victim.config.whole_network:
        raise BadInput(f"clients of {victim.config.method} send nothing at a cut: there is no extractor to judge")
    bottom = victim.client(client).online
    if file is not None:
        fill(bottom, file)
    data = victim.source
    own = pixels_of(data.train.take(data.parts[client]), victim.size)
    guard = guard_of(victim, client) or unguarded
    return acceptance(bottom, own, data.data.mean, data.data.std, threshold=threshold, guard=guard)


def fill(bottom: nn.Module, file: Path) -> None:
    """Set the parameters of ``bottom`` to those in a safetensors file. BadInput where they do not fit."""
    try:
        arrays = load(file.read_bytes())
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadInput(f"the extractor {file} cannot be read: {' '.join(str(error).split())[:200]}") from None
    prefix = PREFIX if any(name.startswith(PREFIX) for name in arrays) else ""
    found: dict[str, Tensor] = {
        name.removeprefix(prefix): torch.from_numpy(value) for name, value in arrays.items() if name.startswith(prefix)
    }
    own = bottom.state_dict()
    wrong = [
        name
        for name in {**own, **found}
        if name not in own or name not in found or own[name].shape != found[name].shape
    ]
    if wrong:
        raise BadInput(
            f"the extractor {file} is of other layers than the run's: {sorted(wrong)[0]} is missing, unknown or of "
            f"another shape; name one of the same network, width and cut"
        )
    if not all(torch.isfinite(value.float()).all() for value in found.values()):
        raise BadInput(f"the extractor {file} holds numbers that are not finite")
    bottom.load_state_dict(found)
