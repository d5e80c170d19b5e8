# Everything a person needs: `make help` prints itself.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-gpu check format tiny augmentations-sheet docs wheel clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 22

setup: $(STAMP)  ## make .venv and install the project with its tools (once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "seva_exp needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

run: setup  ## the whole pipeline on the embedded model (ARGS="seed=1 ..." for more)
	$(BIN)/python -m seva_exp +aug=diffusion_noise $(ARGS)

# PYTHONDONTWRITEBYTECODE is emptied, as containers set it: each of some hundred processes would
# compile the source anew.
test: setup  ## all quick tests, on all cores
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-all: setup  ## slow tests as well (installs Ray, and vLLM into an environment of its own)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ray]'
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n auto --dist loadfile -m 'not gpu'

test-gpu: setup  ## all that needs a CUDA device; without one each says why it is skipped
	$(BIN)/python -m pytest -m gpu -rs

check: setup  ## format, lint, types
	$(BIN)/ruff format --check src tests docs/hooks.py
	$(BIN)/ruff check src tests docs/hooks.py
	$(BIN)/mypy

format: setup  ## put the code into shape
	$(BIN)/ruff check --fix src tests docs/hooks.py
	$(BIN)/ruff format src tests docs/hooks.py

tiny: setup  ## train the embedded model anew (about 15 minutes on 2 cores)
	$(BIN)/python -m seva_exp.models.tiny_training

augmentations-sheet: setup  ## docs/images/augmentations.png: every negative view on two pictures
	$(BIN)/python -m seva_exp.command.augmentations_sheet docs/images/augmentations.png

docs: setup  ## the documentation as a site: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: setup  ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## remove the environments and what was built (not your runs)
	rm -rf .venv .venv-lmms-eval dist build site
