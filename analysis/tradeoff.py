"""Accuracy, bytes and privacy: which configurations are no worse than another in everything?"""

from mocosfl_mpi.figures.tradeoff import main

if __name__ == "__main__":
    raise SystemExit(main())
