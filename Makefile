# `make demo` and `make test` are all a new machine needs beside Python 3.11 and a C++ compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TESTED := -c constraints.txt
DEVICES_VENV ?= .venv-devices
RPC_LIBRARY := build/rpc/libggml-rpc.so
BENCHMARKS := growth drafting shared_cores worker_cost overlap bulk_workers
COMPARISONS := text_speed tile_speed first_token parallel second_question server_load
ON_MODEL := $(if $(MODEL),--model $(MODEL))
WITH_TOOLS := $(if $(TOOLS),--tools $(TOOLS))
NODE := tests/clients/node
NODE_PACKAGES := $(if $(shell command -v npm),$(NODE)/node_modules/.package-lock.json)

# llama.cpp is compiled for the CPU at hand. GCC 12.2 and its kin compile its AMX kernels wrong without the header, which is
# empty elsewhere. pip's cache is left out: it would take a wheel that was built with other flags, or on another machine.
LLAMA := $(shell sed -n 's/.*"\(llama-cpp-python==[^"]*\)".*/\1/p' pyproject.toml)
ifeq ($(shell uname -s -m),Linux x86_64)
AMX_HEADER := $(CURDIR)/src/internvl_gguf/llama/amx_tile_config.h
COMPILE := CXXFLAGS='-include "$(AMX_HEADER)" $(CXXFLAGS)'
endif
BASELINE := -DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
ifdef PORTABLE
export CMAKE_ARGS
override CMAKE_ARGS += $(BASELINE)
endif

.PHONY: demo test test-clients test-devices test-ray test-rpc library check coverage docs parity fuzz bench clean

demo: $(VENV)/.installed
	@$(BIN)/python -m internvl_gguf.demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not thorough"

# The server asked by clients that no one here wrote: packages for Python and JavaScript, suites of others, a browser.
test-clients: $(VENV)/.installed-clients $(NODE_PACKAGES)
	$(BIN)/python -m pytest -rs tests/clients

# llama.cpp once more, for a GPU (CMAKE_ARGS=-DGGML_CUDA=on) or for other machines than this one (PORTABLE=1: x86-64
# with AVX2, that is Intel since 2013 and AMD since 2015).
library: | $(VENV)/bin/python
	$(COMPILE) $(PIP) install --force-reinstall --no-deps --no-cache-dir $(LLAMA)
	@touch $(VENV)/.library

# Offload without a GPU: llama.cpp built once more, with its RPC and Vulkan backends, on Mesa's lavapipe (docs/devices.md).
test-devices: $(DEVICES_VENV)/.installed
	$(DEVICES_VENV)/bin/python -m pytest tests/devices

# A cluster of Ray with two nodes on this machine, one of which is killed in the middle (docs/ray.md).
test-ray: $(VENV)/.installed-ray
	$(BIN)/python -m pytest -n 0 tests/ray

# Models on RPC servers over loopback (docs/rpc.md). The usual build has no RPC: its library alone is compiled, in a minute.
test-rpc: $(VENV)/.installed-dev $(RPC_LIBRARY)
	$(BIN)/python -m pytest tests/rpc

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests once more with the lines and branches counted that they reach, in child processes, too; but for one that looks
# at what a command imports, which coverage adds to.
coverage: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not thorough" --deselect tests/test_architecture.py::test_help_waits_for_no_library
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort=cover

# Tables of options and outputs of commands in README and docs/, from the code and from the commands.
docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py

# Live against Hugging Face transformers, on pictures no fixture knows; needs PyTorch.
parity: $(VENV)/.installed-parity
	$(BIN)/python -m tests.parity.make_reference --check

# Thousands of damaged files instead of hundreds.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m thorough

# On the demo model, or MODEL=text.gguf (benchmarks/real_size.py makes one), against llama.cpp's tools in TOOLS=folder.
bench: $(VENV)/.installed
	for each in $(BENCHMARKS); do $(BIN)/python benchmarks/$$each.py $(ON_MODEL) || exit; done
	for each in $(COMPARISONS); do $(BIN)/python benchmarks/$$each.py $(ON_MODEL) $(WITH_TOOLS) || exit; done
	$(BIN)/python benchmarks/cpu_kernels.py
	$(BIN)/python benchmarks/embedding_cache.py
	$(BIN)/python benchmarks/batch_cache.py
	$(BIN)/python benchmarks/clip_frames.py

clean:
	rm -rf $(VENV) $(DEVICES_VENV) $(NODE)/node_modules build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Does nothing where the version is there already, whatever it was built with: `make library` builds it anew.
$(VENV)/.library: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing; llama.cpp is compiled once, which takes a few minutes."
	$(COMPILE) $(PIP) install --no-cache-dir $(TESTED) $(LLAMA)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.library
	$(PIP) install $(TESTED) -e '.[serve,structured]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.library
	$(PIP) install $(TESTED) -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-clients: pyproject.toml constraints.txt $(VENV)/.library
	$(PIP) install $(TESTED) -e '.[dev,clients]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev

$(VENV)/.installed-ray: pyproject.toml constraints.txt $(VENV)/.library
	$(PIP) install $(TESTED) -e '.[dev,ray]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev

$(NODE)/node_modules/.package-lock.json: $(NODE)/package.json $(NODE)/package-lock.json $(NODE)/.npmrc
	@cd $(NODE) && npm ci --omit=dev --silent && touch node_modules/.package-lock.json || \
	echo "The packages for JavaScript could not be installed: their tests are skipped." >&2

# No cache of wheels: pip would take one that was built with other options, and keep this one for other environments.
$(DEVICES_VENV)/.installed: pyproject.toml constraints.txt tests/devices/include/vulkan/vulkan.hpp
	@command -v glslc >/dev/null && ls /usr/share/vulkan/icd.d/lvp_icd.*.json /usr/include/vulkan/vulkan.hpp >/dev/null || \
	{ echo "Vulkan on lavapipe is needed: apt-get install mesa-vulkan-drivers libvulkan-dev glslc spirv-headers" >&2; exit 1; }
	$(PYTHON) -m venv $(DEVICES_VENV)
	@echo "Installing; llama.cpp is compiled with the RPC and Vulkan backends, which takes about ten minutes."
	CMAKE_ARGS="-DGGML_RPC=on -DGGML_VULKAN=on" \
	CXXFLAGS='$(if $(AMX_HEADER),-include "$(AMX_HEADER)") -I"$(CURDIR)/tests/devices/include" $(CXXFLAGS)' \
	$(DEVICES_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-cache-dir $(TESTED) -e '.[dev]'
	@touch $@

# LLAMA_SDIST=file takes the sources from there instead of fetching them.
$(RPC_LIBRARY): pyproject.toml tests/rpc/build.py $(VENV)/.library | $(VENV)/.installed-dev
	$(BIN)/python -m tests.rpc.build $@ $(LLAMA_SDIST)

$(VENV)/.installed-parity: pyproject.toml constraints.txt $(VENV)/.library
	$(PIP) install $(TESTED) -e '.[dev,parity]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev
