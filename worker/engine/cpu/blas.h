/* blas.h - the same three products by OpenBLAS, for plans whose order of summation need not be canonical (ENG_BLAS:
 * real training). Only where all images make one large matrix: small products starve in a GEMM call, and convolutions
 * would first have to be unfolded. OpenBLAS runs in the calling thread alone (isa.c): learners are the parallelism here. */
#ifndef DIDACT_ENGINE_BLAS_H
#define DIDACT_ENGINE_BLAS_H

#include "worker/engine/cpu/simd.h"

#include <cblas.h>
#include <stdbool.h>

#define BLAS_LEAST 1e6 /* multiply-adds from which a call pays */

static inline bool blas_pays(int M, int N, int K) { return (double)M * N * K >= BLAS_LEAST; }

/* C [M,N] (+)= op(A) op(B), row-major */
static inline void blas_gemm(bool ta, bool tb, int M, int N, int K, const real *a, int lda, const real *b, int ldb, real *c, int ldc, bool acc)
{
    const enum CBLAS_TRANSPOSE tra = ta ? CblasTrans : CblasNoTrans, trb = tb ? CblasTrans : CblasNoTrans;
#ifdef KV_F64
    cblas_dgemm(CblasRowMajor, tra, trb, M, N, K, 1, a, lda, b, ldb, acc, c, ldc);
#else
    cblas_sgemm(CblasRowMajor, tra, trb, M, N, K, 1, a, lda, b, ldb, acc, c, ldc);
#endif
}

#endif
