# Every target that people use says what it does after "##"; `make` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := setup.py $(wildcard tokenwatt/ring/*.c tokenwatt/ring/*.h)
PYTEST := $(BIN)/python -m pytest
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run demo test test-slow test-prometheus test-vllm test-llamacpp fuzz lint check bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(INSTALLED) ## measure this node (ARGS="--config FILE")
	$(BIN)/tokenwatt run $(ARGS)

demo: $(INSTALLED) ## the whole thing on a simulated node, on http://127.0.0.1:28900
	$(BIN)/tokenwatt demo $(ARGS)

test: $(INSTALLED) ## unit and property tests (ARGS="-k word")
	$(PYTEST) -m "not vllm and not llamacpp and not prometheus and not slow" $(ARGS)

test-slow: $(INSTALLED) ## tests that take minutes: an hour of simulated load, real processes over minutes
	$(PYTEST) -m slow $(ARGS)

test-prometheus: $(INSTALLED) ## the demo scraped by a real Prometheus (Debian: apt-get install prometheus)
	$(PYTEST) -m prometheus $(ARGS)

test-vllm: $(INSTALLED) ## a real vLLM on the CPU; downloads 3.5 GB once, into ~/.cache/tokenwatt
	sh tests/vllm/install.sh
	$(PYTEST) -m vllm $(ARGS)

test-llamacpp: $(INSTALLED) ## a real llama-server; downloads 40 MB once, into ~/.cache/tokenwatt
	sh tests/llamacpp/install.sh
	$(PYTEST) -m llamacpp $(ARGS)

fuzz: $(INSTALLED) ## throw broken pages at the page reader (ARGS=SECONDS, by default a minute)
	$(BIN)/python -m tests.servers.fuzz_page $(or $(ARGS),60)

lint: $(INSTALLED) ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test test-prometheus test-slow fuzz ## everything that must hold on main

bench: $(INSTALLED) ## measure and print tables (ARGS="ring cost accuracy politeness proxy")
	$(BIN)/python -m tests.bench $(ARGS)

docs: $(INSTALLED) ## write docs/metrics.md and docs/engines.md from the tables in the code
	$(BIN)/python -m tokenwatt.export.docs > docs/metrics.md
	$(BIN)/python -m tokenwatt.servers.engines.docs > docs/engines.md

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info tokenwatt/ring/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml $(SOURCES)
	@sh tests/setup.sh $(PYTHON) $(VENV)
	@touch $@
