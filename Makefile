# `make demo` and `make test` need Python 3.11+ and make; everything else lands in .venv.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test slow lint types wheel clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	mkdir -p .venv/typing && ln -sfn ../.. .venv/typing/nacre
	touch $@

demo: .venv/installed
	$(BIN)/python -m nacre.examples.digits.demo

test: .venv/installed
	$(BIN)/python -m pytest -q -n 2

slow: .venv/installed
	$(BIN)/python -m pytest -q -m slow

lint: .venv/installed
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

wheel: .venv/installed
	rm -rf build dist
	$(BIN)/python -m build -q --wheel

clean:
	rm -rf .venv build dist *.egg-info
