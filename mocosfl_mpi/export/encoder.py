"""The encoder that evaluation judges, from a run's last checkpoint, as a plain torch module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mocosfl_mpi.algorithms import network
from mocosfl_mpi.config import Config, parse
from mocosfl_mpi.data.normalise import evaluation_images, resizing
from mocosfl_mpi.data.sources import Scale, scale
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.parts import stacked
from mocosfl_mpi.record.checkpoint import DIRECTORY, Checkpoint, newest
from mocosfl_mpi.record.reader import open_run
from mocosfl_mpi.split.cut import Ends, SplitNetwork, WholeNetwork
from mocosfl_mpi.split.engine import Engine
from mocosfl_mpi.streams import Streams


@dataclass(frozen=True)
class Released:
    """An encoder: the clients' mean model, and behind it the main server's layers, in float32."""

    layers: list[tuple[str, nn.Module]]
    """First to last, by the names of ``split.backbones``."""
    config: Config
    scale: Scale
    size: int
    """Pixels per side that the network was trained with."""
    facts: dict[str, Any]
    """About the run, for a file's metadata."""

    @property
    def resize(self) -> Tensor | None:
        """The matrix by which images are resized from both sides ``[size, side]``; None where they need not be."""
        if self.size == self.scale.side:
            return None
        return resizing(self.scale.side, self.size, torch.float32, torch.device("cpu"))

    def features(self, pixels: Tensor) -> Tensor:
        """Images uint8 ``[n, C, H, W]`` as evaluation sees them, to features ``[n, f]``."""
        images = evaluation_images(pixels, self.size, self.scale.mean, self.scale.std, torch.float32)
        with torch.no_grad():
            for _, layer in self.layers:
                images = layer(images)
            return images.mean(dim=(2, 3))


def released(run: Path) -> Released:
    """The encoder of a run's newest checkpoint.

    Raises
    ------
    BadInput
        No run, no good checkpoint, or a method that has no one encoder.
    """
    directory = run if run.is_dir() else run.parent
    with open_run(run) as record:
        config = parse(record.attrs["config"], str(record.path))
        classes, command = len(record["class"]), str(record.attrs["command"])
        verdict = {name: record.result(name) for name in ("knn_top1", "linear_top1")}
        facts: dict[str, Any] = {name: record.attrs[name] for name in ("software_version", "method", "seed", "preset")}
        facts |= {"config_hash": record.attrs["config_hash"], "completed": record.completed, "data": config.data.source}
    if config.vertical:
        raise BadInput(
            f"{run}: each client of split_vertical has layers of its own for its piece of an image, so there is no "
            f"encoder of whole images to export; export a run of another method"
        )
    if config.judged_apart:
        raise BadInput(
            f"{run}: {config.method} trains a model for each client and none for all, so there is no encoder to "
            f"export; export a run whose clients' models are averaged"
        )
    saved, _ = newest(directory / DIRECTORY)
    if saved is None:
        raise BadInput(
            f"{directory} has no checkpoint, and weights are nowhere else: bring back {directory / DIRECTORY}, or "
            f"compute the run again in another directory, to the same bits: {command}"
        )
    found = scale(config.data)
    size = config.views.size or found.side
    made = network(config, found.channels, size, classes, Streams(config.seed), torch.float32)
    facts |= {"steps": saved.manifest.steps, "epochs": saved.manifest.epoch, **verdict}
    return Released(_layers(made, saved), config, found, size, facts)


def _layers(made: SplitNetwork, saved: Checkpoint) -> list[tuple[str, nn.Module]]:
    """The network's layers with the weights of a checkpoint. BadInput where they are another network's."""
    shared = _tensors(saved, "shared")
    model = stacked(made, Engine("fp32", "stacked"))
    try:
        flat = shared["average" if "average" in shared else "online"]
        client = model.module(flat[: model.parameters].float())  # of two cuts, the first columns
        if made.trunk is not None:
            made.trunk.load_state_dict(_tensors(saved, "server-online"))
    except (KeyError, RuntimeError, BadInput) as error:
        raise BadInput(f"the checkpoint {saved.path} does not fit the network of its run: {error}") from None
    first = client.backbone if isinstance(client, Ends | WholeNetwork) else client
    behind = list(made.trunk.backbone.named_children()) if made.trunk is not None else []
    layers = [*first.named_children(), *behind]
    for _, layer in layers:
        layer.eval().requires_grad_(False)
    return layers


def _tensors(saved: Checkpoint, name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in saved.arrays(name).items()}
