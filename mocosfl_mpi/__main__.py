"""``python -m mocosfl_mpi`` is the ``mocosfl`` command."""

from mocosfl_mpi.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
