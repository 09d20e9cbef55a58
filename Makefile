# make test         the virtual environment, the dependencies, lint, types and tests
# make lint         lint and types alone
# make format       mends what the linter can
# make test-docker  builds Dockerfile.cpu and runs the commands in it (root, Debian, buildah, debootstrap)
#
# PYTHON=python3.12 chooses the Python, TENSORFLOW=2.16.1 the TensorFlow; a change of either makes .venv anew.

PYTHON ?= python3
VENV ?= .venv
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY := $(VENV)/ready-$(PYTHON_VERSION)-$(TENSORFLOW)
BIN := $(VENV)/bin

.PHONY: test test-docker lint format

test: lint
	$(BIN)/python -m pytest -q

test-docker:
	scripts/test_docker.sh

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): requirements.txt requirements-dev.txt pyproject.toml setup.py
	@test -n "$(PYTHON_VERSION)" || { echo "error: $(PYTHON) is not a Python; give one: make test PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { echo "error: TensorFlow needs Python 3.10 to 3.13 and $(PYTHON) is $(PYTHON_VERSION); give another: make test PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python$(PYTHON_VERSION)-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -r requirements-dev.txt $(if $(TENSORFLOW),tensorflow==$(TENSORFLOW))
	touch $@
