/* bn.c - batch normalisation over N, H, W, with the leaky ReLU that follows it folded in (slope 1: none).
 *
 *   h = (x - m) r,  r = (var + eps)^(-1/2) (biased variance),  p = gain h + bias,  y = p > 0 ? p : slope p
 *   tangents   mdot = mean(xdot)   vdot = 2 mean((x - m) xdot)   rdot = -r^3 vdot / 2
 *              hdot = (xdot - mdot) r + (x - m) rdot             pdot = gaindot h + gain hdot + biasdot
 *   backward   g = gy masked by p;  S1 = sum g,  S2 = sum g h  (the gradients of bias and gain)
 *              gx = gain r (g - S1/M - h S2/M)
 *   its tangent  S1dot = sum gdot,  S2dot = sum (gdot h + g hdot)
 *              gxdot = (gaindot r + gain rdot)(g - S1/M - h S2/M) + gain r (gdot - S1dot/M - hdot S2/M - h S2dot/M)
 * Mean-only is the same with r = 1, gain = 1, rdot = gaindot = 0 and S2 left out of gx.
 *
 * A rule gathers sums over all images, then applies them to each: two parts that may run block by block of images (op.h).
 *
 * Sums are cut into chunks (cpu/cut.h). In a chunk row i belongs to chain i mod 4 of its channel, in `real`, and chains are
 * added as (0+1)+(2+3). Chunks are joined in order, in double. A chunk's statistics are taken about its own mean s while it
 * is in the nearest cache, d = x - s, so that memory is read once:
 *   n c = n s + sum d                                          mean c (s is rounded)
 *   q = sum d^2 - (sum d)^2 / n                                squared deviations from c;  with xdot, the same of d and xdot
 *   m' = m + (c - m) n/(N+n)   Q' = Q + q + (c - m)^2 N n/(N+n)    joined to N rows of mean m and deviations Q (Chan et al. 1979)
 * Neither vector width nor threads nor blocks show. */
#include "worker/engine/cpu/cut.h"
#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

enum { M_, R_, MDOT, RDOT, S1, S2, S1DOT, S2DOT, N_KEPT, GAIN = N_KEPT, BIAS, GAINDOT, BIASDOT, N_COEF };
enum sum { SUM_STAT, SUM_BACK, SUM_DUAL };
enum { MEAN, DEV, MEANDOT, CODEV };               /* what SUM_STAT adds up to; the others: S1 … S2DOT */
enum { C_SHIFT, C_D, C_DD, C_XDOT, C_DXDOT, MAX_PARTS, MAX_SUMS = 4 }; /* a chunk's part in them */

struct bn {
    int    hw, batch, C, mode;
    real   slope;
    bool   back_acc;
    const real *x, *xdot, *g, *gdot;
    real  *y, *ydot, *gx, *gxdot;
    real  *kept;               /* [N_KEPT][C], in aux */
    const real *coef[N_COEF];  /* [C] each */
    double *total;             /* [MAX_SUMS][C], in aux */
    double *part;              /* [chunks][MAX_PARTS][C], in scratch */
};

size_t KN(bn_aux)(const struct op_call *c) { return (size_t)c->out.s.c * (MAX_SUMS * sizeof(double) + N_KEPT * sizeof(real)); }
size_t KN(bn_scratch)(const struct op_call *c)
{
    size_t C = (size_t)c->out.s.c;
    return (size_t)cut_count(c->out.s.h * c->out.s.w, c->batch) * MAX_PARTS * C * sizeof(double) + 2 * C * sizeof(real);
}

