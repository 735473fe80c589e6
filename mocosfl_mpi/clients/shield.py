"""What stands between a client's smashed data and the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

Ids = npt.NDArray[np.int64]
Pull = Callable[[Tensor], Tensor]
"""From the gradient at what was sent to that at what it was made of, in the same shape."""


class Shield(Protocol):
    """What clients make of their smashed data before they send them."""

    def query(self, smashed: Tensor, clients: Ids, epoch: int, step: int) -> tuple[Tensor, Pull]:
        """What a block sends of ``smashed [lanes, rows, C, h, w]``, and the way back for its gradient."""

    def key(self, smashed: Tensor, clients: Ids, epoch: int, step: int) -> Tensor:
        """The same of key data, to which no gradient comes back."""


class Unshielded:
    """Smashed data leave as they are."""

    def query(self, smashed: Tensor, clients: Ids, epoch: int, step: int) -> tuple[Tensor, Pull]:  # noqa: ARG002
        """The same, and the gradient as it came."""
        return smashed, lambda gradient: gradient

    def key(self, smashed: Tensor, clients: Ids, epoch: int, step: int) -> Tensor:  # noqa: ARG002
        """The same."""
        return smashed
