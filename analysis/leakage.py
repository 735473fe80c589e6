"""How much do adversaries learn, and how much of it does a defence, a cut or a method keep from them?"""

from mocosfl_mpi.figures.leakage import main

if __name__ == "__main__":
    raise SystemExit(main())
