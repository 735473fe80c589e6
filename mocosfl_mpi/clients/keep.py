"""What a client keeps for itself of its states, and how that comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Keep:
    """Columns of a state that each client keeps for itself between epochs."""

    state: str
    columns: tuple[tuple[int, int], ...]
    """(start, stop) of each run of columns."""
    lapses: bool = False
    """Whether a value is lost when the state is made common while the client is away."""

    @property
    def numbers(self) -> int:
        """How many numbers these are."""
        return sum(stop - start for start, stop in self.columns)


def lay(private: Sequence[Keep], row: Tensor, lapsed: Mapping[str, bool], states: Mapping[str, Tensor]) -> None:
    """Lay what a client has kept ``[width]`` over its ``states``, in place, but for what has lapsed of it."""
    begin = 0
    for keep in private:
        for start, stop in keep.columns:
            end = begin + stop - start
            if keep.state in states and not (keep.lapses and lapsed[keep.state]):
                states[keep.state][start:stop] = row[begin:end]
            begin = end
