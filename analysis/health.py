"""Is self-supervised training healthy: loss, collapse, hardness of the negatives, momentum models that fall behind."""

from mocosfl_mpi.figures.health import main

if __name__ == "__main__":
    raise SystemExit(main())
