# Everything sets up its own virtual environment in .venv when that is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check slow docs format clean

# Two processes run the tests, with one thread each: with more they wait for each other.
test check: export OMP_NUM_THREADS = 1
# Compiled tests are kept, even where Python is told not to: compiling takes half of the time to collect them.
test check slow: export PYTHONDONTWRITEBYTECODE =

demo: .venv/ready
	$(BIN)/anysubset demo

test: .venv/ready
	$(BIN)/pytest -n 2

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

slow: .venv/ready
	$(BIN)/pytest -m slow

# The site, in docs/_build; runs the code of the tutorials. Warnings are errors.
docs: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/sphinx-build -W --keep-going --quiet docs docs/_build

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,rules,examples,sdk,parquet,transformers]'
	touch $@
