PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: install demo test test-cluster test-faults test-long check format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# torch first, by the exact version of constraints.txt: left open, pip may take a CUDA build of several GB.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m cofi_tune.search --task grammar --space smoke --trials 5 --name demo --output runs

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests of a file stay on one process: some share what is slow to make.
test: check
	$(BIN)/python -m pytest -m "not faults and not cluster" -n 2 --dist loadfile --no-loadscope-reorder

test-cluster: install
	$(BIN)/python -m pytest -m cluster

test-faults: install
	$(BIN)/python -m pytest -m "faults and not cluster and not long" -n 2 --dist loadgroup --no-loadscope-reorder

test-long: install
	$(BIN)/python -m pytest -m long -n 2 --dist loadgroup --no-loadscope-reorder

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv runs
