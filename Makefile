# `make demo` and `make test` do everything on a fresh machine that has Python 3.10+ and make.
PYTHON ?= python3
BIN := .venv/bin
# constraints.txt pins what CI ran with; its versions exist for Python 3.11 and later.
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

# Chromium for the studio's tests, where the system has none. Without a network they are skipped, and say why.
.venv/browser: .venv/develops
	for name in chromium chromium-browser google-chrome; do command -v $$name && exit; done; \
	  PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=10000 $(BIN)/playwright install chromium \
	  || echo "no Chromium could be installed: the studio's tests in a browser will be skipped"
	touch $@

# One installation of everything, and no compiling ahead of modules that nothing imports.
.venv/develops: pyproject.toml constraints.txt | .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PINS) \
	  --editable ".[dev,docs,lite,onnx,openvino,train]"
	touch .venv/runs $@
