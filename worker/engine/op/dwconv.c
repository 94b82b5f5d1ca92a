/* dwconv.c - depthwise convolution: one k x k filter a channel, y[.., c] = x[.., c] * w[.., c].
 * The same four products as conv.c; vectors lie along the channels, a row of output pixels is held in registers while the
 * taps pass by. Weights [k,k,1,C] are read as they lie and images where they lie: nothing is packed or copied. A tap that
 * falls outside the image reads zeros: a whole line of them above and below, one pixel left and right. */
#include "worker/engine/cpu/bilinear.h"
#include "worker/engine/cpu/corr.h"

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
    int           n_seg, C, src_h, src_w, dst_h, dst_w;
    const real   *src[2], *w[2];
    real         *dst;
    struct border b;
    struct taps   taps;
    struct phase  ph;
    int           step;          /* source places from one target pixel of the phase to the next */
    int          *dh, *dw;       /* [taps] source place of a tap, from step times the target's */
    int           in0, in1;      /* target columns whose taps all fall inside the image */
    real         *zeros;         /* a line of the source */
    const real  **line;          /* [threads][2][taps] where a tap's line begins, for one line of the target */
    real         *parts;         /* of corr.h: [n_parts][weights] */
    int           n_parts;
};

static size_t weights(const struct dw *v) { return (size_t)v->g.k * (size_t)v->g.k * (size_t)v->C; }

static size_t layout(struct dw *v, char *base)
{
    struct carve c = { base, 0 };
    const size_t n = (size_t)v->g.k * (size_t)v->g.k;
    taps_carve(&c, v->g.k, &v->taps);
    v->b = v->transposed ? border_backward(&v->g) : border_forward(&v->g);
    v->dh = carve(&c, n * sizeof *v->dh);
    v->dw = carve(&c, n * sizeof *v->dw);
    v->zeros = carve(&c, (size_t)v->src_w * (size_t)v->C * sizeof(real));
    v->line = carve(&c, 2 * KERNEL_THREADS * n * sizeof *v->line);
    v->parts = carve(&c, (size_t)v->n_parts * weights(v) * sizeof(real));
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
    v.step = transposed ? 1 : v.g.s;
    v.n_parts = corr_parts(weights(&v), c->total);
    return v;
}

/* From offsets in a bordered image to places in the image itself. */
static void place_taps(struct dw *v)
{
    v->in0 = 0;
    v->in1 = v->ph.cols;
    for (int t = 0; t < v->taps.n; t++) {
        v->dh[t] = (int)(v->taps.off[t] / v->b.W) - v->b.top;
        v->dw[t] = (int)(v->taps.off[t] % v->b.W) - v->b.left;
        const int first = v->dw[t] < 0 ? (-v->dw[t] + v->step - 1) / v->step : 0;
        const int end = v->dw[t] < v->src_w ? (v->src_w - 1 - v->dw[t]) / v->step + 1 : 0;
        if (first > v->in0) v->in0 = first;
        if (end < v->in1) v->in1 = end;
    }
    memset(v->zeros, 0, (size_t)v->src_w * (size_t)v->C * sizeof(real));
}

static void find_lines(const struct dw *v, const real *src, int row, const real **line)
{
    for (int t = 0; t < v->taps.n; t++) {
        const int h = row * v->step + v->dh[t];
        line[t] = h >= 0 && h < v->src_h ? src + (size_t)h * (size_t)v->src_w * (size_t)v->C : v->zeros;
    }
}

static inline const real *tap_at(const struct dw *v, const real *line, int tap, int col)
{
    const int w = col * v->step + v->dw[tap];
    return w >= 0 && w < v->src_w ? line + (ptrdiff_t)w * v->C : v->zeros;
}

/* np pixels of a line from column j on: inside, unless it is one alone. */
static inline __attribute__((always_inline)) void row_tile(const struct dw *v, const real *const *line, real *dst, int j, int c, int nl, const int np)
{
    const ptrdiff_t a_step = (ptrdiff_t)v->step * v->C, d_step = (ptrdiff_t)v->ph.step * v->C;
    vr acc[PIX];
    _Pragma("GCC unroll 8") for (int i = 0; i < np; i++) acc[i] = vzero();
    for (int s = 0; s < v->n_seg; s++)
        for (int t = 0; t < v->taps.n; t++) {
            vr w = vload(v->w[s] + (ptrdiff_t)v->taps.at[t] * v->C + c, nl);
            const real *a = tap_at(v, line[s * v->taps.n + t], t, j) + c;
            _Pragma("GCC unroll 8") for (int i = 0; i < np; i++) acc[i] = vfma(vload(a + i * a_step, nl), w, acc[i]);
        }
    real *d = dst + j * d_step + c;
    _Pragma("GCC unroll 8") for (int i = 0; i < np; i++, d += d_step)
        vstore(d, v->acc ? vadd(vload(d, nl), acc[i]) : acc[i], nl);
}

/* A run of n pixels, n known to the compiler. */
#define TILE(n) case n: if (n <= PIX) row_tile(v, line, dst, j, c, VL, n <= PIX ? n : 1); break;

