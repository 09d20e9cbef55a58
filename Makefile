# make demo         the virtual environment, what the product needs, and text from the model in models/shakespeare
# make serve        the same and what the server needs, then the page of the model in models/shakespeare, in the browser
# make test         the same and what development needs, then lint, types, layers and tests
# make test-slow    the tests that take minutes
# make lint         lint, types and layers of imports
# make format       mends what the linter can
# make test-docker  builds Dockerfile.cpu and runs the commands in it (root, Debian, buildah, debootstrap)
#
# PYTHON=python3.12 chooses the Python, TENSORFLOW=2.16.1 the TensorFlow; a change of either makes .venv anew.

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
	@test -n "$(PYTHON_VERSION)" || { echo "error: $(PYTHON) is not a Python; give one: make test PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { echo "error: TensorFlow needs Python 3.10 to 3.13 and $(PYTHON) is $(PYTHON_VERSION); give another: make test PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python$(PYTHON_VERSION)-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(PIP) -r requirements.txt
	touch $@

$(READY): $(INSTALLED) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@
