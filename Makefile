# Everything installs into a project-local environment, from the pinned constraints.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
LINT_PATHS = sb3_pave tests examples

# SB3 and Gymnasium as old as supported, in an environment of their own
OLDEST = .venv-oldest

.PHONY: demo test test-cuda test-oldest pytest lint format type commit-checks wheel clean

# Train a smooth Pendulum controller through the zoo, then measure it
demo: $(VENV)/installed
	$(BIN)/sb3-pave train --algo pave_sac --env Pendulum-v1 -n 20000 --seed 1 -P
	$(BIN)/sb3-pave evaluate --algo pave_sac --env Pendulum-v1 -f logs -o logs/demo --overwrite

test: $(VENV)/installed pytest

pytest:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# On a machine with a GPU; any Python with the package's dependencies and pytest will do: make test-cuda PYTEST="python -m pytest"
PYTEST ?= $(BIN)/python -m pytest
test-cuda:
	$(PYTEST) -m cuda -rs tests/cuda

test-oldest: $(OLDEST)/installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 tests/method tests/algorithms

lint:
	$(BIN)/ruff check $(LINT_PATHS)
	$(BIN)/ruff format --check $(LINT_PATHS)

format:
	$(BIN)/ruff check --fix $(LINT_PATHS)
	$(BIN)/ruff format $(LINT_PATHS)

type:
	$(BIN)/mypy

commit-checks: $(VENV)/installed format type lint

wheel: $(VENV)/installed
	$(BIN)/python -m build

# torch first: an unconstrained requirement of another package would bring another build of it
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

$(OLDEST)/installed: pyproject.toml .ci/constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install -q -c .ci/constraints-oldest.txt torch
	$(OLDEST)/bin/python -m pip install -q -c .ci/constraints-oldest.txt -e ".[tests,contrib]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist
