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
 * Sums: rows are cut into chunks of CHUNK; in a chunk row i belongs to chain i mod 4 of its channel, in `real`; chains
 * are added as (0+1)+(2+3) and chunks in order, in double. Neither vector width nor threads show. */
#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

#define CHUNK 256
enum { M_, R_, GAIN, BIAS, MDOT, RDOT, GAINDOT, BIASDOT, S1, S2, S1DOT, S2DOT, N_COEF };
enum { SUM_X, SUM_VAR, SUM_BACK, SUM_DUAL };
#define MAX_SUMS 4

struct bn {
    size_t M;
    int    C, mode;
    real   slope;
    bool   back_acc;
    const real *x, *xdot, *g, *gdot;
    real  *y, *ydot, *gx, *gxdot;
    real  *coef[N_COEF];  /* [C] each; in scratch, m r mdot rdot also kept in aux */
    double *part;         /* [chunks][MAX_SUMS][C] */
};

static inline size_t n_chunks(size_t M) { return (M + CHUNK - 1) / CHUNK; }

size_t KN(bn_aux)(const struct op_call *c) { return 4 * (size_t)c->out.s.c * sizeof(real); }
size_t KN(bn_scratch)(const struct op_call *c)
{
    size_t C = (size_t)c->out.s.c, M = (size_t)c->batch * (size_t)(c->out.s.h * c->out.s.w);
    return N_COEF * C * sizeof(real) + 64 + n_chunks(M) * MAX_SUMS * C * sizeof(double) + MAX_SUMS * C * sizeof(double);
}

struct lanes { vr m, r, gain, bias, mdot, rdot, gaindot, biasdot, s1, s2, s1dot, s2dot; };
static inline struct lanes lanes_of(const struct bn *b, int c, int n)
{
    return (struct lanes){ vload(b->coef[M_] + c, n), vload(b->coef[R_] + c, n), vload(b->coef[GAIN] + c, n), vload(b->coef[BIAS] + c, n),
                           vload(b->coef[MDOT] + c, n), vload(b->coef[RDOT] + c, n), vload(b->coef[GAINDOT] + c, n), vload(b->coef[BIASDOT] + c, n),
                           vload(b->coef[S1] + c, n), vload(b->coef[S2] + c, n), vload(b->coef[S1DOT] + c, n), vload(b->coef[S2DOT] + c, n) };
}

/* The terms of one row (lanes of one channel block) of the wanted sums. */
static inline __attribute__((always_inline)) void terms(const struct bn *b, const struct lanes *l, size_t at, int n, const int mode,
                                                        const bool has_dot, vr out[MAX_SUMS])
{
    vr x = vload(b->x + at, n), d = vsub(x, l->m);
    if (mode == SUM_X) {
        out[0] = x;
        return;
    }
    if (mode == SUM_VAR) {
        vr xd = has_dot ? vload(b->xdot + at, n) : vzero();
        out[0] = vmul(d, d);
        out[1] = vmul(d, xd);
        out[2] = xd;
        return;
    }
    vr h = vmul(d, l->r), p = vfma(h, l->gain, l->bias), mask = vpos(p, vset(1), vset(b->slope));
    vr g = vmul(vload(b->g + at, n), mask);
    out[0] = g;
    out[1] = vmul(g, h);
    if (mode == SUM_DUAL) {
        vr gd = vmul(vload(b->gdot + at, n), mask);
        vr hd = has_dot ? vfma(vsub(vload(b->xdot + at, n), l->mdot), l->r, vmul(d, l->rdot)) : vzero();
        out[2] = gd;
        out[3] = vfma(gd, h, vmul(g, hd));
    }
}

