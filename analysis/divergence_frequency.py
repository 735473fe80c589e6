"""Does synchronising more often keep the clients' models together, and do deeper cuts drift more (MocoSFL Fig. 3a)?"""

from mocosfl_mpi.figures.divergence_frequency import main

if __name__ == "__main__":
    raise SystemExit(main())
