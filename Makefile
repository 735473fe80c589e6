# Everything a fresh machine needs; see README.md. PYTHON chooses the interpreter, VENV where to install.
PYTHON ?= python3
VENV ?= .venv
MPI ?= mpich
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(MPI)
TOOLS := $(VENV)/.tools-$(MPI)
DOCS := $(VENV)/.docs-$(MPI)

.PHONY: demo evidence test test-slow test-cluster cluster-packages test-docs test-packaging test-pages page-packages lint docs clean

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(MPI),analysis]"
	touch $@

$(TOOLS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[export,notebook,pages,privacy,test]"
	touch $@

$(DOCS): $(TOOLS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

demo: $(READY)  ## MocoSFL on the embedded images with 3 ranks, and a page on it: minutes
	$(BIN)/mocosfl run quickstart -n 3
	@$(BIN)/mocosfl report "$$(ls -dt runs/quickstart-* | head -n 1)"

CLAIMS := alignment whole-network frequency clients recipe defences

evidence: $(READY)  ## what is missing of docs/evidence, from CIFAR-10 in DATA: 93 runs, more than an hour of one free core
	@if [ -z "$(DATA)" ]; then echo "make evidence DATA=DIR, the directory with cifar-10-batches-py" >&2; exit 1; fi
	@set -e; for claim in $(CLAIMS); do \
	    grid="$(BIN)/mocosfl grid jobs/configs/evidence/$$claim.toml --out runs/evidence/$$claim"; \
	    $$grid --run --data-dir "$(DATA)"; \
	    $$grid --table > docs/evidence/results/$$claim.md; \
	    $$grid --json > docs/evidence/results/$$claim.json; \
	done

test: $(TOOLS)  ## unit tests, then the MPI suite at 1, 2, 3 and 5 ranks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not cluster and not docs and not packaging and not pages"

test-slow: $(TOOLS)  ## directions of effect over seeds, kill -9 at random moments: tens of minutes
	$(BIN)/python -m pytest -m "slow and not cluster and not docs and not packaging and not pages"

test-packaging: $(TOOLS)  ## sdist, wheel, installation and the example notebook, away from the checkout
	$(BIN)/python -m pytest -m packaging

CLUSTER_PROGRAMS := slurmctld slurmd munged sbatch ip ethtool
CLUSTER_PACKAGES := slurmctld slurmd slurm-client munge libpmix-dev iproute2 ethtool

test-cluster: $(TOOLS) cluster-packages  ## a private SLURM, and hosts as network namespaces, for real: minutes; needs root
	$(BIN)/python -m pytest -m cluster

cluster-packages:  ## what test-cluster needs of Debian, installed if missing
	@if [ "$$(id -u)" != 0 ]; then echo "make test-cluster needs root: it starts slurmd and makes namespaces" >&2; exit 1; fi
	@for program in $(CLUSTER_PROGRAMS); do PATH="$$PATH:/usr/sbin:/sbin" command -v $$program > /dev/null || missing=1; done; \
	if [ -n "$$missing" ]; then \
	    command -v apt-get > /dev/null || { echo "install these first: $(CLUSTER_PROGRAMS)" >&2; exit 1; }; \
	    apt-get update -q && apt-get install -qy --no-install-recommends $(CLUSTER_PACKAGES); \
	fi

BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

test-pages: $(TOOLS) page-packages  ## what the program writes for browsers, in a headless Chromium: minutes
	$(BIN)/python -m pytest -m pages

page-packages:  ## the browser of test-pages, from Debian, installed if there is none
	@if [ -n "$(CHROMIUM)" ]; then exit 0; fi; \
	for program in $(BROWSERS); do command -v $$program > /dev/null && exit 0; done; \
	command -v apt-get > /dev/null || { echo "install a Chromium first, or name one in CHROMIUM" >&2; exit 1; }; \
	apt-get update -q && apt-get install -qy --no-install-recommends chromium fonts-dejavu-core

lint: $(TOOLS)  ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)  ## regenerate what is generated, and build docs/_build/html; a warning is an error
	$(BIN)/python -m mocosfl_mpi.record.schema > docs/file-format.md
	$(BIN)/python -m mocosfl_mpi.config.markdown > docs/configuration.md
	$(BIN)/python -m mocosfl_mpi.manual > docs/cli.md
	$(BIN)/python -m sphinx -b html -W --keep-going -n docs docs/_build/html

test-docs: $(DOCS)  ## the site, its links, and every command that README.md and docs/ show: minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m docs

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
