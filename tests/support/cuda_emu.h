// cuda_emu.h - enough of CUDA to run worker/engine/cuda on the CPU, for tests: -x c++ -include this. The kernels' own source runs,
// a block after the other, its threads as fibers that take turns at __syncthreads. A kernel whose first thread never waits runs its
// threads as plain calls. Streams do everything at once, or record it when they are capturing.
#ifndef DIDACT_CUDA_EMU_H
#define DIDACT_CUDA_EMU_H

#include <atomic>
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(n)
#define __grid_constant__
#define UNROLL

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

// One set for all files: blocks run one at a time.
struct emu_state {
    dim3 threadIdx, blockIdx, blockDim, gridDim;
    bool in_fiber;
};
extern emu_state emu;
void emu_wait(void); // this thread; the block's next one goes on
#define threadIdx emu.threadIdx
#define blockIdx  emu.blockIdx
#define blockDim  emu.blockDim
#define gridDim   emu.gridDim

static inline void __syncthreads(void)
{
    assert(emu.in_fiber); // the block's first thread did not wait: this one must not
    emu_wait();
}

static inline void __threadfence(void) {}
static inline unsigned atomicAdd(unsigned *at, unsigned n) { return (*at += n) - n; } // blocks run one at a time

struct emu_call {
    dim3 grid, block;
    emu_call *next;
    virtual ~emu_call() {}
    virtual void thread() = 0;
    void run();
};
template <class F> struct emu_launch : emu_call {
    F f;
    explicit emu_launch(F g) : f(g) {}
    void thread() override { f(); }
};
void emu_queue(emu_call *c, dim3 grid, dim3 block, void *queue); // takes it

template <class Kernel, class... Args> static inline void emu_start(dim3 grid, dim3 block, void *queue, Kernel kernel, Args... args)
{
    auto f = [=]() mutable { kernel(args...); };
    emu_queue(new emu_launch<decltype(f)>(f), grid, block, queue);
}
#define LAUNCH(kernel, grid, block, queue, ...) emu_start(grid, block, queue, kernel, __VA_ARGS__) // arguments are looked at now

// ---- tensor cores: what a warp does together its first thread does alone ----

struct __nv_bfloat16 { uint16_t bits; };
static inline uint32_t emu_bits(float v) { uint32_t b; memcpy(&b, &v, sizeof b); return b; }
static inline float emu_float(uint32_t b) { float v; memcpy(&v, &b, sizeof v); return v; }
static inline bool emu_finite(uint32_t b) { return (b & 0x7f800000) != 0x7f800000; }
static inline __nv_bfloat16 __float2bfloat16(float v) // to nearest, ties to even; what is not a number stays one
{
    const uint32_t b = emu_bits(v);
    return { (uint16_t)((emu_finite(b) ? b + 0x7fff + (b >> 16 & 1) : b | (b & 0x7fffff ? 0x400000 : 0)) >> 16) };
}

namespace nvcuda { namespace wmma {
namespace precision { struct tf32; }
struct matrix_a; struct matrix_b; struct accumulator; struct row_major; struct col_major;
enum layout_t { mem_row_major };
static inline float __float_to_tf32(float v) // to nearest, ties away from zero
{
    const uint32_t b = emu_bits(v);
    return emu_finite(b) ? emu_float((b + 0x1000) & ~(uint32_t)0x1fff) : v;
}
template <class Use, int M, int N, int K, class F, class Layout = void> struct fragment { float v[16 * 16]; }; // [row][column]
static inline bool first_of_warp() { return threadIdx.x % 32 == 0; }
static inline float number(float v) { return v; }
static inline float number(__nv_bfloat16 v) { return emu_float((uint32_t)v.bits << 16); }
template <class Frag> static inline void fill_fragment(Frag &f, float v)
{
    for (float &x : f.v)
        x = v;
}
template <int K, class F, class E> static inline void load_matrix_sync(fragment<matrix_a, 16, 16, K, F, col_major> &f, const E *from, unsigned step)
{
    for (int k = 0; first_of_warp() && k < K; k++)
        for (int m = 0; m < 16; m++)
            f.v[m * 16 + k] = number(from[(unsigned)k * step + (unsigned)m]);
}
template <int K, class F, class E> static inline void load_matrix_sync(fragment<matrix_b, 16, 16, K, F, row_major> &f, const E *from, unsigned step)
{
    for (int k = 0; first_of_warp() && k < K; k++)
        for (int n = 0; n < 16; n++)
            f.v[k * 16 + n] = number(from[(unsigned)k * step + (unsigned)n]);
}
template <int K, class F> static inline void mma_sync(fragment<accumulator, 16, 16, K, float> &d, const fragment<matrix_a, 16, 16, K, F, col_major> &a,
                                                      const fragment<matrix_b, 16, 16, K, F, row_major> &b, const fragment<accumulator, 16, 16, K, float> &c)
{
    for (int i = 0; first_of_warp() && i < 16 * 16; i++) {
        float sum = c.v[i];
        for (int k = 0; k < K; k++)
            sum += a.v[i / 16 * 16 + k] * b.v[k * 16 + i % 16];
        d.v[i] = sum;
    }
}
template <int K> static inline void store_matrix_sync(float *to, const fragment<accumulator, 16, 16, K, float> &f, unsigned step, layout_t)
{
    for (int i = 0; first_of_warp() && i < 16 * 16; i++)
        to[(unsigned)(i / 16) * step + (unsigned)(i % 16)] = f.v[i];
}
} }

