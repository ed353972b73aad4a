# `make demo` and `make test` need Python 3.11 or newer and a C++20 compiler, and nothing else.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
SOURCES := setup.py pyproject.toml scav_kernels/_version.py $(shell find csrc -type f)

# Warnings of the C++ and CUDA compilers are errors in every build from here.
export SCAV_WERROR := 1

# Installs into the environment $(1) what $(2) names: with uv, in a seventh of pip's time, or with pip where uv fails, as
# it does where only pip's configuration names the index.
install = $(1)/bin/uv pip install --quiet --python $(1)/bin/python $(2) || \
	$(1)/bin/pip install --quiet --disable-pip-version-check --no-compile $(2)
# Makes the environment $(1), with the uv that the constraints $(2) pin.
environment = { test -x $(1)/bin/python || $(PYTHON) -m venv $(1); } && \
	$(1)/bin/pip install --quiet --disable-pip-version-check --no-compile --constraint $(2) uv
export UV_HTTP_TIMEOUT ?= 300

# Packages are installed without bytecode. With this variable set, each process would compile its modules again.
unexport PYTHONDONTWRITEBYTECODE

# A build in the tree has CUDA kernels where a GPU can run them. `make wheel` has them wherever there is a toolkit.
CUDA_KERNELS := $(or $(SCAV_BUILD_CUDA),$(if $(wildcard /dev/nvidiactl /dev/dxg),auto,0))

.PHONY: demo test check docs notebooks bench gpu sanitize mutants lint lock lock-newest build wheel wheels test-wheel test-newest
.DEFAULT_GOAL := test

demo: build
	$(BIN)/scav demo

# nproc takes OMP_NUM_THREADS, where it is set, for the number of cores.
CORES = $$(env -u OMP_NUM_THREADS nproc)

# Workers have one thread each, but for tests that ask for more. Threads that wait sleep, and so leave their cores to
# other workers.
test check: export OMP_WAIT_POLICY := passive
test: export OMP_NUM_THREADS := 1
test: build
	$(BIN)/python -m pytest tests -m "not slow" --numprocesses $(CORES) --dist worksteal
	$(BIN)/python -m pytest benchmarks --smoke --benchmark-quiet --quiet

# The long proofs, an hour or more on two cores: random calls, kernels under a shim and an interpreter, other
# libraries, notebooks, signals and kills, clusters. PART=2/6 runs the second of six parts. Many wait for processes that
# they start, so that there is one worker more than cores.
PART ?= 1/1
check: build
	$(BIN)/python -m pytest tests -m slow --part $(PART) --numprocesses $$(($(CORES) + 1)) --dist worksteal

