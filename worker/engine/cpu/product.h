/* product.h - the two products that convolutions, linear layers and their tangents are made of, for one kernel variant.
 *
 * A "pixel" is an output place; its inputs are read as runs: stretches of contiguous numbers at fixed offsets from the
 * pixel's own address in a zero-bordered copy of the image. Stride, padding, dilation, groups and the gradient with
 * respect to the input are all the same product with other offsets. Two segments make one sum over a concatenated inner
 * dimension: conv(xdot, w) + conv(x, wdot).
 *
 * Every output is one chain of fused multiply-adds over (segment, run, position) in order. */
#ifndef DIDACT_ENGINE_PRODUCT_H
#define DIDACT_ENGINE_PRODUCT_H

#include "worker/engine/cpu/simd.h"

#include <stdbool.h>

/* C[pixel][n] (+)= sum over segments, runs, j of A_seg[pixel + run_off[run] + j] * B[seg, run, j][n] */
struct prod {
    int              n_seg;
    const real      *a[2];
    int              rows, cols;        /* the grid of pixels */
    ptrdiff_t        a_row, a_col;      /* strides of the grid in A, in elements */
    int              n_runs, run_len;
    const ptrdiff_t *run_off;
    const real      *b;                 /* packed: [ceil(N / VL)][n_seg * n_runs * run_len][VL] */
    int              N;
    real            *c;
    ptrdiff_t        c_row, c_col;
    bool             acc;
};
void KN(prod_run)(const struct prod *p);
static inline size_t prod_b_elems(size_t K, size_t N) { return (N + VL - 1) / VL * VL * K; }
/* Room for it in every variant: a plan's size is the same on all machines, so that the coordinator can know it. */
static inline size_t prod_b_room(size_t K, size_t N) { return (N + 15) / 16 * 16 * K; }

/* D[r][n] (+)= sum over segments, pixels of A_seg[pixel + off(r)] * G_seg[pixel][n], r = (run, j), for r0 <= r < r1 */
struct wprod {
    int              n_seg;
    const real      *a[2], *g[2];
    int              rows, cols;
    ptrdiff_t        a_row, a_col, g_row, g_col;
    int              n_runs, run_len;
    const ptrdiff_t *run_off;
    int              r0, r1;
    int              N;
    real            *d;                 /* row r at d + r * ldd */
    ptrdiff_t        ldd;
    bool             acc;
};
void KN(wprod_run)(const struct wprod *p);

#endif
