# Each target makes .venv if it is missing and installs what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-lowest lint types format clean

# torch first and by itself: any later install finds it there, and leaves it as it is.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/tuneoff demo

# Two processes with a thread each: with more threads than processors they would only wait for
# each other. Slow tests that measure or fill the machine want it to themselves; the others mostly
# wait for what they kill.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not alone" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "slow and alone"

# By hand: installs the lowest versions that pyproject.toml allows into .venv-lowest (some GB).
test-lowest:
	$(PYTHON) .ci/lowest.py run

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy --strict src

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-lowest runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
