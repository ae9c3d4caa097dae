# Everything happens in .venv, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test check lint slow torture floor docs clean

train: $(VENV)/.installed
	$(BIN)/python train.py experiment=digits $(ARGS)

test: $(VENV)/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# Trains two cheap experiments whole (the last one both stages of latent diffusion) and compares their numbers with what
# their yaml states. Then disturbs runs for two minutes.
check: $(VENV)/.installed-dev
	for name in toy_gaussian_mixture digits_latent; do $(BIN)/python scripts/check.py experiment=$$name callbacks.progress_bar=null || exit 1; done
	OMP_NUM_THREADS=1 $(BIN)/python scripts/torture.py --draws 40 --minutes 2

slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow $(ARGS)

# Kills runs, damages their files, fills the disk, ends one of two processes, 500 times; continues after an interruption.
torture: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python scripts/torture.py --draws 500 --results outputs/torture.jsonl

# The quick tests with the oldest torch that pyproject.toml allows, in an environment of its own.
floor:
	$(PYTHON) -m venv $(VENV)-floor
	grep -vE '^(torch|torchvision|triton|nvidia|cuda|sympy|fsspec|setuptools)' constraints.txt > $(VENV)-floor/constraints.txt
	$(VENV)-floor/bin/python -m pip install --quiet -c $(VENV)-floor/constraints.txt torch==2.6.0 torchvision==0.21.0 -e '.[dev]'
	OMP_NUM_THREADS=1 $(VENV)-floor/bin/python -m pytest -n 2 $(ARGS)

# The documentation site, in build/docs/index.html; a warning is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch and torchvision come in one command from one index: builds of two indexes do not fit each other.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-floor build *.egg-info
