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
AS_OF ?=
DOMAINS ?=
PROFILES ?=
KEEP ?= 3
DAYS ?= 30
DRY ?=
VERSION ?=
FORCE ?=
RECOMMENDER ?=
ONLY ?=
KILLS ?= 30
SCREENS ?= build/e2e
DAGSTER_PORT ?= 3000
MLFLOW_PORT ?= 5000
PORT ?= 8000

# Several files are separated by colons, as in PATH.
SPACE := $(subst ,, )
absolute = $(subst $(SPACE),:,$(abspath $(subst :, ,$(1))))

export SLMREC_HOME ?= $(CURDIR)/.slmrec
# Links between Dagster and MLflow lead to where `make ui` serves them.
export SLMREC_DAGSTER_URL ?= http://127.0.0.1:$(DAGSTER_PORT)
ifeq ($(filter http%,$(MLFLOW_TRACKING_URI)),)
export SLMREC_MLFLOW_URL ?= http://127.0.0.1:$(MLFLOW_PORT)
endif
ifneq ($(DOMAINS),)
export SLMREC_DOMAINS := $(call absolute,$(DOMAINS))
endif
ifneq ($(PROFILES),)
export SLMREC_PROFILES := $(call absolute,$(PROFILES))
endif

BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo run studies recommend promote rollback history serve quarter synth ui prune test integration e2e bench soak mutants check audit clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv with everything pinned: about 3 minutes and 2.4 GB
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "slmrec needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo 'Setting up .venv: about 3 minutes and 2.4 GB, more where torch brings CUDA. This is done once.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## the whole chain on synthetic data, about 10 minutes on two cores
	@$(BIN)/python -m orchestration run --domain sample --profile sample

run: $(READY)  ## the whole chain: DOMAIN=… PROFILE=… [AS_OF=day] [DOMAINS=own.yaml]
	@$(BIN)/python -m orchestration run --domain '$(DOMAIN)' --profile '$(PROFILE)' $(if $(AS_OF),--as-of '$(AS_OF)')

studies: $(READY)  ## the studies of a domain that `make run` has been through, with the same settings
	@$(BIN)/python -m orchestration studies --domain '$(DOMAIN)' --profile '$(PROFILE)' $(if $(AS_OF),--as-of '$(AS_OF)')

recommend: $(READY)  ## the champion's best items for every user, to Parquet: DOMAIN=…
	@$(BIN)/python -m orchestration recommend --domain '$(DOMAIN)'

# The shell reads REASON and BY from the environment, so that any character may stand in them.
export REASON ?=
export BY ?= $(USER)

promote: $(READY)  ## make the challenger the champion: DOMAIN=… REASON=… [VERSION=…] [RECOMMENDER=…] [BY=…] [FORCE=1]
	@$(BIN)/python -m orchestration promote --domain '$(DOMAIN)' --reason "$$REASON" --by "$$BY"$(if $(VERSION), --version '$(VERSION)')$(if $(RECOMMENDER), --recommender '$(RECOMMENDER)')$(if $(FORCE), --force)

rollback: $(READY)  ## make the version before the champion again: DOMAIN=… [REASON=…] [BY=…]
	@$(BIN)/python -m orchestration rollback --domain '$(DOMAIN)' --reason "$$REASON" --by "$$BY"

history: $(READY)  ## who became the champion, when and why: DOMAIN=…
	@$(BIN)/python -m orchestration history --domain '$(DOMAIN)'

# Some shells set HOST themselves: only the command line's counts, so that nothing is served to a network unasked.
serve: $(READY)  ## the champion over HTTP until Ctrl-C: DOMAIN=… [PORT=8000] [HOST=127.0.0.1]
	@$(BIN)/python -m orchestration serve --domain '$(DOMAIN)' --port '$(PORT)' --host '$(if $(filter command,$(origin HOST)),$(HOST),127.0.0.1)'

quarter: OUT = quarter
quarter: $(READY)  ## twelve weeks of operation in small, in a home of its own: [OUT=folder] [SEED=…]
	@$(BIN)/python -m orchestration quarter --seed '$(SEED)' --out '$(OUT)'

synth: $(READY)  ## synthetic raw data of any size: USERS=… ITEMS=… OUT=folder [SEED=…]
	@$(BIN)/python -m orchestration synth --users '$(USERS)' --items '$(ITEMS)' --seed '$(SEED)' --out '$(OUT)'

ui: $(READY)  ## Dagster and MLflow until Ctrl-C: [DOMAINS=own.yaml] [PROFILES=own.yaml]
	@$(BIN)/python -m orchestration ui --dagster-port '$(DAGSTER_PORT)' --mlflow-port '$(MLFLOW_PORT)'

prune: $(READY)  ## remove checkpoints, versions, leftovers out of use: [KEEP=3] a name [DAYS=30] [DRY=1 only lists]
	@$(BIN)/python -m orchestration prune --keep '$(KEEP)' --days '$(DAYS)' $(if $(DRY),--dry)

test: $(READY)  ## all tests, on every core (up to 8)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

integration: $(READY)  ## chain and studies of the sample domain, small models, on a real PostgreSQL and an S3-compatible store
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[integration]'
	$(BIN)/python -m pytest tests/integration

e2e: $(READY)  ## a month in both UIs, in headless Chromium, with pictures of it: [SCREENS=build/e2e]
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[e2e]'
	@E2E_SCREENS='$(abspath $(SCREENS))' $(BIN)/python -m pytest tests/e2e -x

bench: $(READY)  ## the benchmarks, or ONLY=name
	@GOMP_SPINCOUNT=5000 $(BIN)/python -m tests.benchmarks $(ONLY)

soak: $(READY)  ## kill the sample's chain at random moments and look for what is lost: [KILLS=30] [SEED=0], half an hour
	@$(BIN)/python -m tests.soak --kills '$(KILLS)' --seed '$(SEED)'

mutants: $(READY)  ## plant mistakes and name those that no test notices: hours, or ONLY=named
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutants]'
	@$(BIN)/python -m tests.mutants $(if $(ONLY),--only '$(ONLY)')

check: $(READY)  ## linter, formatter, types, import direction, Dagster definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	VIRTUAL_ENV='$(CURDIR)/.venv' $(BIN)/dg check defs

audit: $(READY)  ## known vulnerabilities of the pinned packages, by pip-audit; AUDIT=required fails without an answer
	@$(BIN)/python .ci/audit.py

clean:  ## remove .venv and caches; data, models and results under .slmrec stay
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
