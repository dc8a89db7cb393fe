# Two commands do it all on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
export SLIMWRIGHT_CACHE ?= out/cache
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check bench setup setup-bench clean

demo: setup
	$(BIN)/slimwright shrink resnet8-wide --data digits --latency 0.33x --max-drop 1.0 --runtime onnxruntime --out out/demo

test: setup
	$(BIN)/python -m pytest

check: setup-bench
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: setup-bench
	$(BIN)/python benchmarks/prune_without_training.py --json benchmarks/results/prune_without_training.json

setup: .venv/installed

setup-bench: .venv/installed-bench

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[onnxruntime,dev]"
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[onnxruntime,dev,bench]"
	touch $@

clean:
	rm -rf .venv out
