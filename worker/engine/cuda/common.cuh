// common.cuh - what every op's file here uses. The rules are the CPU's (../op, ../cpu: the equations stand there); a launch does
// one rule for all K learners, blockIdx.z is the learner. No atomics on floats: who adds what in which order is fixed by the shapes.
#ifndef DIDACT_CUDA_COMMON_CUH
#define DIDACT_CUDA_COMMON_CUH

#include "worker/engine/device.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define LAUNCH(kernel, grid, block, queue, ...) kernel<<<grid, block, 0, (cudaStream_t)(queue)>>>(__VA_ARGS__)
#define UNROLL _Pragma("unroll")
#endif // else tests/support/cuda_emu.h is included before: the same kernels, thread by thread on the CPU

enum { LINE = 256 }; // threads of an element-wise launch

// One buffer of all learners.
struct buf {
    char   *at;
    int64_t step;
    __host__ __device__ explicit operator bool() const { return at != NULL; }
    __device__ float *operator()(int k) const { return (float *)(at + step * k); }
};

static inline buf in_val(const dev_call *d, int i) { return { (char *)d->c.in[i].val, d->in_val[i] }; }
static inline buf in_dot(const dev_call *d, int i) { return { (char *)d->c.in[i].dot, d->in_val[i] }; }
static inline buf in_adj(const dev_call *d, int i) { return { (char *)d->c.in[i].adj, d->in_adj[i] }; }
static inline buf in_adj_dot(const dev_call *d, int i) { return { (char *)d->c.in[i].adj_dot, d->in_adj[i] }; }
static inline buf out_val(const dev_call *d) { return { (char *)d->c.out.val, d->out_val }; }
static inline buf out_dot(const dev_call *d) { return { (char *)d->c.out.dot, d->out_val }; }
static inline buf out_adj(const dev_call *d) { return { (char *)d->c.out.adj, d->out_adj }; }
static inline buf out_adj_dot(const dev_call *d) { return { (char *)d->c.out.adj_dot, d->out_adj }; }
static inline buf aux_of(const dev_call *d) { return { (char *)d->c.aux, d->aux }; }
static inline buf scratch_of(const dev_call *d) { return { (char *)d->c.scratch, d->scratch }; }
static inline buf of(dev_rows r) { return { (char *)r.at, r.step }; }

// What a rule does to a value and, the same, to its tangent: from[s] to to[s], both in one launch. Loops over s run to PAIR with a look at n: the
// compiler unrolls them, and an argument that is indexed by a variable would be copied to memory by every thread.
enum { PAIR = 2 };
struct pair { int n; buf from[PAIR], to[PAIR]; };
static inline void join(pair *m, buf from, buf to) // what is known to be zero, or not wanted, takes no part
{
    if (from && to) {
        m->from[m->n] = from;
        m->to[m->n++] = to;
    }
}
static inline pair there(const dev_call *d, int i, bool dual)
{
    pair m = {};
    join(&m, in_val(d, i), out_val(d));
    if (dual)
        join(&m, in_dot(d, i), out_dot(d));
    return m;
}
static inline pair and_back(const dev_call *d, int i, bool dual)
{
    pair m = {};
    join(&m, out_adj(d), in_adj(d, i));
    if (dual)
        join(&m, out_adj_dot(d), in_adj_dot(d, i));
    return m;
}

static inline uint64_t elems(const net_shape &s) { return (uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w; }
static inline uint64_t out_elems(const dev_call *d) { return (uint64_t)d->c.batch * elems(d->c.out.s); }
static inline uint64_t in_elems(const dev_call *d, int i) { return (uint64_t)d->c.batch * elems(d->c.in[i].s); }

// f(k, i) for every learner k and 0 <= i < n: `over` the numbers of an image or weight tensor, which are fewer than 2^31 (device_pass.c
// refuses others; a division of 64 bits would cost more than what it is the index of), `along` whole vectors.
template <class I, class F> __global__ void each(I n, F f)
{
    const I i = blockIdx.x * (I)blockDim.x + threadIdx.x;
    if (i < n)
        f((int)blockIdx.z, i);
}
template <class I, class F> static inline void launch_each(void *queue, int K, I n, F f)
{
    auto kernel = each<I, F>;
    if (n > 0)
        LAUNCH(kernel, dim3((unsigned)(((uint64_t)n + LINE - 1) / LINE), 1, (unsigned)K), dim3(LINE), queue, n, f);
}
template <class F> static inline void over(void *queue, int K, uint64_t n, F f) { launch_each(queue, K, (uint32_t)n, f); }
template <class F> static inline void along(void *queue, int K, uint64_t n, F f) { launch_each(queue, K, n, f); }

// Element i of a batch of images: image, row, column, channel; and back.
struct place { int n, h, w, c; };
__device__ static inline place place_of(uint32_t i, int H, int W, int C)
{
    place p;
    p.c = (int)(i % (uint32_t)C);
    i /= (uint32_t)C;
    p.w = (int)(i % (uint32_t)W);
    i /= (uint32_t)W;
    p.h = (int)(i % (uint32_t)H);
    p.n = (int)(i / (uint32_t)H);
    return p;
}
__device__ static inline uint64_t index_of(int n, int h, int w, int c, int H, int W, int C)
{
    return (((uint64_t)n * (uint64_t)H + (uint64_t)h) * (uint64_t)W + (uint64_t)w) * (uint64_t)C + (uint64_t)c;
}

__device__ static inline void put(float *d, float v, bool acc) { *d = acc ? *d + v : v; }

// Is v finite? All that find something write the same number, and a later code never replaces an earlier one: the order does not show.
template <class T> __device__ static inline void look(T v, int *failed, int code)
{
    if (!(v - v == 0) && *failed > code)
        *failed = code;
}

// The sum of one number of each of `threads` (a power of two) threads, in a fixed tree; every thread gets it. `room`: shared, [threads].
template <class T> __device__ static inline T block_sum(T v, T *room, int thread, int threads)
{
    room[thread] = v;
    __syncthreads();
    for (int half = threads / 2; half > 0; half /= 2) {
        if (thread < half)
            room[thread] += room[thread + half];
        __syncthreads();
    }
    const T sum = room[0];
    __syncthreads();
    return sum;
}

// Whether this block is the last of `blocks` to come here: then what all of them have written before is there for its threads. The ticket is 0 again.
// Every thread must come.
__device__ static inline bool last_of(unsigned *ticket, unsigned blocks)
{
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x + threadIdx.y == 0) {
        last = atomicAdd(ticket, 1u) + 1 == blocks;
        if (last)
            *ticket = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

enum rounding { FLOAT32, TF32, BF16, ROUNDINGS }; // of a product's factors
void rules_conv(device *d, rounding r); // conv, upconv
void rules_dwconv(device *d);
void rules_bn(device *d);
void rules_pointwise(device *d); // bias, lrelu, tanh, add
void rules_pool(device *d);      // maxpool, avgpool, gap
void rules_shape(device *d);     // flatten, unflatten, up2, reflectpad, concat
void rules_weights(device *d);   // wnorm, fold
void rules_loss(device *d);
void rules_optim(device *d);
void rules_vector(device *d);

// A weight gradient's partial sums lie [splits][elems]; they are added up in order.
void sum_splits(void *queue, int K, buf parts, int splits, uint64_t elems, buf to);

#endif