static struct bn bn_of(const struct op_call *c)
{
    struct bn b = { .hw = c->out.s.h * c->out.s.w, .batch = c->batch, .C = c->out.s.c, .slope = (real)c->at.slope,
                    .x = c->in[0].val, .xdot = c->in[0].dot, .y = c->out.val, .ydot = c->out.dot,
                    .g = c->out.adj, .gdot = c->out.adj_dot, .gx = c->in[0].adj, .gxdot = c->in[0].adj_dot, .back_acc = c->in[0].acc };
    const size_t C = (size_t)b.C;
    const struct op_view *gain = c->at.mean_only ? NULL : &c->in[1], *bias = &c->in[c->at.mean_only ? 1 : 2];
    real *zero, *one;
    b.total = c->aux;
    b.kept = (real *)(b.total + MAX_SUMS * C);
    b.part = c->scratch;
    zero = (real *)(b.part + (size_t)cut_count(b.hw, b.batch) * MAX_PARTS * C);
    one = zero + C;
    for (size_t i = 0; i < C; i++) {
        zero[i] = 0;
        one[i] = 1;
    }
    for (size_t i = 0; i < N_KEPT; i++)
        b.coef[i] = b.kept + i * C;
    b.coef[GAIN] = gain ? gain->val : one;
    b.coef[GAINDOT] = gain && gain->dot ? gain->dot : zero;
    b.coef[BIAS] = bias->val;
    b.coef[BIASDOT] = bias->dot ? bias->dot : zero;
    return b;
}

struct lanes { vr m, r, gain, bias, mdot, rdot, gaindot, biasdot, s1, s2, s1dot, s2dot; };
static inline struct lanes lanes_of(const struct bn *b, int c, int n)
{
    return (struct lanes){ vload(b->coef[M_] + c, n), vload(b->coef[R_] + c, n), vload(b->coef[GAIN] + c, n), vload(b->coef[BIAS] + c, n),
                           vload(b->coef[MDOT] + c, n), vload(b->coef[RDOT] + c, n), vload(b->coef[GAINDOT] + c, n), vload(b->coef[BIASDOT] + c, n),
                           vload(b->coef[S1] + c, n), vload(b->coef[S2] + c, n), vload(b->coef[S1DOT] + c, n), vload(b->coef[S2DOT] + c, n) };
}

/* ---- sums ---- */

/* Four chains are four variables: an array that is indexed by the row would live in memory. */
#define IN_CHAINS(term) /* term(at, k): the row at this place goes to chain k */                         \
    {                                                                                                    \
        size_t r = rows.from;                                                                            \
        for (; r + 4 <= rows.to; r += 4) {                                                               \
            const size_t at = r * C + (size_t)c;                                                         \
            term(at, k0);                                                                                \
            term(at + C, k1);                                                                            \
            term(at + 2 * C, k2);                                                                        \
            term(at + 3 * C, k3);                                                                        \
        }                                                                                                \
        if (r < rows.to) term(r * C + (size_t)c, k0);                                                    \
        if (r + 1 < rows.to) term((r + 1) * C + (size_t)c, k1);                                          \
        if (r + 2 < rows.to) term((r + 2) * C + (size_t)c, k2);                                          \
    }

struct chain { vr s0, s1, s2, s3; }; /* of as many sums */
#define JOINED(s) vadd(vadd(k0.s, k1.s), vadd(k2.s, k3.s))
static inline struct chain begin(void) { return (struct chain){ vzero(), vzero(), vzero(), vzero() }; }

static inline void put(double *part, vr v, int n)
{
    real lane[VL];
    vst(lane, v);
    for (int j = 0; j < n; j++)
        part[j] = (double)lane[j];
}

static inline __attribute__((always_inline)) void stat_block(const struct bn *b, struct cut_rows rows, int c, int n, double *part, const bool has_dot)
{
    const real *x = b->x, *xdot = b->xdot;
    const size_t C = (size_t)b->C;
    struct chain k0 = begin(), k1 = k0, k2 = k0, k3 = k0;
#define TERM(at, k) k.s0 = vadd(k.s0, vload(x + (at), n))
    IN_CHAINS(TERM)
#undef TERM
    const vr shift = vmul(JOINED(s0), vset(1 / (real)(rows.to - rows.from)));
    k0 = k1 = k2 = k3 = begin();
#define TERM(at, k)                                                 \
    {                                                               \
        const vr d = vsub(vload(x + (at), n), shift);               \
        k.s0 = vadd(k.s0, d);                                       \
        k.s1 = vfma(d, d, k.s1);                                    \
        if (has_dot) {                                              \
            const vr t = vload(xdot + (at), n);                     \
            k.s2 = vadd(k.s2, t);                                   \
            k.s3 = vfma(d, t, k.s3);                                \
        }                                                           \
    }
    IN_CHAINS(TERM)
#undef TERM
    part += c;
    put(part + C_SHIFT * C, shift, n);
    put(part + C_D * C, JOINED(s0), n);
    put(part + C_DD * C, JOINED(s1), n);
    put(part + C_XDOT * C, JOINED(s2), n);
    put(part + C_DXDOT * C, JOINED(s3), n);
}

