"""``python -m mocosfl_mpi.comm.probe``: one line of JSON about this rank, for ``mocosfl doctor``.

Started alone it says which MPI library is loaded; started by a launcher, whether the ranks see each other.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from mocosfl_mpi.errors import BadInput


def main() -> int:
    """Meet the other ranks, then print rank, size, host, processors this rank may use and the MPI library."""
    try:
        from mocosfl_mpi.comm.cluster import Cluster  # prepares the environment, and refuses in words
    except BadInput as error:
        print(error, file=sys.stderr)
        return error.exit_code
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    world.Barrier()
    report = {
        "rank": world.rank,
        "size": world.size,
        "host": socket.gethostname(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "library": Cluster.library(),
    }
    sys.stdout.write(json.dumps(report) + "\n")  # one write: lines of several ranks do not mix
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
