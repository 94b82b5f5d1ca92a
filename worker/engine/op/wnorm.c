/* wnorm.c - weight normalisation (Salimans, Kingma 2016): w = g v / n, n = |v| per output column of v [rows, Co].
 *
 *   wdot = gdot v/n + g vdot/n - g v ndot/n^2,  ndot = (v.vdot)/n
 *   with s = v.gw:   gg = s/n                     gv = (g/n) gw - (g s/n^3) v
 *   tangents:  sdot = vdot.gw + v.gwdot           ggdot = sdot/n - s ndot/n^2
 *              gvdot = (g/n)' gw + (g/n) gwdot - (g s/n^3)' v - (g s/n^3) vdot
 * Row by row, so that memory is walked in order; one double sum a column. */
#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

struct wn {
    int rows, co;
    const real *v, *g, *vd, *gd;
    double *sum[4], *a, *b, *ad, *bd; /* [co] each, in scratch */
};
enum { N_COLUMNS = 8 };

size_t KN(wnorm_scratch)(const struct op_call *c) { return N_COLUMNS * (size_t)c->in[0].s.c * sizeof(double); }

static struct wn wn_of(const struct op_call *c)
{
    struct wn w = { .rows = c->in[0].s.h, .co = c->in[0].s.c, .v = c->in[0].val, .g = c->in[1].val, .vd = c->in[0].dot, .gd = c->in[1].dot };
    double *p = c->scratch, **slot[N_COLUMNS] = { &w.sum[0], &w.sum[1], &w.sum[2], &w.sum[3], &w.a, &w.b, &w.ad, &w.bd };
    for (int i = 0; i < N_COLUMNS; i++)
        *slot[i] = p + (ptrdiff_t)i * w.co;
    return w;
}

static void column_dots(const real *a, const real *b, int rows, int co, double *sum, bool add)
{
    if (!add)
        memset(sum, 0, (size_t)co * sizeof *sum);
    for (int r = 0; r < rows; r++, a += co, b += co)
        for (int o = 0; o < co; o++)
            sum[o] += (double)a[o] * (double)b[o];
}

static void forward(const struct op_call *c, bool dual)
{
    struct wn w = wn_of(c);
    column_dots(w.v, w.v, w.rows, w.co, w.sum[0], false);
    if (dual)
        column_dots(w.v, w.vd, w.rows, w.co, w.sum[1], false);
    for (int o = 0; o < w.co; o++) {
        double n = sqrt(w.sum[0][o]);
        w.a[o] = (double)w.g[o] / n;
        if (dual)
            w.ad[o] = (double)w.gd[o] / n - (double)w.g[o] * (w.sum[1][o] / n) / (n * n);
    }
    real *y = c->out.val, *yd = c->out.dot;
    const real *v = w.v, *vd = w.vd;
    for (int r = 0; r < w.rows; r++, v += w.co, y += w.co) {
        for (int o = 0; o < w.co; o++)
            y[o] = (real)(w.a[o] * (double)v[o]);
        if (!dual)
            continue;
        for (int o = 0; o < w.co; o++)
            yd[o] = (real)(w.ad[o] * (double)v[o] + w.a[o] * (double)vd[o]);
        yd += w.co;
        vd += w.co;
    }
}

static void coefficients(const struct op_call *c, struct wn *w, bool dual)
{
    real *gg = c->in[1].adj, *ggd = c->in[1].adj_dot;
    for (int o = 0; o < w->co; o++) {
        double n = sqrt(w->sum[0][o]), g = (double)w->g[o], s = w->sum[1][o], n2 = n * n, n3 = n2 * n;
        w->a[o] = g / n;
        w->b[o] = g * s / n3;
        if (gg)
            gg[o] = (real)(s / n);
        if (!dual)
            continue;
        double gd = (double)w->gd[o], nd = w->sum[2][o] / n, sd = w->sum[3][o];
        ggd[o] = (real)(sd / n - s * nd / n2);
        w->ad[o] = gd / n - g * nd / n2;
        w->bd[o] = (gd * s + g * sd) / n3 - 3 * g * s * nd / (n2 * n2);
    }
}

static void backward(const struct op_call *c, bool dual)
{
    struct wn w = wn_of(c);
    const real *gw = c->out.adj, *gwd = c->out.adj_dot, *v = w.v, *vd = w.vd;
    real *gv = c->in[0].adj, *gvd = c->in[0].adj_dot;
    column_dots(v, v, w.rows, w.co, w.sum[0], false);
    column_dots(v, gw, w.rows, w.co, w.sum[1], false);
    if (dual) {
        column_dots(v, vd, w.rows, w.co, w.sum[2], false);
        column_dots(vd, gw, w.rows, w.co, w.sum[3], false);
        column_dots(v, gwd, w.rows, w.co, w.sum[3], true);
    }
    coefficients(c, &w, dual);
    for (ptrdiff_t r = 0; r < w.rows; r++) {
        const ptrdiff_t at = r * w.co;
        if (gv)
            for (int o = 0; o < w.co; o++)
                gv[at + o] = (real)(w.a[o] * (double)gw[at + o] - w.b[o] * (double)v[at + o]);
        if (dual)
            for (int o = 0; o < w.co; o++)
                gvd[at + o] = (real)(w.ad[o] * (double)gw[at + o] + w.a[o] * (double)gwd[at + o] - w.bd[o] * (double)v[at + o] -
                                     w.b[o] * (double)vd[at + o]);
    }
}

void KN(wnorm_forward)(const struct op_call *c) { forward(c, false); }
void KN(wnorm_dual_forward)(const struct op_call *c) { forward(c, true); }
void KN(wnorm_backward)(const struct op_call *c) { backward(c, false); }
void KN(wnorm_dual_backward)(const struct op_call *c) { backward(c, true); }