static inline __attribute__((always_inline)) void back_block(const struct bn *b, struct cut_rows rows, int c, int n, double *part,
                                                             const bool dual, const bool has_dot)
{
    const struct lanes l = lanes_of(b, c, n);
    const vr one = vset(1), slope = vset(b->slope);
    const real *x = b->x, *xdot = b->xdot, *gy = b->g, *gydot = b->gdot;
    const size_t C = (size_t)b->C;
    struct chain k0 = begin(), k1 = k0, k2 = k0, k3 = k0;
#define TERM(at, k)                                                                                                    \
    {                                                                                                                  \
        const vr d = vsub(vload(x + (at), n), l.m), h = vmul(d, l.r), mask = vpos(vfma(h, l.gain, l.bias), one, slope); \
        const vr g = vmul(vload(gy + (at), n), mask);                                                                  \
        k.s0 = vadd(k.s0, g);                                                                                          \
        k.s1 = vfma(g, h, k.s1);                                                                                       \
        if (dual) {                                                                                                    \
            const vr gd = vmul(vload(gydot + (at), n), mask);                                                          \
            k.s2 = vadd(k.s2, gd);                                                                                     \
            k.s3 = vfma(gd, h, k.s3);                                                                                  \
            if (has_dot)                                                                                               \
                k.s3 = vfma(g, vfma(vsub(vload(xdot + (at), n), l.mdot), l.r, vmul(d, l.rdot)), k.s3);                 \
        }                                                                                                              \
    }
    IN_CHAINS(TERM)
#undef TERM
    part += c;
    put(part, JOINED(s0), n);
    put(part + C, JOINED(s1), n);
    if (dual) {
        put(part + 2 * C, JOINED(s2), n);
        put(part + 3 * C, JOINED(s3), n);
    }
}

#define SUM_BLOCK(n)                                                                                          \
    switch (b->mode) {                                                                                        \
    case SUM_STAT: if (b->xdot) stat_block(b, rows, c, n, part, true); else stat_block(b, rows, c, n, part, false); break; \
    case SUM_BACK: back_block(b, rows, c, n, part, false, false); break;                                      \
    default: if (b->xdot) back_block(b, rows, c, n, part, true, true); else back_block(b, rows, c, n, part, true, false); \
    }
static void sum_task(void *arg, int chunk, int thread)
{
    (void)thread;
    const struct bn *b = arg;
    const struct cut_rows rows = cut_at(b->hw, b->batch, chunk);
    double *part = b->part + (size_t)chunk * MAX_PARTS * (size_t)b->C;
    for (int c = 0; c < b->C; c += VL) {
        const int n = lanes(b->C - c);
        if (n == VL) SUM_BLOCK(VL) else SUM_BLOCK(n)
    }
}

/* Join n rows with these parts to the N before. */
static void join_statistics(const struct bn *b, double N, double n, const double *part)
{
    const int C = b->C;
    const double f = n / (N + n), Nf = N * f;
    double *restrict mean = b->total + MEAN * C, *restrict dev = b->total + DEV * C, *restrict meandot = b->total + MEANDOT * C,
           *restrict codev = b->total + CODEV * C;
    const double *shift = part + C_SHIFT * C, *d = part + C_D * C, *dd = part + C_DD * C, *xdot = part + C_XDOT * C, *dxdot = part + C_DXDOT * C;
    for (int i = 0; i < C; i++) {
        const double off = d[i] / n, step = shift[i] + off - mean[i], stepdot = xdot[i] / n - meandot[i];
        dev[i] += dd[i] - d[i] * off + step * step * Nf;
        codev[i] += dxdot[i] - off * xdot[i] + step * stepdot * Nf;
        mean[i] += step * f;
        meandot[i] += stepdot * f;
    }
}

