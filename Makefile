# Everything a fresh machine needs; see README.md. PYTHON chooses the interpreter, VENV where to install.
PYTHON ?= python3
VENV ?= .venv
MPI ?= mpich
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(MPI)

.PHONY: demo test test-slow lint docs clean

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(MPI),analysis,test]"
	touch $@

demo: $(READY)  ## MocoSFL on the embedded images with 3 ranks: minutes
	$(BIN)/mocosfl run quickstart -n 3

test: $(READY)  ## unit tests, then the MPI suite at 1, 2, 3 and 5 ranks
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: $(READY)  ## directions of effect over seeds, kill -9 at random moments: tens of minutes
	$(BIN)/python -m pytest -m slow

lint: $(READY)  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## regenerate what is generated
	$(BIN)/python -m mocosfl_mpi.record.schema > docs/file-format.md

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
