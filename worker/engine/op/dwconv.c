/* dwconv.c - depthwise convolution: one k x k filter a channel, y[.., c] = x[.., c] * w[.., c].
 * The same four products as conv.c; vectors lie along the channels, a row of output pixels is held in registers while the
 * taps pass by. Weights [k,k,1,C] are read as they lie: nothing is packed. */
#include "worker/engine/cpu/bilinear.h"
#include "worker/engine/cpu/geom.h"

#if defined(KV_AVX512)
#define PIX 8
#elif defined(KV_AVX2) || defined(KV_NEON)
#define PIX 6
#else
#define PIX 4
#endif

struct dw {
    struct geom   g;
    bool          transposed, acc;
    int           n_seg, C, src_h, src_w, dst_h, dst_w, threads;
    const real   *src[2], *w[2];
    real         *dst;
    struct border b;
    struct taps   taps;
    struct phase  ph;
    real         *pad;
    size_t        pad_elems;
};

static size_t layout(struct dw *v, char *base)
{
    struct carve c = { base, 0 };
    taps_carve(&c, v->g.k, &v->taps);
    v->b = v->transposed ? border_backward(&v->g) : border_forward(&v->g);
    v->pad_elems = v->b.none ? 0 : (size_t)v->b.H * (size_t)v->b.W * (size_t)v->C;
    v->pad = carve(&c, 2 * KERNEL_THREADS * v->pad_elems * sizeof(real));
    return c.used;
}

static struct dw dw_of(const struct op_call *c, bool transposed)
{
    struct dw v = { .g = geom_of(c), .transposed = transposed };
    v.C = v.g.Ci;
    v.g.G = 1; /* taps are counted in whole pixels */
    v.src_h = transposed ? v.g.Ho : v.g.H;
    v.src_w = transposed ? v.g.Wo : v.g.W;
    v.dst_h = transposed ? v.g.H : v.g.Ho;
    v.dst_w = transposed ? v.g.W : v.g.Wo;
    v.threads = eng_pool_threads(c->pool) < KERNEL_THREADS ? eng_pool_threads(c->pool) : KERNEL_THREADS;
    return v;
}

static const real *source(const struct dw *v, const real *base, int img, int h, int w, real *buf)
{
    const real *src = base + (size_t)img * (size_t)(h * w) * (size_t)v->C;
    if (v->b.none)
        return src;
    const size_t line = (size_t)w * (size_t)v->C;
    for (int r = 0; r < h; r++)
        memcpy(buf + ((size_t)(r + v->b.top) * (size_t)v->b.W + (size_t)v->b.left) * (size_t)v->C, src + (size_t)r * line, line * sizeof(real));
    return buf;
}

static inline __attribute__((always_inline)) void row_tile(const struct dw *v, const real *const *src, real *dst, ptrdiff_t a0,
                                                           ptrdiff_t a_step, ptrdiff_t d_step, int c, int nl, const int np)
{
    vr acc[PIX];
    _Pragma("GCC unroll 8") for (int i = 0; i < np; i++) acc[i] = vzero();
    for (int s = 0; s < v->n_seg; s++)
        for (int t = 0; t < v->taps.n; t++) {
            vr w = vload(v->w[s] + (ptrdiff_t)v->taps.at[t] * v->C + c, nl);
            const real *a = src[s] + a0 + v->taps.off[t] * v->C + c;
            _Pragma("GCC unroll 8") for (int i = 0; i < np; i++) acc[i] = vfma(vload(a + i * a_step, nl), w, acc[i]);
        }
    _Pragma("GCC unroll 8") for (int i = 0; i < np; i++) {
        real *d = dst + i * d_step + c;
        vstore(d, v->acc ? vadd(vload(d, nl), acc[i]) : acc[i], nl);
    }
}

static void map_task(void *arg, int img, int thread)
{
    const struct dw *v = arg;
    const real *src[2];
    for (int s = 0; s < v->n_seg; s++)
        src[s] = source(v, v->src[s], img, v->src_h, v->src_w, v->pad + (size_t)(2 * thread + s) * v->pad_elems);
    const ptrdiff_t step = v->transposed ? 1 : v->g.s, a_step = step * v->C, d_step = (ptrdiff_t)v->ph.step * v->C;
    real *dst = v->dst + ((size_t)img * (size_t)(v->dst_h * v->dst_w) + (size_t)v->ph.r0 * (size_t)v->dst_w + (size_t)v->ph.c0) * (size_t)v->C;
    for (int c = 0; c < v->C; c += VL) {
        const int nl = lanes(v->C - c);
        for (int i = 0; i < v->ph.rows; i++) {
            real *d = dst + (ptrdiff_t)i * v->ph.step * v->dst_w * v->C;
            ptrdiff_t a0 = i * step * v->b.W * v->C;
            int j = 0;
            if (nl == VL)
                for (; j + PIX <= v->ph.cols; j += PIX)
                    row_tile(v, src, d + j * d_step, a0 + j * a_step, a_step, d_step, c, VL, PIX);
            for (; j < v->ph.cols; j++)
                row_tile(v, src, d + j * d_step, a0 + j * a_step, a_step, d_step, c, nl, 1);
        }
    }
}

