"""Was the plan right: memory, time, simulated bytes and computation, size of the file?"""

from mocosfl_mpi.figures.plan_against_actual import main

if __name__ == "__main__":
    raise SystemExit(main())
