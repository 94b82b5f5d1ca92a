/* pointwise.c - bias, leaky ReLU, tanh, add: one number in, one out.
 *   bias   y = x + b            gb = sum gy (rows in order, double)
 *   lrelu  y = m x, m = 1 where x > 0, else slope; the mask is held fixed in tangents. With slope >= 0, y > 0 exactly where
 *          x > 0 (a NaN and either zero stand on the other side of both): y serves as the mask, and x need not be kept
 *   tanh   d = 1 - y^2:  gx = gy d;  ydot = d xdot;  gxdot = gydot d - 2 gy y ydot
 *   add    y = sum of the inputs
 * Each is a loop over a range of elements; the compiler vectorises it, order does not matter. Threads share the images as the
 * convolutions around it do, so that each works on what it wrote. */
#include "worker/engine/cpu/elementary.h"
#include "worker/engine/op.h"

typedef void range_fn(const struct op_call *c, size_t from, size_t to);
struct ranged { const struct op_call *c; range_fn *fn; size_t image; };
enum { WORTH = 1 << 13 }; /* elements below which other threads are not called */

static void range_task(void *arg, int img, int thread)
{
    (void)thread;
    const struct ranged *r = arg;
    r->fn(r->c, (size_t)img * r->image, (size_t)(img + 1) * r->image);
}

static void over_images(const struct op_call *c, range_fn *fn)
{
    struct ranged r = { c, fn, (size_t)c->out.s.c * (size_t)c->out.s.h * (size_t)c->out.s.w };
    const size_t n = (size_t)c->batch * r.image;
    if (n < WORTH || eng_pool_threads(c->pool) == 1)
        fn(c, 0, n);
    else
        eng_pool_for(c->pool, c->batch, range_task, &r);
}

static void put(real *restrict dst, const real *restrict src, size_t from, size_t to, bool acc)
{
    if (!acc)
        memcpy(dst + from, src + from, (to - from) * sizeof(real));
    else
        for (size_t i = from; i < to; i++)
            dst[i] += src[i];
}

/* ---- bias ---- */

static void add_channels(const struct op_call *c, size_t from, size_t to, const real *x, const real *b, real *y)
{
    const size_t C = (size_t)c->out.s.c;
    for (size_t at = from; at < to; at += C)
        for (size_t i = 0; i < C; i++)
            y[at + i] = (x ? x[at + i] : 0) + b[i];
}
static void bias_val(const struct op_call *c, size_t from, size_t to) { add_channels(c, from, to, c->in[0].val, c->in[1].val, c->out.val); }
static void bias_dot(const struct op_call *c, size_t from, size_t to) { add_channels(c, from, to, c->in[0].dot, c->in[1].dot, c->out.dot); }
static void bias_adj(const struct op_call *c, size_t from, size_t to) { put(c->in[0].adj, c->out.adj, from, to, c->in[0].acc); }
static void bias_adj_dot(const struct op_call *c, size_t from, size_t to) { put(c->in[0].adj_dot, c->out.adj_dot, from, to, c->in[0].acc); }

static void sum_channels(const struct op_call *c, const real *g, real *gb)
{
    const int C = c->out.s.c;
    const size_t rows = (size_t)c->batch * (size_t)c->out.s.h * (size_t)c->out.s.w;
    double *s = c->scratch;
    memset(s, 0, (size_t)C * sizeof *s);
    for (size_t r = 0; r < rows; r++, g += C)
        for (int i = 0; i < C; i++)
            s[i] += (double)g[i];
    for (int i = 0; i < C; i++)
        gb[i] = (real)s[i];
}

size_t KN(bias_scratch)(const struct op_call *c) { return (size_t)c->out.s.c * sizeof(double); }

void KN(bias_forward)(const struct op_call *c) { over_images(c, bias_val); }
void KN(bias_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(bias_forward)(c);
    over_images(c, bias_dot);
}
void KN(bias_backward)(const struct op_call *c)
{
    if (c->in[0].adj) over_images(c, bias_adj);
    if (c->in[1].adj) sum_channels(c, c->out.adj, c->in[1].adj);
}
void KN(bias_dual_backward)(const struct op_call *c)
{
    KN(bias_backward)(c);
    if (c->in[0].adj_dot) over_images(c, bias_adj_dot);
    sum_channels(c, c->out.adj_dot, c->in[1].adj_dot);
}

/* ---- leaky ReLU ---- */

static const real *mask(const struct op_call *c) { return c->at.slope >= 0 ? c->out.val : c->in[0].val; }

static void masked(const struct op_call *c, size_t from, size_t to, const real *restrict g, real *restrict out, bool acc)
{
    const real *restrict x = mask(c), slope = (real)c->at.slope;
    if (acc)
        for (size_t i = from; i < to; i++)
            out[i] += x[i] > 0 ? g[i] : slope * g[i];
    else
        for (size_t i = from; i < to; i++)
            out[i] = x[i] > 0 ? g[i] : slope * g[i];
}

