# The two commands: `make demo` and `make test`. Both install what is missing first, with pip, into $(VENV); only tests,
# lint and benches install the extras of DEV_EXTRAS.
# PYTHON names the Python to use (3.11 or newer); PIP_OPTIONS goes to pip, e.g. to take a CPU-only torch or a mirror;
# WORKERS is how many processes run tests; MODEL is the demo's base model.
# With LOCKED=true exactly the files of requirements.lock (for tests and lint: requirements-dev.lock) are installed, each
# compared with its hash.

PYTHON ?= python3
VENV ?= .venv
PIP_OPTIONS ?=
EXTRAS ?= embedded
DEV_EXTRAS ?= dev,clients
WORKERS ?= 2
LOCKED ?= false
LOCK ?= requirements.lock
DEV_LOCK ?= $(LOCK:.lock=-dev.lock)
LOCK_OPTIONS ?=
UV ?= uv==0.13.9

BIN := $(VENV)/bin
LOCK_VENV := $(VENV)-lock
comma := ,
ifeq ($(LOCKED),true)
STAMP := $(VENV)/.babylon-installed-locked
SOURCES := pyproject.toml $(LOCK)
DEV_SOURCES := $(DEV_LOCK)
# The project itself is built by the setuptools of the lock, and brings no package along.
PIP_INSTALL = $(PIP) --require-hashes -r $(if $(MORE),$(DEV_LOCK),$(LOCK)) && $(PIP) --no-deps --no-build-isolation -e .
else
STAMP := $(VENV)/.babylon-installed
SOURCES := pyproject.toml constraints.txt
PIP_INSTALL = $(PIP) -c constraints.txt -e '.[$(EXTRAS)$(addprefix $(comma),$(MORE))]'
endif
DEV_STAMP := $(STAMP)-dev
PIP = $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check $(PIP_OPTIONS)
PIP_STATUS = $(VENV)/.pip-status
# Of what pip prints, where a long stage begins: the packages are looked up, a large one is fetched, all are written.
# The last takes longest: how much is there already is said until it ends, or until this make has ended.
PIP_STAGES = { while read -r word rest; do case "$$word $$rest" in \
  "Collecting "*) [ -n "$$found" ] || echo "  looking up the packages"; found=$$((found + 1)); \
    [ $$((found % 40)) -ne 0 ] || echo "  looking up the packages: $$found so far";; \
  "Downloading "*"("[0-9][0-9][0-9]*" MB)"*) echo "  fetching $$rest";; \
  "Installing collected packages: "*) echo "  writing the packages, which takes longest"; \
    while sleep 10 >&2 && kill -0 $$$$; do echo "  writing the packages: $$(du -sm $(VENV) | cut -f1) MB are there"; done 2>/dev/null & \
    saying=$$!;; \
  esac; done; [ -z "$$saying" ] || kill $$saying; }

# Small matrices: waiting threads that spin cost more than they give.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install install-dev lock demo up test soak lint format clean

help:
	@echo "make demo        install, play and train 24 hours of the simulated game, show what was learned"
	@echo "make demo MODEL=smollm2   the same with a pretrained language model of 135 million parameters"
	@echo "make up          the same state in the Dagster UI, http://127.0.0.1:3000"
	@echo "make test        install, run the whole suite"
	@echo "make soak        the tests that take minutes; a hostile crowd plays for CROWD_SECONDS, an hour unless set"
	@echo "make lint        ruff and mypy"
	@echo "make bench-NAME  one of: $(patsubst benchmarks/%.py,%,$(filter-out %/__init__.py,$(wildcard benchmarks/*.py)))"
	@echo "make lock        write requirements.lock and requirements-dev.lock anew, the hashes of what LOCKED=true installs"
	@echo "make clean       remove $(VENV) and caches; keeps .babylon, where the data is"

install: $(STAMP)

install-dev: $(DEV_STAMP)

# MORE: the extras beside EXTRAS. Who has them has all that a demo needs.
$(DEV_STAMP): MORE = $(DEV_EXTRAS)
$(DEV_STAMP): $(DEV_SOURCES)
$(STAMP) $(DEV_STAMP): $(SOURCES)
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no program '$(PYTHON)'. Install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)" \
	       "or name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), Python 3.11 or newer is needed." \
	       "Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module. Debian, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV); the first time takes a few minutes"
	@{ { $(PIP_INSTALL); } && echo well >$(PIP_STATUS) || echo failed >$(PIP_STATUS); } | $(PIP_STAGES)
	@test "$$(cat $(PIP_STATUS))" = well || { \
	  echo "error: pip could not install the packages above. Behind a proxy or a mirror, or to get a CPU-only torch, pass" \
	       "options to pip: make $(MAKECMDGOALS) PIP_OPTIONS='...'" >&2; exit 1; }
	@touch $(sort $(STAMP) $@)
	@echo "installed"

COMPILE = echo 'setuptools>=77' | $(LOCK_VENV)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' -c constraints.txt \
  $(foreach extra,$(subst $(comma), ,$(1)),--extra $(extra)) $(LOCK_OPTIONS) pyproject.toml -

# The versions of constraints.txt with the hashes that the public index publishes, for every system; no index is named.
lock:
	@test -x $(LOCK_VENV)/bin/python || $(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check '$(UV)'
	@$(call COMPILE,$(EXTRAS)) -o $(LOCK)
	@$(call COMPILE,$(EXTRAS)$(comma)$(DEV_EXTRAS)) -o $(DEV_LOCK)

# A language model's training takes a fifth less of a processor with huge pages, where the kernel lends them.
demo: install
	@$(if $(MODEL),GLIBC_TUNABLES=$${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}) $(BIN)/babylon demo $(if $(MODEL),--model $(MODEL)) $(DEMO_OPTIONS)

up: install
	@$(BIN)/babylon up $(UP_OPTIONS)

# Modules stay whole, in two processes. One thread for each of the many small tensors; nothing asks the network.
test: install-dev
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 WANDB_MODE=disabled $(BIN)/python -m pytest -q \
	  -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TEST_OPTIONS)

# What takes too long for every day: ten thousand requests with PostgreSQL killed and a promotion in the middle, bad
# checkpoints planted among hours of the demo's size, `babylon up --simulate` with each of its processes killed, a
# backfill of 48 hours from the browser, two hosts in network namespaces of their own.
soak: install-dev
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 WANDB_MODE=disabled $(BIN)/python -m pytest -q -m soak

lint: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: install-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench-%: install-dev
	@test -f benchmarks/$(subst -,_,$*).py || { echo "error: no bench '$*'; 'make help' lists them" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.$(subst -,_,$*)

clean:
	rm -rf $(VENV) $(LOCK_VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
