"""The published measurement of how well a decoder inverts smashed data, on its own terms.

docs/privacy/published-protocol.md says what its numbers are worth.
MocoSFL (Li et al., ICLR 2023) and ResSFL (CVPR 2022), as their code does it; every quirk here is one of theirs.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mocosfl_mpi.attacks import metrics
from mocosfl_mpi.attacks.attack import Effort, Guess, Kind
from mocosfl_mpi.attacks.decoders import decoder, macs
from mocosfl_mpi.attacks.reconstruction.decoder import BATCH, EPOCHS, computed, decoded, train
from mocosfl_mpi.attacks.scenes import look, pixels_of
from mocosfl_mpi.attacks.victim import Victim
from mocosfl_mpi.attacks.view import Guard, Sight, View, unguarded
from mocosfl_mpi.data.normalise import per_channel
from mocosfl_mpi.split.layers import seeded

OWN, COUNT = 500, 128
"""Images of the adversary's (1 % of CIFAR-10's training split), and images that are attacked."""
SPLIT_SEED, HELD_OUT = 123, 0.1
QUALITY = 75
"""Of the JPEG files in which the adversary keeps images: Pillow's default."""
STORED_STD = (0.247, 0.243, 0.261)
"""With which the 128 CIFAR-10 images that MocoSFL attacks were normalised: its own are (0.2023, 0.1994, 0.2010)."""


@dataclass(eq=False)
class PublishedProtocol:
    """128 test images go through a client's online model; the adversary is the server and has 500 training images.

    For CIFAR-10 the attacked images are those of ResSFL, normalised with a wider standard deviation than MocoSFL takes
    them back with: what the client sees and what counts as the truth have 0.65 of the variance, and every score is the
    better for it. A defence is the victim's affair; the adversary does not know of it.
    """

    victim: Victim
    client: int = 0
    seed: int = 0
    guard: Guard = unguarded

    def __post_init__(self) -> None:
        source, size = self.victim.source, self.victim.size
        chosen = self.victim.streams.generator("attack", self.seed).permutation(len(source.train))[:OWN]
        own = pixels_of(source.train.take(chosen), size)
        shown = pixels_of(source.data.test.take(np.arange(min(COUNT, len(source.data.test)))), size)
        self.mean = source.data.mean
        if self.victim.config.data.source == "cifar10":
            shown = shrunk(shown, source.data.mean, source.data.std)
        self.truth = jpeg(shown)
        self.view = look(self.victim, "server", self.client, own, shown, self.guard, adaptive=False)

    def score(self, guess: Guess) -> dict[str, float]:
        """MSE, PSNR as the mean of the images', zero-padded SSIM (`ssim_published`), against JPEG images."""
        return metrics.score(guess.values, self.truth)

    def floors(self) -> dict[str, dict[str, float]]:
        """The data set's mean colour for every image, and each image's own: what a defence cannot be better than."""
        colour = per_channel(self.mean, self.truth).expand_as(self.truth)
        return {
            "constant_mean": metrics.score(colour, self.truth),
            "own_mean": metrics.score(metrics.own_mean(self.truth), self.truth),
        }


class PublishedDecoder:
    """The decoder of the published measurement, with its validation.

    Validation passes go through BatchNorm in training mode, whose running statistics they change, and the state that is
    kept is that of the best single mini-batch of at most 32 images.
    """

    name: str = "decoder_published"
    kind: Kind = "reconstruction"
    needs: frozenset[Sight] = frozenset({"smashed", "weights"})
    source: str = "Li et al., MocoSFL: Enabling Cross-Client Collaborative Self-Supervised Learning, ICLR 2023 (code)"

    def __init__(self, network: str = "res_normN4C64") -> None:
        self.network = network

    def run(self, view: View, seed: int, effort: Effort) -> Guess:
        """Pixels of the images whose smashed data the view has."""
        assert view.smashed is not None
        clean, kept = computed(view), jpeg(view.own)
        order = np.arange(len(clean))
        np.random.RandomState(SPLIT_SEED).shuffle(order)
        held = max(1, round(HELD_OUT * len(order)))
        check, fit = torch.from_numpy(order[:held]), torch.from_numpy(order[held:])
        with seeded(seed):
            network = decoder(self.network, clean.shape[1:], view.image_shape)

        def validate() -> float:
            network.train()
            with torch.no_grad():
                return min(float(F.mse_loss(network(clean[rows]), kept[rows])) for rows in check.split(BATCH))

        generator = torch.Generator().manual_seed(seed)
        state, error = train(
            network, lambda rows: clean[rows], kept, fit, effort.steps(EPOCHS), generator, validate
        )  # fmt: skip
        network.load_state_dict(state)
        notes = {"validation_mse": error, "macs": macs(network, clean.shape[1:])}
        return Guess(decoded(network.eval(), view.smashed), notes)


def shrunk(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """``pixels [n, 3, H, W]`` normalised with `STORED_STD` and taken back with ``std``."""
    centre = per_channel(mean, pixels)
    return (pixels - centre) / per_channel(STORED_STD, pixels) * per_channel(std, pixels) + centre


def jpeg(pixels: Tensor) -> Tensor:
    """``pixels [n, C, H, W]`` in [0, 1] after 8 bits and a JPEG file; C is 1 or 3."""
    found = torch.empty_like(pixels)
    for row, image in enumerate(pixels.clamp(0.0, 1.0).mul(255.0).round().byte().permute(0, 2, 3, 1).numpy()):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=QUALITY)
        back = torch.from_numpy(np.array(Image.open(file)))
        found[row] = back.view(*image.shape).permute(2, 0, 1) / 255.0
    return found
