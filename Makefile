# `make demo` and `make test` are all a new machine needs beside Python 3.11 and a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check parity fuzz bench clean

demo: $(VENV)/.installed
	@$(BIN)/python -m internvl_gguf.demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not thorough"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Live against Hugging Face transformers, on pictures no fixture knows; needs PyTorch.
parity: $(VENV)/.installed-parity
	$(BIN)/python -m tests.parity.make_reference --check

# Thousands of damaged files instead of hundreds.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m thorough

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/text_speed.py
	$(BIN)/python benchmarks/parallel.py

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing; llama.cpp is compiled once, which takes a few minutes."
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing; llama.cpp is compiled once, which takes a few minutes."
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-parity: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e '.[dev,parity]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev
