# kronext: every target sets up what it needs. On a fresh machine `make demo` and `make test` are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0

# The CUDA module is built for the GPU of this machine. Without one, one architecture is enough to try whether it
# builds and loads: `make kernels-check` compiles the kernels for all of them.
export KRONEXT_CUDA_ARCHITECTURES ?= $(if $(shell command -v nvidia-smi),native,90-real)

.DEFAULT_GOAL := help
.PHONY: help setup build demo test bench other-torch lint format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# torch comes first and pinned: a CPU build where the index has one, and nothing else may choose another.
$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install "setuptools>=77" "cmake>=3.26" ninja "pybind11>=2.13"
	$(PIP) install --no-build-isolation -e ".[dev]"
	touch $@

setup: $(VENV)/.ready  ## create the virtual environment, install the tools, build once

build: setup  ## compile what has changed and install the package in place
	$(PIP) install --no-build-isolation --no-deps -e .

# Threads that sleep while they wait: spinning ones make small models crawl on a machine that is shared.
demo: build  ## train on real digits with AdamW and every estimator; writes plots to demo-output/
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m kronext demo --output demo-output

test: build  ## the whole test suite: Python, every CPU capability, C++ host tests
	$(BIN)/python -m pytest

bench: build  ## every op and the optimizer step against rivals, about 10 minutes; writes to bench-output/
	$(BIN)/python -m benchmarks --threads 1 $$(nproc) --minutes 10 \
		--json bench-output/results.json --plot bench-output/growth.png

OTHER_TORCH ?= 2.14.1
other-torch: build  ## the same native modules under another torch release (downloads it: gigabytes)
	test -x build/other-torch/bin/python || $(PYTHON) -m venv build/other-torch
	build/other-torch/bin/python -m pip install --quiet torch==$(OTHER_TORCH) numpy pytest
	PYTHONPATH=. build/other-torch/bin/python -m pytest tests/ops tests/optim tests/curvature

lint: build  ## ruff, mypy --strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror

format:  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

clean:  ## remove everything that is not tracked by git, the virtual environment too
	rm -rf $(VENV) build dist *.egg-info kronext/*.so demo-output reproduction bench-output gpu-output

# What needs nvcc is checked where nvcc is; its disassemblers come from the package index.
$(VENV)/.kernel-tools: $(VENV)/.ready
	! command -v nvcc >/dev/null || $(PIP) install nvidia-cuda-cuobjdump==13.2.51 nvidia-cuda-nvdisasm==13.2.51
	touch $@

test: $(VENV)/.kernel-tools

.PHONY: gpu sanitize kernels-check
gpu: setup  ## where there is a GPU: build, tests, sanitizers, graphs and timing in 9 minutes; writes to gpu-output/
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.gpu

sanitize: build  ## the emulated CUDA kernels under ASan and TSan, and mutants of them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/emulator -m sanitize --numprocesses auto

kernels-check: build $(VENV)/.kernel-tools  ## compile the CUDA kernels, hold their code to rules, write docs/kernels.md
	$(BIN)/python tests/kernels/kernel_check.py
