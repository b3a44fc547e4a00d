# `make demo` and `make test` need nothing but Python 3.11 or newer with pip.
PYTHON ?= python3
# Those that `make versions` tries.
PYTHONS ?= python3.11 python3.12 python3.13
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test quick lint format versions mishaps clean FORCE

demo: .venv/demo.stamp
	$(BIN)/python -m clevit_jax.main --config configs/demo.py --workdir runs/demo

# Two workers: most of a test's time is one core's work, compiling.
test: .venv/test.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The tests nearest to what was changed since the main branch.
quick: .venv/test.stamp
	$(BIN)/python tests/quick.py

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Both ends of every dependency range in fresh environments; see docs/versions.md.
versions: .venv/bin/pip
	$(BIN)/python tools/try_versions.py $(PYTHONS)

# Kills at random moments, and a disk that is full now and then; see docs/releasing.md.
mishaps: .venv/demo.stamp
	$(BIN)/python -m tools.try_mishaps kills
	$(BIN)/python -m tools.try_mishaps disk

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Looked at each time; what depends on it is made again only when it was.
.venv/bin/pip: FORCE
	@sh tools/make_venv.sh "$(PYTHON)" $(MAKECMDGOALS)

.venv/demo.stamp: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/test.stamp: .venv/bin/pip pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test,dev]'
	touch $@
