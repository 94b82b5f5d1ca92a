/* conv.c - convolution and linear layers: y = x * w, bilinear.
 *
 * The four rules are those of every bilinear op (cpu/bilinear.h). Both terms of a tangent are one product over a
 * concatenated inner dimension (cpu/product.h). A linear layer is k = 1 on a 1 x 1 image; all images then make one product.
 * Few output channels (an image's own gradient: 1 or 3) would leave the vectors empty: there the product makes all k x k
 * places at once, [pixels, k*k*channels], and they are added up after. */
#include "worker/engine/cpu/bilinear.h"
#include "worker/engine/cpu/blas.h"
#include "worker/engine/cpu/corr.h"
#include "worker/engine/cpu/cut.h"
#include "worker/engine/cpu/geom.h"
#include "worker/engine/cpu/product.h"

#define NARROW 4       /* so few channels or fewer go the other way round */
#define BLOCK  512     /* pixels of a task where all images are one product */
#define COLS   64      /* output channels of a task where these pixels are no more than BLOCK */

struct conv {          /* one call: geometry, scratch, and which product */
    struct geom      g;
    bool             transposed;      /* convT */
    bool             flat, narrow, by_cols; /* by_cols: flat, and tasks are cut by output channels */
    int              n_seg, src_c, dst_c, src_h, src_w, dst_h, dst_w;
    const real      *src[2], *w[2];
    real            *dst;
    bool             acc;
    struct border    b;
    struct taps      taps;
    struct phase     ph;
    real            *pack, *pad, *sums; /* packed weights; bordered copies [threads][2]; narrow's places [threads] */
    real            *parts;             /* of corr.h: [n_parts][weights] */
    int              n_parts;
    size_t           pad_elems, sum_elems;
};

static bool is_flat(const struct geom *g) { return g->k == 1 && g->p == 0 && g->s == 1 && g->G == 1; }
static bool is_narrow(const struct geom *g, bool transposed)
{
    int n = transposed ? g->Ci : g->Co, k = transposed ? g->Co : g->Ci;
    return g->G == 1 && g->k > 1 && (g->s == 1 || transposed) && n <= NARROW && k > n;
}

static size_t weights(const struct geom *g) { return (size_t)g->k * (size_t)g->k * (size_t)(g->Ci / g->G) * (size_t)g->Co; }

static int    cols_tasks(const struct conv *v) { return (v->dst_c + COLS - 1) / COLS; }
static size_t cols_room(const struct conv *v, int n_seg)
{
    return prod_b_room((size_t)v->src_c * (size_t)n_seg, (size_t)(v->dst_c < COLS ? v->dst_c : COLS));
}

/* Lays the scratch out; with base NULL only counts. */
static size_t layout(struct conv *v, char *base, int n_seg)
{
    struct carve c = { base, 0 };
    const struct geom *g = &v->g;
    size_t kk = (size_t)g->k * (size_t)g->k, cig = (size_t)(g->Ci / g->G), cog = (size_t)(g->Co / g->G);
    taps_carve(&c, g->k, &v->taps);
    size_t inner = (v->transposed ? cog : cig), outer = v->transposed ? cig : cog;
    size_t packed = v->narrow ? prod_b_room(inner * (size_t)n_seg, outer * kk)
                              : prod_b_room(inner * kk * (size_t)n_seg, outer) * (size_t)g->G;
    if (v->by_cols) /* a task packs what it is about to use: to its own place, or where there are many to its thread's */
        packed = (size_t)(cols_tasks(v) < KERNEL_THREADS ? cols_tasks(v) : KERNEL_THREADS) * cols_room(v, n_seg);
    v->pack = carve(&c, packed * sizeof(real));
    v->b = v->transposed ? border_backward(g) : border_forward(g);
    if (v->flat || v->narrow)
        v->b.none = true;
    v->pad_elems = v->b.none ? 0 : (size_t)v->b.H * (size_t)v->b.W * (size_t)(v->transposed ? g->Co : g->Ci);
    v->pad = carve(&c, 2 * KERNEL_THREADS * v->pad_elems * sizeof(real));
    v->sum_elems = v->narrow ? (size_t)(v->transposed ? g->Ho * g->Wo : g->H * g->W) * kk * outer : 0;
    v->sums = carve(&c, KERNEL_THREADS * v->sum_elems * sizeof(real));
    v->parts = carve(&c, (size_t)v->n_parts * weights(g) * sizeof(real));
    return c.used;
}

