# make quickstart   make .venv, install, and do the main job: assets, perceive, train, evaluate, ask
# make test         make .venv, install, and run every test of the library and of its plugins
# make bench        time moai against its references, side by side (docs/benchmarks.md)
# make lint         ruff
# make clean        remove what make and Python built; runs/ and the asset cache stay
#
# PYTHON=python3.12 picks the interpreter; PIP_ARGS=... is passed to pip install.

RECENT := 'import sys; sys.exit(sys.version_info < (3, 11))'
ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
  $$name -c $(RECENT) >/dev/null 2>&1 && { echo $$name; break; }; done)
endif
PIP_ARGS ?=
RUN ?= runs/quickstart

BIN := .venv/bin
INSTALLED := .venv/.installed
ULTRALYTICS := .venv/.ultralytics
PLUGINS := plugins/moai-shapes plugins/moai-geometry plugins/moai-tally plugins/moai-easyocr plugins/moai-rapidocr \
  plugins/moai-transformers plugins/moai-psgtr plugins/moai-detectron2

# Idle OpenMP threads that spin take the core from the thread that works.
export OMP_WAIT_POLICY := passive
unexport HF_HUB_OFFLINE

.PHONY: quickstart test bench lint clean

quickstart: $(INSTALLED)
	$(BIN)/moai quickstart --run $(RUN)

test: $(INSTALLED) $(ULTRALYTICS)
	$(BIN)/python -m pytest tests plugins -q

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

lint: $(INSTALLED)
	$(BIN)/ruff check .

# One pip command, so that the plugins' need of moai is met by this clone.
$(INSTALLED): pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	@"$(PYTHON)" -c $(RECENT) 2>/dev/null || \
	  { echo "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@# A .venv without a working pip is one that was interrupted while it was made.
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[test]' $(PLUGINS:%=-e %)
	touch $@

# Without its dependencies: it asks for opencv-python, which would write over the headless build that the others use.
$(ULTRALYTICS): $(INSTALLED) plugins/moai-ultralytics/pyproject.toml
	$(BIN)/python -m pip install $(PIP_ARGS) --no-deps 'ultralytics>=8.4.190,<8.5' 'polars>=1' 'polars-runtime-32>=1' \
	  nvidia-ml-py -e plugins/moai-ultralytics
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache *.egg-info plugins/*/*.egg-info plugins/*/build
	find moai plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +
