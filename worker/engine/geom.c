#include "worker/engine/cpu/geom.h"

#include <limits.h>

struct geom geom_of(const struct op_call *c)
{
    const struct net_shape *x = &c->in[0].s, *y = &c->out.s;
    int k = c->at.k > 0 ? c->at.k : 1;
    return (struct geom){ .N = c->batch, .H = x->h, .W = x->w, .Ci = x->c, .Ho = y->h, .Wo = y->w, .Co = y->c, .k = k,
                          .s = c->at.stride > 0 ? c->at.stride : 1, .p = c->at.pad,
                          .d = c->at.dilation > 0 ? c->at.dilation : 1, .G = c->at.groups > 0 ? c->at.groups : 1 };
}

struct border border_forward(const struct geom *g)
{
    return (struct border){ .top = g->p, .left = g->p, .H = g->H + 2 * g->p, .W = g->W + 2 * g->p, .none = g->p == 0 };
}

static int floor_mod(int a, int m)
{
    int r = a % m;
    return r < 0 ? r + m : r;
}

/* Least and greatest place of dy (in one direction) that any pixel of dx reads. */
static void reach(const struct geom *g, int extent, int *lo, int *hi)
{
    *lo = INT_MAX;
    *hi = INT_MIN;
    for (int ph = 0; ph < g->s && ph < extent; ph++)
        for (int k = 0; k < g->k; k++) {
            int a = ph + g->p - k * g->d;
            if (floor_mod(a, g->s))
                continue;
            int o = (a - floor_mod(a, g->s)) / g->s, last = (extent - 1 - ph) / g->s;
            if (o < *lo) *lo = o;
            if (o + last > *hi) *hi = o + last;
        }
    if (*lo > *hi)
        *lo = *hi = 0;
}

struct border border_backward(const struct geom *g)
{
    int lo, hi;
    struct border b;
    reach(g, g->H, &lo, &hi);
    b.top = lo < 0 ? -lo : 0;
    b.H = b.top + (hi >= g->Ho ? hi + 1 : g->Ho);
    reach(g, g->W, &lo, &hi);
    b.left = lo < 0 ? -lo : 0;
    b.W = b.left + (hi >= g->Wo ? hi + 1 : g->Wo);
    b.none = b.H == g->Ho && b.W == g->Wo;
    return b;
}

void taps_carve(struct carve *c, int k, struct taps *t)
{
    size_t n = (size_t)k * (size_t)k;
    t->at = carve(c, n * sizeof *t->at);
    t->off = carve(c, n * sizeof *t->off);
    t->run = carve(c, n * sizeof *t->run);
}

static void make_runs(struct taps *t, int per_run, int channels)
{
    t->per_run = per_run;
    for (int i = 0; i < t->n / per_run; i++)
        t->run[i] = t->off[i * per_run] * channels;
}

void taps_forward(const struct geom *g, const struct border *b, struct taps *t)
{
    t->n = 0;
    for (int kh = 0; kh < g->k; kh++)
        for (int kw = 0; kw < g->k; kw++) {
            t->at[t->n] = kh * g->k + kw;
            t->off[t->n++] = (ptrdiff_t)kh * g->d * b->W + kw * g->d;
        }
    make_runs(t, g->G == 1 && g->d == 1 ? g->k : 1, g->Ci);
}

/* Kernel places that reach this residue, in falling order: their places in dy then rise. */
static int places(const struct geom *g, int ph, int *k_of, int *o_of)
{
    int n = 0;
    for (int k = g->k - 1; k >= 0; k--) {
        int a = ph + g->p - k * g->d;
        if (floor_mod(a, g->s) == 0) {
            k_of[n] = k;
            o_of[n++] = a / g->s;
        }
    }
    return n;
}

struct phase taps_backward(const struct geom *g, const struct border *b, int ph, int pw, struct taps *t)
{

    int kw_of[256], ow_of[256], kh_of[256], oh_of[256];
    int nh = places(g, ph, kh_of, oh_of), nw = places(g, pw, kw_of, ow_of);
    bool side_by_side = g->G == 1;
    for (int j = 1; j < nw; j++)
        side_by_side &= ow_of[j] == ow_of[j - 1] + 1;
    t->n = 0;
    for (int i = 0; i < nh; i++)
        for (int j = 0; j < nw; j++) {
            t->at[t->n] = kh_of[i] * g->k + kw_of[j];
            t->off[t->n++] = (ptrdiff_t)(oh_of[i] + b->top) * b->W + ow_of[j] + b->left;
        }
    make_runs(t, side_by_side && nw > 0 ? nw : 1, g->Co);
    return (struct phase){ .r0 = ph, .c0 = pw, .step = g->s, .rows = ph < g->H ? (g->H - 1 - ph) / g->s + 1 : 0,
                           .cols = pw < g->W ? (g->W - 1 - pw) / g->s + 1 : 0 };
}
