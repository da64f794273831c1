# Python 3.11+ and make are all that has to be there; everything else lands in .venv.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test slow lint types docs wheel clean

# Compile the shipped network for two machines, run it on their emulators, show every level.
demo: .venv/installed
	$(BIN)/python -m nacre.examples.digits.demo

# The quick tests: some minutes on two cores.
test: .venv/installed
	$(BIN)/python -m pytest -q -n 2

slow: .venv/installed
	$(BIN)/python -m pytest -q -n 2 -m slow

lint: .venv/installed
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

# docs/isa.md from the instruction definitions; what the commands of README.md print.
docs: .venv/installed
	$(BIN)/python -m nacre.runtime.isa_table docs/isa.md
	$(BIN)/python tests/test_readme.py

wheel: .venv/installed
	rm -rf build dist
	$(BIN)/python -m build --wheel
	rm -rf build

clean:
	rm -rf .venv build dist *.egg-info

# Type checkers find the package under its name through the link .venv/typing/nacre.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Nacre needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	mkdir -p .venv/typing
	ln -sfn ../.. .venv/typing/nacre
	touch $@
