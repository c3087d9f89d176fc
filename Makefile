# make demo   see it work: real MLS clients hold a conversation through the data layer
# make test   all that CI runs
# make soak   the attacks of the tests, with larger numbers
# make bench  measure, beside asyncpg, psycopg, SQLAlchemy and pgbench

PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2

export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test soak bench clean

demo: .venv/demo
	@$(BIN)/catbird-db demo

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/catbird-db check
	$(BIN)/catbird-db docs --check
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

soak: .venv/dev
	CATBIRD_SOAK=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

bench: .venv/bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist

.venv/pip: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/demo .venv/dev .venv/bench: .venv/%: .venv/pip
	$(BIN)/pip install --quiet --editable '.[$*]'
	@touch $@