static void lrelu_val(const struct op_call *c, size_t from, size_t to)
{
    const real *restrict x = c->in[0].val, slope = (real)c->at.slope;
    real *restrict y = c->out.val;
    for (size_t i = from; i < to; i++)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}
static void lrelu_dot(const struct op_call *c, size_t from, size_t to) { masked(c, from, to, c->in[0].dot, c->out.dot, false); }
static void lrelu_adj(const struct op_call *c, size_t from, size_t to) { masked(c, from, to, c->out.adj, c->in[0].adj, c->in[0].acc); }
static void lrelu_adj_dot(const struct op_call *c, size_t from, size_t to) { masked(c, from, to, c->out.adj_dot, c->in[0].adj_dot, c->in[0].acc); }

void KN(lrelu_forward)(const struct op_call *c) { over_images(c, lrelu_val); }
void KN(lrelu_backward)(const struct op_call *c)
{
    if (c->in[0].adj) over_images(c, lrelu_adj);
}
void KN(lrelu_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(lrelu_forward)(c);
    over_images(c, lrelu_dot);
}
void KN(lrelu_dual_backward)(const struct op_call *c)
{
    KN(lrelu_backward)(c);
    if (c->in[0].adj_dot) over_images(c, lrelu_adj_dot);
}

/* ---- tanh ---- */

static void tanh_val(const struct op_call *c, size_t from, size_t to)
{
    const real *x = c->in[0].val;
    real *y = c->out.val;
    for (size_t i = from; i < to; i++)
        y[i] = r_tanh(x[i]);
}
static void tanh_dot(const struct op_call *c, size_t from, size_t to)
{
    const real *restrict y = c->out.val, *restrict xd = c->in[0].dot;
    real *restrict yd = c->out.dot;
    for (size_t i = from; i < to; i++)
        yd[i] = (1 - y[i] * y[i]) * xd[i];
}
static void tanh_adj(const struct op_call *c, size_t from, size_t to)
{
    const real *restrict y = c->out.val, *restrict g = c->out.adj;
    real *restrict gx = c->in[0].adj;
    for (size_t i = from; i < to; i++) {
        real v = g[i] * (1 - y[i] * y[i]);
        gx[i] = c->in[0].acc ? gx[i] + v : v;
    }
}
static void tanh_adj_dot(const struct op_call *c, size_t from, size_t to)
{
    const real *restrict y = c->out.val, *restrict yd = c->out.dot, *restrict g = c->out.adj, *restrict gd = c->out.adj_dot;
    real *restrict gxd = c->in[0].adj_dot;
    for (size_t i = from; i < to; i++) {
        real v = gd[i] * (1 - y[i] * y[i]) - (yd ? 2 * g[i] * y[i] * yd[i] : 0);
        gxd[i] = c->in[0].acc ? gxd[i] + v : v;
    }
}

void KN(tanh_forward)(const struct op_call *c) { over_images(c, tanh_val); }
void KN(tanh_backward)(const struct op_call *c)
{
    if (c->in[0].adj) over_images(c, tanh_adj);
}
void KN(tanh_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(tanh_forward)(c);
    over_images(c, tanh_dot);
}
void KN(tanh_dual_backward)(const struct op_call *c)
{
    KN(tanh_backward)(c);
    if (c->in[0].adj_dot) over_images(c, tanh_adj_dot);
}

/* ---- add ---- */

/* y = ((x0 + x1) + x2) + …, of the inputs that have this part. */
static void sum_inputs(const struct op_call *c, size_t from, size_t to, bool dot)
{
    const real *x[OP_MAX_IN];
    real *restrict y = dot ? c->out.dot : c->out.val;
    int   n = 0;
    for (int i = 0; i < c->n_in; i++)
        if ((dot ? c->in[i].dot : c->in[i].val))
            x[n++] = dot ? c->in[i].dot : c->in[i].val;
    if (n == 1)
        put(y, x[0], from, to, false);
    if (n > 1)
        for (size_t i = from; i < to; i++)
            y[i] = x[0][i] + x[1][i];
    for (int k = 2; k < n; k++)
        put(y, x[k], from, to, true);
}
static void add_val(const struct op_call *c, size_t from, size_t to) { sum_inputs(c, from, to, false); }
static void add_dot(const struct op_call *c, size_t from, size_t to) { sum_inputs(c, from, to, true); }

static void add_adj(const struct op_call *c, size_t from, size_t to)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].adj) put(c->in[i].adj, c->out.adj, from, to, c->in[i].acc);
}
static void add_adj_dot(const struct op_call *c, size_t from, size_t to)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].adj_dot) put(c->in[i].adj_dot, c->out.adj_dot, from, to, c->in[i].acc);
}

void KN(add_forward)(const struct op_call *c) { over_images(c, add_val); }
void KN(add_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(add_forward)(c);
    over_images(c, add_dot);
}
void KN(add_backward)(const struct op_call *c) { over_images(c, add_adj); }
void KN(add_dual_backward)(const struct op_call *c)
{
    KN(add_backward)(c);
    over_images(c, add_adj_dot);
}
