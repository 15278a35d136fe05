PYTHON ?= python3
BIN := .venv/bin
TASK ?= digits sprites_loc
# One thread per trial: the cores are for trials at once.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint fix bench docs docs-check wheel clean

# Search embedded tasks, show each winner and where to look next; TASK=digits for one, TASK=embedded for all three.
demo: .venv/installed
	$(BIN)/idat-tune search $(TASK:%=--task %) --trials 16

# All tests, two files at a time and then those of a cluster; FAST=1 leaves out whole searches, LONG=1 adds graphs of
# every kind of adapter; ARGS are for pytest.
test: .venv/installed
ifdef ARGS
	$(BIN)/python -m pytest $(if $(FAST),-m "not slow and not cluster") $(ARGS)
else
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not cluster$(if $(LONG),, and not long)$(if $(FAST), and not slow)"
	$(if $(FAST),,$(BIN)/python -m pytest -m cluster)
endif

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The figures of benchmarks/README.md.
bench: .venv/installed
	$(BIN)/python -m benchmarks.embedded
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.ladder

# The page of all commands, from the program's own help.
docs: .venv/installed
	$(BIN)/python tests/reference.py

# Run what the documentation shows, page after page, but what needs weights, a cluster or somebody's account.
docs-check: .venv/installed
	$(BIN)/python tests/docs_check.py

# What goes to the machines of a cluster, and nothing else: the package, its versions, and a token that they share.
wheel: .venv/installed
	rm -f dist/cluster/*.whl
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist/cluster .
	cp constraints.txt dist/cluster/
	umask 077; test -s dist/cluster/auth_token || $(BIN)/python -c "import secrets; print(secrets.token_hex(32))" > dist/cluster/auth_token

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv runs