static void gather(struct bn *b, const struct op_call *c, enum sum mode)
{
    const int nc = cut_count(b->hw, b->batch), C = b->C, ns = mode == SUM_BACK ? 2 : 4;
    b->mode = (int)mode;
    eng_pool_for(c->pool, nc, sum_task, b);
    if (c->first == 0)
        memset(b->total, 0, MAX_SUMS * (size_t)C * sizeof *b->total);
    for (int k = 0; k < nc; k++) {
        const struct cut_rows rows = cut_at(b->hw, b->batch, k);
        const double *part = b->part + (size_t)k * MAX_PARTS * (size_t)C;
        if (mode == SUM_STAT)
            join_statistics(b, (double)((size_t)c->first * (size_t)b->hw + rows.from), (double)(rows.to - rows.from), part);
        else
            for (int i = 0; i < ns * C; i++)
                b->total[i] += part[i];
    }
}

/* ---- from sums to coefficients ---- */

static double rows_of(const struct op_call *c) { return (double)c->total * (double)c->out.s.h * (double)c->out.s.w; }

static void update_running(const struct op_call *c, const struct bn *b)
{
    real *mean = c->running, *var = mean + b->C;
    const double m = c->running_momentum, M = rows_of(c), unbias = M > 1 ? 1 / (M - 1) : 1;
    for (int i = 0; i < b->C; i++) {
        mean[i] = (real)((1 - m) * (double)mean[i] + m * (double)b->kept[M_ * b->C + i]);
        var[i] = (real)((1 - m) * (double)var[i] + m * unbias * b->total[DEV * b->C + i]);
    }
}

/* m, r (and tangents) of the batch at hand, or of the running statistics in evaluation. */
static void settle_statistics(const struct op_call *c, const struct bn *b, bool dual)
{
    const int C = b->C;
    const bool fixed = c->evaluation && c->running;
    const real *run = c->running;
    const double M = rows_of(c);
    for (int i = 0; i < C; i++) {
        const double dev = b->total[DEV * C + i], var = fixed ? (double)run[C + i] : dev < 0 ? 0 : dev / M; /* < 0: by rounding */
        const double r = c->at.mean_only ? 1 : 1 / sqrt(var + c->at.eps), vdot = fixed ? 0 : 2 * b->total[CODEV * C + i] / M;
        b->kept[M_ * C + i] = fixed ? run[i] : (real)b->total[MEAN * C + i];
        b->kept[R_ * C + i] = (real)r;
        b->kept[MDOT * C + i] = fixed ? 0 : (real)b->total[MEANDOT * C + i];
        b->kept[RDOT * C + i] = c->at.mean_only ? 0 : (real)(-0.5 * r * r * r * vdot);
    }
    if (c->running && !fixed && !dual)
        update_running(c, b);
}

static void settle_back(const struct op_call *c, const struct bn *b, bool dual)
{
    const int C = b->C;
    const double M = rows_of(c);
    const struct op_view *bias = &c->in[c->at.mean_only ? 1 : 2], *gain = c->at.mean_only ? NULL : &c->in[1];
    void *into[MAX_SUMS] = { bias->adj, gain ? gain->adj : NULL, bias->adj_dot, gain ? gain->adj_dot : NULL };
    for (int s = 0; s < (dual ? 4 : 2); s++)
        for (int i = 0; i < C; i++) {
            const double sum = b->total[s * C + i];
            b->kept[(S1 + s) * C + i] = c->at.mean_only && s % 2 ? 0 : (real)(sum / M);
            if (into[s])
                ((real *)into[s])[i] = (real)sum;
        }
}

/* ---- and to each image ---- */

enum { APPLY_FORWARD, APPLY_DUAL_FORWARD, APPLY_BACK, APPLY_DUAL_BACK };