static size_t pixels(const struct conv *v) { return (size_t)v->g.N * (size_t)(v->dst_h * v->dst_w); }

static struct conv conv_of(const struct op_call *c, bool transposed)
{
    struct conv v = { .g = geom_of(c), .transposed = transposed };
    const struct geom *g = &v.g;
    v.flat = is_flat(g);
    v.narrow = !v.flat && is_narrow(g, transposed);
    v.src_c = transposed ? g->Co : g->Ci;
    v.dst_c = transposed ? g->Ci : g->Co;
    v.src_h = transposed ? g->Ho : g->H;
    v.src_w = transposed ? g->Wo : g->W;
    v.dst_h = transposed ? g->H : g->Ho;
    v.dst_w = transposed ? g->W : g->Wo;
    v.n_parts = corr_parts(weights(g), c->total);
    v.by_cols = v.flat && (size_t)c->total * (size_t)(v.dst_h * v.dst_w) <= BLOCK; /* not of the block at hand: scratch is of one layout */
    return v;
}

/* Rows i0 … of one tap into their panels; PACK_COLS columns of a row are read at once. */
enum { PACK_ROWS = 16, PACK_COLS = 64 * VL };
static void pack_straight(const real *w, ptrdiff_t ldw, int inner, int outer, real *out, size_t panel)
{
    for (int i0 = 0; i0 < inner; i0 += PACK_ROWS)
        for (int n0 = 0; n0 < outer; n0 += PACK_COLS)
            for (int i = i0; i < inner && i < i0 + PACK_ROWS; i++) {
                const real *row = w + i * ldw;
                for (int n = n0; n < outer && n < n0 + PACK_COLS; n += VL)
                    vst(out + (size_t)(n / VL) * panel + (size_t)i * VL, vload(row + n, lanes(outer - n)));
            }
}

/* The same of the transposed matrix: VL rows of w, read side by side, are one panel. */
static void pack_across(const real *w, ptrdiff_t ldw, int inner, int outer, real *out, size_t panel)
{
    for (int n = 0; n < outer; n += VL, out += panel) {
        const int left = lanes(outer - n);
        for (int i = 0; i < inner; i++)
            for (int j = 0; j < VL; j++)
                out[(size_t)i * VL + (size_t)j] = j < left ? w[(n + j) * ldw + i] : 0;
    }
}

/* Weights in the order in which the runs are read, in panels of VL columns: [column panel][segment, tap, inner][VL]. */
static void pack_taps(const struct conv *v)
{
    const struct geom *g = &v->g;
    const int cig = g->Ci / g->G, cog = g->Co / g->G, inner = v->transposed ? cog : cig, outer = v->transposed ? cig : cog;
    const size_t K = (size_t)v->n_seg * (size_t)v->taps.n * (size_t)inner;
    real *out = v->pack;
    for (int grp = 0; grp < g->G; grp++, out += prod_b_elems(K, (size_t)outer))
        for (int s = 0; s < v->n_seg; s++)
            for (int t = 0; t < v->taps.n; t++) {
                const real *w = v->w[s] + (ptrdiff_t)v->taps.at[t] * cig * g->Co + grp * cog;
                (v->transposed ? pack_across : pack_straight)(w, g->Co, inner, outer, out + (size_t)(s * v->taps.n + t) * (size_t)inner * VL, K * VL);
            }
}

