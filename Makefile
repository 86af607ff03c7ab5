# make demo   trains, measures and reports on this machine's Python library (about 5 minutes)
# make test   the tests; make test-all also the slow ones; make check ruff, format, types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-all check format bench clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	rm -rf runs/demo
	$(BIN)/longspan train demo --run runs/demo
	$(BIN)/longspan report runs/demo

test: install
	$(BIN)/python -m pytest --numprocesses 2

test-all: install
	$(BIN)/python -m pytest --numprocesses 2 -m ""

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
