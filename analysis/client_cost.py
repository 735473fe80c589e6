"""What does one simulated client spend: computation, bytes by kind, memory (MocoSFL Table 1, Fig. 3b and 7)?"""

from mocosfl_mpi.figures.client_cost import main

if __name__ == "__main__":
    raise SystemExit(main())
