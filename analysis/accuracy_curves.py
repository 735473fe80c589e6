"""How accuracy grows with epochs, with images that clients have drawn, and with bytes that a client has moved."""

from mocosfl_mpi.figures.accuracy_curves import main

if __name__ == "__main__":
    raise SystemExit(main())
