# Targets set up what they need: `make demo` or `make test` is enough on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GENERATE := .venv-generate
STUBS := clients/python/src
PROTOS := $(wildcard protos/idpass/v1/*.proto)
PYTEST := $(if $(COVERAGE),$(BIN)/coverage run -m pytest,$(BIN)/python -m pytest)
AT_ONCE := -n 4 --dist loadfile
TS := clients/typescript
# Without Node.js 20 the TypeScript client is left out, and everything else works.
NPM := $(shell node --eval 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null && command -v npm)
PIP := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test coverage prove fuzz check vulnerabilities format generate typescript export-protos options baseline matrix bench bench-postgresql build lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(VENV)/dev ## Set up everything that tests and checks need, in .venv

demo: $(VENV)/runtime ## Cancel a pass in every status, over real gRPC, and show the outcomes
	@$(BIN)/idpass-server demo

serve: $(VENV)/runtime ## Serve mock data on 127.0.0.1:50051, with a sandbox page on :8080, or on the next free ports
	@$(BIN)/idpass-server serve --http 127.0.0.1:8080 --sandbox

test: $(VENV)/dev typescript ## Run the suite, side by side by file
	@$(if $(AGAIN),,rm -f .coverage .coverage.*)
	$(PYTEST) $(AT_ONCE) $(AGAIN) tests

coverage: ## Show the lines that the last `make test COVERAGE=1` did not run, subprocesses included
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

prove: $(VENV)/dev typescript ## Run the long drills: kills, failovers, abuse, fuzz; counts grow with PROVE_MINUTES, 10
	PROVE_MINUTES=$${PROVE_MINUTES:-10} $(BIN)/python -m pytest -n 2 --dist loadfile --timeout 1800 $(AGAIN) \
		-m 'long or scaled' -o norecursedirs='.*' tests

fuzz: $(VENV)/dev ## Fuzz the server, then what reads strangers' bytes, for ten minutes or FUZZ_SECONDS
	FUZZ_SECONDS=$$(( $${FUZZ_SECONDS:-600} / 2 )) $(BIN)/python -m pytest --timeout 0 \
		tests/security/test_fuzz.py tests/prove/test_guided_fuzz.py

check: $(VENV)/dev $(GENERATE)/ready typescript ## Check format, lint, types, imports, protos and generated code
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf format --diff --exit-code protos
	$(GENERATE)/bin/python protos/generate.py --check
	$(BIN)/buf lint build/protos.binpb --path idpass --config protos/buf.yaml
	$(BIN)/buf breaking build/protos.binpb --path idpass --config protos/buf.yaml --against protos/baseline.binpb
	$(if $(NPM),$(GENERATE)/bin/python $(TS)/generate.py --check)
	$(if $(NPM),$(NPM) --prefix $(TS) --silent run check)
	$(BIN)/python tests/security/vulnerabilities.py

vulnerabilities: $(VENV)/dev ## Look up known vulnerabilities of the locked dependencies in OSV, or at OSV_URL
	$(BIN)/python tests/security/vulnerabilities.py

format: $(VENV)/dev $(if $(NPM),$(TS)/node_modules/ready) ## Format code and protos, and fix what the linter can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/buf format --write protos
	$(if $(NPM),$(NPM) --prefix $(TS) --silent run format)

generate: $(GENERATE)/ready $(if $(NPM),$(TS)/node_modules/ready,$(TS)/without-node) ## Generate the clients' messages and stubs from protos/
	$(GENERATE)/bin/python protos/generate.py
	$(if $(NPM),$(GENERATE)/bin/python $(TS)/generate.py)

typescript: $(if $(NPM),$(TS)/build/ready,$(TS)/without-node) ## Build the TypeScript client and its tests, if there is Node.js 20

$(TS)/without-node:
	@echo "There is no Node.js 20 with npm: the TypeScript client is neither built nor tested"

export-protos: $(VENV)/runtime ## Write the protos and those they need into DIR, for other languages
	@$(BIN)/python -m idpass.v1.export '$(DIR)'

options: $(VENV)/dev ## Rewrite the table of options in server/docs/operating.md
	PYTHONPATH=tests $(BIN)/python tests/kit/option_table.py

baseline: $(GENERATE)/ready ## Record the protos as released: later changes must not break them
	$(GENERATE)/bin/python protos/generate.py --baseline

matrix: $(VENV)/dev ## Test the client's wheel with old and new dependencies and Pythons
	$(BIN)/python tests/client/matrix.py

bench: $(VENV)/bench typescript ## Measure throughput, latency and memory against other servers, and timing across accounts
	$(BIN)/python tests/bench/run.py
	$(BIN)/python tests/client/bench_client.py
	$(if $(NPM),$(BIN)/python tests/client/bench_typescript.py)
	$(BIN)/python tests/bench/isolation.py

bench-postgresql: $(VENV)/bench ## Measure throughput and latency on PostgreSQL, against pgbench
	$(BIN)/python tests/bench/postgresql.py

build: $(VENV)/dev typescript ## Build the packages into dist/: source archives, wheels made from them, and npm's
	$(BIN)/python -m build --quiet --no-isolation --outdir dist clients/python
	$(BIN)/python -m build --quiet --no-isolation --outdir dist .
	$(if $(NPM),cd $(TS) && $(NPM) pack --silent --pack-destination ../../dist >/dev/null)
	@ls dist

lock: ## Pin the newest dependencies with hashes (needs uv)
	for set in server tests tests/bench protos; do \
		uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --upgrade \
			$$([ $$set = server ] || [ $$set = protos ] || echo --constraints server/requirements.txt) \
			--output-file $$set/requirements.txt $$set/requirements.in || exit 1; done

clean: ## Remove everything that make made
	rm -rf $(VENV) $(GENERATE) $(addprefix $(TS)/,node_modules dist build) build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "Python's venv is needed: apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV), once"
	@$(PYTHON) -m venv $(VENV)

# __init__.py has the version, which installing records.
$(VENV)/runtime: server/requirements.txt pyproject.toml clients/python/pyproject.toml \
		clients/python/src/idpass/__init__.py | $(VENV)/bin/python
	@$(BIN)/python $(PIP) --require-hashes -r server/requirements.txt
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation --no-index --editable clients/python --editable .
	@touch $@

$(VENV)/dev: $(VENV)/runtime tests/requirements.txt
	@$(BIN)/python $(PIP) --require-hashes -r tests/requirements.txt
	@touch $@

$(VENV)/bench: $(VENV)/dev tests/bench/requirements.txt
	@$(BIN)/python $(PIP) --require-hashes -r tests/bench/requirements.txt
	@touch $@

$(GENERATE)/ready: protos/requirements.txt | $(VENV)/bin/python
	@$(PYTHON) -m venv $(GENERATE)
	@$(GENERATE)/bin/python $(PIP) --require-hashes -r protos/requirements.txt
	@touch $@

$(TS)/node_modules/ready: $(TS)/package-lock.json
	@echo "Setting up $(TS)/node_modules"
	@cd $(TS) && $(NPM) ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

$(TS)/build/ready: $(TS)/node_modules/ready $(TS)/package.json $(wildcard $(TS)/tsconfig*.json) \
		$(shell find $(TS)/src $(TS)/test -name '*.*ts')
	@cd $(TS) && rm -rf dist build && $(NPM) --silent run build && $(NPM) --silent run build:test
	@touch $@
