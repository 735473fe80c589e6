"""Many experiments as one description: a table of a paper, cell by cell and seed by seed."""
