# Everything a fresh machine needs; see README.md. PYTHON chooses the interpreter, VENV where to install.
PYTHON ?= python3
VENV ?= .venv
MPI ?= mpich
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(MPI)

.PHONY: demo test test-slow test-cluster cluster-packages lint docs clean

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(MPI),analysis,test]"
	touch $@

demo: $(READY)  ## MocoSFL on the embedded images with 3 ranks: minutes
	$(BIN)/mocosfl run quickstart -n 3

test: $(READY)  ## unit tests, then the MPI suite at 1, 2, 3 and 5 ranks
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not cluster"

test-slow: $(READY)  ## directions of effect over seeds, kill -9 at random moments: tens of minutes
	$(BIN)/python -m pytest -m "slow and not cluster"

CLUSTER_PROGRAMS := slurmctld slurmd munged sbatch ip ethtool
CLUSTER_PACKAGES := slurmctld slurmd slurm-client munge libpmix-dev iproute2 ethtool

test-cluster: $(READY) cluster-packages  ## a private SLURM, and hosts as network namespaces, for real: minutes; needs root
	$(BIN)/python -m pytest -m cluster

cluster-packages:  ## what test-cluster needs of Debian, installed if missing
	@if [ "$$(id -u)" != 0 ]; then echo "make test-cluster needs root: it starts slurmd and makes namespaces" >&2; exit 1; fi
	@for program in $(CLUSTER_PROGRAMS); do PATH="$$PATH:/usr/sbin:/sbin" command -v $$program > /dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then \
	    command -v apt-get > /dev/null || { echo "install these first: $(CLUSTER_PROGRAMS)" >&2; exit 1; }; \
	    apt-get update -q && apt-get install -qy --no-install-recommends $(CLUSTER_PACKAGES); \
	fi

lint: $(READY)  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## regenerate what is generated
	$(BIN)/python -m mocosfl_mpi.record.schema > docs/file-format.md

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
