"""How private a Gaussian mechanism is that was used so many times (docs/defences.md says of what).

``dp-accounting`` does the arithmetic; it belongs to the extra `privacy`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mocosfl_mpi.config import Config
from mocosfl_mpi.errors import BadInput

REMEDY = "pip install 'mocosfl-mpi[privacy]'"


def epsilon(multiplier: float, sends: int, delta: float) -> float:
    """ε at ``delta`` of ``sends`` Gaussian mechanisms one after the other, each chosen with what the others gave.

    ``multiplier``: standard deviation over L2 sensitivity. n mechanisms are exactly one with ``multiplier`` / √n
    (Dong, Roth, Su, Gaussian differential privacy, 2022, corollary 3.3), and of one ε is exact (Balle, Wang, ICML 2018,
    theorem 8).

    Raises
    ------
    BadInput
        ``dp-accounting`` is not installed.
    """
    try:
        from dp_accounting import get_epsilon_gaussian
    except ImportError as error:
        raise BadInput(f"ε needs the package dp-accounting, which is not installed ({error}): {REMEDY}") from None
    return float(get_epsilon_gaussian(multiplier / math.sqrt(sends), delta)) if sends else 0.0


@dataclass(frozen=True)
class Guarantee:
    """What is guaranteed of one image's smashed data in a run, or why nothing is."""

    sends: int
    """Most samples of smashed data that are sent of one image."""
    delta: float | None = None
    epsilon: float | None = None
    """ε for the exchange of one image for any other: sensitivity 2 · clip. None = no guarantee, or not computed."""
    epsilon_absent: float | None = None
    """ε for its presence, where smashed data of zeros would stand for it: sensitivity clip."""
    epsilon_once: float | None = None
    """ε for its exchange, of a single send."""
    text: str = ""
    """All that in words."""

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def guarantee(config: Config, sends: int) -> Guarantee:
    """What the defences of an experiment guarantee. ``sends``: most samples of smashed data of one image."""
    defence = config.defence
    if defence.noise == "none":
        return Guarantee(sends, text="no noise, no guarantee")
    if not defence.private or defence.clip is None:
        missing = "clipped" if defence.clip is None else "Gaussian"
        return Guarantee(sends, text=f"additive noise, no guarantee: what is sent is not {missing}")
    if (
        config.model.backbone == "mobilenetv2_published"
        and config.rows_per_client * config.client.rich_batch_factor > 1
    ):
        text = "no guarantee: the BatchNorm of mobilenetv2_published mixes images before they are clipped"
        return Guarantee(sends, text=text)
    multiplier = defence.noise_scale / defence.clip
    try:
        found, absent, once = (
            epsilon(multiplier / reach, times, defence.delta) for reach, times in ((2, sends), (1, sends), (2, 1))
        )
    except BadInput as problem:
        return Guarantee(sends, defence.delta, text=str(problem))
    text = (
        f"ε = {found:.4g} at δ = {defence.delta:g} for the exchange of one image ({absent:.4g} for its presence), of "
        f"its smashed data alone, sent up to {sends} times; {once:.4g} for a single send"
    )
    return Guarantee(sends, defence.delta, found, absent, once, text)
