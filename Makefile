# All that people and CI do with this tree. `make help` explains.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help packages dev demo test test-xen faults soak fuzz check bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

packages: ## install the system packages that demo, test and bench need (apt, as root)
	@tests/testbed/install-packages

$(STAMP): constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

dev: $(STAMP) ## make .venv with relocd and everything to work on it

demo: packages dev ## move a real guest between two hosts, live, back, and offline (root, about 2 minutes)
	@$(BIN)/python -m tests.demo

TEST_WORKERS ?= 0
test: packages dev ## run all tests, the real guests included (root, below 15 minutes; TEST_WORKERS=2: two files at a time)
	@$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile

faults: packages dev ## kill every part and cut the link at every step of the dialogue, on real guests (root, about 8 minutes)
	@$(BIN)/python -m pytest -m e2e tests/e2e/test_fault_table.py tests/e2e/test_restarts.py

test-xen: packages dev ## domains of real Xen hosts, emulated (root, up to 30 minutes; the first time 5 more for an image)
	@tests/testbed/install-packages xen
	@$(BIN)/python -m pytest -m standin tests/contracts
	@$(BIN)/python -m pytest -m xen tests/xen

SOAK_RUNS ?= 100000
soak: dev ## the model of two hosts, for long: SOAK_RUNS runs that hypothesis makes up (about 15 minutes)
	@RELOCD_SOAK_RUNS=$(SOAK_RUNS) $(BIN)/python -m pytest -q -p no:cacheprovider --timeout 0 tests/handover/test_world.py

FUZZ_SECONDS ?= 60
FUZZ ?=
fuzz: dev ## fuzz all that reads a stranger's bytes, FUZZ_SECONDS for each target (15 targets; FUZZ="line door" takes some)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation --editable '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

check: dev ## ruff, mypy --strict, the wall, the systemd unit
	@$(BIN)/ruff check relocd tests
	@$(BIN)/ruff format --check relocd tests
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_wall.py tests/test_systemd.py

BENCH ?=
bench: packages dev ## relocd beside QEMU's own migration, in turn (root, about 25 minutes; BENCH="--help" tells how to do less)
	@$(BIN)/python -m tests.bench $(BENCH)

clean: ## remove what builds and tests left in this tree
	rm -rf $(VENV) .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
