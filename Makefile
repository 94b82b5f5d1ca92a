# Didact. `make` builds build/didactd, build/didact-worker, build/didact; `make help` lists the rest.
VARIANT ?= release
B       := build/$(VARIANT)
CC      ?= cc
PREFIX  ?= /usr/local
VERSION := $(shell cat VERSION)

PKGS    := libzmq libprotobuf-c sqlite3 libuv libmicrohttpd jansson yaml-0.1 libsodium libpng libjpeg zlib openblas
PKGCFG  := pkg-config

WARN    := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wformat=2 -Wvla -Wno-unknown-warning-option
ifeq ($(WERROR),1)
WARN    += -Werror
endif
OPT     := -O3 -g
ifeq ($(VARIANT),asan)
OPT     := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
ifeq ($(VARIANT),tsan)
OPT     := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
endif
ifeq ($(VARIANT),fuzz)
OPT     := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
CFLAGS  += -std=gnu11 $(OPT) $(WARN) -ffp-contract=off -fno-math-errno -fno-trapping-math -pthread -I. -I$(B)/gen \
           -DDIDACT_VERSION='"$(VERSION)"' -D_GNU_SOURCE $(shell $(PKGCFG) --cflags $(PKGS))
LDLIBS  := $(shell $(PKGCFG) --libs $(PKGS)) -lm -pthread
LDFLAGS += $(if $(filter asan fuzz,$(VARIANT)),-fsanitize=address$(comma)undefined) $(if $(filter tsan,$(VARIANT)),-fsanitize=thread)
comma   := ,

