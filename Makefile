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

.PHONY: demo serve test test-slow test-docker lint format

demo: $(INSTALLED)
	$(BIN)/python src/generate_unconditional_samples.py --model_name shakespeare --nsamples 2 --length 120 --top_k 40 --temperature 0.8
	$(BIN)/python src/interactive_conditional_samples.py --model_name shakespeare --prompt "ROMEO:" --length 120 --top_k 40 --temperature 0.8

serve: $(INSTALLED)
	@$(BIN)/python -c 'import fastapi, uvicorn, prometheus_client' 2>/dev/null || $(PIP) -r requirements-server.txt
	$(BIN)/python scripts/serve.py --model_name shakespeare --open

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(READY)
	$(PIP) -r requirements-slow.txt
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

$(INSTALLED): requirements.txt pyproject.toml setup.py
	@test -n "$(PYTHON_VERSION)" || { echo "error: $(PYTHON) is not a Python interpreter; give another: make test PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { echo "error: TensorFlow needs Python 3.10 to 3.13, and $(PYTHON) is $(PYTHON_VERSION); give another: make test PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot create virtual environments; on Debian and Ubuntu, type: apt install python$(PYTHON_VERSION)-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(PIP) -r requirements.txt
	touch $@

$(READY): $(INSTALLED) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@
