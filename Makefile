# make test   lint, types, the docs site and tests in a virtual environment of this checkout
# make demo   install, then a clip through DNA and back: pictures and figures in demo/
# make docs   README, docs/ and the API as pages in site/; a dead link fails
# make hooks  pre-commit's hooks into this checkout's git
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# not with --quiet, which hides the warnings that --strict counts
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: demo test slow format docs hooks clean

demo: $(VENV)/.installed
	$(BIN)/helix-jax demo --out demo

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(SITE)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

slow: $(VENV)/.installed-test
	OPTIMISED=1 $(BIN)/python -m pytest -m slow

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(SITE)

hooks: $(VENV)/.installed-dev
	$(BIN)/pre-commit install

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "helix_jax needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-docs

clean:
	rm -rf $(VENV) demo site build dist *.egg-info