static void map_task(void *arg, int img, int thread)
{
    const struct dw *v = arg;
    const real **line = v->line + 2 * thread * v->taps.n;
    real *dst = v->dst + ((size_t)img * (size_t)(v->dst_h * v->dst_w) + (size_t)v->ph.r0 * (size_t)v->dst_w + (size_t)v->ph.c0) * (size_t)v->C;
    for (int i = 0; i < v->ph.rows; i++, dst += (ptrdiff_t)v->ph.step * v->dst_w * v->C) {
        for (int s = 0; s < v->n_seg; s++)
            find_lines(v, v->src[s] + (size_t)img * (size_t)(v->src_h * v->src_w) * (size_t)v->C, i, line + s * v->taps.n);
        for (int c = 0; c < v->C; c += VL) {
            const int nl = lanes(v->C - c);
            for (int j = 0, np; j < v->ph.cols; j += np) {
                np = nl < VL || j < v->in0 || j >= v->in1 ? 1 : v->in1 - j < PIX ? v->in1 - j : PIX;
                switch (nl == VL ? np : 0) {
                TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8)
                default: row_tile(v, line, dst, j, c, nl, 1);
                }
            }
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
    for (int ph = 0; ph < (transposed ? v.g.s : 1); ph++)
        for (int pw = 0; pw < (transposed ? v.g.s : 1); pw++) {
            if (transposed)
                v.ph = taps_backward(&v.g, &v.b, ph, pw, &v.taps);
            else {
                taps_forward(&v.g, &v.b, &v.taps);
                v.ph = (struct phase){ 0, 0, 1, v.dst_h, v.dst_w };
            }
            place_taps(&v);
            eng_pool_for(c->pool, v.g.N, map_task, &v); /* no taps: writes zeros, or adds them */
        }
}

/* gw[tap][c] = sum over images and pixels; weights are counted in vectors of channels. */
struct dwcorr { struct dw v; const real *x[2], *gy[2]; };
enum { TAPS = 9 };

static inline __attribute__((always_inline)) void corr_tile(const struct dw *v, const real *const *x, const real *const *gy, real *gw, const real **line,
                                                            int t0, int nt, int c, int nl, bool add)
{
    const ptrdiff_t a_step = (ptrdiff_t)v->step * v->C, next = (ptrdiff_t)v->g.d * v->C;
    vr acc[TAPS];
    for (int i = 0; i < TAPS; i++) acc[i] = vzero();
    for (int s = 0; s < v->n_seg; s++) {
        const real *g = gy[s] + c;
        for (int oh = 0; oh < v->g.Ho; oh++) {
            find_lines(v, x[s], oh, line);
            for (int ow = 0, end; ow < v->g.Wo; ow = end) { /* the inside at once, the edges pixel by pixel */
                const real *a[TAPS];
                end = ow >= v->in0 && ow < v->in1 ? v->in1 : ow + 1;
                for (int i = 0; i < TAPS; i++) {
                    const int t = t0 + (i < nt ? i : nt - 1);
                    a[i] = tap_at(v, line[t], t, ow) + c;
                }
                ptrdiff_t o = 0;
                if (v->g.k == 3 && end > ow + 1) { /* three lines of three: fewer addresses than registers */
                    for (int j = ow; j < end; j++, o += a_step, g += v->C) {
                        vr gv = vload(g, nl);
                        _Pragma("GCC unroll 9") for (int i = 0; i < TAPS; i++)
                            acc[i] = vfma(gv, vload(a[i / 3 * 3] + o + i % 3 * next, nl), acc[i]);
                    }
                    continue;
                }
                for (int j = ow; j < end; j++, o += a_step, g += v->C) {
                    vr gv = vload(g, nl);
                    _Pragma("GCC unroll 9") for (int i = 0; i < TAPS; i++) acc[i] = vfma(gv, vload(a[i] + o, nl), acc[i]);
                }
            }
        }
    }
    for (int i = 0; i < nt; i++) {
        real *d = gw + (ptrdiff_t)v->taps.at[t0 + i] * v->C + c;
        vstore(d, add ? vadd(vload(d, nl), acc[i]) : acc[i], nl);
    }
}

static void corr_image(const void *arg, int n, int from, int to, int thread, real *gw, bool add)
{
    const struct dwcorr *q = arg;
    const struct dw *v = &q->v;
    const real **line = v->line + 2 * thread * v->taps.n, *x[2], *gy[2];
    for (int s = 0; s < v->n_seg; s++) {
        x[s] = q->x[s] + (size_t)n * (size_t)(v->g.H * v->g.W) * (size_t)v->C;
        gy[s] = q->gy[s] + (size_t)n * (size_t)(v->g.Ho * v->g.Wo) * (size_t)v->C;
    }
    for (int c = from * VL; c < to * VL; c += VL)
        for (int t = 0; t < v->taps.n; t += TAPS) {
            const int nt = v->taps.n - t < TAPS ? v->taps.n - t : TAPS, nl = lanes(v->C - c);
            if (nl == VL)
                corr_tile(v, x, gy, gw, line, t, nt, c, VL, add);
            else
                corr_tile(v, x, gy, gw, line, t, nt, c, nl, add);
        }
}

static void dwconv_corr(const struct op_call *c, int n_seg, const void *const *x, const void *const *gy, void *gw)
{
    struct dwcorr q = { .v = dw_of(c, false) };
    q.v.n_seg = n_seg;
    for (int s = 0; s < n_seg; s++) {
        q.x[s] = x[s];
        q.gy[s] = gy[s];
    }
    layout(&q.v, c->scratch);
    taps_forward(&q.v.g, &q.v.b, &q.v.taps);
    q.v.ph = (struct phase){ 0, 0, 1, q.v.dst_h, q.v.dst_w };
    place_taps(&q.v);
    corr_run(c->pool, (struct corr_job){ .fn = corr_image, .q = &q, .units = q.v.g.N, .whole = (q.v.C + VL - 1) / VL, .gw = gw, .elems = weights(&q.v),
                                         .more = c->first > 0, .parts = q.v.parts, .room = q.v.n_parts });
}

size_t KN(dwconv_scratch)(const struct op_call *c)
{
    struct dw f = dw_of(c, false), b = dw_of(c, true);
    size_t nf = layout(&f, NULL), nb = layout(&b, NULL);
    return nf > nb ? nf : nb;
}

BILINEAR_RULES(dwconv)
