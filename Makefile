PYTHON ?= python3
BIN := .venv/bin
TASK ?= digits sprites_loc
# One thread per trial: the cores are for trials at once.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint fix bench clean

# Search embedded tasks, show each winner and where to look next; TASK=digits for one, TASK=embedded for all three.
demo: .venv/installed
	$(BIN)/idat-tune search $(TASK:%=--task %) --trials 16

# All tests; FAST=1 leaves out whole searches, ARGS are for pytest.
test: .venv/installed
	$(BIN)/python -m pytest $(if $(FAST),-m "not slow") $(ARGS)

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

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv runs
