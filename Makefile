# Everything runs in .venv, which `make` creates once and renews when the requirements change. Another Python gets an
# environment of its own: `make test PYTHON=python3.13` runs in .venv-python3.13.
PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The Python whose environment has the newest JAX, Flax, Optax, NumPy and SciPy.
NEWEST ?= python3.13
RUN := runs/digits-$(shell date +%Y%m%d-%H%M%S)

.PHONY: sweep test test-all test-aot test-newest test-lowest test-versions soak lint type check screenshots smoke dist quality bench bench-accelerator docs format clean

sweep: $(READY)  ## The main job: 256 trials on digits; prints the best, saves a run directory, a picture and a report.
	$(BIN)/hpjax run experiments/digits/sweep.py --dir $(RUN) --test
	$(BIN)/hpjax plot $(RUN)
	$(BIN)/hpjax report $(RUN)

# Nearly all that tests do is compile, which these settings halve. XLA aborts at a flag that it does not know, as at the
# first one since jaxlib 0.12: each is tried, and left out where it aborts.
FLAGS := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_prefer_vector_width=128
KNOWN = $(shell for flag in $(FLAGS); do \
  if XLA_FLAGS=$$flag $(BIN)/python -c "import jax; jax.devices()" > /dev/null 2>&1; then echo $$flag; \
  else echo "XLA of $(BIN) does not know $$flag: tests compile without it." >&2; fi; done)
QUICKLY = JAX_DISABLE_MOST_OPTIMIZATIONS=1 XLA_FLAGS="$(KNOWN)"
PYTEST = $(BIN)/python -m pytest -n auto

test: $(READY)  ## The tests, in a few minutes: all that is promised, in a short form.
	$(QUICKLY) $(PYTEST) --dist loadfile -m "not slow"

test-all: test  ## And what they leave out; the laws once more, compiled as users compile.
	$(PYTEST) --dist worksteal tests/laws
	$(QUICKLY) $(PYTEST) --dist worksteal -m slow --ignore tests/laws

test-newest:  ## What depends on versions, on Python 3.13 (NEWEST=python3.12: another) with the newest JAX, Flax, Optax and NumPy.
	@$(call interpreter,$(NEWEST)) -c '' || { echo 'NOT TESTED with the newest versions: there is no $(NEWEST). Install it'\
	  '(pyenv install $(NEWEST:python%=%), or uv python install $(NEWEST:python%=%)), or name one that you have: NEWEST=python3.12' >&2; exit 1; }
	$(MAKE) test-versions PYTHON=$(NEWEST)

test-lowest: LOW := .venv-lowest/bin
test-lowest:  ## The same with the lowest versions that pyproject.toml allows.
	test -x $(LOW)/python || $(call interpreter,$(PYTHON)) -m venv .venv-lowest
	$(LOW)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOW)/uv pip install --quiet --python $(LOW)/python --resolution lowest-direct --editable '.[test]'
	$(MAKE) test-versions BIN=$(LOW) READY=

# The laws, whatever reads what JAX, Flax and Optax do not promise, pictures, and the first example.
VERSIONED = tests/laws tests/engine tests/nn tests/optim tests/core/test_threefry.py tests/core/test_missing_packages.py \
  tests/training/test_training.py tests/training/test_bad_members.py tests/results/test_plot.py "tests/project/test_docs.py::test_blocks_run[README]"
test-versions: $(READY)  ## What depends on the versions of other packages, in a short form.
	$(QUICKLY) $(PYTEST) --dist loadfile -m "not slow" $(VERSIONED)

# The compilers for TPUs and GPUs, in an environment of their own: with libtpu JAX looks for a TPU first.
AOT := .venv-aot
# Without the largest model, which takes minutes: JAX_PLATFORMS=cpu .venv-aot/bin/python -m pytest -m slow tests/aot
test-aot: $(AOT)/.ready  ## What is compiled for TPUs and GPUs that are not there, against what was recorded.
	JAX_PLATFORMS=cpu $(AOT)/bin/python -m pytest -n auto --dist worksteal -m "not slow" tests/aot

$(AOT)/.ready: pyproject.toml constraints.txt
	test -x $(AOT)/bin/python || $(call interpreter,$(PYTHON)) -m venv $(AOT)
	$(AOT)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[test,tpu-target,gpu-target]'
	touch $(AOT)/.ready

soak: $(READY)  ## Kills runs again and again, compares what they end with, and damages run directories.
	HPJAX_KILLS=7 $(BIN)/python -m pytest -k killed_run tests/sweep/running/test_resume.py
	HPJAX_DAMAGES=10 $(BIN)/python -m pytest -k "show or plot or report or export or restore or resume" tests/results/store/test_untrusted.py

lint: $(READY)  ## Style, format, and which room imports which.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(READY)  ## Types, strict on hpjax/.
	$(BIN)/mypy

screenshots: $(READY)  ## The pictures of docs/report.md: reports, looked at in Chromium.
	HPJAX_SCREENSHOTS=docs $(BIN)/python -m pytest tests/results/report/test_screenshots.py

smoke: $(READY)  ## Every experiment, small.
	@set -e; for file in $$(grep -L -e '--smoke' $$(grep -l '^sweep = hpx.Sweep' experiments/axes/*.py experiments/*/sweep.py)); do \
	  echo "== $$file"; dir=$$(mktemp -d); \
	  $(BIN)/hpjax run $$file --trials 8 --steps 20 --eval-every 10 --dir $$dir/run --quiet; \
	  $(BIN)/hpjax plot $$dir/run; $(BIN)/hpjax export $$dir/run --csv; rm -r $$dir; done; \
	for file in $$(grep -l -e '\[--smoke\]' experiments/*/*.py); do \
	  echo "== $$file --smoke"; dir=$$(mktemp -d); $(BIN)/python $$file --smoke --out $$dir; rm -r $$dir; done

quality: $(READY)  ## How good the search is, in tables and a picture; DATA is the folder of mnist1d.npz.
	$(BIN)/python experiments/search_quality/quality.py --seeds 10 $(if $(DATA),--data $(DATA))
	$(BIN)/python experiments/search_quality/halving.py
	$(BIN)/python experiments/search_quality/pbt.py

bench: $(READY)  ## How fast it is beside its peers, which get an environment of their own in .peers; writes a record, a picture, and all tables.
	$(BIN)/python experiments/benchmarks/bench.py

bench-accelerator: $(READY)  ## On a GPU or TPU, in eight minutes: two laws, and lanes beside jit(vmap(scan)) and a roofline.
	$(BIN)/python experiments/benchmarks/accelerator.py

docs: $(READY)  ## The documentation, in docs/_build/html; a warning is an error.
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo open docs/_build/html/index.html

dist: $(READY)  ## Builds the wheel and the source distribution into dist/, and checks what an index would say of them.
	rm -rf dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt twine
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

check: lint type test-all smoke docs dist  ## All of it.

format: $(READY)  ## Mends style and format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Removes the environments and every run.
	rm -rf .venv .venv-* .peers .pytest_cache runs build dist docs/_build *.egg-info

# pyenv's shims run only activated versions, unless this variable names another.
interpreter = $(if $(filter python3.%,$(1)),PYENV_VERSION=$(patsubst python%,%,$(1)) )$(1)

# Compiled here, on all cores, as pip does on one; some packages have templates that are no Python, which may fail.
# constraints.txt pins the tools, and on Python 3.11 jax and what it works with; later Pythons have the newest of these.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(call interpreter,$(PYTHON)) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true
	touch $(READY)
