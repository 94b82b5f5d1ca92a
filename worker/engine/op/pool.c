/* pool.c - max, average and global average pooling on [N,H,W,C].
 *   maxpool  the winning place is kept (first in row-major order on ties) and held fixed in tangents
 *   avgpool  mean over the places inside the image: padding does not count
 *   gap      mean over H and W
 * All three are linear once the winners are known: tangent rules are the rules on tangents. */
#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

struct win { int h0, h1, w0, w1; }; /* places of x in the window, clipped to the image */

static struct win window(const struct op_call *c, int oh, int ow)
{
    int k = c->at.k, s = c->at.stride, p = c->at.pad, h = oh * s - p, w = ow * s - p;
    return (struct win){ h < 0 ? 0 : h, h + k < c->in[0].s.h ? h + k : c->in[0].s.h, w < 0 ? 0 : w, w + k < c->in[0].s.w ? w + k : c->in[0].s.w };
}

static size_t in_elems(const struct op_call *c) { return (size_t)c->in[0].s.c * (size_t)c->in[0].s.h * (size_t)c->in[0].s.w; }
static size_t out_elems(const struct op_call *c) { return (size_t)c->out.s.c * (size_t)c->out.s.h * (size_t)c->out.s.w; }

/* ---- max ---- */

/* The winner's number in its (clipped) window, kept as a `real` so that it moves through the same lanes. */
size_t KN(maxpool_aux)(const struct op_call *c) { return (size_t)c->batch * out_elems(c) * sizeof(real); }

static void max_image(void *arg, int n, int thread)
{
    (void)thread;
    const struct op_call *c = arg;
    const int C = c->out.s.c, W = c->in[0].s.w;
    const real *x = (const real *)c->in[0].val + (size_t)n * in_elems(c);
    real *y = (real *)c->out.val + (size_t)n * out_elems(c), *at = (real *)c->aux + (size_t)(c->first + n) * out_elems(c);
    for (int oh = 0; oh < c->out.s.h; oh++)
        for (int ow = 0; ow < c->out.s.w; ow++, y += C, at += C) {
            const struct win v = window(c, oh, ow);
            for (int i = 0; i < C; i += VL) {
                const int nl = lanes(C - i);
                vr  best = vload(x + ((ptrdiff_t)v.h0 * W + v.w0) * C + i, nl), who = vzero();
                int place = 0;
                for (int h = v.h0; h < v.h1; h++)
                    for (int w = v.w0; w < v.w1; w++, place++) {
                        vr a = vload(x + ((ptrdiff_t)h * W + w) * C + i, nl);
                        who = vgt(a, best, vset((real)place), veq(a, a, who, vset((real)place)));
                        best = vgt(a, best, a, veq(a, a, best, a)); /* a NaN wins, and stays */
                    }
                vstore(y + i, best, nl);
                vstore(at + i, who, nl);
            }
        }
}

/* Windows that neither meet nor leave gaps: each place of x is written once, nothing need be cleared. */
static bool tiles(const struct op_call *c)
{
    return c->at.stride == c->at.k && c->at.pad == 0 && c->in[0].s.h % c->at.k == 0 && c->in[0].s.w % c->at.k == 0;
}

/* to = true: out[o] = in[winner(o)] (tangent); false: in[winner(o)] += out[o] (adjoint) */
struct route { const struct op_call *c; real *in, *out; bool to; };
static void route_image(void *arg, int n, int thread)
{
    (void)thread;
    const struct route *r = arg;
    const struct op_call *c = r->c;
    const int C = c->out.s.c, W = c->in[0].s.w;
    real *x = r->in + (size_t)n * in_elems(c), *y = r->out + (size_t)n * out_elems(c);
    const real *at = (const real *)c->aux + (size_t)(c->first + n) * out_elems(c);
    const bool set = !c->in[0].acc && tiles(c);
    if (!r->to && !c->in[0].acc && !set)
        memset(x, 0, in_elems(c) * sizeof(real));
    for (int oh = 0; oh < c->out.s.h; oh++)
        for (int ow = 0; ow < c->out.s.w; ow++, y += C, at += C) {
            const struct win v = window(c, oh, ow);
            for (int i = 0; i < C; i += VL) {
                const int nl = lanes(C - i);
                const vr  who = vload(at + i, nl), out = r->to ? vzero() : vload(y + i, nl);
                vr  got = vzero();
                int place = 0;
                for (int h = v.h0; h < v.h1; h++)
                    for (int w = v.w0; w < v.w1; w++, place++) {
                        real *a = x + ((ptrdiff_t)h * W + w) * C + i;
                        if (r->to)
                            got = veq(who, vset((real)place), vload(a, nl), got);
                        else {
                            vr g = veq(who, vset((real)place), out, vzero());
                            vstore(a, set ? g : vadd(vload(a, nl), g), nl);
                        }
                    }
                if (r->to)
                    vstore(y + i, got, nl);
            }
        }
}