static inline __attribute__((always_inline)) void sum_block(const struct bn *b, size_t r0, size_t r1, int c, int n, double *part,
                                                            const int mode, const bool has_dot)
{
    const int ns = mode == SUM_X ? 1 : mode == SUM_VAR ? 3 : mode == SUM_BACK ? 2 : 4;
    struct lanes l = lanes_of(b, c, n);
    vr acc[4][MAX_SUMS];
    for (int k = 0; k < 4; k++)
        for (int s = 0; s < ns; s++) acc[k][s] = vzero();
    size_t r = r0;
    for (; r + 4 <= r1; r += 4)
        _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++) {
            vr t[MAX_SUMS];
            terms(b, &l, (r + (size_t)k) * (size_t)b->C + (size_t)c, n, mode, has_dot, t);
            for (int s = 0; s < ns; s++) acc[k][s] = vadd(acc[k][s], t[s]);
        }
    for (int k = 0; r < r1; r++, k++) {
        vr t[MAX_SUMS];
        terms(b, &l, r * (size_t)b->C + (size_t)c, n, mode, has_dot, t);
        for (int s = 0; s < ns; s++) acc[k][s] = vadd(acc[k][s], t[s]);
    }
    for (int s = 0; s < ns; s++) {
        real lane[VL];
        vst(lane, vadd(vadd(acc[0][s], acc[1][s]), vadd(acc[2][s], acc[3][s])));
        for (int j = 0; j < n; j++)
            part[s * b->C + c + j] = (double)lane[j];
    }
}

static void sum_task(void *arg, int chunk, int thread)
{
    (void)thread;
    const struct bn *b = arg;
    size_t r0 = (size_t)chunk * CHUNK, r1 = r0 + CHUNK < b->M ? r0 + CHUNK : b->M;
    double *part = b->part + (size_t)chunk * MAX_SUMS * (size_t)b->C;
    for (int c = 0; c < b->C; c += VL) {
        int n = lanes(b->C - c);
        switch (b->mode) {
        case SUM_X: sum_block(b, r0, r1, c, n, part, SUM_X, false); break;
        case SUM_VAR: b->xdot ? sum_block(b, r0, r1, c, n, part, SUM_VAR, true) : sum_block(b, r0, r1, c, n, part, SUM_VAR, false); break;
        case SUM_BACK: sum_block(b, r0, r1, c, n, part, SUM_BACK, false); break;
        default: b->xdot ? sum_block(b, r0, r1, c, n, part, SUM_DUAL, true) : sum_block(b, r0, r1, c, n, part, SUM_DUAL, false); break;
        }
    }
}

/* total [MAX_SUMS][C] */
static double *sums(struct bn *b, struct eng_pool *pool, int mode)
{
    size_t nc = n_chunks(b->M), row = MAX_SUMS * (size_t)b->C;
    double *total = b->part + nc * row;
    b->mode = mode;
    eng_pool_for(pool, (int)nc, sum_task, b);
    memset(total, 0, row * sizeof *total);
    int ns = mode == SUM_X ? 1 : mode == SUM_VAR ? 3 : mode == SUM_BACK ? 2 : 4;
    for (size_t k = 0; k < nc; k++)
        for (size_t i = 0; i < (size_t)ns * (size_t)b->C; i++)
            total[i] += b->part[k * row + i];
    return total;
}

enum { APPLY_FORWARD, APPLY_DUAL_FORWARD, APPLY_BACK, APPLY_DUAL_BACK };

static inline __attribute__((always_inline)) void apply_rows(const struct bn *b, size_t r0, size_t r1, int c, int n, const int mode, const bool has_dot)
{
    const struct lanes l = lanes_of(b, c, n);
    const vr one = vset(1), slope = vset(b->slope), gr = vmul(l.gain, l.r), grdot = vfma(l.gaindot, l.r, vmul(l.gain, l.rdot));
    for (size_t r = r0; r < r1; r++) {
        const size_t at = r * (size_t)b->C + (size_t)c;
        vr d = vsub(vload(b->x + at, n), l.m), h = vmul(d, l.r), p = vfma(h, l.gain, l.bias), mask = vpos(p, one, slope);
        vr hd = vzero();
        if ((mode == APPLY_DUAL_FORWARD || mode == APPLY_DUAL_BACK) && has_dot)
            hd = vfma(vsub(vload(b->xdot + at, n), l.mdot), l.r, vmul(d, l.rdot));
        if ((mode == APPLY_FORWARD || mode == APPLY_DUAL_FORWARD) && b->y)
            vstore(b->y + at, vmul(p, mask), n);
        if (mode == APPLY_DUAL_FORWARD)
            vstore(b->ydot + at, vmul(vfma(l.gaindot, h, vfma(l.gain, hd, l.biasdot)), mask), n);
        if (mode == APPLY_BACK || mode == APPLY_DUAL_BACK) {
            vr g = vmul(vload(b->g + at, n), mask), core = vsub(vsub(g, l.s1), vmul(h, l.s2));
            vr gx = vmul(gr, core);
            if (b->gx)
                vstore(b->gx + at, b->back_acc ? vadd(vload(b->gx + at, n), gx) : gx, n);
            if (mode == APPLY_DUAL_BACK) {
                vr gd = vmul(vload(b->gdot + at, n), mask);
                vr cd = vsub(vsub(gd, l.s1dot), vfma(hd, l.s2, vmul(h, l.s2dot)));
                vr gxd = vfma(grdot, core, vmul(gr, cd));
                vstore(b->gxdot + at, b->back_acc ? vadd(vload(b->gxdot + at, n), gxd) : gxd, n);
            }
        }
    }
}

