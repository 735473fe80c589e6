"""What every MPI rank did with its time, and how much of it waiting."""

from mocosfl_mpi.figures.rank_timeline import main

if __name__ == "__main__":
    raise SystemExit(main())