static void route(const struct op_call *c, void *in, void *out, bool to)
{
    struct route r = { c, in, out, to };
    eng_pool_for(c->pool, c->batch, route_image, &r);
}

void KN(maxpool_forward)(const struct op_call *c)
{
    struct op_call copy = *c;
    eng_pool_for(c->pool, c->batch, max_image, &copy);
}
void KN(maxpool_dual_forward)(const struct op_call *c)
{
    if (!c->kept) KN(maxpool_forward)(c);
    route(c, c->in[0].dot, c->out.dot, true);
}
void KN(maxpool_backward)(const struct op_call *c)
{
    if (c->in[0].adj) route(c, c->in[0].adj, c->out.adj, false);
}
void KN(maxpool_dual_backward)(const struct op_call *c)
{
    KN(maxpool_backward)(c);
    if (c->in[0].adj_dot) route(c, c->in[0].adj_dot, c->out.adj_dot, false);
}

/* ---- average: gap is the window that covers the image ---- */

struct mean { const struct op_call *c; const real *from; real *to; bool global; };

static struct win mean_window(const struct mean *m, int oh, int ow)
{
    return m->global ? (struct win){ 0, m->c->in[0].s.h, 0, m->c->in[0].s.w } : window(m->c, oh, ow);
}

static void mean_image(void *arg, int n, int thread)
{
    (void)thread;
    const struct mean *m = arg;
    const struct op_call *c = m->c;
    const int C = c->out.s.c, W = c->in[0].s.w;
    const real *x = m->from + (size_t)n * in_elems(c);
    real *restrict y = m->to + (size_t)n * out_elems(c);
    for (int oh = 0; oh < c->out.s.h; oh++)
        for (int ow = 0; ow < c->out.s.w; ow++, y += C) {
            struct win v = mean_window(m, oh, ow);
            const real scale = 1 / (real)((v.h1 - v.h0) * (v.w1 - v.w0));
            for (int i = 0; i < C; i++) y[i] = 0;
            for (int h = v.h0; h < v.h1; h++)
                for (int w = v.w0; w < v.w1; w++) {
                    const real *restrict a = x + ((ptrdiff_t)h * W + w) * C;
                    for (int i = 0; i < C; i++) y[i] += a[i];
                }
            for (int i = 0; i < C; i++) y[i] *= scale;
        }
}

static void spread_image(void *arg, int n, int thread)
{
    (void)thread;
    const struct mean *m = arg;
    const struct op_call *c = m->c;
    const int C = c->out.s.c, W = c->in[0].s.w;
    const real *restrict g = m->from + (size_t)n * out_elems(c);
    real *x = m->to + (size_t)n * in_elems(c);
    if (!c->in[0].acc)
        memset(x, 0, in_elems(c) * sizeof(real));
    for (int oh = 0; oh < c->out.s.h; oh++)
        for (int ow = 0; ow < c->out.s.w; ow++, g += C) {
            struct win v = mean_window(m, oh, ow);
            const real scale = 1 / (real)((v.h1 - v.h0) * (v.w1 - v.w0));
            for (int h = v.h0; h < v.h1; h++)
                for (int w = v.w0; w < v.w1; w++) {
                    real *restrict a = x + ((ptrdiff_t)h * W + w) * C;
                    for (int i = 0; i < C; i++) a[i] += g[i] * scale;
                }
        }
}

static void mean(const struct op_call *c, const void *from, void *to, bool global, bool back)
{
    struct mean m = { c, from, to, global };
    if (to)
        eng_pool_for(c->pool, c->batch, back ? spread_image : mean_image, &m);
}

#define MEAN_RULES(name, global)                                                                                 \
    void KN(name##_forward)(const struct op_call *c) { mean(c, c->in[0].val, c->out.val, global, false); }       \
    void KN(name##_backward)(const struct op_call *c) { mean(c, c->out.adj, c->in[0].adj, global, true); }       \
    void KN(name##_dual_forward)(const struct op_call *c)                                                        \
    {                                                                                                            \
        if (!c->kept) mean(c, c->in[0].val, c->out.val, global, false);                                          \
        mean(c, c->in[0].dot, c->out.dot, global, false);                                                        \
    }                                                                                                            \
    void KN(name##_dual_backward)(const struct op_call *c)                                                       \
    {                                                                                                            \
        mean(c, c->out.adj, c->in[0].adj, global, true);                                                         \
        mean(c, c->out.adj_dot, c->in[0].adj_dot, global, true);                                                 \
    }
MEAN_RULES(avgpool, false)
MEAN_RULES(gap, true)
