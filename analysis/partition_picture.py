"""Who holds which images: classes by client."""

from mocosfl_mpi.figures.partition_picture import main

if __name__ == "__main__":
    raise SystemExit(main())