/* B of the narrow product: [inner] x [tap, outer]. */
static void pack_narrow(const struct conv *v)
{
    const struct geom *g = &v->g;
    const int kk = g->k * g->k, inner = v->src_c, outer = v->dst_c, N = kk * outer;
    real *out = v->pack;
    for (int n = 0; n < N; n += VL)
        for (int s = 0; s < v->n_seg; s++)
            for (int i = 0; i < inner; i++, out += VL)
                for (int j = 0; j < VL; j++) {
                    int col = n + j, tap = col / outer, o = col % outer;
                    const real *w = v->w[s] + (ptrdiff_t)tap * g->Ci * g->Co;
                    out[j] = col >= N ? 0 : v->transposed ? w[(ptrdiff_t)o * g->Co + i] : w[(ptrdiff_t)i * g->Co + o];
                }
}

/* A copy of the image with its border of zeros. */
static const real *bordered(const struct border *b, const real *img, int h, int w, int ch, real *buf)
{
    const size_t line = (size_t)w * (size_t)ch, left = (size_t)b->left * (size_t)ch, whole = (size_t)b->W * (size_t)ch, right = whole - left - line;
    memset(buf, 0, (size_t)b->top * whole * sizeof(real));
    real *at = buf + (size_t)b->top * whole;
    for (int r = 0; r < h; r++, at += whole) {
        memset(at, 0, left * sizeof(real));
        memcpy(at + left, img + (size_t)r * line, line * sizeof(real));
        memset(at + left + line, 0, right * sizeof(real));
    }
    memset(at, 0, (size_t)(b->H - b->top - h) * whole * sizeof(real));
    return buf;
}

static void image_task(void *arg, int img, int thread)
{
    const struct conv *v = arg;
    const struct geom *g = &v->g;
    const real *src[2];
    for (int s = 0; s < v->n_seg; s++) {
        src[s] = v->src[s] + (size_t)img * (size_t)(v->src_h * v->src_w) * (size_t)v->src_c;
        if (!v->b.none)
            src[s] = bordered(&v->b, src[s], v->src_h, v->src_w, v->src_c, v->pad + (size_t)(2 * thread + s) * v->pad_elems);
    }
    const int inner = v->src_c / g->G, outer = v->dst_c / g->G, runs = v->taps.n / v->taps.per_run;
    const ptrdiff_t a_step = v->transposed ? 1 : g->s;
    real *dst = v->dst + (size_t)img * (size_t)(v->dst_h * v->dst_w) * (size_t)v->dst_c +
                ((size_t)v->ph.r0 * (size_t)v->dst_w + (size_t)v->ph.c0) * (size_t)v->dst_c;
    const size_t group_pack = prod_b_elems((size_t)v->n_seg * (size_t)v->taps.n * (size_t)inner, (size_t)outer);
    for (int grp = 0; grp < g->G; grp++) {
        struct prod p = { .n_seg = v->n_seg, .a = { src[0] + grp * inner, v->n_seg > 1 ? src[1] + grp * inner : NULL },
                          .rows = v->ph.rows, .cols = v->ph.cols, .a_row = a_step * v->b.W * v->src_c, .a_col = a_step * v->src_c,
                          .n_runs = runs, .run_len = v->taps.per_run * inner, .run_off = v->taps.run,
                          .b = v->pack + (size_t)grp * group_pack, .N = outer, .c = dst + grp * outer,
                          .c_row = (ptrdiff_t)v->ph.step * v->dst_w * v->dst_c, .c_col = (ptrdiff_t)v->ph.step * v->dst_c, .acc = v->acc };
        KN(prod_run)(&p);
    }
}