# ---- what there is ----
PROTO   := $(wildcard proto/*.proto)
GEN     := $(PROTO:proto/%.proto=$(B)/gen/%.pb-c.c) $(B)/gen/onnx.pb-c.c
COMMON  := $(wildcard common/*.c common/*/*.c)
COORD   := $(wildcard coordinator/*.c coordinator/*/*.c)
WORKER  := $(wildcard worker/*.c)
ENGINE  := $(wildcard worker/engine/*.c)
KERNELS := $(wildcard worker/engine/op/*.c worker/engine/cpu/*.c)
CLIENT  := $(wildcard client/*.c)
UNIT    := $(wildcard tests/unit/test_*.c tests/prop/test_*.c tests/fault/test_*.c)
FUZZ    := $(wildcard tests/fuzz/fuzz_*.c)
SUPPORT := $(wildcard tests/support/*.c)

# The kernels are compiled once a variant: same source, other instruction set and real type (cpu/simd.h).
ARCH    := $(shell $(CC) -dumpmachine)
ifneq ($(filter x86_64%,$(ARCH)),)
KVARS   := f64 f32_portable f32_avx2 f32_avx512
else ifneq ($(filter aarch64%,$(ARCH)),)
KVARS   := f64 f32_portable f32_neon
else
KVARS   := f64 f32_portable
endif
ifeq ($(VARIANT),fuzz) # every access of the plain loops is looked at, and clang takes minutes for the instrumented vectors
KVARS   := f64 f32_portable
endif
KFLAGS_f64          := -DKV=f64 -DKV_F64
KFLAGS_f32_portable := -DKV=f32_portable
KFLAGS_f32_avx2     := -DKV=f32_avx2 -DKV_AVX2 -mavx2 -mfma -mf16c
KFLAGS_f32_avx512   := -DKV=f32_avx512 -DKV_AVX512 -mavx2 -mfma -mf16c -mavx512f -mavx512vl -mavx512bw -mavx512dq -mprefer-vector-width=512
KFLAGS_f32_neon     := -DKV=f32_neon -DKV_NEON
ENG_DEFS            := $(foreach v,$(KVARS),-DHAVE_KV_$(v))

# `make V=1` shows whole commands.
Q        := $(if $(V),,@)
say       = $(if $(V),,@printf '  %-8s %s\n' $(1) $@)
obj      = $(patsubst %.c,$(B)/obj/%.o,$(1))
O_COMMON := $(call obj,$(COMMON)) $(GEN:$(B)/gen/%.c=$(B)/obj/gen/%.o)
O_COORD  := $(call obj,$(filter-out coordinator/main.c,$(COORD)))
O_WORKER := $(call obj,$(filter-out worker/main.c,$(WORKER)))
O_ENGINE := $(call obj,$(ENGINE)) $(foreach v,$(KVARS),$(patsubst %.c,$(B)/obj/$(v)/%.o,$(KERNELS)))
O_CLIENT := $(call obj,$(filter-out client/main.c,$(CLIENT)))
O_ALL    := $(O_COMMON) $(O_COORD) $(O_WORKER) $(O_ENGINE) $(O_CLIENT)
L_COMMON := $(B)/libcommon.a
L_COORD  := $(B)/libcoordinator.a
L_WORKER := $(B)/libworker.a
L_ENGINE := $(B)/libengine.a
L_CLIENT := $(B)/libclient.a
PROGS    := didactd didact-worker didact
TESTS    := $(patsubst %.c,$(B)/%,$(UNIT) $(FUZZ))

.PHONY: all bench bench-engine help clean install deps demo test check asan tsan fuzz fuzzers unit e2e
.SECONDARY:
.DELETE_ON_ERROR:
all: $(PROGS:%=$(B)/%) $(if $(filter 1,$(CUDA)),$(B)/didact-cuda.so)
ifeq ($(VARIANT),release)
	@for p in $(PROGS); do ln -sf release/$$p build/$$p; done
endif

$(B)/gen/%.pb-c.c: proto/%.proto
	@mkdir -p $(@D)
	$(call say,PROTOC)
	$(Q)protoc-c --proto_path=proto --c_out=$(B)/gen $<
$(B)/gen/%.pb-c.h: $(B)/gen/%.pb-c.c ; # made beside it: what includes it is rebuilt in the same run
$(B)/gen/onnx.pb-c.c: /usr/include/onnx/onnx.proto
	@mkdir -p $(@D)
	$(call say,PROTOC)
	$(Q)protoc-c --proto_path=/usr/include/onnx --c_out=$(B)/gen $<
$(B)/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(filter-out -W%,$(CFLAGS)) -w -MMD -MP -c -o $@ $<
define kernel_rule
$(B)/obj/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(call say,CC)
	$$(Q)$$(CC) $$(CFLAGS) $$(KFLAGS_$(1)) -MMD -MP -c -o $$@ $$<
endef
$(foreach v,$(KVARS),$(eval $(call kernel_rule,$(v))))
$(B)/obj/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CFLAGS) $(ENG_DEFS) -MMD -MP -c -o $@ $<

$(L_COMMON): $(O_COMMON)
$(L_COORD):  $(O_COORD)
$(L_WORKER): $(O_WORKER)
$(L_ENGINE): $(O_ENGINE)
$(L_CLIENT): $(O_CLIENT)
$(B)/%.a:
	@rm -f $@
	$(call say,AR)
	$(Q)ar rcs $@ $^

$(B)/didactd: $(B)/obj/coordinator/main.o $(L_COORD) $(L_ENGINE) $(L_COMMON)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/didact-worker: $(B)/obj/worker/main.o $(L_WORKER) $(L_ENGINE) $(L_COMMON)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/didact: $(B)/obj/client/main.o $(L_CLIENT) $(L_COMMON)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
# The GPU backend: `make CUDA=1` where nvcc is. The tests run the same source on the CPU (tests/support/cuda_emu.h).
NVCC    ?= nvcc
CUDA_CC ?= 75 80 90
CUDA_PTX = $(foreach c,$(lastword $(CUDA_CC)),-gencode arch=compute_$(c),code=compute_$(c)) # for GPUs newer than these
GPU     := $(wildcard worker/engine/cuda/*.cu)
GPU_INC := $(wildcard worker/engine/cuda/*.cuh) worker/engine/device.h worker/engine/op.h worker/engine/engine.h common/net.h common/inner.h common/err.h
$(B)/didact-cuda.so: $(GPU) $(GPU_INC)
	$(call say,NVCC)
	$(Q)$(NVCC) -std=c++17 -O3 --extended-lambda -I. $(foreach c,$(CUDA_CC),-gencode arch=compute_$(c),code=sm_$(c)) $(CUDA_PTX) -shared -Xcompiler -fPIC -o $@ $(GPU)
EMU_O   := $(patsubst %.cu,$(B)/obj/emu/%.o,$(GPU)) $(B)/obj/emu/tests/support/cuda_emu.o
EMU_CXX  = $(CXX) -std=c++17 -O2 -g -fPIC -fno-exceptions -fno-rtti -ffp-contract=off -I. -include tests/support/cuda_emu.h -MMD -MP -c -o $@ -x c++ $<
$(B)/obj/emu/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(EMU_CXX)
$(B)/obj/emu/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,CXX)
	$(Q)$(EMU_CXX)
$(B)/tests/didact-cuda.so: $(EMU_O)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CXX) -shared -o $@ $^
$(B)/tests/prop/test_slab $(B)/tests/prop/test_lanes $(B)/tests/unit/test_teacher_device: $(B)/tests/didact-cuda.so

$(B)/tests/%: $(B)/obj/tests/%.o $(call obj,$(SUPPORT)) $(L_CLIENT) $(L_COORD) $(L_WORKER) $(L_ENGINE) $(L_COMMON)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter-out %.so,$^) -lcmocka $(LDLIBS)

# A fuzz target is one function; what calls it is libFuzzer, or (without clang) the replay of its corpus.
FUZZ_CALLER := $(if $(filter fuzz,$(VARIANT)),-fsanitize=fuzzer,$(call obj,tests/fuzz/replay.c))
$(B)/tests/fuzz/%: $(B)/obj/tests/fuzz/%.o $(call obj,tests/fuzz/support.c tests/fuzz/replay.c) $(L_COORD) $(L_WORKER) $(L_ENGINE) $(L_COMMON)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(FUZZ_CALLER) $(filter-out %/replay.o,$^) $(LDLIBS)

unit: $(TESTS) ## build the unit, property, fault and fuzz tests
deps: ## install what is missing (Debian 12)
	deploy/install-deps.sh
demo: ## install what is missing, build, and search on real images (ten minutes)
	deploy/install-deps.sh
	+$(MAKE) --no-print-directory -j$$(nproc) all
	build/didact demo
check: all unit ## unit, property and fault tests
	tests/run --variant $(VARIANT) unit prop fault fuzz
test: ## everything that CI runs
	deploy/install-deps.sh --test
	+$(MAKE) --no-print-directory -j$$(nproc) all unit build/bench/slab
	tests/run all
asan: ## unit and end-to-end tests under AddressSanitizer and UBSan
	deploy/install-deps.sh --test
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=asan all unit
	tests/run --variant asan unit prop fault fuzz e2e
fuzz: ## run every fuzz target for FUZZ_SECONDS (30) with libFuzzer and the sanitizers; needs clang
	+$(MAKE) --no-print-directory -j$$(nproc) CC=clang VARIANT=fuzz fuzzers
	tests/fuzz/run
fuzzers: $(FUZZ:%.c=$(B)/%)
tsan: ## unit and end-to-end tests under ThreadSanitizer
	deploy/install-deps.sh --test
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=tsan all unit
	tests/run --variant tsan unit prop fault e2e
install: SHARE = $(DESTDIR)$(PREFIX)/share
install: all ## with manual page and shell completion, into PREFIX (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/didact
	install -m 755 $(PROGS:%=$(B)/%) $(DESTDIR)$(PREFIX)/bin
	$(if $(filter 1,$(CUDA)),install -Dm 755 $(B)/didact-cuda.so $(DESTDIR)$(PREFIX)/lib/didact/didact-cuda.so)
	cp -r share/. $(DESTDIR)$(PREFIX)/share/didact/
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(B)/didact help --man > $(SHARE)/man/man1/didact.1
	$(B)/didact completion bash > $(SHARE)/bash-completion/completions/didact
	$(B)/didact completion zsh > $(SHARE)/zsh/site-functions/_didact
	$(B)/didact completion fish > $(SHARE)/fish/vendor_completions.d/didact.fish
clean: ## remove build/
	rm -rf build
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort


# ---- benchmarks ----
BENCH   := $(filter-out bench/ops.c bench/workload.c,$(wildcard bench/*.c))
bench: $(BENCH:bench/%.c=build/bench/%) ## build the benchmarks
bench-engine: build/bench/engine build/bench/candidates build/bench/sgemm ## time the engine and its peers (bench/setup-peers.sh first)
	bench/run.py $(BENCH_ARGS)
build/bench/%: $(B)/obj/bench/%.o $(B)/obj/bench/ops.o $(B)/obj/bench/workload.o $(L_WORKER) $(L_ENGINE) $(L_COMMON)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

-include $(O_ALL:.o=.d) $(EMU_O:.o=.d) $(patsubst %.c,$(B)/obj/%.d,$(wildcard tests/e2e/*.c) $(UNIT) $(SUPPORT) $(FUZZ) tests/fuzz/support.c tests/fuzz/replay.c $(wildcard bench/*.c) coordinator/main.c worker/main.c client/main.c)
