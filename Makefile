PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

# Of many short processes, each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo check test test-faults test-cluster test-long test-all format clean

install: .venv/developers

# What a search needs. torch first, by the exact version of constraints.txt: left open, pip may take a CUDA
# build of several GB.
.venv/search: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing PyTorch (1 of 2) ..."
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "installing Ray, transformers, Optuna, MLflow and what they need (2 of 2; minutes) ..."
	@$(PIP) --editable .
	@touch $@

.venv/developers: .venv/search
	@echo "installing the developers' tools ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: .venv/search
	$(BIN)/python -m cofi_tune.search --task grammar --space smoke --trials 5 --name demo --output runs

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(PYTEST) -m "not faults and not long"

# One of each kind, end to end: a driver killed, a worker killed, a full disk, a database that is down.
test-faults: install
	$(PYTEST) -m "faults and not long"

test-long: install
	$(PYTEST) -m long

test-all: check
	$(PYTEST)

test-cluster: install
	$(PYTEST) tests/cluster

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv runs