/* Pixels m0 … m0 + m - 1 of all images, output channels n0 … n0 + n - 1. */
static void flat_product(const struct conv *v, size_t m0, size_t m, const real *packed, size_t n0, size_t n)
{
    static const ptrdiff_t zero = 0;
    const size_t at = m0 * (size_t)v->src_c;
    struct prod p = { .n_seg = v->n_seg, .a = { v->src[0] + at, v->n_seg > 1 ? v->src[1] + at : NULL }, .rows = 1, .cols = (int)m, .a_col = v->src_c,
                      .n_runs = 1, .run_len = v->src_c, .run_off = &zero, .b = packed, .N = (int)n, .c = v->dst + m0 * (size_t)v->dst_c + n0,
                      .c_col = v->dst_c, .acc = v->acc };
    KN(prod_run)(&p);
}

static void flat_task(void *arg, int block, int thread)
{
    (void)thread;
    const struct conv *v = arg;
    const size_t m0 = (size_t)block * BLOCK, left = pixels(v) - m0;
    flat_product(v, m0, left < BLOCK ? left : BLOCK, v->pack, 0, (size_t)v->dst_c);
}

static void cols_task(void *arg, int task, int thread)
{
    const struct conv *v = arg;
    const int n0 = task * COLS, n = v->dst_c - n0 < COLS ? v->dst_c - n0 : COLS, inner = v->src_c;
    real *pack = v->pack + (size_t)(cols_tasks(v) <= KERNEL_THREADS ? task : thread) * cols_room(v, v->n_seg);
    for (int s = 0; s < v->n_seg; s++) {
        real *out = pack + (size_t)s * (size_t)inner * VL;
        if (v->transposed)
            pack_across(v->w[s] + (ptrdiff_t)n0 * v->g.Co, v->g.Co, inner, n, out, (size_t)v->n_seg * (size_t)inner * VL);
        else
            pack_straight(v->w[s] + n0, v->g.Co, inner, n, out, (size_t)v->n_seg * (size_t)inner * VL);
    }
    flat_product(v, 0, pixels(v), pack, (size_t)n0, (size_t)n);
}

/* Source pixels i, from <= i < to, whose place at + i step lies within n_dst. */
struct span { int at, from, to; };
static struct span inside(int at, int step, int n_src, int n_dst)
{
    const int from = at < 0 ? (-at + step - 1) / step : 0, to = at < n_dst ? (n_dst - 1 - at) / step + 1 : 0;
    return (struct span){ at, from, to < n_src ? to : n_src };
}

/* Sum the k x k places of the narrow product: forward gathers, transposed scatters; taps in order. */
static void narrow_task(void *arg, int img, int thread)
{
    const struct conv *v = arg;
    const struct geom *g = &v->g;
    static const ptrdiff_t zero = 0;
    const int n_src = v->src_h * v->src_w, kk = g->k * g->k, ch = v->dst_c, N = kk * ch;
    const size_t src_at = (size_t)img * (size_t)n_src * (size_t)v->src_c;
    real *sum = v->sums + (size_t)thread * v->sum_elems;
    struct prod p = { .n_seg = v->n_seg, .a = { v->src[0] + src_at, v->n_seg > 1 ? v->src[1] + src_at : NULL }, .rows = 1, .cols = n_src,
                      .a_col = v->src_c, .n_runs = 1, .run_len = v->src_c, .run_off = &zero, .b = v->pack, .N = N, .c = sum, .c_col = N };
    KN(prod_run)(&p);
    real *dst = v->dst + (size_t)img * (size_t)(v->dst_h * v->dst_w * ch);
    if (!v->acc)
        memset(dst, 0, (size_t)(v->dst_h * v->dst_w * ch) * sizeof(real));
    const int step = v->transposed ? g->s : 1; /* from one source pixel's place to the next one's; forward, strides go the usual way */
    for (int tap = 0; tap < kk; tap++) {
        const int dh = (tap / g->k) * g->d - g->p, dw = (tap % g->k) * g->d - g->p;
        const struct span r = inside(v->transposed ? dh : -dh, step, v->src_h, v->dst_h), c = inside(v->transposed ? dw : -dw, step, v->src_w, v->dst_w);
        for (int i = r.from; i < r.to; i++) {
            real       *o = dst + ((ptrdiff_t)(r.at + i * step) * v->dst_w + c.at + c.from * step) * ch;
            const real *a = sum + ((ptrdiff_t)i * v->src_w + c.from) * N + tap * ch;
            for (int j = c.from; j < c.to; j++, o += step * ch, a += N)
                for (int k = 0; k < ch; k++)
                    o[k] += a[k];
        }
    }
}

