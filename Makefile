# `make` without a target lists the targets. Everything runs from .venv, made by pip from the exact pins of constraints.txt.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ALL_TESTS := $(VENV)/.all-tests

install = $(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable '.[$(EXTRAS)]' 2>&1 \
	| tee $(VENV)/install.log | { grep --line-buffered -E '^(Downloading|Installing collected|Successfully installed|ERROR)' || true; } | cut -c1-160; \
	test $${PIPESTATUS[0]} -eq 0 || { echo "pip failed; the full output: $(VENV)/install.log"; exit 1; }

pytest = python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DAGSTER_HOME := $(CURDIR)/.dagster
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run explore test test-all test-robust check format ui stack serve bench soak fuzz clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP)  ## make .venv and install the pinned packages

run: setup  ## build every asset of every dataset in params.yaml, print the result table
	@python -m orchestration.run

explore: setup  ## a page on http://127.0.0.1:8501 to try the trained datasets: histories, their order, new products
	@llmsrec explore

test: setup check  ## lint, types and the tests of everything that takes seconds
	$(pytest) -m "not slow"

test-all: setup $(ALL_TESTS) check  ## all tests: also whole pipelines, longer trainings, Spark, the page in a browser
	$(pytest)

test-robust: setup  ## all tests, twice each under two sets of conditions: kernels, threads, order, load, locale, user (hours)
	@python -m tests.robust

check: setup  ## ruff, mypy, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: setup  ## apply ruff's fixes and format
	ruff check --fix .
	ruff format .

ui: setup  ## Dagster on http://127.0.0.1:3000, MLflow on http://127.0.0.1:5000; Ctrl-C stops both
	@python -m orchestration.instance honcho -f infra/Procfile -d . start

stack: setup  ## the services of infra/compose.yaml as processes: Postgres, an S3 API, MLflow, Dagster; Ctrl-C stops all
	@python -m infra.stack

serve: setup  ## the champion of a dataset on http://127.0.0.1:5001: make serve DATASET=sample
	@MLFLOW_TRACKING_URI=$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} mlflow models serve \
	  -m "models:/llmsrec-$${DATASET:-sample}@champion" --env-manager local --host 127.0.0.1 --port 5001

bench: setup  ## every benchmark; its last lines are ratios against a goal
	@for file in $$(grep -l 'import.*run_benchmark' benchmarks/*.py); do \
	  python -m benchmarks.$$(basename $$file .py) || exit 1; done

soak: setup  ## retrain under injected faults for half an hour (docs/howto/reliability.md)
	python -m reliability.soak

fuzz: setup  ## feed thousands of generated files to the parsers
	python -m reliability.fuzz

clean:  ## remove tools' caches and Dagster's history; data, artifacts and MLflow's runs stay
	rm -rf .dagster .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find llmsrec orchestration infra tests benchmarks studies reliability -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): EXTRAS := dev,stack,explore
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.11")'
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(free < 4 and f"the packages need 4 GB, and {free:.1f} GB are free on this disk")'
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the pinned packages into $(VENV) (a few minutes the first time)"
	@$(install)
	@touch $@

# What only some tests need: half a gigabyte of Spark, and a driver of browsers.
$(ALL_TESTS): EXTRAS := spark,browser
$(ALL_TESTS): $(STAMP)
	@echo "installing Spark and Playwright into $(VENV), for their tests"
	@$(install)
	@touch $@
