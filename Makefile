# Everything that is done to this repository. Needs Python 3.11 or newer and make; `make help` lists it.
#
# Stamp files under .venv remember what is installed, so that only a change to a lock installs again.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup serve test simulate soak check bench docs lock clean

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_DOCS := $(VENV)/.installed-docs

# The first Python that is new enough and really starts (a shim on the PATH may not). Looked for
# only where it is used, so that a made environment costs nothing.
FIND_PYTHON = for name in "$$PYTHON" python3 python3.14 python3.13 python3.12 python3.11 python; do \
	[ -n "$$name" ] && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		&& found="$$name" && break; done; \
	[ -n "$$found" ] || { echo "Bursar needs Python 3.11 or newer. Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }

export PYTHON
serve: export BURSAR_DATA_DIR ?= bursar-data

help:  ## list what make can do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED)  ## make .venv with .venv/bin/bursar

serve: $(INSTALLED)  ## set up, then serve on 127.0.0.1:8080 (options: make serve ARGS="--port 9000")
	@exec $(VENV)/bin/bursar serve $(ARGS)

test: $(INSTALLED_DEV)  ## run every test (a part: make test ARGS="tests/core -k money")
	@$(PY) -m pytest -n auto --maxprocesses 8 $(ARGS)

simulate: $(INSTALLED_DEV)  ## run many workers under seeds (options: make simulate SEEDS=0-9999 TRACE=1)
	@PYTHONPATH=src:. $(PY) -m tests.simulation $(SEEDS) $(if $(TRACE),--trace)

# One process and no time-out of a minute: these fill the machine by themselves.
soak: $(INSTALLED_DEV)  ## run the tests that can run long, for hours (ten times as long: make soak FACTOR=10)
	@BURSAR_TEST_SOAK=$(or $(FACTOR),1) $(PY) -m pytest -m soak --timeout 14400 $(ARGS)

# All of them, even when one fails: one round tells all that is wrong.
check: $(INSTALLED_DEV)  ## format, lint, types, import contracts, house rules
	@failed=0; \
	$(PY) -m ruff format --check --quiet . || { echo "Not formatted: $(PY) -m ruff format"; failed=1; }; \
	$(PY) -m ruff check . || failed=1; \
	$(PY) -m mypy || failed=1; \
	$(PY) -m basedpyright --pythonpath $(PY) || failed=1; \
	$(VENV)/bin/lint-imports || failed=1; \
	$(PY) -m pytest -q tests/tidy || failed=1; \
	exit $$failed

bench: $(INSTALLED_DEV)  ## measure (options: make bench ARGS="--help")
	@$(PY) -m bench $(ARGS)

docs: $(INSTALLED_DOCS)  ## build the documentation into site/
	@$(VENV)/bin/zensical build --clean --strict

# Versions stay as they are unless a requirement asks for more; UPGRADE=1 moves them all.
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	$(if $(UPGRADE),--upgrade)

lock: $(INSTALLED_DEV)  ## compile requirements/*.txt from pyproject.toml (all newer: make lock UPGRADE=1)
	$(COMPILE) pyproject.toml --extra server -o requirements/server.txt
	$(COMPILE) pyproject.toml --extra server --group test --group lint -c requirements/server.txt -o requirements/dev.txt
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) --group docs -o requirements/docs.txt
	$(COMPILE) --group litellm -o requirements/litellm.txt
	$(COMPILE) --group oidc -o requirements/oidc.txt
	$(COMPILE) --group venice -o requirements/venice.txt
	$(COMPILE) --group venice1 -o requirements/venice1.txt
	$(COMPILE) --group cerevox -o requirements/cerevox.txt

clean:  ## remove what was made; bursar-data stays
	rm -rf $(VENV) site dist build .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── Installing ──────────────────────────────────────────────────────────────────────────────────

# A link to the system's Python: where that is gone the environment is made anew, where it is newer
# than the stamps the packages are installed anew.
$(PY):
	@$(FIND_PYTHON); echo "Making $(VENV) with $$found"; "$$found" scripts/environment.py $(VENV) --create

$(INSTALLED): requirements/server.txt requirements/build.txt pyproject.toml | $(PY)
	@$(FIND_PYTHON); echo "Installing Bursar"; "$$found" scripts/environment.py $(VENV) \
		--lock requirements/build.txt --lock requirements/server.txt --editable .
	@touch $@

$(INSTALLED_DEV): requirements/dev.txt $(INSTALLED)
	@$(FIND_PYTHON); echo "Installing the tools for tests and checks"; \
		"$$found" scripts/environment.py $(VENV) --lock requirements/dev.txt
	@touch $@

$(INSTALLED_DOCS): requirements/docs.txt $(INSTALLED)
	@$(FIND_PYTHON); echo "Installing the tools for the documentation"; \
		"$$found" scripts/environment.py $(VENV) --lock requirements/docs.txt
	@touch $@