static void zero_phase(const struct conv *v)
{
    for (int n = 0; n < v->g.N; n++)
        for (int i = 0; i < v->ph.rows; i++)
            for (int j = 0; j < v->ph.cols; j++)
                memset(v->dst + (((size_t)n * (size_t)v->dst_h + (size_t)(v->ph.r0 + v->ph.step * i)) * (size_t)v->dst_w +
                                 (size_t)(v->ph.c0 + v->ph.step * j)) * (size_t)v->dst_c, 0, (size_t)v->dst_c * sizeof(real));
}

/* dst (+)= sum over segments of conv (or convT) of src[s] with w[s] */
static void conv_map(const struct op_call *c, bool transposed, int n_seg, const void *const *src, const void *const *w, void *dst, bool acc)
{
    struct conv v = conv_of(c, transposed);
    v.n_seg = n_seg;
    v.dst = dst;
    v.acc = acc;
    for (int s = 0; s < n_seg; s++) {
        v.src[s] = src[s];
        v.w[s] = w[s];
    }
    if (c->blas && v.flat && blas_pays((int)pixels(&v), v.dst_c, v.src_c)) {
        for (int s = 0; s < n_seg; s++)
            blas_gemm(false, transposed, (int)pixels(&v), v.dst_c, v.src_c, v.src[s], v.src_c, v.w[s], v.g.Co, v.dst, v.dst_c, acc || s > 0);
        return;
    }
    layout(&v, c->scratch, n_seg);
    if (v.narrow) {
        pack_narrow(&v);
        eng_pool_for(c->pool, v.g.N, narrow_task, &v);
        return;
    }
    for (int ph = 0; ph < (transposed ? v.g.s : 1); ph++)
        for (int pw = 0; pw < (transposed ? v.g.s : 1); pw++) {
            if (transposed)
                v.ph = taps_backward(&v.g, &v.b, ph, pw, &v.taps);
            else {
                taps_forward(&v.g, &v.b, &v.taps);
                v.ph = (struct phase){ 0, 0, 1, v.dst_h, v.dst_w };
            }
            if (v.taps.n == 0) {
                if (!acc)
                    zero_phase(&v);
                continue;
            }
            if (v.by_cols) {
                eng_pool_for(c->pool, cols_tasks(&v), cols_task, &v);
                continue;
            }
            pack_taps(&v);
            if (v.flat)
                eng_pool_for(c->pool, (int)((pixels(&v) + BLOCK - 1) / BLOCK), flat_task, &v);
            else
                eng_pool_for(c->pool, v.g.N, image_task, &v);
        }
}

/* ---- gradient with respect to the weights ---- */

struct corr {
    struct conv v;               /* borders and scratch of the forward geometry */
    const real *x[2], *gy[2];
};

/* An image's two operands; x with its border. */
static void corr_image(const struct corr *q, int img, int thread, const real *x[2], const real *gy[2])
{
    const struct conv *v = &q->v;
    const struct geom *g = &v->g;
    for (int s = 0; s < v->n_seg; s++) {
        x[s] = q->x[s] + (size_t)img * (size_t)(g->H * g->W) * (size_t)g->Ci;
        gy[s] = q->gy[s] + (size_t)img * (size_t)(g->Ho * g->Wo) * (size_t)g->Co;
        if (!v->b.none)
            x[s] = bordered(&v->b, x[s], g->H, g->W, g->Ci, v->pad + (size_t)(2 * thread + s) * v->pad_elems);
    }
}