#define APPLY_CASE(m) case m: if (n == VL) apply_rows(b, r0, r1, c, VL, m, true); else apply_rows(b, r0, r1, c, n, m, true); break;
static void apply_task(void *arg, int chunk, int thread)
{
    (void)thread;
    const struct bn *b = arg;
    size_t r0 = (size_t)chunk * CHUNK, r1 = r0 + CHUNK < b->M ? r0 + CHUNK : b->M;
    for (int c = 0; c < b->C; c += VL) {
        int n = lanes(b->C - c);
        if (!b->xdot && b->mode == APPLY_DUAL_FORWARD) {
            apply_rows(b, r0, r1, c, n, APPLY_DUAL_FORWARD, false);
            continue;
        }
        if (!b->xdot && b->mode == APPLY_DUAL_BACK) {
            apply_rows(b, r0, r1, c, n, APPLY_DUAL_BACK, false);
            continue;
        }
        switch (b->mode) {
        APPLY_CASE(APPLY_FORWARD)
        APPLY_CASE(APPLY_DUAL_FORWARD)
        APPLY_CASE(APPLY_BACK)
        APPLY_CASE(APPLY_DUAL_BACK)
        }
    }
}

static void apply(struct bn *b, struct eng_pool *pool, int mode)
{
    b->mode = mode;
    eng_pool_for(pool, (int)n_chunks(b->M), apply_task, b);
}

static struct bn bn_of(const struct op_call *c)
{
    struct bn b = { .M = (size_t)c->batch * (size_t)(c->out.s.h * c->out.s.w), .C = c->out.s.c, .slope = (real)c->at.slope,
                    .x = c->in[0].val, .xdot = c->in[0].dot, .y = c->out.val, .ydot = c->out.dot };
    size_t C = (size_t)b.C;
    real *p = c->scratch;
    for (int i = 0; i < N_COEF; i++)
        b.coef[i] = p + (size_t)i * C;
    memset(p, 0, N_COEF * C * sizeof(real));
    b.part = (double *)(void *)((char *)c->scratch + ((N_COEF * C * sizeof(real) + 63) & ~(size_t)63));
    const struct op_view *bias = &c->in[c->at.mean_only ? 1 : 2];
    for (size_t i = 0; i < C; i++)
        b.coef[R_][i] = b.coef[GAIN][i] = 1;
    if (!c->at.mean_only) {
        memcpy(b.coef[GAIN], c->in[1].val, C * sizeof(real));
        if (c->in[1].dot)
            memcpy(b.coef[GAINDOT], c->in[1].dot, C * sizeof(real));
    }
    memcpy(b.coef[BIAS], bias->val, C * sizeof(real));
    if (bias->dot)
        memcpy(b.coef[BIASDOT], bias->dot, C * sizeof(real));
    return b;
}

static void keep(const struct op_call *c, const struct bn *b)
{
    static const int kept[4] = { M_, R_, MDOT, RDOT };
    for (int i = 0; i < 4; i++)
        memcpy((real *)c->aux + (size_t)i * (size_t)b->C, b->coef[kept[i]], (size_t)b->C * sizeof(real));
}

static void recall(const struct op_call *c, struct bn *b)
{
    static const int kept[4] = { M_, R_, MDOT, RDOT };
    for (int i = 0; i < 4; i++)
        memcpy(b->coef[kept[i]], (const real *)c->aux + (size_t)i * (size_t)b->C, (size_t)b->C * sizeof(real));
}

