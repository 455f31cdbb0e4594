# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
BIN = .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-full lint types install clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt setuptools
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	$(BIN)/python -m compileall -q graphspec compiler ops runtime   # lint starts fast even where Python may not write bytecode
	$(BIN)/graphspec lint sashimi > /dev/null                        # keeps the parser's tables
	touch $@

demo: install
	$(BIN)/python bench/demo.py

test: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 -m "not full" tests

test-full: install types
	$(BIN)/python -m pytest -n 2 tests

types: install
	$(BIN)/mypy graphspec compiler

clean:
	rm -rf .venv build demo *.egg-info
