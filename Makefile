# make demo         create .venv, install the requirements, and generate text with models/shakespeare
# make serve        install the server's requirements as well, serve models/shakespeare, and open its page
# make test         install the development requirements as well, then check lint, types and layers, and run the tests
# make test-slow    run the tests that take minutes
# make lint         check lint, types and layers of imports
# make format       format the code, and fix the lint errors that Ruff can fix
# make test-docker  build Dockerfile.cpu and run the commands in it (needs root, Debian, buildah and debootstrap)
#
# PYTHON=python3.12 selects the Python, TENSORFLOW=2.16.1 the TensorFlow. If either changes, .venv is created again.

PYTHON ?= python3
VENV ?= .venv
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
INSTALLED := $(VENV)/installed-$(PYTHON_VERSION)-$(TENSORFLOW)
READY := $(VENV)/ready-$(PYTHON_VERSION)-$(TENSORFLOW)
PIP := $(VENV)/bin/python -m pip install -q $(if $(TENSORFLOW),tensorflow==$(TENSORFLOW))
BIN := $(VENV)/bin
# The variables of the command line except PYTHON, for the command that an error suggests.
OVERRIDES := $(foreach name,VENV TENSORFLOW,$(if $(filter command line,$(origin $(name))),$(name)=$($(name))))

.PHONY: demo serve test test-slow test-docker lint format

demo: $(INSTALLED)
	$(BIN)/python src/generate_unconditional_samples.py --model_name shakespeare --nsamples 2 --length 120 --top_k 40 --temperature 0.8
	$(BIN)/python src/interactive_conditional_samples.py --model_name shakespeare --prompt "ROMEO:" --length 120 --top_k 40 --temperature 0.8

serve: $(INSTALLED)
	@$(BIN)/python -c 'import fastapi, uvicorn, prometheus_client' 2>/dev/null || { \
		echo "Installing the server's packages from requirements-server.txt (5 MB to download; seconds)"; \
		$(PIP) -r requirements-server.txt; }
	$(BIN)/python scripts/serve.py --model_name shakespeare --open

# Some images forbid bytecode files; without them, each command under test would compile all its modules again.
test: lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(READY)
	@echo "Installing what the slow tests need, from requirements-slow.txt (200 MB to download; a minute)"
	@$(PIP) -r requirements-slow.txt
	$(BIN)/python -m pytest -q -m slow

test-docker: $(READY)
	PYTHON=$(BIN)/python scripts/test_docker.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each step says what it does, because pip is silent until it ends; its errors are shown.
$(INSTALLED): export PYTHON := $(PYTHON)
$(INSTALLED): export GOALS := $(or $(MAKECMDGOALS),demo)
$(INSTALLED): export OVERRIDES := $(strip $(OVERRIDES))
$(INSTALLED): requirements.txt pyproject.toml setup.py
	@scripts/check_python.sh
	@echo "Creating $(VENV) with Python $(PYTHON_VERSION) (seconds)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q --upgrade pip
	@echo "Installing TensorFlow and the other packages of requirements.txt in $(VENV) (700 MB to download, 2 GB on disk; minutes)"
	@$(PIP) -r requirements.txt
	@$(if $(filter .venv,$(VENV)),rm -f .venv-path,echo '$(VENV)' >.venv-path)
	@touch $@

$(READY): $(INSTALLED) requirements-dev.txt
	@echo "Installing what the checks need, from requirements-dev.txt (250 MB to download; a minute or two)"
	@$(PIP) -r requirements-dev.txt
	@touch $@