static inline __attribute__((always_inline)) void apply_rows(const struct bn *b, struct cut_rows rows, int c, int n, const int mode, const bool has_dot)
{
    const struct lanes l = lanes_of(b, c, n);
    const vr one = vset(1), slope = vset(b->slope), gr = vmul(l.gain, l.r), grdot = vfma(l.gaindot, l.r, vmul(l.gain, l.rdot));
    const real *x = b->x, *xdot = b->xdot, *gy = b->g, *gydot = b->gdot;
    real *y = b->y, *ydot = b->ydot, *gx = b->gx, *gxdot = b->gxdot;
    const bool acc = b->back_acc, tangent = (mode == APPLY_DUAL_FORWARD || mode == APPLY_DUAL_BACK) && has_dot;
    const size_t C = (size_t)b->C;
    for (size_t at = rows.from * C + (size_t)c, end = rows.to * C; at < end; at += C) {
        vr d = vsub(vload(x + at, n), l.m), h = vmul(d, l.r), p = vfma(h, l.gain, l.bias), mask = vpos(p, one, slope);
        vr hd = tangent ? vfma(vsub(vload(xdot + at, n), l.mdot), l.r, vmul(d, l.rdot)) : vzero();
        if ((mode == APPLY_FORWARD || mode == APPLY_DUAL_FORWARD) && y)
            vstore(y + at, vmul(p, mask), n);
        if (mode == APPLY_DUAL_FORWARD)
            vstore(ydot + at, vmul(vfma(l.gaindot, h, vfma(l.gain, hd, l.biasdot)), mask), n);
        if (mode == APPLY_BACK || mode == APPLY_DUAL_BACK) {
            vr g = vmul(vload(gy + at, n), mask), core = vsub(vsub(g, l.s1), vmul(h, l.s2));
            vr v = vmul(gr, core);
            if (gx)
                vstore(gx + at, acc ? vadd(vload(gx + at, n), v) : v, n);
            if (mode == APPLY_DUAL_BACK) {
                vr gd = vmul(vload(gydot + at, n), mask);
                vr cd = vsub(vsub(gd, l.s1dot), vfma(hd, l.s2, vmul(h, l.s2dot)));
                vr vd = vfma(grdot, core, vmul(gr, cd));
                vstore(gxdot + at, acc ? vadd(vload(gxdot + at, n), vd) : vd, n);
            }
        }
    }
}

#define APPLY_CASE(m, n) case m: if (b->xdot) apply_rows(b, rows, c, n, m, true); else apply_rows(b, rows, c, n, m, false); break;
#define APPLY_ROWS(n)                                  \
    switch (b->mode) {                                 \
    APPLY_CASE(APPLY_FORWARD, n)                       \
    APPLY_CASE(APPLY_DUAL_FORWARD, n)                  \
    APPLY_CASE(APPLY_BACK, n)                          \
    APPLY_CASE(APPLY_DUAL_BACK, n)                     \
    }
static void apply_task(void *arg, int chunk, int thread)
{
    (void)thread;
    const struct bn *b = arg;
    const struct cut_rows rows = cut_at(b->hw, b->batch, chunk);
    for (int c = 0; c < b->C; c += VL) {
        const int n = lanes(b->C - c);
        if (n == VL) APPLY_ROWS(VL) else APPLY_ROWS(n)
    }
}

static void apply(struct bn *b, struct eng_pool *pool, int mode)
{
    b->mode = mode;
    eng_pool_for(pool, cut_count(b->hw, b->batch), apply_task, b);
}

/* ---- the rules ---- */

static void forward(const struct op_call *c, bool dual)
{
    struct bn b = bn_of(c);
    const real *xdot = b.xdot;
    if (c->part != OP_APPLY && !c->again) {
        if (!dual)
            b.xdot = NULL;
        if (!(c->evaluation && c->running))
            gather(&b, c, SUM_STAT);
        if (c->first + c->batch == c->total)
            settle_statistics(c, &b, dual);
        b.xdot = xdot;
    }
    if (c->part != OP_GATHER)
        apply(&b, c->pool, dual ? APPLY_DUAL_FORWARD : APPLY_FORWARD);
}

static void backward(const struct op_call *c, bool dual)
{
    struct bn b = bn_of(c);
    if (c->part != OP_APPLY) {
        gather(&b, c, dual ? SUM_DUAL : SUM_BACK);
        if (c->first + c->batch == c->total)
            settle_back(c, &b, dual);
    }
    if (c->part != OP_GATHER) {
        if (dual && b.gxdot)
            apply(&b, c->pool, APPLY_DUAL_BACK);
        else if (b.gx)
            apply(&b, c->pool, APPLY_BACK);
    }
}

void KN(bn_forward)(const struct op_call *c) { forward(c, false); }
void KN(bn_dual_forward)(const struct op_call *c) { forward(c, true); }
void KN(bn_backward)(const struct op_call *c) { backward(c, false); }
void KN(bn_dual_backward)(const struct op_call *c) { backward(c, true); }
