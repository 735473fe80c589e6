"""One HDF5 file per run: what is in it (schema), how it is written while the run goes on, read and shown."""
