# Variables: VENV (folder of the environment), PYTHON (which Python to make it with),
# TORCH (release), HOST (family of hosts), HOSTS (hosts to add), DATA (folder with your own images),
# WORKERS (processes that test), e.g. make env PYTHON=python3.12
VENV ?= .venv
PYTHON ?=
TORCH ?=
HOSTS ?=
DATA ?=

# Some shells export HOST, the name of the machine: from there, only a family's name counts.
ifneq ($(origin HOST),command line)
HOST := $(filter stock onedl,$(HOST))
endif

BIN := $(VENV)/bin
SETUP = tools/setup_env.py --venv "$(VENV)" --torch "$(TORCH)" --host "$(HOST)" --hosts "$(HOSTS)"
# One process of one thread per core; each takes about 1.5 GB.
WORKERS ?= auto
IN_PARALLEL = -n $(WORKERS) --maxprocesses=8 --dist loadgroup
# The environment's own Python comes first: what was chosen with PYTHON= stays chosen.
CANDIDATES = $(if $(PYTHON),$(PYTHON),$(BIN)/python python3.11 python3 python3.12 python3.10 python3.13)

.DEFAULT_GOAL := help
.PHONY: help env demo demo-face test test-fast lint docs clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  VENV=<folder>    where the environment lies (default .venv)'
	@echo '  PYTHON=<python>  which Python to make it with, 3.10 or newer'
	@echo '  TORCH=<release>  which torch to put into it (default 2.14.1)'
	@echo '  HOST=<family>    which hosts: stock, or onedl (the maintained forks)'
	@echo '  HOSTS=<hosts>    hosts to add: pose (MMPose), seg (MMSegmentation), all'

env: ## Create or update the environment (first time: some GB to load, minutes to compile)
	@for python in $(CANDIDATES); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then \
			exec "$$python" $(SETUP); \
		fi; \
	done; \
	echo "error: no working Python 3.10 or newer (tried: $(CANDIDATES))." >&2; \
	echo "Install one, or name it: make env PYTHON=/path/to/python3.11" >&2; \
	exit 2

demo: env ## Train, test and draw on a small made set, or on your own: DATA=<folder>
	@$(BIN)/python tools/train/demo.py $(if $(DATA),--data "$(DATA)") --work-dir work_dirs/demo

demo-face: env ## Train and test a face recogniser on digits, or on DATA=<folder a person>
	@$(BIN)/python tools/face/demo.py $(if $(DATA),--data "$(DATA)") --work-dir work_dirs/face_demo

test: HOSTS := all
test: lint ## Lint, types and all tests, on all cores
	$(BIN)/python -m pytest $(IN_PARALLEL) --durations=30 --durations-min=1

test-fast: env ## The tests that train no config and start no process: about six minutes on two cores
	$(BIN)/python -m pytest $(IN_PARALLEL) -m 'not leaf and not subprocess and not slow'

lint: env ## Lint and types only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: env ## Build the documentation site into site/ (needs Python 3.11 or newer)
	$(BIN)/python tools/dev/tables.py
	$(BIN)/python tools/dev/draw_plan.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo 'The site lies in site/index.html'

clean: ## Remove the environment that `make env` made and what builds left (not the wheel cache)
	@if grep -sqv '"adopted": true' "$(VENV)/.mmdet_ext.json"; then rm -rf "$(VENV)"; fi
	rm -rf build dist site *.egg-info mmdet_ext/.mim .mypy_cache .pytest_cache .ruff_cache
	@find mmdet_ext tests tools configs -type d -name __pycache__ -prune -exec rm -rf {} +
