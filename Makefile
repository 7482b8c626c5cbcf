# make demo, make test, make lint and make docs do everything on a machine that has only Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Parity, and so the demo, needs both frameworks. Three stamps, each newer than what decides it: what the demo needs; what tests and linters need; what the site needs.
DEMO := $(VENV)/.demo
BOTH := .[torch,flax]
INSTALLED := $(VENV)/.installed
SITE := $(VENV)/.docs

.PHONY: demo test test-slow test-versions mutants mutants-sample false-alarms lint docs bench bench-convert bench-parity kernels on-device clean
.DEFAULT_GOAL := demo

demo: $(DEMO)
	$(BIN)/bigbird-port demo

# A process for each core: threads of both would wait for each other, and small tests take ten times as long.
test test-slow: export OMP_NUM_THREADS = 1

# Small programs run for milliseconds and are compiled for seconds. Here XLA optimises them less, which takes a third of
# the time. test-slow compiles them as users do, and so does one test of test_golden.py.
test: export XLA_FLAGS = --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1

test: lint
	$(BIN)/pytest -n 2 $(PYTEST_ARGS)

# What takes minutes: all faults, fifty seeds, kills at random moments.
test-slow: $(INSTALLED)
	$(BIN)/pytest -n 2 -m slow --timeout 1800 -o faulthandler_timeout=1770 $(PYTEST_ARGS)

# The oldest releases that pyproject.toml allows, and the newest: an environment for each (docs/versions.md).
test-versions: $(INSTALLED)
	$(BIN)/python -m tests.versions

# Mutants of the models' own code: which of them parity sees (docs/mutants.md). All take hours, a sample minutes.
mutants mutants-sample: export OMP_NUM_THREADS = 1

mutants: $(INSTALLED)
	$(BIN)/bigbird-port parity mutants --into torch --json mutants-torch.json
	$(BIN)/bigbird-port parity mutants --into flax --json mutants-flax.json

mutants-sample: $(INSTALLED)
	$(BIN)/bigbird-port parity mutants --sample 200 --default-only --seconds 270 --json mutants-sample.json

# .pre-commit-config.yaml runs the same commands.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages of docs/ as a site, in site/. A warning is an error, and so is a link that leads nowhere.
docs: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The models against transformers: docs/benchmarks.md, its figures and its plots.
bench: $(INSTALLED)
	$(call install,.[bench])
	$(BIN)/python -m benchmarks --json docs/benchmarks.json --report

bench-convert: $(INSTALLED)
	$(BIN)/python -m benchmarks.convert

bench-parity: $(INSTALLED)
	$(BIN)/python -m benchmarks.parity

# The kernels for TPUs, compiled without one: docs/kernels.md. It is skipped where libtpu is not installed.
kernels: $(INSTALLED)
	$(BIN)/python -m benchmarks.kernels

# How often parity is red though nothing is wrong: docs/tolerances.md.
false-alarms: export OMP_NUM_THREADS = 1

false-alarms: $(INSTALLED)
	$(BIN)/python -m benchmarks.false_alarms --models 300 --seed 1
	for dtype in float64 bfloat16 float16; do $(BIN)/python -m benchmarks.false_alarms --models 60 --seed 1 --dtype $$dtype || exit 1; done

# What only a device can tell (docs/on-device.md), with the Python and the packages that are there: nothing is installed.
DEVICE ?= cuda

on-device:
	$(PYTHON) -m benchmarks.on_device --device $(DEVICE)

clean:
	rm -rf $(VENV) site

# uv installs several times as fast as pip. Where there is no uv, or where it cannot install, pip does.
define install
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '$(1)' \
	|| $(BIN)/pip install --quiet --no-compile -c constraints.txt -e '$(1)'
endef

# pip alone installs torch: pip's settings say where its builds are found, and uv does not read them.
# Modules are not compiled here: the demo compiles those that it imports, which are one in four.
$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile -c constraints.txt uv || echo 'There is no uv: pip takes longer.'
	$(BIN)/pip install --quiet --no-compile --no-deps -c constraints.txt torch
	$(call install,$(BOTH))
	touch $@

# Tests start many processes, so here everything is compiled once; a few files in packages are templates, no Python.
$(INSTALLED): $(DEMO)
	$(call install,.[test])
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

$(SITE): $(DEMO)
	$(call install,.[docs])
	touch $@