/* Rows of gw are (tap, input channel). */
static struct wprod rows_of(const struct corr *q, int from, int to, real *d, bool add)
{
    const struct conv *v = &q->v;
    const struct geom *g = &v->g;
    return (struct wprod){ .n_seg = v->n_seg, .rows = 1, .a_col = g->Ci, .g_col = g->Co, .N = g->Co / g->G, .ldd = g->Co, .r0 = from, .r1 = to,
                           .run_off = v->taps.run, .run_len = v->taps.per_run * (g->Ci / g->G), .n_runs = v->taps.n / v->taps.per_run, .d = d, .acc = add };
}

/* A unit is a chunk of cpu/cut.h: */
static void corr_flat(const void *arg, int unit, int from, int to, int thread, real *d, bool add)
{
    (void)thread;
    const struct corr *q = arg;
    const struct geom *g = &q->v.g;
    struct wprod p = rows_of(q, from, to, d, add);
    const struct cut_rows rows = cut_at(g->H * g->W, g->N, unit);
    p.cols = (int)(rows.to - rows.from);
    for (int s = 0; s < q->v.n_seg; s++) {
        p.a[s] = q->x[s] + rows.from * (size_t)g->Ci;
        p.g[s] = q->gy[s] + rows.from * (size_t)g->Co;
    }
    KN(wprod_run)(&p);
}

/* … an image: */
static void corr_direct(const void *arg, int img, int from, int to, int thread, real *d, bool add)
{
    const struct corr *q = arg;
    const struct conv *v = &q->v;
    const struct geom *g = &v->g;
    const int cig = g->Ci / g->G, cog = g->Co / g->G;
    struct wprod p = rows_of(q, from, to, d, add);
    const real *x[2], *gy[2];
    corr_image(q, img, thread, x, gy);
    p.rows = g->Ho;
    p.cols = g->Wo;
    p.a_row = (ptrdiff_t)g->s * v->b.W * g->Ci;
    p.a_col = (ptrdiff_t)g->s * g->Ci;
    p.g_row = (ptrdiff_t)g->Wo * g->Co;
    for (int grp = 0; grp < g->G; grp++, p.d += cog) {
        for (int s = 0; s < v->n_seg; s++) {
            p.a[s] = x[s] + grp * cig;
            p.g[s] = gy[s] + grp * cog;
        }
        KN(wprod_run)(&p);
    }
}

/* … an image, few output channels: the vectors lie along the input channels instead, taps t0 … t1 - 1 in registers. */
static void corr_narrow(const void *arg, int img, int t0, int t1, int thread, real *gw, bool add)
{
    const struct corr *q = arg;
    const struct conv *v = &q->v;
    const struct geom *g = &v->g;
    enum { T = 8 };
    const real *x[2], *gy[2];
    corr_image(q, img, thread, x, gy);
    for (int co = 0; co < g->Co; co++)
        for (int c = 0; c < g->Ci; c += VL)
            for (int t = t0; t < t1; t += T) {
                vr acc[T];
                int nl = lanes(g->Ci - c);
                for (int i = 0; i < T; i++) acc[i] = vzero();
                for (int s = 0; s < v->n_seg; s++) {
                    const real *a[T];
                    for (int i = 0; i < T; i++) a[i] = x[s] + v->taps.off[t + i < t1 ? t + i : t1 - 1] * g->Ci + c;
                    for (int oh = 0; oh < g->Ho; oh++)
                        for (int ow = 0; ow < g->Wo; ow++) {
                            vr gv = vset(gy[s][((ptrdiff_t)oh * g->Wo + ow) * g->Co + co]);
                            ptrdiff_t o = ((ptrdiff_t)oh * v->b.W + ow) * g->s * g->Ci;
                            _Pragma("GCC unroll 8") for (int i = 0; i < T; i++) acc[i] = vfma(gv, vload(a[i] + o, nl), acc[i]);
                        }
                }
                for (int i = 0; i < T && t + i < t1; i++) {
                    real lane[VL], *d = gw + ((ptrdiff_t)v->taps.at[t + i] * g->Ci + c) * g->Co + co;
                    vst(lane, acc[i]);
                    for (int j = 0; j < nl; j++, d += g->Co)
                        *d = add ? *d + lane[j] : lane[j];
                }
            }
}

