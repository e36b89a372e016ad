# `make help` lists the commands.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
GPU ?= 0
PORT ?= 8080

.DEFAULT_GOAL := help
.PHONY: help serve test test-fast test-slow test-processors check format bench bench-peers bench-overload bench-triton bench-wishes bench-datapath bench-start bench-memory docs train clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.run ## set up if needed, then serve models/ on port 8080 (PORT=... for another; GPU=1 for the CUDA build)
	@echo "==> starting the service on port $(PORT); models load in the background"
	@PORT=$(PORT) LAYERTAP_LOG_FORMAT=$${LAYERTAP_LOG_FORMAT:-text} exec $(BIN)/gunicorn -c gunicorn.conf.py

# Compiled modules are kept, or each process that a test starts would compile them again. Tests run beside each other,
# one process a core (more than four gain little), except those that compare times.
SKIPPED := $(VENV)/skipped-tests
PYTEST := env -u PYTHONDONTWRITEBYTECODE SKIPPED_TESTS=$(SKIPPED) $(BIN)/python -m pytest -q
BESIDE := -n auto --maxprocesses 4

test: test-fast ## run all tests: fast ones, end to end, attacks, parity with Keras (two cores: 7 min)
	$(PYTEST) $(BESIDE) --dist loadgroup -m "not slow and not alone" tests/e2e tests/attacks tests/fuzz tests/parity
	$(PYTEST) -m "alone and not slow" tests
	@if [ -s $(SKIPPED) ]; then echo "==> skipped, since this machine lacks something:"; cat $(SKIPPED); else echo "==> nothing was skipped"; fi

test-fast: $(VENV)/.dev ## run the tests that need no TensorFlow: units and contracts (two cores: 45 s)
	@rm -f $(SKIPPED)
	$(PYTEST) $(BESIDE) --dist worksteal -m "not slow and not alone" tests/unit tests/contract

test-slow: $(VENV)/.dev ## run what is too long for CI: long fuzzing, soak, big models
	$(PYTEST) -s -m slow tests

PARITY := $(BESIDE) --dist loadgroup -m "not slow" tests/parity
test-processors: $(VENV)/.dev ## run parity with Keras and loading as other processors compute: AVX2, no oneDNN, as it is here
	TF_ENABLE_ONEDNN_OPTS=0 ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) $(PARITY)
	TF_ENABLE_ONEDNN_OPTS=0 $(PYTEST) $(PARITY)
	ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) $(PARITY)
	$(PYTEST) $(PARITY)

check: $(VENV)/.dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure the service beside its limits (needs wrk, two cores)
	$(BIN)/python benchmarks/bench.py

ROUNDS ?= 3
bench-peers: $(VENV)/.dev ## measure the service beside eight other servers (installs them; needs wrk, two cores, an hour)
	$(BIN)/python benchmarks/bench_peers.py --rounds $(ROUNDS)

bench-overload: $(VENV)/.dev ## drive the service and two other servers past their capacity
	$(BIN)/python benchmarks/overload.py

bench-triton: $(VENV)/.dev ## measure V2 binary requests beside PyTriton with NVIDIA's perf_analyzer (installs both; two cores)
	$(BIN)/python benchmarks/bench_triton.py

bench-wishes: $(VENV)/.dev ## measure early layers and mixed loads
	$(BIN)/python benchmarks/wishes.py

bench-datapath: $(VENV)/.dev ## measure parsing, and small requests beside large ones
	$(BIN)/python benchmarks/datapath.py

bench-start: $(VENV)/.dev ## measure the first and the second start, phase by phase
	$(BIN)/python benchmarks/cold_start.py

bench-memory: $(VENV)/.dev ## measure the memory after a start and under requests (MEMORY=--full: a million of them)
	$(BIN)/python benchmarks/memory.py $(MEMORY)

docs: $(VENV)/.dev ## rewrite the tables of the README that are generated from code
	$(BIN)/python -m service.tools.docs README.md

train: $(VENV)/.dev ## train the models that ship again, from data that packages carry
	for script in models/*/train.py; do $(BIN)/python $$script || exit 1; done

clean: ## remove the environment and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/pip:
	@echo "==> creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(VENV)/bin/pip
	@echo "==> installing requirements.txt into $(VENV) (the first time takes about a minute)"
ifeq ($(GPU),1)
	@sed 's/^tensorflow-cpu==\([^;]*\);[^#]*/tensorflow[and-cuda]==\1 /' requirements.txt > $(VENV)/requirements-gpu.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r $(VENV)/requirements-gpu.txt
else
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
endif
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-optional.txt $(VENV)/.run
	@echo "==> installing requirements-dev.txt into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-optional.txt
	@touch $@