static void dwconv_map(const struct op_call *c, bool transposed, int n_seg, const void *const *src, const void *const *w, void *dst, bool acc)
{
    struct dw v = dw_of(c, transposed);
    v.n_seg = n_seg;
    v.dst = dst;
    v.acc = acc;
    for (int s = 0; s < n_seg; s++) {
        v.src[s] = src[s];
        v.w[s] = w[s];
    }
    layout(&v, c->scratch);
    if (!v.b.none)
        memset(v.pad, 0, 2 * (size_t)v.threads * v.pad_elems * sizeof(real));
    for (int ph = 0; ph < (transposed ? v.g.s : 1); ph++)
        for (int pw = 0; pw < (transposed ? v.g.s : 1); pw++) {
            if (transposed)
                v.ph = taps_backward(&v.g, &v.b, ph, pw, &v.taps);
            else {
                taps_forward(&v.g, &v.b, &v.taps);
                v.ph = (struct phase){ 0, 0, 1, v.dst_h, v.dst_w };
            }
            eng_pool_for(c->pool, v.g.N, map_task, &v); /* no taps: writes zeros, or adds them */
        }
}

/* gw[tap][c] = sum over images and pixels; partial sums per image, added in order. Tasks divide the channels' vectors. */
struct dwcorr { struct dw v; const real *x[2], *gy[2]; real *gw; };
enum { TAPS = 9 };

static inline __attribute__((always_inline)) void corr_tile(const struct dwcorr *q, const real *const *x, const real *const *gy,
                                                            int t0, int nt, int c, int nl, bool add)
{
    const struct dw *v = &q->v;
    vr acc[TAPS];
    for (int i = 0; i < TAPS; i++) acc[i] = vzero();
    for (int s = 0; s < v->n_seg; s++) {
        const real *a[TAPS];
        for (int i = 0; i < TAPS; i++) a[i] = x[s] + v->taps.off[t0 + (i < nt ? i : nt - 1)] * v->C + c;
        const real *g = gy[s] + c;
        for (int oh = 0; oh < v->g.Ho; oh++) {
            ptrdiff_t o = (ptrdiff_t)oh * v->g.s * v->b.W * v->C, step = (ptrdiff_t)v->g.s * v->C;
            for (int ow = 0; ow < v->g.Wo; ow++, o += step, g += v->C) {
                vr gv = vload(g, nl);
                _Pragma("GCC unroll 9") for (int i = 0; i < TAPS; i++) acc[i] = vfma(gv, vload(a[i] + o, nl), acc[i]);
            }
        }
    }
    for (int i = 0; i < nt; i++) {
        real *d = q->gw + (ptrdiff_t)v->taps.at[t0 + i] * v->C + c;
        vstore(d, add ? vadd(vload(d, nl), acc[i]) : acc[i], nl);
    }
}

static void corr_task(void *arg, int task, int thread)
{
    const struct dwcorr *q = arg;
    const struct dw *v = &q->v;
    const int blocks = (v->C + VL - 1) / VL, b0 = blocks * task / v->threads, b1 = blocks * (task + 1) / v->threads;
    if (b0 == b1)
        return;
    for (int n = 0; n < v->g.N; n++) {
        const real *x[2], *gy[2];
        for (int s = 0; s < v->n_seg; s++) {
            x[s] = source(v, q->x[s], n, v->g.H, v->g.W, v->pad + (size_t)(2 * thread + s) * v->pad_elems);
            gy[s] = q->gy[s] + (size_t)n * (size_t)(v->g.Ho * v->g.Wo) * (size_t)v->C;
        }
        for (int b = b0; b < b1; b++)
            for (int t = 0; t < v->taps.n; t += TAPS) {
                int nt = v->taps.n - t < TAPS ? v->taps.n - t : TAPS, nl = lanes(v->C - b * VL);
                if (nl == VL)
                    corr_tile(q, x, gy, t, nt, b * VL, VL, n > 0);
                else
                    corr_tile(q, x, gy, t, nt, b * VL, nl, n > 0);
            }
    }
}

static void dwconv_corr(const struct op_call *c, int n_seg, const void *const *x, const void *const *gy, void *gw)
{
    struct dwcorr q = { .v = dw_of(c, false), .gw = gw };
    q.v.n_seg = n_seg;
    for (int s = 0; s < n_seg; s++) {
        q.x[s] = x[s];
        q.gy[s] = gy[s];
    }
    layout(&q.v, c->scratch);
    taps_forward(&q.v.g, &q.v.b, &q.v.taps);
    if (!q.v.b.none)
        memset(q.v.pad, 0, 2 * (size_t)q.v.threads * q.v.pad_elems * sizeof(real));
    eng_pool_for(c->pool, q.v.threads, corr_task, &q);
}

size_t KN(dwconv_scratch)(const struct op_call *c)
{
    struct dw f = dw_of(c, false), b = dw_of(c, true);
    size_t nf = layout(&f, NULL), nb = layout(&b, NULL);
    return nf > nb ? nf : nb;
}

BILINEAR_RULES(dwconv)
