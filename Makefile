# make demo, make test and make lint do everything on a machine that has only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint bench bench-convert bench-parity clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	$(BIN)/bigbird-port demo

# A process for each core: threads of both would wait for each other, and small tests take ten times as long.
test test-slow: export OMP_NUM_THREADS = 1

test: lint
	$(BIN)/pytest -n 2 $(PYTEST_ARGS)

# What takes minutes: all faults, fifty seeds, kills at random moments.
test-slow: $(STAMP)
	$(BIN)/pytest -n 2 -m slow --timeout 1800 -o faulthandler_timeout=1770 $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The models against transformers: docs/benchmarks.md, its figures and its plots.
bench: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks --json docs/benchmarks.json --report

bench-convert: $(STAMP)
	$(BIN)/python -m benchmarks.convert

bench-parity: $(STAMP)
	$(BIN)/python -m benchmarks.parity

clean:
	rm -rf $(VENV)

# The stamp is newer than what decides the environment, or everything is installed again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $(STAMP)
