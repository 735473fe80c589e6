"""Which layers, and which clients, drift apart, and when."""

from mocosfl_mpi.figures.divergence_map import main

if __name__ == "__main__":
    raise SystemExit(main())
