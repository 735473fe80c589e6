"""How does the time of a step, and the memory, grow with ranks and with simulated clients?"""

from mocosfl_mpi.figures.scaling import main

if __name__ == "__main__":
    raise SystemExit(main())
