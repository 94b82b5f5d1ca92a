/* geom.h - where a convolution reads and writes: zero-bordered copies of images, and for every output pixel the taps
 * (offset into the copy, which kernel place). The forward product is one phase; the product with respect to the input is
 * stride^2 phases, one for each residue of the pixel's place, so that no multiplication by an inserted zero is made:
 *     y[o] = sum_k x[o s + k d - p] w[k]          dx[i] = sum_{k: s | i + p - k d} dy[(i + p - k d) / s] w[k]
 */
#ifndef DIDACT_ENGINE_GEOM_H
#define DIDACT_ENGINE_GEOM_H

#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

#define KERNEL_THREADS 8 /* most threads inside one op: scratch is sized for them */

struct geom { int N, H, W, Ci, Ho, Wo, Co, k, s, p, d, G; };

struct border { int top, left, H, W; bool none; }; /* of the copy of an image of h x w inside H x W */

struct taps {
    int        n, per_run;  /* taps; taps that lie side by side and make one run */
    int       *at;          /* [n] kernel place kh * k + kw */
    ptrdiff_t *off;         /* [n] offset in pixels into the bordered copy */
    ptrdiff_t *run;         /* [n / per_run] in elements */
};

struct phase { int r0, c0, step, rows, cols; }; /* target pixels (r0 + step i, c0 + step j) */

/* Memory is carved from the plan's scratch in a fixed order; base NULL only counts. */
struct carve { char *base; size_t used; };
static inline void *carve(struct carve *c, size_t bytes)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += (bytes + 63) & ~(size_t)63;
    return p;
}

struct geom   geom_of(const struct op_call *c);
struct border border_forward(const struct geom *g);
struct border border_backward(const struct geom *g);
void          taps_carve(struct carve *c, int k, struct taps *t);
/* channels: of the image the taps read; merged runs need all channels of a pixel (G = 1) */
void          taps_forward(const struct geom *g, const struct border *b, struct taps *t);
struct phase  taps_backward(const struct geom *g, const struct border *b, int ph, int pw, struct taps *t);

#endif