# The site, in build/site. It works from the disk, without a network.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Run the notebooks of the documentation, and write their outputs into them.
notebooks: build
	$(BIN)/python -m nbconvert --to notebook --execute --inplace --log-level ERROR --coalesce-streams \
	--ExecutePreprocessor.record_timing=False docs/notebooks/*.ipynb

# Half an hour on two cores; docs/benchmarks.md says what it measures.
bench: build $(VENV)/.bench $(VENV)-aeon/.installed
	$(BIN)/python -m benchmarks.run

# The wheel of the source package, in dist, built in an empty folder.
wheel: $(VENV)/.installed
	$(BIN)/python .ci/wheels.py build $(BIN)/python

# Install the wheel where the newest torch is, or there and in $(VENV), and test it outside the tree.
test-newest: $(NEWEST)/.installed
	$(BIN)/python .ci/wheels.py test $(NEWEST)/bin/python

test-wheel: $(NEWEST)/.installed
	$(BIN)/python .ci/wheels.py test $(BIN)/python $(NEWEST)/bin/python

# A wheel for each Python at hand, built and tested in environments of their own.
PYTHONS ?= $(shell command -v python3.11 python3.12 python3.13 python3.14)
wheels: $(VENV)/.installed
	$(BIN)/python .ci/wheels.py all $(PYTHONS)

# With an NVIDIA GPU: its tests, and benchmarks/results/<gpu>.json. Where nothing can be downloaded, `make gpu
# GPU_PYTHON=python3` uses a Python that has torch, triton, pybind11, ninja, numpy, scipy, hypothesis, pytest and
# pytest-benchmark.
GPU_PYTHON ?= $(BIN)/python
gpu:
	test "$(GPU_PYTHON)" != "$(BIN)/python" || $(MAKE) build
	SCAV_BUILD_CUDA=1 $(GPU_PYTHON) setup.py --quiet build_ext --inplace
	$(GPU_PYTHON) -m pytest tests/gpu tests/cuda
	$(GPU_PYTHON) -m benchmarks.run --device cuda

# The ops under AddressSanitizer and UndefinedBehaviorSanitizer (GCC's), in a build of their own. Python's -fwrapv would
# make every signed overflow legal. -O1 alone would form no multiply-adds, and roots would be less exact than in other
# builds. Left out: tests that measure memory, or whose subject is not the kernels.
SANITIZE := $(CURDIR)/build/sanitize
SANITIZERS := -fsanitize=address,undefined
sanitize: $(VENV)/.installed
	SCAV_BUILD_CUDA=0 LDFLAGS="$(SANITIZERS)" \
	SCAV_CXXFLAGS="-O1 -fexpensive-optimizations -fno-omit-frame-pointer -fno-wrapv $(SANITIZERS) -fno-sanitize-recover=undefined" \
	$(BIN)/python setup.py --quiet build --build-base $(SANITIZE) --build-lib $(SANITIZE)/lib
	cd $(SANITIZE)/lib && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	$(abspath $(BIN))/python -m pytest $(CURDIR)/tests/ops --numprocesses auto -o pythonpath="$(SANITIZE)/lib $(CURDIR)" \
	-k "not memory and not large and not reference and not registration and not simd"

# Build kernels with one deliberate fault each, fail if the tests miss one, and write docs/engineering/mutants.md.
mutants: build
	$(BIN)/python -m tests.mutants

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc benchmarks tests -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror

build: $(VENV)/.built

# torchdtw says that it needs Python 3.12. Its binary is for the stable interfaces of Python and torch, and runs with
# 3.11 too.
TORCHDTW := --no-deps --python-version 3.12 --only-binary :all: torchdtw==0.4.2

# The stamp is the pins as they were installed. Objects stay in build/torch-VERSION, and only what changed is compiled.
$(VENV)/.installed: constraints.txt constraints-no-deps.txt pyproject.toml
	$(call environment,$(VENV),constraints.txt)
	$(call install,$(VENV),-r constraints.txt)
	$(call install,$(VENV),--no-deps -r constraints-no-deps.txt)
	$(call install,$(VENV),$(TORCHDTW) --target $(VENV)/lib/python3*/site-packages)
	touch $@

$(NEWEST)/.installed: constraints-newest.txt
	$(call environment,$(NEWEST),constraints-newest.txt)
	$(call install,$(NEWEST),-r constraints-newest.txt)
	touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	SCAV_BUILD_CUDA=$(CUDA_KERNELS) \
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

$(VENV)/.bench: $(VENV)/.installed constraints-bench.txt
	$(call install,$(VENV),-c constraints.txt -r constraints-bench.txt)
	touch $@

# aeon does not fit the pins: the benchmarks run it in a process of its own.
$(VENV)-aeon/.installed:
	$(call environment,$(VENV)-aeon,constraints.txt)
	$(call install,$(VENV)-aeon,aeon==1.6.0)
	touch $@

# Rewrites constraints.txt from what is installed now, after an upgrade by hand. pip lists what constraints-bench.txt
# names first.
lock:
	{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --all --exclude pip --exclude basic-pitch \
	--exclude torchdtw --exclude tinysoundfont --exclude-editable -r constraints-bench.txt | \
	sed '1,/^## The following/d'; } > constraints.new && mv constraints.new constraints.txt

# Rewrites constraints-newest.txt likewise.
lock-newest:
	{ sed -n '/^#/p' constraints-newest.txt; $(NEWEST)/bin/pip freeze --all --exclude pip --exclude scav-kernels; } \
	> constraints.new && mv constraints.new constraints-newest.txt