static void conv_corr(const struct op_call *c, int n_seg, const void *const *x, const void *const *gy, void *gw)
{
    struct corr q = { .v = conv_of(c, false) };
    const struct geom *g = &q.v.g;
    const int M = g->N * g->H * g->W, kk = g->k * g->k;
    if (c->blas && q.v.flat && blas_pays(M, g->Co, g->Ci)) {
        for (int s = 0; s < n_seg; s++)
            blas_gemm(true, false, g->Ci, g->Co, M, x[s], g->Ci, gy[s], g->Co, gw, g->Co, c->first > 0 || s > 0);
        return;
    }
    struct corr_job j = { .fn = q.v.flat ? corr_flat : q.v.narrow ? corr_narrow : corr_direct, .q = &q, .units = q.v.flat ? cut_count(g->H * g->W, g->N) : g->N,
                          .whole = q.v.narrow ? kk : kk * (g->Ci / g->G), .gw = gw, .elems = weights(g), .more = c->first > 0 };
    q.v.narrow = false;
    q.v.n_seg = n_seg;
    for (int s = 0; s < n_seg; s++) {
        q.x[s] = x[s];
        q.gy[s] = gy[s];
    }
    layout(&q.v, c->scratch, n_seg);
    taps_forward(&q.v.g, &q.v.b, &q.v.taps);
    j.parts = q.v.parts;
    j.room = q.v.n_parts;
    corr_run(c->pool, j);
}

size_t KN(conv_scratch)(const struct op_call *c)
{
    size_t most = 0;
    for (int transposed = 0; transposed < 2; transposed++)
        for (int plain = 0; plain < 2; plain++) {
            struct conv v = conv_of(c, transposed);
            if (plain)
                v.narrow = false;
            size_t n = layout(&v, NULL, 2);
            if (n > most)
                most = n;
        }
    return most;
}

const char *KN(conv_way)(const struct op_call *c, bool transposed)
{
    const struct conv v = conv_of(c, transposed);
    if (v.flat)
        return c->blas && blas_pays((int)pixels(&v), v.dst_c, v.src_c) ? "blas" : "flat";
    return v.narrow ? "narrow" : "direct";
}

BILINEAR_RULES(conv)

/* ---- after a doubling: the transposed convolution of fold.c's weights, which is the convolution's own way back ---- */

static struct op_call turned(const struct op_call *c)
{
    struct op_call t = *c;
    t.at.k = 4;
    t.at.stride = 2;
    t.at.pad = c->at.pad == 1 ? 1 : 3; /* what a border of zeros, of the doubled image or of the small one, leaves out */
    t.at.dilation = t.at.groups = 1;
    t.in[0].s = c->out.s;
    t.out.s = c->in[0].s;
    return t;
}

static void upconv_map(const struct op_call *c, bool transposed, int n, const void *const *src, const void *const *w, void *dst, bool acc)
{
    const struct op_call t = turned(c);
    conv_map(&t, !transposed, n, src, w, dst, acc);
}

static void upconv_corr(const struct op_call *c, int n, const void *const *x, const void *const *gy, void *gw)
{
    const struct op_call t = turned(c);
    conv_corr(&t, n, gy, x, gw);
}

size_t KN(upconv_scratch)(const struct op_call *c)
{
    const struct op_call t = turned(c);
    return KN(conv_scratch)(&t);
}

BILINEAR_RULES(upconv)
