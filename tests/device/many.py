"""``tests.mpi.many`` with the stand-in for a GPU: ``python -m tests.device.many FILE`` is one rank."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.device import standin
from tests.mpi.many import as_rank

if __name__ == "__main__":
    standin.install()
    raise SystemExit(as_rank(Path(sys.argv[1])))
