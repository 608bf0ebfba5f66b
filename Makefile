# agentrq. Needs Python 3.11 or newer with pip, and make; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
# Two test processes a processor, up to eight: the tests wait more than they compute.
TEST_PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n > 4 ? 8 : 2 * n )))
# The agents whose CLIs `make test-agents` installs (requirements/agents.json).
AGENTS ?= claude codex gemini opencode
# pip of $(PYTHON) installs into .venv: works where Debian has left ensurepip out.
PIP_INSTALL := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo test bytecode lint type docs reference tests test-slow test-user test-pythons test-containers coverage test-acl fuzz test-gateway-fuzz audit test-agents test-faults soak bench bench-quick screenshots wheels lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)  ## all distributions (editable) and every tool, in .venv

$(STAMP): requirements/dev.txt producer/pyproject.toml worker/pyproject.toml gateway/pyproject.toml page/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agentrq needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements/dev.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation -e producer -e worker -e gateway -e page
	@touch $@

demo: install  ## a session shown live: private Valkey, worker, demo agent; leaves nothing running
	@$(BIN)/python -m agentrq_worker.demo

test: lint type docs tests  ## all checks: lint, types, import contracts, the site, tests, wheels

lint: install  ## ruff and the import contracts
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports --no-logo --no-cache

type: install  ## mypy, strict
	$(BIN)/mypy producer/src worker/src gateway/src page/src tests

$(DOCS_STAMP): requirements/docs.txt $(STAMP)
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements/docs.txt
	@touch $@

docs: $(DOCS_STAMP)  ## the site of the documents, in docs/_build; warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

reference: install  ## write the tables of docs/reference and ARCHITECTURE.md that are made from the code
	$(BIN)/python -m docs.reference_tables

# By hand, once: where Python is told to write no bytecode, each of a thousand processes would compile all of it.
bytecode: install
	@$(BIN)/python -m compileall -q producer/src worker/src gateway/src page/src tests benchmarks

# TESTS: files and directories of tests; all by default.
tests: bytecode  ## the tests alone; the slowest are printed
	$(BIN)/pytest -rs -n $(TEST_PROCESSES) --durations=15 $(TESTS)

test-slow: bytecode  ## tests that wait for seconds (leases, time-outs, deaths of workers); CI runs them too
	$(BIN)/pytest -rs -n $(TEST_PROCESSES) -m slow --durations=15

test-user:  ## run by root: the tests on a copy of this checkout as an ordinary user with an empty HOME
	.ci/as-user make --no-print-directory tests

PYTHONS ?= 3.12 3.13
# Those that run by their name on PATH or that pyenv has, each in an environment of its own; the others are named.
test-pythons:  ## the tests on Python 3.12 and 3.13 (PYTHONS, TESTS)
	@for version in $(PYTHONS); do \
		python=python$$version; \
		$$python -c "" 2>/dev/null || python=$$(pyenv prefix $$(pyenv latest $$version 2>/dev/null) 2>/dev/null)/bin/python$$version; \
		if ! $$python -c "" 2>/dev/null; then echo "no python$$version that runs, on PATH or of pyenv: not tested here"; continue; fi; \
		$(MAKE) --no-print-directory PYTHON=$$python VENV=.venv-$$version tests || exit 1; \
	done

test-containers: install  ## run by root on Debian: Dockerfile, compose file and systemd unit in real containers (5 min)
	@tests/containers/run

COVERAGE_FLOOR ?= 90
coverage: bytecode  ## the tests with coverage, workers' processes measured; fails below COVERAGE_FLOOR percent
	$(BIN)/pytest -n $(TEST_PROCESSES) -m "not long and not agents" --cov --cov-report=term --cov-fail-under=$(COVERAGE_FLOOR)

test-acl: bytecode  ## the end-to-end tests under the ACL profiles: default user off, gateway; then producer and reader apart
	$(BIN)/python -m pytest -p tests.acl_plugin -n $(TEST_PROCESSES) tests/end_to_end
	AGENTRQ_TEST_ACL=split $(BIN)/python -m pytest -p tests.acl_plugin -n $(TEST_PROCESSES) tests/end_to_end

GATEWAY_FUZZ_EXAMPLES ?= 25
FUZZ_SECONDS ?= 300
fuzz: install  ## FUZZ_SECONDS (300) of looking for inputs that break a reader; by atheris where it can be installed
	-@$(PIP_INSTALL) --no-deps --require-hashes -r requirements/fuzz.txt
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

test-gateway-fuzz: install  ## GATEWAY_FUZZ_EXAMPLES (25) requests a route of a real gateway, made from its OpenAPI document
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements/gateway-fuzz.txt
	$(BIN)/python -m tests.gateway.fuzz_routes $(GATEWAY_FUZZ_EXAMPLES)

audit: install  ## the pinned packages: hashes, what is installed, known advisories
	$(BIN)/python -m tests.packaging.audit

test-agents: install  ## sessions of real agent CLIs, pinned and from npm, against a scripted model and without a network
	$(BIN)/python -m tests.agents.installing $(AGENTS)
	$(BIN)/python -m tests.agents.isolated $(BIN)/pytest -m agents tests/agents

test-faults: bytecode  ## the long tier: kills, outages and soaks
	$(BIN)/pytest -n $(TEST_PROCESSES) -m long --timeout 1800 -o faulthandler_timeout=2400

soak: bytecode  ## SOAK_MINUTES (15) of sessions at work while their workers die at random
	@$(BIN)/python -m tests.faults.soak

bench: bytecode  ## speed against what people would use instead; keeps benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-quick: bytecode  ## the same in under a minute, coarsely; keeps nothing
	$(BIN)/python -m benchmarks --quick

screenshots: install  ## pictures of the page for docs/page; needs chromium
	$(BIN)/python -m tests.page.screenshots

wheels: install  ## the wheels, in dist/
	$(BIN)/python -m build --no-isolation --wheel --outdir dist producer
	$(BIN)/python -m build --no-isolation --wheel --outdir dist worker
	$(BIN)/python -m build --no-isolation --wheel --outdir dist gateway
	$(BIN)/python -m build --no-isolation --wheel --outdir dist page

# For maintainers; needs uv. Versions change only with LOCK=--upgrade. No file names an index.
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	--custom-compile-command "make lock" $(LOCK)
WORKER_NEEDS = producer/pyproject.toml --extra embedded --extra rich requirements/worker.in
GATEWAY_NEEDS = requirements/gateway.in
lock:  ## compile requirements/*.txt
	$(COMPILE) requirements/dev.in $(WORKER_NEEDS) $(GATEWAY_NEEDS) -o requirements/dev.txt
	$(COMPILE) producer/pyproject.toml -c requirements/dev.txt -o requirements/producer.txt
	$(COMPILE) $(WORKER_NEEDS) -c requirements/dev.txt -o requirements/worker.txt
	$(COMPILE) producer/pyproject.toml $(GATEWAY_NEEDS) -c requirements/dev.txt -o requirements/gateway.txt
	$(COMPILE) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) requirements/fuzz.in -o requirements/fuzz.txt
	$(COMPILE) requirements/gateway-fuzz.in -c requirements/dev.txt -o requirements/gateway-fuzz.txt
	$(COMPILE) requirements/docs.in -c requirements/dev.txt -o requirements/docs.txt

clean:  ## remove what the others made
	rm -rf .venv .venv-3.* dist docs/_build .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
