# `make` lists the targets. Each sets up what it needs: a virtual environment in .venv, under constraints.txt.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
USERS ?= 3000
ITEMS ?= 1200
OUT ?= synthetic
SEED ?= 0
DOMAIN ?= sample
PROFILE ?= cpu
DOMAINS ?=
ONLY ?=
DAGSTER_PORT ?= 3000
MLFLOW_PORT ?= 5000

export SLMREC_HOME ?= $(CURDIR)/.slmrec
ifneq ($(DOMAINS),)
export SLMREC_DOMAINS := $(abspath $(DOMAINS))
endif

BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo run studies synth ui test bench check clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv with everything pinned
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "slmrec needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## the whole chain on synthetic data, minutes on two cores
	@$(BIN)/python -m orchestration run --domain sample --profile sample

run: $(READY)  ## the whole chain: DOMAIN=… PROFILE=… [DOMAINS=own.yaml]
	@$(BIN)/python -m orchestration run --domain '$(DOMAIN)' --profile '$(PROFILE)'

studies: $(READY)  ## the studies of a domain that `make run` has been through: DOMAIN=… PROFILE=… [DOMAINS=own.yaml]
	@$(BIN)/python -m orchestration studies --domain '$(DOMAIN)' --profile '$(PROFILE)'

synth: $(READY)  ## synthetic raw data of any size: USERS=… ITEMS=… OUT=folder [SEED=…]
	@$(BIN)/python -m orchestration synth --users '$(USERS)' --items '$(ITEMS)' --seed '$(SEED)' --out '$(OUT)'

ui: $(READY)  ## Dagster (webserver and daemon) and MLflow, until Ctrl-C
	@$(BIN)/python -m orchestration ui --dagster-port $(DAGSTER_PORT) --mlflow-port $(MLFLOW_PORT)

test: $(READY)  ## all tests
	$(BIN)/python -m pytest

bench: $(READY)  ## the benchmarks, or ONLY=name
	@$(BIN)/python -m tests.benchmarks $(ONLY)

check: $(READY)  ## linter, formatter, types, import direction, Dagster definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	VIRTUAL_ENV='$(CURDIR)/.venv' $(BIN)/dg check defs

clean:  ## remove .venv and caches; data, models and results under .slmrec stay
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
