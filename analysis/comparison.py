"""Many runs at once: mean ± standard deviation over seeds, differences of pairs with p, published numbers."""

from mocosfl_mpi.figures.comparison import main

if __name__ == "__main__":
    raise SystemExit(main())
