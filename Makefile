# make quickstart    make .venv, install, and do the main job: assets, perceive, train, evaluate, ask
# make test          make .venv, install, and run the tests of the library and of its plugins, without the slow ones
# make test-all      the same with the slow ones: all families of hosts, two processes, wheels, environments, types
# make test-browser  the studio, driven in Chromium, which has to be installed (apt-get install chromium)
# make test-floor    the same tests with the lowest versions that pyproject.toml allows, in .venv-floor
# make test-newest   the same tests with the newest versions there are, in .venv-newest
# make lock          renew requirements.lock: what make quickstart and make test install
# make bench         time moai against its references, side by side (docs/benchmarks.md)
# make lint          ruff
# make clean         remove what make and Python built; runs/ and the asset cache stay
#
# PYTHON=python3.12 picks the interpreter; PIP_ARGS=... is passed to pip install; TESTS=versions runs the part of the tests
# that a dependency is likeliest to break.

RECENT := 'import sys; sys.exit(sys.version_info < (3, 11))'
ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
  $$name -c $(RECENT) >/dev/null 2>&1 && { echo $$name; break; }; done)
endif
PIP_ARGS ?=
RUN ?= runs/quickstart
TESTS ?= all
TESTS_all := tests plugins
# A file of tests stays in one process, which makes its fixtures once.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
ifeq ($(filter $(TESTS),all versions),)
$(error TESTS is "all" or "versions", not "$(TESTS)")
endif
TESTS_versions := tests/test_imports.py tests/test_compat.py tests/test_answering.py tests/model/host/test_cache_names.py \
  tests/model/test_generation.py tests/model/test_generation_modes.py tests/model/host/test_hosts.py \
  tests/model/host/test_hosts_native_vision.py tests/model/test_modeling.py tests/model/processor/test_processor.py \
  tests/model/test_run_folder.py tests/training/test_resume.py tests/training/test_native_vision_recipe.py \
  tests/cli plugins

BIN := .venv/bin
SOURCES := pyproject.toml $(wildcard plugins/*/pyproject.toml) .ci/environment.py

# Idle OpenMP threads that spin take the core from the thread that works.
export OMP_WAIT_POLICY := passive
unexport HF_HUB_OFFLINE

.PHONY: quickstart test test-all test-browser test-floor test-newest lock bench lint clean python

quickstart: .venv/.installed
	$(BIN)/moai quickstart --run $(RUN)

test: .venv/.installed
	$(BIN)/python -m pytest $(TESTS_$(TESTS)) -q $(PARALLEL) -m "not slow and not browser"

test-all: .venv/.installed
	$(BIN)/python -m pytest $(TESTS_$(TESTS)) -q $(PARALLEL) -m "not browser"

test-browser: .venv/.installed
	MOAI_NEEDS_BROWSER=1 $(BIN)/python -m pytest plugins/moai-studio -q -m browser

# Resolved anew at each call: what is lowest and newest changes without a file here that changes.
test-floor test-newest: test-%: python
	"$(PYTHON)" .ci/versions.py $* .venv-$*
	.venv-$*/bin/python -m pytest $(TESTS_$(TESTS)) -q $(PARALLEL) -m "not browser"

lock: python
	"$(PYTHON)" .ci/versions.py lock

bench: .venv/.installed
	$(BIN)/python benchmarks/run.py

lint: .venv/.installed
	$(BIN)/ruff check .

.venv/.installed: requirements.lock $(SOURCES) | python
	"$(PYTHON)" .ci/environment.py .venv --pip-args "$(PIP_ARGS)"

python:
	@"$(PYTHON)" -c $(RECENT) 2>/dev/null || \
	  { echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache *.egg-info plugins/*/*.egg-info plugins/*/build
	find moai plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +
