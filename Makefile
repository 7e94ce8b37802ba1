# The environment: .venv, or an existing one: MIXUP_ENV=DIR make test
ENV := $(or $(MIXUP_ENV),.venv)
BIN := $(ENV)/bin

# Arguments for pytest: make test ARGS="tests/unit -x"
ARGS ?=

# Tests reach for nothing outside of this machine.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1
PYTEST := $(OFFLINE) "$(BIN)/python" -m pytest

.PHONY: help setup demo test test-slow test-thorough lint lint-ruff lint-format lint-types bench kills fuzz pool clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

setup:  ## install the locked packages and mixup into .venv (or MIXUP_ENV)
	@docker/install.sh "$(ENV)"

demo: setup  ## distill the bundled sample with the bundled models, on CPU
	"$(BIN)/mixup" refresh jobs/demo.yaml

test: setup  ## run the tests, without the slow ones
	$(PYTEST) -m "not slow and not thorough and not gpu" --durations=10 $(ARGS)

# pytest ends with 5 when no test was collected; that is said, and is no failure of a test.
test-slow: setup  ## run the slow tests alone
	$(PYTEST) -m "slow and not gpu" --durations=10 $(ARGS); status=$$?; \
	if [ $$status -eq 5 ]; then echo "test-slow: no slow test was selected, so none was run"; \
	else exit $$status; fi

test-thorough: setup  ## variants of the slow tests, and the chain of all jobs
	$(PYTEST) -m "thorough and not gpu" --durations=10 $(ARGS)

lint: setup lint-ruff lint-format lint-types  ## ruff check, ruff format --check, pyright

lint-ruff:
	"$(BIN)/ruff" check .

lint-format:
	"$(BIN)/ruff" format --check .

lint-types:
	"$(BIN)/pyright" --pythonpath "$(BIN)/python"

bench: setup  ## print the benchmarks' figures
	$(PYTEST) tests/benchmarks -s -q -o python_files='bench_*.py' $(ARGS)

# The moments of the kills are drawn with the seed: make kills KILLS=20 SEED=1
KILLS ?= 20
SEED ?= 1

kills: setup  ## kill parts of running jobs with SIGKILL and print what came of it
	$(OFFLINE) "$(BIN)/python" tests/e2e/kill_table.py --kills $(KILLS) --seed $(SEED)

fuzz: setup  ## mutate input rows and files for SECONDS (600); SEED=1 chooses which
	$(OFFLINE) "$(BIN)/python" -m tests.fuzz.rows --seconds $(or $(SECONDS),600) --seed $(SEED)

pool: setup  ## the whole instruction pool through a refresh in WORKSPACE: rows, seconds, memory
	$(OFFLINE) "$(BIN)/python" tests/benchmarks/whole_pool.py --workspace "$(WORKSPACE)"

clean:  ## remove .venv, caches and build leftovers (no workspace, no MIXUP_ENV)
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
