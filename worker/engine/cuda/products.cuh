// products.cuh - a tile of a product: what its factors are rounded to, and who adds up. A policy of conv.cu's kernels:
//
//   in_float32   a thread has its own PM x PN of the tile; fmaf, the inner places in order
//   in_tf32      tensor cores: factors of 10 bits of mantissa and float32's range, sums in float32
//   in_bf16      tensor cores: 7 bits
//
// Only factors in shared memory are rounded: every buffer stays float32, and nothing else of the engine knows.
#ifndef DIDACT_CUDA_PRODUCTS_CUH
#define DIDACT_CUDA_PRODUCTS_CUH

#include "common.cuh"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <mma.h>
#endif // else they are tests/support/cuda_emu.h's
namespace nvcuda { namespace wmma { namespace precision { struct tf32; } } } // compilations for older GPUs do not know the name

enum { TK = 16, THREADS = 128, WARPS = THREADS / 32 }; // inner places of a tile; a thread has M / 16 rows and N / 8 columns of it

// Four numbers on a boundary of 16 bytes: one instruction.
struct alignas(16) quad { float v[4]; };

template <int N> __device__ static inline void fetch(float *to, const float *from)
{
    if (N % 4)
        for (int i = 0; i < N; i++)
            to[i] = from[i];
    else
        for (int i = 0; i < N / 4; i++) {
            const quad q = ((const quad *)from)[i];
            for (int j = 0; j < 4; j++)
                to[4 * i + j] = q.v[j];
        }
}

// The factors of M x N sums, 16 bytes apart more than they need: neighbours in k lie in other banks.
template <class E, int M, int N> struct alignas(32) tiles {
    enum { PAD = 16 / sizeof(E) };
    E A[TK][M + PAD], B[TK][N + PAD];
};

struct in_float32 {
    __device__ static float rounded(float v) { return v; }

    template <int M, int N> struct room { tiles<float, M, N> s; };
    template <int M, int N> struct sums {
        enum { PM = M / 16, PN = N / 8 };
        float acc[PM][PN];

        __device__ void clear()
        {
            for (int i = 0; i < PM; i++)
                for (int j = 0; j < PN; j++)
                    acc[i][j] = 0;
        }
        __device__ void add(const room<M, N> &r, int t) // += A^T B
        {
            const int tm = t / 8 * PM, tn = t % 8 * PN;
            for (int kk = 0; kk < TK; kk++) {
                float a[PM], b[PN];
                fetch<PM>(a, &r.s.A[kk][tm]);
                fetch<PN>(b, &r.s.B[kk][tn]);
                for (int i = 0; i < PM; i++)
                    for (int j = 0; j < PN; j++)
                        acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
            }
        }
        __device__ void deal(room<M, N> &, int) {} // acc is what this thread has to write
    };
};

// E: a factor as it lies in shared memory, F: as the tensor cores call it, DEPTH: inner places of one of their products.
template <class E, class F, int DEPTH> struct on_tensor_cores {
    template <int M, int N> union room {
        tiles<E, M, N>    s;
        alignas(32) float C[M][N + 4];
    };
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    // Squares of 16 x 16 go round the warps; one has those of the same rows.
    template <int M, int N> struct sums {
        enum { PM = M / 16, PN = N / 8, DOWN = M / 16, SQUARES = DOWN * (N / 16), EACH = (SQUARES + WARPS - 1) / WARPS };
        nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, DEPTH, float> c[EACH];
        float acc[PM][PN];

        __device__ void clear()
        {
            for (int i = 0; i < EACH; i++)
                nvcuda::wmma::fill_fragment(c[i], 0.0f);
        }
        __device__ void add(const room<M, N> &r, int t)
        {
            using namespace nvcuda::wmma;
            for (int k = 0; k < TK; k += DEPTH)
                for (int i = 0; i < EACH; i++) {
                    const int q = t / 32 + WARPS * i;
                    fragment<matrix_a, 16, 16, DEPTH, F, col_major> a;
                    fragment<matrix_b, 16, 16, DEPTH, F, row_major> b;
                    if (q >= SQUARES)
                        continue;
                    load_matrix_sync(a, &r.s.A[k][q % DOWN * 16], M + tiles<E, M, N>::PAD);
                    load_matrix_sync(b, &r.s.B[k][q / DOWN * 16], N + tiles<E, M, N>::PAD);
                    mma_sync(c[i], a, b, c[i]);
                }
        }
        __device__ void deal(room<M, N> &r, int t) // the factors have been read by all
        {
            const int tm = t / 8 * PM, tn = t % 8 * PN;
            for (int i = 0; i < EACH; i++) {
                const int q = t / 32 + WARPS * i;
                if (q < SQUARES)
                    nvcuda::wmma::store_matrix_sync(&r.C[q % DOWN * 16][q / DOWN * 16], c[i], N + 4, nvcuda::wmma::mem_row_major);
            }
            __syncthreads();
            for (int i = 0; i < PM; i++)
                for (int j = 0; j < PN; j++)
                    acc[i][j] = r.C[tm + i][tn + j];
        }
    };
#else // before Ampere there are neither: device.cu offers none there
    template <int M, int N> struct sums {
        enum { PM = M / 16, PN = N / 8 };
        float acc[PM][PN];
        __device__ void clear() { acc[0][0] = 0; }
        __device__ void add(const room<M, N> &, int) {}
        __device__ void deal(room<M, N> &, int) {}
    };
#endif
};
struct in_tf32 : on_tensor_cores<float, nvcuda::wmma::precision::tf32, 8> {
    __device__ static float rounded(float v)
    {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
        return nvcuda::wmma::__float_to_tf32(v);
#else
        return v;
#endif
    }
};
struct in_bf16 : on_tensor_cores<__nv_bfloat16, __nv_bfloat16, 16> {
    __device__ static __nv_bfloat16 rounded(float v) { return __float2bfloat16(v); }
};

#endif
