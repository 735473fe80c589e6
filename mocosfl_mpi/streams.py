"""Counter-based random streams keyed by (seed, purpose, epoch, step, client), never by rank.

Any rank can draw the numbers of any client without having drawn those of the others, so the same seed gives
the same numbers however the clients are dealt to ranks and wherever a run is resumed.

The bulk generator is Philox4x32-10 (Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011),
evaluated for many counters at once with numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: npt.NDArray[np.uint64], key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Ten rounds of Philox4x32: counters ``[..., 4]`` (32-bit words in uint64) to random words of that shape."""
    c0, c1, c2, c3 = (counter[..., i] for i in range(4))
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _32) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _32) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


class Streams:
    """All random streams of one run, derived from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _digest(self, purpose: str, ids: Sequence[int], size: int) -> int:
        text = ":".join([str(self.seed), purpose, *(str(int(i)) for i in ids)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")

    def generator(self, purpose: str, *ids: int) -> np.random.Generator:
        """A numpy generator of its own for ``(seed, purpose, *ids)``: for permutations and rare draws."""
        return np.random.Generator(np.random.Philox(key=self._digest(purpose, ids, 16)))

    def torch_seed(self, purpose: str, *ids: int) -> int:
        """A 63-bit seed for a ``torch.Generator`` of ``(seed, purpose, *ids)``."""
        return self._digest(purpose, ids, 8) >> 1

    def uniforms(
        self, purpose: str, *, epoch: int, step: int, clients: npt.ArrayLike, count: int
    ) -> npt.NDArray[np.float64]:
        """``count`` numbers in [0, 1) for each of ``clients`` at ``(epoch, step)``: float64 ``[len(clients), count]``.

        A client's row depends on nothing but (seed, purpose, epoch, step, client): not on who else is asked
        for, and a longer ``count`` only appends. 32 bits of resolution.
        """
        ids = np.asarray(clients, dtype=np.uint64)
        draws = -(-count // 4)
        counter = np.empty((len(ids), draws, 4), dtype=np.uint64)
        counter[..., 0] = np.arange(draws, dtype=np.uint64)
        counter[..., 1] = ids[:, None]
        counter[..., 2] = np.uint64(step)
        counter[..., 3] = np.uint64(epoch)
        key = self._digest(purpose, (), 8)
        words = philox4x32(counter, (key & 0xFFFFFFFF, key >> 32))
        return (words.reshape(len(ids), draws * 4)[:, :count].astype(np.float64) + 0.5) / 2.0**32