static void update_running(const struct op_call *c, const struct bn *b, const double *var)
{
    real *mean = c->running, *rvar = mean + b->C;
    double m = c->running_momentum, unbias = b->M > 1 ? (double)b->M / (double)(b->M - 1) : 1;
    for (int i = 0; i < b->C; i++) {
        mean[i] = (real)((1 - m) * (double)mean[i] + m * (double)b->coef[M_][i]);
        rvar[i] = (real)((1 - m) * (double)rvar[i] + m * unbias * var[i]);
    }
}

/* m, r (and tangents) of the batch at hand, or of the running statistics in evaluation. */
static void statistics(const struct op_call *c, struct bn *b, bool dual)
{
    const double n = (double)b->M;
    if (c->evaluation && c->running) {
        const real *mean = c->running, *var = mean + b->C;
        for (int i = 0; i < b->C; i++) {
            b->coef[M_][i] = mean[i];
            if (!c->at.mean_only)
                b->coef[R_][i] = (real)(1 / sqrt((double)var[i] + c->at.eps));
        }
        return;
    }
    const real *xdot = b->xdot;
    if (!dual)
        b->xdot = NULL;
    double *s = c->kept ? NULL : sums(b, c->pool, SUM_X);
    for (int i = 0; i < b->C; i++)
        b->coef[M_][i] = c->kept ? ((const real *)c->aux)[i] : (real)(s[i] / n);
    if (!c->at.mean_only || b->xdot || c->running) {
        s = sums(b, c->pool, SUM_VAR);
        for (int i = 0; i < b->C; i++) {
            double var = s[i] / n, vdot = 2 * s[b->C + i] / n, r = 1 / sqrt(var + c->at.eps);
            s[i] = var;
            b->coef[MDOT][i] = (real)(s[2 * b->C + i] / n);
            if (!c->at.mean_only) {
                b->coef[R_][i] = (real)r;
                b->coef[RDOT][i] = (real)(-0.5 * r * r * r * vdot);
            }
        }
    }
    if (c->running && !dual)
        update_running(c, b, s);
    b->xdot = xdot;
}

void KN(bn_forward)(const struct op_call *c)
{
    struct bn b = bn_of(c);
    if (c->again)
        recall(c, &b);
    else {
        statistics(c, &b, false);
        keep(c, &b);
    }
    apply(&b, c->pool, APPLY_FORWARD);
}

void KN(bn_dual_forward)(const struct op_call *c)
{
    struct bn b = bn_of(c);
    if (c->again)
        recall(c, &b);
    else {
        statistics(c, &b, true);
        keep(c, &b);
    }
    apply(&b, c->pool, APPLY_DUAL_FORWARD);
}

static void backward(const struct op_call *c, bool dual)
{
    struct bn b = bn_of(c);
    const int C = b.C;
    const double n = (double)b.M;
    recall(c, &b);
    b.g = c->out.adj;
    b.gdot = c->out.adj_dot;
    b.gx = c->in[0].adj;
    b.gxdot = c->in[0].adj_dot;
    b.back_acc = c->in[0].acc;
    const double *s = sums(&b, c->pool, dual ? SUM_DUAL : SUM_BACK);
    const struct op_view *bias = &c->in[c->at.mean_only ? 1 : 2], *gain = &c->in[1];
    for (int i = 0; i < C; i++) {
        b.coef[S1][i] = (real)(s[i] / n);
        if (bias->adj) ((real *)bias->adj)[i] = (real)s[i];
        if (dual) {
            b.coef[S1DOT][i] = (real)(s[2 * C + i] / n);
            if (bias->adj_dot) ((real *)bias->adj_dot)[i] = (real)s[2 * C + i];
        }
        if (c->at.mean_only)
            continue;
        b.coef[S2][i] = (real)(s[C + i] / n);
        if (gain->adj) ((real *)gain->adj)[i] = (real)s[C + i];
        if (dual) {
            b.coef[S2DOT][i] = (real)(s[3 * C + i] / n);
            if (gain->adj_dot) ((real *)gain->adj_dot)[i] = (real)s[3 * C + i];
        }
    }
    if (dual && b.gxdot)
        apply(&b, c->pool, APPLY_DUAL_BACK);
    else if (b.gx)
        apply(&b, c->pool, APPLY_BACK);
}

void KN(bn_backward)(const struct op_call *c) { backward(c, false); }
void KN(bn_dual_backward)(const struct op_call *c) { backward(c, true); }
