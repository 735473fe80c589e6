"""What does cutting deeper cost in accuracy, and which method bears it (MonAcoSFL's figure)?"""

from mocosfl_mpi.figures.accuracy_by_cut import main

if __name__ == "__main__":
    raise SystemExit(main())
