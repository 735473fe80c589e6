"""The papers' table of costs for one configuration's setting: their schemes, and every cut layer of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mocosfl_mpi.algorithms import ALGORITHMS
from mocosfl_mpi.config import Config
from mocosfl_mpi.cost.published import PASSES
from mocosfl_mpi.errors import BadInput
from mocosfl_mpi.plan.account import Account, Cut, Scheme
from mocosfl_mpi.plan.images import ImageSet
from mocosfl_mpi.split import backbones

SETTING = (200.0, 50, 200, "resnet18", 64, 3, 32)
"""Of the papers' Table 1: epochs, images and synchronisations of a client; backbone, width, channels, pixels."""
BOTTLENECK = "C4S2"
"""Of the rows that the papers call TAResSFL, with frozen clients."""
PRINTED: dict[str, dict[str, str]] = {
    "FL-SSL": {"weights": "8269.2", "latents": "0.0", "total": "8269.2", "image": "1627.8", "whole": "7,948,723"},
    "MocoSFL-1": {"weights": "1.4", "latents": "5000", "total": "5001.4", "image": "6.0"},
    "MocoSFL-3": {"weights": "57.9", "latents": "5000", "total": "5057.9", "image": "223.8", "whole": "2187"},
    "MocoSFL-1+TAResSFL": {"weights": "0.0", "latents": "39.1", "total": "39.1"},
    "MocoSFL-3+TAResSFL": {"weights": "0.0", "latents": "39.1", "total": "39.1", "whole": "734"},
}
"""As MocoSFL prints them: Table 1 (MB); Fig. 3b (M operations an image, cut off after one digit); Fig. 7 (G)."""


@dataclass(frozen=True)
class Accounting:
    """Everything that ``mocosfl plan --published-accounting`` says."""

    own: Account
    scheme: Scheme
    schemes: list[Scheme]
    cuts: list[Cut]
    printed: bool
    """The setting is that of the papers' Table 1: their printed digits can stand beside."""

    def summary(self) -> dict[str, Any]:
        """Ready for JSON: MB are 2^20 bytes, operations fvcore's, FLOPs two a MAC."""
        own = self.own
        return {
            "epochs_of_a_client": own.epochs,
            "images_of_a_client": own.images,
            "syncs_of_a_client": own.syncs,
            "configuration": _plain(self.scheme),
            "differences": {"latents": own.latents(), "weights": own.weights(), "computation": own.computation()},
            "schemes": [_plain(scheme) for scheme in self.schemes],
            "cuts": [asdict(row) | {"floats": row.floats, "published_total": row.published.total} for row in self.cuts],
            "papers_setting": self.printed,
        }


def _plain(scheme: Scheme) -> dict[str, Any]:
    sides = {"published": scheme.published, "true": scheme.true}
    return {"scheme": scheme.name} | {name: asdict(side) | {"total": side.total} for name, side in sides.items()}


def accounting(config: Config, images: ImageSet) -> Accounting:
    """Count ``config``, the papers' schemes in its setting, and every cut layer of its network. Trains nothing."""
    if config.compute.precision == "auto":
        config = config.computed("fp32", config.compute.backend)
    accounts: dict[Config, Account] = {}

    def account(**changes: Any) -> Account:
        frozen = changes.pop("frozen", config.client.frozen)
        changed = config.model_copy(
            update={
                "model": config.model.model_copy(update=changes),
                "client": config.client.model_copy(update={"frozen": frozen}),
            }
        )
        if changed not in accounts:
            accounts[changed] = Account(changed, images)
        return accounts[changed]

    own = account()
    size = config.views.size or images.side
    last = len(backbones.build(config.model, images.channels, size))
    whole_network = {"cut_layer": last, "head": "largeV2", "key_dim": None, "hidden_dim": None, "bottleneck": ""}
    fl = account(**whole_network, frozen=False).baseline()
    whole = round(fl.published.image / PASSES)

    def scheme(name: str, found: Account) -> Scheme:
        return Scheme(name, found.published(whole), found.true)

    rows, title = [fl], ALGORITHMS[config.method].title
    for frozen in (False, True):
        bottleneck = BOTTLENECK if frozen else ""
        for layer in (1, 2):
            name = f"{title}-{2 * layer - 1}{'+TAResSFL' if frozen else ''}"
            rows.append(scheme(name, account(cut_layer=layer, bottleneck=bottleneck, frozen=frozen)))
    cuts = [found.row() for found in _fitting(account, last)]
    setting = (own.epochs, own.images, own.syncs, config.model.backbone, config.model.width, images.channels, size)
    return Accounting(own, scheme("this configuration", own), rows, cuts, printed=setting == SETTING)


def _fitting(account: Callable[..., Account], last: int) -> Iterator[Account]:
    """An account for each cut layer; those whose map the bottleneck does not divide are left out."""
    for layer in range(1, last + 1):
        try:
            yield account(cut_layer=layer)
        except BadInput:
            continue
