# `make demo` and `make test` need nothing but Python 3.11 or newer with pip.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint format clean

demo: .venv/demo.stamp
	$(BIN)/python -m clevit_jax.main --config configs/demo.py --workdir runs/demo

# Two workers: most of a test's time is one core's work, compiling.
test: .venv/test.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/test.stamp: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test,dev]'
	touch $@