// ---- the runtime ----

#define EMU_MEMORY ((size_t)1 << 30)
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorInvalidDeviceFunction = 98, cudaErrorNoKernelImageForDevice = 209, cudaErrorUnknown = 999 };
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaStreamNonBlocking, cudaStreamCaptureModeThreadLocal };
struct emu_stream { bool capturing; emu_call *first, **last; };
typedef emu_stream *cudaStream_t;
typedef emu_call *cudaGraph_t, *cudaGraphExec_t;
typedef int cudaEvent_t;
enum { cudaEventDisableTiming = 2 };
struct cudaDeviceProp { char name[256]; int major, minor, pageableMemoryAccess; size_t totalGlobalMem; };
struct cudaFuncAttributes { int binaryVersion; };
typedef struct emu_pool *cudaMemPool_t;
enum { cudaDevAttrMemoryPoolsSupported, cudaMemPoolAttrReleaseThreshold, cudaMemPoolAttrReservedMemCurrent, cudaMemPoolAttrUsedMemCurrent };

cudaError_t cudaMalloc(void **p, size_t bytes); // filled with NaN: what nobody wrote shows
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g);
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
/* EMU_BREAKS=n: the n-th wait meets an error that stays, as an illegal address does: no call that asks the context works from then on. */
inline cudaError_t emu_health(bool waits)
{
    static const char *breaks = getenv("EMU_BREAKS");
    static std::atomic<int> waited;
    if (waits)
        waited++;
    return breaks && waited >= atoi(breaks) ? cudaErrorUnknown : cudaSuccess;
}
static inline cudaError_t cudaFree(void *p) { free(p); return cudaSuccess; } // of nothing it asks nobody
static inline cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t) { return cudaMalloc(p, bytes); }
static inline cudaError_t cudaFreeAsync(void *p, cudaStream_t) { return cudaFree(p); }
static inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int) { *p = (cudaMemPool_t)p; return cudaSuccess; }
static inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void *) { return cudaSuccess; }
static inline cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, int, uint64_t *v) { *v = 0; return cudaSuccess; }
static inline cudaError_t cudaDeviceGetAttribute(int *v, int, int) { *v = getenv("EMU_NO_POOL") == NULL; return cudaSuccess; }
static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, void (*)(void)) { return getenv("EMU_NO_CODE") ? cudaErrorNoKernelImageForDevice : cudaSuccess; }
static inline cudaError_t cudaMemGetInfo(size_t *f, size_t *t) { *f = *t = EMU_MEMORY; return emu_health(false); }
static inline cudaError_t cudaGetLastError(void) { return cudaSuccess; }
static inline const char *cudaGetErrorString(cudaError_t) { return "error"; }
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, int)
{
    if (emu_health(false) != cudaSuccess)
        return cudaErrorUnknown;
    *s = new emu_stream();
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t s) { delete s; return cudaSuccess; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return emu_health(true); }
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, int) { *e = 0; return cudaSuccess; } // streams do everything at once
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, int) { return cudaSuccess; }
static inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, int) { s->capturing = true; s->first = NULL; s->last = &s->first; return cudaSuccess; }
static inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *x, cudaGraph_t g, int) { *x = g; return cudaSuccess; }
static inline cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return cudaSuccess; }
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) { strcpy(p->name, "emulated"); p->major = 8; p->minor = 0; p->totalGlobalMem = EMU_MEMORY; return cudaSuccess; }

#endif
