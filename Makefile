# Two commands do it all on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
export SLIMWRIGHT_CACHE ?= out/cache
export OMP_WAIT_POLICY ?= PASSIVE
# Three processes for two cores, as many tests wait for other processes. Files in their order, or those with few tests
# would come last, and they are the longest: whole jobs.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test fuzz check bench bench-structured bench-coverage setup setup-runtimes setup-arm64 setup-bench clean

demo: setup
	$(BIN)/slimwright shrink resnet8-wide --data digits --latency 0.33x --max-drop 1.0 --runtime onnxruntime --out out/demo

test: setup-runtimes
	$(PYTEST)

fuzz: setup-runtimes  # ten thousand files of each kind, other ones every day
	FUZZ_SEED=$$(date +%F) FUZZ_TIMES=20 $(PYTEST) tests/fuzz

check: setup-bench
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

bench: setup-bench
	for name in prune_without_training low_rank solve_speed dropnet deeprebirth; do \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; done

bench-structured: setup-bench  # hours; a run that was stopped goes on
	$(BIN)/python benchmarks/structured_vs_peers.py --networks resnet20,resnet56,vgg16-half,mobilenet-v2-half \
		--json benchmarks/results/structured_vs_peers.json

bench-coverage: setup-bench
	$(BIN)/python benchmarks/coverage.py --json benchmarks/results/coverage.json

setup: .venv/installed

setup-runtimes: .venv/installed-runtimes

setup-bench: .venv/installed-bench

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[onnxruntime,report,data,signing,dev]"
	touch $@

# LiteRT's converter asks for other versions than the rest does: it has an environment of its own, without constraints.
.venv/installed-runtimes: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[runtimes,report,data,signing,dev]"
	$(PYTHON) -m venv .venv/converters/litert
	.venv/converters/litert/bin/python -m pip install --quiet --disable-pip-version-check -e ".[litert-converter]"
	touch $@

# An arm64 Python with the runtimes' arm64 wheels, to run in user-mode emulation (Debian packages mmdebstrap and
# qemu-user-static). ONNX Runtime 1.31 crashes at import there; 1.27 does not.
ARM64_WHEELS := numpy==2.4.6 onnxruntime==1.27.0 ncnn==1.0.20261020 MNN==3.6.1
ARM64_PACKAGES := python3.11,libstdc++6,libgomp1,libgcc-s1,zlib1g,libffi8,libexpat1,libssl3,libbz2-1.0,liblzma5
setup-arm64: out/arm64/installed

out/arm64/installed: .venv/installed
	rm -rf out/arm64 && mkdir -p out/arm64
	mmdebstrap --quiet --variant=extract --architectures=arm64 --include=$(ARM64_PACKAGES) bookworm out/arm64
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version 3.11 --implementation cp --abi cp311 $(foreach v,2_28 2_27 2_17,--platform manylinux_$(v)_aarch64) \
		--platform manylinux2014_aarch64 -d out/arm64/wheels $(ARM64_WHEELS)
	for wheel in out/arm64/wheels/*.whl; do $(BIN)/python -m zipfile -e $$wheel out/arm64/opt/site || exit 1; done
	touch $@

# torchvision asks for a newer torch, and timm for torchvision; the networks of the survey run on this one.
.venv/installed-bench: .venv/installed-runtimes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[runtimes,report,data,signing,dev,bench]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm torchvision
	touch $@

clean:
	rm -rf .venv out
