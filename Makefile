# Every way in. `make demo` and `make test` work on a bare Debian 12 with git, make and python3.

PRESET ?= release
THREADS ?= $(shell nproc)
export LLAMA_PREFIX

BUILD := build/$(PRESET)
HATA := $(BUILD)/bin/hata
BENCH_MODEL := build/models/8b-shape-4l-q4_0.gguf
SOURCES = $(shell git ls-files -co --exclude-standard '*.cpp' '*.h' '*.cu' '*.cuh')
# The thread sanitizer of GCC 12 cannot place its memory where addresses are very random.
NO_ASLR = $(shell setarch -R true 2>/dev/null && echo setarch -R)

.PHONY: help setup build demo test test-lm-eval bench bench-model bench-cuda cuda cuda-all format \
        format-check lint clean FORCE
.DELETE_ON_ERROR:

help:
	@echo 'make demo         questions about a long document, dense and HATA side by side'
	@echo 'make test         every test, sanitizers and format'
	@echo 'make test-lm-eval lm-evaluation-harness gives the answers of hata eval (installs it)'
	@echo 'make build        build/hata and libhata-ggml.so'
	@echo 'make bench        one attention step against ggml; whole models after make bench-model'
	@echo 'make bench-model  a 4-layer model of the shape of an 8B Llama, to time'
	@echo 'make cuda         libhata-cuda, its tests and hata-bench-cuda, for Hopper GPUs'
	@echo 'make cuda-all     the same for all GPUs from Ampere on'
	@echo 'make bench-cuda   attention steps on this machine'"'"'s GPU, against what rivals are there'
	@echo 'make format       clang-format over all sources'
	@echo 'make lint         clang-format and clang-tidy, warnings are errors'
	@echo 'make clean        removes build/; llama.cpp stays in its cache'
	@echo
	@echo 'make LLAMA_PREFIX=/path ...   uses a llama.cpp of your own'
	@echo 'make PRESET=dev ...           another preset of CMakePresets.json'

setup: build/llama.cmake

# Writes the file only where it changes, so nothing is configured again without need.
build/llama.cmake: FORCE
	@scripts/setup

# --fresh: what CMake has found of another llama.cpp must not stay.
build/%/build.ninja: build/llama.cmake CMakePresets.json
	cmake --fresh --preset $* -C build/llama.cmake

build: $(BUILD)/build.ninja
	cmake --build --preset $(PRESET) -j $(THREADS)
	@ln -sfn $(PRESET)/bin/hata build/hata

demo: build
	$(HATA) demo

test: build build/asan/build.ninja build/tsan/build.ninja
	@scripts/setup --browser || echo 'test: the report is not opened in a browser'
	ctest --preset $(PRESET) -j $(THREADS)
	cmake --build --preset asan -j $(THREADS)
	ctest --preset asan -j $(THREADS)
	cmake --build --preset tsan -j $(THREADS)
	$(NO_ASLR) ctest --preset tsan -j $(THREADS)
	@$(MAKE) --no-print-directory format-check

bench: build
	$(HATA) bench attn -t $(THREADS) -d 32768,131072 --rows 1,4
	HATA_SIMD=avx2 $(HATA) bench attn -t $(THREADS) -d 32768,131072
	$(HATA) bench attn -t $(THREADS) -d 32768 --sequences 4
ifneq ($(wildcard $(BENCH_MODEL)),)
	$(HATA) bench model -m $(BENCH_MODEL) -t $(THREADS) -d 512,32768,131072 --dense-layers 0,2
else
	@echo 'Whole models are timed too after: make bench-model'
endif

# No llama.cpp is needed: these presets leave the host and the command out. One that `scripts/setup
# --cuda` has made is a rival of bench-cuda.
cuda cuda-all:
	@scripts/setup --packages
	cmake --preset $@ $(addprefix -C ,$(wildcard build/llama.cmake))
	cmake --build --preset $@ -j $(THREADS)

CELLS ?= $(shell grep -v '^\#' bench/cuda/cells.txt)
# A process for each cell: in memory that a cell of 70 GB gave back, a dense step took 14 % longer.
bench-cuda: cuda
	@mkdir -p build/bench-cuda
	bench/cuda/run-rivals build/bench-cuda 300 $(CELLS)
	for cell in $(CELLS); do \
	  build/cuda/bench/cuda/hata-bench-cuda $$cell \
	    --methods dense,hata,hata-early,auto,attend,quest16,quest32,loki; \
	done > build/bench-cuda/hata.csv
	bench/cuda/tables.py --svg build/bench-cuda/roofline.svg build/bench-cuda/*.csv

bench-model: $(BENCH_MODEL)

$(BENCH_MODEL): | build
	@mkdir -p $(@D)
	$(HATA) make-model -o $@

format: lint-tools
	clang-format -i $(SOURCES)

# Other versions of clang-format write some lines otherwise.
format-check: lint-tools
	@if clang-format --version | grep -q 'version 14\.'; then \
	  clang-format --dry-run -Werror $(SOURCES) && \
	  echo 'format: all sources are as clang-format 14 writes them'; \
	else echo 'format: not checked, this is not clang-format 14'; fi

# lm-evaluation-harness against llama-server with HATA; its own Python packages, in build/lm-eval.
test-lm-eval: build
	scripts/test-lm-eval $(HATA)

lint: format-check build
	scripts/lint $(BUILD)

.PHONY: lint-tools
lint-tools:
	@scripts/setup --lint

clean:
	rm -rf build
