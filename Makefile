# `make demo` and `make test` set up everything they need on a fresh machine with Python 3.10+ and make.
PYTHON ?= python3
BIN := .venv/bin
# constraints.txt pins the versions that CI used, which require Python 3.11 or later.
PINS := $(shell $(PYTHON) -c "import sys; print('-c constraints.txt' if sys.version_info >= (3, 11) else '')")

.PHONY: demo test lint format docs wheel clean
demo: .venv/runs
	$(BIN)/onemask demo --out demo --overwrite

test: .venv/develops .venv/browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

lint: .venv/develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: .venv/develops
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/develops
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --open

wheel: .venv/develops
	$(BIN)/python benchmarks/wheel.py

clean:
	rm -rf .venv demo build src/*.egg-info

.venv:
	$(PYTHON) -m venv $@

.venv/runs: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS) --editable .
	touch $@

# Chromium for the studio's tests, if the system has none. Without a network these tests are skipped with a reason.
.venv/browser: .venv/develops
	for name in chromium chromium-browser google-chrome; do command -v $$name && exit; done; \
	  PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 $(BIN)/playwright install chromium \
	  || echo "no Chromium could be installed: the studio's tests in a browser will be skipped"
	touch $@

# One install with all extras; --no-compile skips byte-compiling modules that are never imported.
.venv/develops: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PINS) \
	  --editable ".[dev,docs,lite,onnx,openvino,train]"
	touch .venv/runs $@
