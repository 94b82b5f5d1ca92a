/* pointwise.c - bias, leaky ReLU, tanh, add: one number in, one out.
 *   bias   y = x + b            gb = sum gy (rows in order, double)
 *   lrelu  y = m x, m = 1 where x > 0, else slope; the mask is held fixed in tangents. With slope >= 0, y > 0 exactly where
 *          x > 0 (a NaN and either zero stand on the other side of both): y serves as the mask, and x need not be kept
 *   tanh   d = 1 - y^2:  gx = gy d;  ydot = d xdot;  gxdot = gydot d - 2 gy y ydot
 *   add    y = sum of the inputs
 * Loops over whole buffers; the compiler vectorises them, order does not matter. */
#include "worker/engine/cpu/elementary.h"
#include "worker/engine/op.h"

static size_t elems(const struct op_call *c) { return (size_t)c->batch * (size_t)c->out.s.c * (size_t)c->out.s.h * (size_t)c->out.s.w; }

static void put(real *restrict dst, const real *restrict src, size_t n, bool acc)
{
    if (!acc)
        memcpy(dst, src, n * sizeof(real));
    else
        for (size_t i = 0; i < n; i++)
            dst[i] += src[i];
}

/* ---- bias ---- */

static void add_channels(const struct op_call *c, const real *x, const real *b, real *y)
{
    const size_t rows = elems(c) / (size_t)c->out.s.c;
    const int C = c->out.s.c;
    for (size_t r = 0; r < rows; r++, y += C)
        for (int i = 0; i < C; i++)
            y[i] = (x ? x[r * (size_t)C + (size_t)i] : 0) + b[i];
}

static void sum_channels(const struct op_call *c, const real *g, real *gb)
{
    const size_t rows = elems(c) / (size_t)c->out.s.c;
    const int C = c->out.s.c;
    double *s = c->scratch;
    memset(s, 0, (size_t)C * sizeof *s);
    for (size_t r = 0; r < rows; r++, g += C)
        for (int i = 0; i < C; i++)
            s[i] += (double)g[i];
    for (int i = 0; i < C; i++)
        gb[i] = (real)s[i];
}

size_t KN(bias_scratch)(const struct op_call *c) { return (size_t)c->out.s.c * sizeof(double); }

void KN(bias_forward)(const struct op_call *c) { add_channels(c, c->in[0].val, c->in[1].val, c->out.val); }
void KN(bias_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(bias_forward)(c);
    add_channels(c, c->in[0].dot, c->in[1].dot, c->out.dot);
}
void KN(bias_backward)(const struct op_call *c)
{
    if (c->in[0].adj) put(c->in[0].adj, c->out.adj, elems(c), c->in[0].acc);
    if (c->in[1].adj) sum_channels(c, c->out.adj, c->in[1].adj);
}
void KN(bias_dual_backward)(const struct op_call *c)
{
    KN(bias_backward)(c);
    if (c->in[0].adj_dot) put(c->in[0].adj_dot, c->out.adj_dot, elems(c), c->in[0].acc);
    sum_channels(c, c->out.adj_dot, c->in[1].adj_dot);
}

/* ---- leaky ReLU ---- */

static void masked(size_t n, real slope, const real *restrict x, const real *restrict g, real *restrict out, bool acc)
{
    if (acc)
        for (size_t i = 0; i < n; i++)
            out[i] += x[i] > 0 ? g[i] : slope * g[i];
    else
        for (size_t i = 0; i < n; i++)
            out[i] = x[i] > 0 ? g[i] : slope * g[i];
}

void KN(lrelu_forward)(const struct op_call *c)
{
    const real *restrict x = c->in[0].val, slope = (real)c->at.slope;
    real *restrict y = c->out.val;
    for (size_t i = 0, n = elems(c); i < n; i++)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}
static const real *mask(const struct op_call *c) { return c->at.slope >= 0 ? c->out.val : c->in[0].val; }
void KN(lrelu_backward)(const struct op_call *c)
{
    if (c->in[0].adj) masked(elems(c), (real)c->at.slope, mask(c), c->out.adj, c->in[0].adj, c->in[0].acc);
}
void KN(lrelu_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(lrelu_forward)(c);
    masked(elems(c), (real)c->at.slope, mask(c), c->in[0].dot, c->out.dot, false);
}
void KN(lrelu_dual_backward)(const struct op_call *c)
{
    KN(lrelu_backward)(c);
    if (c->in[0].adj_dot) masked(elems(c), (real)c->at.slope, mask(c), c->out.adj_dot, c->in[0].adj_dot, c->in[0].acc);
}

/* ---- tanh ---- */

void KN(tanh_forward)(const struct op_call *c)
{
    const real *x = c->in[0].val;
    real *y = c->out.val;
    for (size_t i = 0, n = elems(c); i < n; i++)
        y[i] = r_tanh(x[i]);
}
void KN(tanh_backward)(const struct op_call *c)
{
    const real *restrict y = c->out.val, *restrict g = c->out.adj;
    real *restrict gx = c->in[0].adj;
    if (gx)
        for (size_t i = 0, n = elems(c); i < n; i++) {
            real v = g[i] * (1 - y[i] * y[i]);
            gx[i] = c->in[0].acc ? gx[i] + v : v;
        }
}
void KN(tanh_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(tanh_forward)(c);
    const real *restrict y = c->out.val, *restrict xd = c->in[0].dot;
    real *restrict yd = c->out.dot;
    for (size_t i = 0, n = elems(c); i < n; i++)
        yd[i] = (1 - y[i] * y[i]) * xd[i];
}
void KN(tanh_dual_backward)(const struct op_call *c)
{
    KN(tanh_backward)(c);
    const real *restrict y = c->out.val, *restrict yd = c->out.dot, *restrict g = c->out.adj, *restrict gd = c->out.adj_dot;
    real *restrict gxd = c->in[0].adj_dot;
    if (gxd)
        for (size_t i = 0, n = elems(c); i < n; i++) {
            real v = gd[i] * (1 - y[i] * y[i]) - (yd ? 2 * g[i] * y[i] * yd[i] : 0);
            gxd[i] = c->in[0].acc ? gxd[i] + v : v;
        }
}

/* ---- add ---- */

static void add_all(const struct op_call *c, bool dot)
{
    real *y = dot ? c->out.dot : c->out.val;
    bool  started = false;
    for (int i = 0; i < c->n_in; i++) {
        const real *x = dot ? c->in[i].dot : c->in[i].val;
        if (x) {
            put(y, x, elems(c), started);
            started = true;
        }
    }
}

void KN(add_forward)(const struct op_call *c) { add_all(c, false); }
void KN(add_dual_forward)(const struct op_call *c)
{
    if (!c->kept) add_all(c, false);
    add_all(c, true);
}
void KN(add_backward)(const struct op_call *c)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].adj) put(c->in[i].adj, c->out.adj, elems(c), c->in[i].acc);
}
void KN(add_dual_backward)(const struct op_call *c)
{
    KN(add_backward)(c);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].adj_dot) put(c->in[i].adj_dot, c->out.adj_dot, elems(c), c->in[i].acc);
}
