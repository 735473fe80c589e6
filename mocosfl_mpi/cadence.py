"""How often a checkpoint is saved."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mocosfl_mpi.errors import BadInput


@dataclass(frozen=True)
class Cadence:
    """A checkpoint every ``every`` minutes, epochs or steps; 0 = only at the end and when stopped."""

    every: float = 10.0
    unit: str = "min"

    @classmethod
    def parse(cls, text: str) -> Cadence:
        """From `10min`, `2epochs`, `500steps` or `off`. BadInput for anything else."""
        if text == "off":
            return cls(0.0, "min")
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?) ?(min|epochs?|steps?)", text)
        unit = (match[2] if match[2] == "min" else match[2].rstrip("s") + "s") if match else ""
        every = float(match[1]) if match else 0.0
        if every <= 0 or (unit != "min" and every != int(every)):
            raise BadInput(f"--checkpoint-every {text!r}: expected for example 10min, 2epochs, 500steps, or off")
        return cls(every, unit)
