# Two commands do it all on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
export SLIMWRIGHT_CACHE ?= out/cache
export OMP_WAIT_POLICY ?= PASSIVE
# Three processes for two cores, as many tests wait for other processes. Files in their order, or those with few tests
# would come last, and they are the longest: whole jobs.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow fuzz check bench bench-structured bench-coverage setup setup-runtimes setup-arm64 setup-bench lock release licences clean

demo: setup
	$(BIN)/slimwright shrink resnet8-wide --data digits --latency 0.33x --max-drop 1.0 --runtime onnxruntime --out out/demo

test: setup-runtimes
	$(PYTEST)

test-slow: setup-runtimes  # those that take long for what they find
	$(PYTEST) -m slow

fuzz: setup-runtimes  # ten thousand files of each kind, other ones every day; all kinds but a few stand in one file
	FUZZ_SEED=$$(date +%F) FUZZ_TIMES=20 $(subst loadfile,load,$(PYTEST)) tests/fuzz

check: setup-bench
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "slow or not slow"

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

# What is installed stands in locks/ by version and hash. The locks hold for the platform below; others take the newest
# that pyproject.toml and constraints.txt allow. Where pip's own index has no CPU build of torch, PyTorch's has.
LOCKED_FOR := Linux x86_64 3.11
TORCH_FROM ?= --extra-index-url=https://download.pytorch.org/whl/cpu
HERE := $(shell uname -sm) $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CORE := onnxruntime,report,data,signing,search,server,dev
RUNTIMES := runtimes,report,data,signing,search,fleet,server,dev
BENCH := $(RUNTIMES),bench
pip = $(1)/python -m pip install --quiet --disable-pip-version-check
# of the environment $(1): the lock $(2), or else by the constraints $(3) the extras $(4)
ifeq ($(HERE),$(LOCKED_FOR))
install = lock="$(pip) --no-deps --require-hashes -r locks/$(2).txt"; \
	{ $$lock || $$lock $(TORCH_FROM); } && $(pip) --no-deps --no-build-isolation -e .
else
install = $(pip) $(3) -e ".[$(4)]"
endif

.venv/installed: pyproject.toml constraints.txt locks/core.txt
	$(PYTHON) -m venv .venv
	$(call install,$(BIN),core,-c constraints.txt,$(CORE))
	touch $@

# LiteRT's converter asks for other versions than the rest does: it has an environment of its own, without constraints.
.venv/installed-runtimes: .venv/installed locks/runtimes.txt locks/litert-converter.txt
	$(call install,$(BIN),runtimes,-c constraints.txt,$(RUNTIMES))
	$(PYTHON) -m venv .venv/converters/litert
	$(call install,.venv/converters/litert/bin,litert-converter,,litert-converter)
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
NO_DEPS := timm torchvision
.venv/installed-bench: .venv/installed-runtimes locks/bench.txt
	$(call install,$(BIN),bench,-c constraints.txt,$(BENCH))
ifneq ($(HERE),$(LOCKED_FOR))
	$(call pip,$(BIN)) -c constraints.txt --no-deps $(NO_DEPS)
endif
	touch $@

# New versions into locks/, which every later set-up then installs.
LOCK = out/tools/bin/uv pip compile --quiet --upgrade --generate-hashes --no-annotate --no-header --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28 --index-strategy unsafe-best-match $(TORCH_FROM)
TOOLS := build cyclonedx-bom pip-licenses uv
comma := ,
extras = $(foreach one,$(subst $(comma), ,$(1)),--extra $(one))
lock: out/tools/installed
	printf '%s\n' $(TOOLS) | $(LOCK) - -o locks/tools.txt
	$(LOCK) pyproject.toml $(call extras,$(BENCH)) -c constraints.txt -o locks/bench.txt
	$(LOCK) pyproject.toml $(call extras,$(RUNTIMES)) -c constraints.txt -c locks/bench.txt -o locks/runtimes.txt
	$(LOCK) pyproject.toml $(call extras,$(CORE)) -c constraints.txt -c locks/bench.txt -o locks/core.txt
	printf '%s\n' $(NO_DEPS) | $(LOCK) - --no-deps -c constraints.txt >> locks/bench.txt
	grep -E '^(torch=|backports)' constraints.txt | \
		$(LOCK) pyproject.toml --extra litert-converter -c - -o locks/litert-converter.txt

# What a release is: the packages, and the bill of the materials that it was tested with.
release: setup-runtimes out/tools/installed
	rm -rf out/release
	out/tools/bin/python -m build --outdir out/release
	out/tools/bin/cyclonedx-py environment .venv/bin/python --pyproject pyproject.toml --sv 1.6 --output-reproducible \
		-o out/release/slimwright.cdx.json

LICENCES := import json, sys; rows = {(p["Name"], p["License"].split("\n")[0]) for l in sys.stdin for p in json.loads(l)}; \
	print("\n".join("| %s | %s |" % row for row in sorted(rows, key=lambda row: row[0].lower())))
licences: setup-bench out/tools/installed
	{ printf '# Licences\n\nOf what `locks/` has installed, as the packages say it. `make licences` writes this page.\n\n'; \
		printf '| package | licence |\n|---|---|\n'; \
		for place in $(BIN) .venv/converters/litert/bin; do out/tools/bin/pip-licenses --python=$$place/python --from=mixed \
			--with-system --ignore-packages slimwright --format=json | tr -d '\n'; echo; done | \
			$(PYTHON) -c '$(LICENCES)'; } > docs/licences.md

out/tools/installed: locks/tools.txt
	$(PYTHON) -m venv out/tools
	$(call pip,out/tools/bin) --no-deps --require-hashes -r locks/tools.txt
	touch $@

clean:
	rm -rf .venv out
