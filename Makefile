# All a newcomer needs: `make demo`. Everything is installed into .venv in this folder; remove it with `make clean`.

# The first Python that starts and is new enough; name another with `make install PYTHON=/path/to/python3`.
PYTHON ?= $(shell for found in python3 python3.13 python3.12 python3.11; do \
  $$found -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$found && exit; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
# A process for each core, at most four, of one thread each. What a file's tests share is trained once: files stay whole.
ON_EVERY_CORE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

install: $(STAMP) ## make .venv with hemascope and all it needs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hemascope needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)." \
	       "Install one, or name it: make PYTHON=/path/to/python3 $(or $(MAKECMDGOALS),install)" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; output=$$($(PYTHON) -m venv $(VENV) 2>&1) || { \
	    echo "$$output" >&2; rm -rf $(VENV); \
	    echo "Python cannot make a virtual environment. On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }; }
	@echo "Installing (some minutes the first time: PyTorch is large)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,explain]"
	@touch $(STAMP)

demo: install ## train on artificial cells and say where the report is
	@$(BIN)/hemascope demo -o $(DEMO)

check: install ## formatting, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check ## check, then all tests with coverage
	$(BIN)/pytest $(ON_EVERY_CORE) --cov --cov-report=term:skip-covered

docs: install ## regenerate docs/cli.md, config.md and augmentation.md
	$(BIN)/python scripts/generate_docs.py

clean: ## remove .venv, caches and the demo
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage htmlcov dist
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
