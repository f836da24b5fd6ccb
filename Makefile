# Every target sets up what it needs in .venv; nothing else on the machine is touched. An active environment (conda, venv)
# that has what requirements.lock lists is taken as it is. TORCH=cpu sets up .venv without the packages of GPUs.
PYTHON  ?= python3
PROFILE ?= tiny
SEEDS   ?= 0 1 2
CORES   ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count())')
TORCH   ?= gpu
ACTIVE  := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
ACTIVE  := $(if $(ACTIVE),$(shell "$(ACTIVE)/bin/python" .ci/lock.py 2>/dev/null && echo "$(ACTIVE)"))
BIN     := $(or $(ACTIVE),.venv)/bin
READY   := $(if $(ACTIVE),,.venv/.ready)
INPUTS  ?= 3000
SEED    ?= 0

.PHONY: help setup reproduce smoke test fuzz lint lab bench site licences audit clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed and $(PYTHON) is older: run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up .venv (once, a few minutes) ..."
	$(PYTHON) -m venv .venv
ifeq ($(TORCH),cpu)
	.venv/bin/python .ci/lock.py --cpu > .venv/cpu.lock
	.venv/bin/python -m pip install --quiet --no-compile --no-deps --index-url https://download.pytorch.org/whl/cpu \
	  $(shell grep -oE '^torch(vision)?==[^ ]+' requirements.lock)
	.venv/bin/python -m pip install --quiet --no-compile --requirement .venv/cpu.lock
else
	.venv/bin/python -m pip install --quiet --no-compile --requirement requirements.lock
endif
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	@touch .venv/.ready

setup: $(READY) ## install the exact versions of requirements.lock into .venv (TORCH=cpu: for machines without a GPU)

reproduce: $(READY) ## every table and figure into results/$(PROFILE)/ (PROFILE=tiny SEEDS="0 1 2" CORES=all DATA_ROOT=)
	$(BIN)/vlp reproduce --profile $(PROFILE) --data-root "$(DATA_ROOT)" --seeds "$(SEEDS)" --cores $(CORES)

smoke: $(READY) ## the same graph, as small as it gets, to see that everything works
	$(BIN)/vlp reproduce --profile smoke --seeds 0 --variants "region naive_resnet segl spl_small" --cores $(CORES)

test: $(READY) ## lint, types, layers and the test suite, on all cores (CORES=1: on one)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n $(CORES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

fuzz: $(READY) ## 3,000 hostile files (INPUTS, SEED), then the full counts of signals, double starts, kills, names and flipped bits
	$(BIN)/python tests/fuzz/run.py --inputs $(INPUTS) --seed $(SEED)
	$(BIN)/python -m pytest -m fuzz

lint: $(READY) ## format and mend what can be mended
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(READY) ## how many times faster than what one would pick instead, row by row
	$(BIN)/vlp bench --profile $(PROFILE)

site: $(READY) ## documents, lessons with their outputs and results as pages: results/site/html (REPOSITORY=https://github.com/you/kit)
	VLP_RESULTS="$(CURDIR)/results/site/runs" REPOSITORY="$(REPOSITORY)" $(BIN)/sphinx-build -c docs -W --keep-going . results/site/html

lab: $(READY) ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks/00_start.ipynb

licences: $(READY) ## write the table of packages and their licences anew: docs/licences.md
	$(BIN)/python .ci/licences.py

audit: ## ask PyPI whether a package of requirements.lock has a known weakness (pip-audit, in an environment of its own)
	$(PYTHON) -m venv .venv/audit && .venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

clean: ## remove results of your own runs (not results/reference) and the environment
	find results -mindepth 1 -maxdepth 1 ! -name reference ! -name README.md -exec rm -rf {} +
	rm -rf .venv
