/* bilinear.h - the four rules of an op y = f(x, w) that is linear in each: written once, in terms of
 *   NAME_map(call, transposed, n, src[], w[], dst, acc)   dst (+)= sum over n terms of f(src, w), or of its transpose in x
 *   NAME_corr(call, n, x[], gy[], gw)                     gw = sum over n terms of the transpose in w
 *
 *   forward    y  = f(x, w)          dual  ydot  = f(xdot, w) + f(x, wdot)
 *   backward   gx = f'(gy, w)        dual  gxdot = f'(gydot, w) + f'(gy, wdot)
 *              gw = corr(x, gy)      dual  gwdot = corr(xdot, gy) + corr(x, gydot)
 * A tangent known to be zero (the network's input) takes no part. */
#ifndef DIDACT_ENGINE_BILINEAR_H
#define DIDACT_ENGINE_BILINEAR_H

#include "worker/engine/op.h"

#define BILINEAR_RULES(name)                                                                          \
    void KN(name##_forward)(const struct op_call *c)                                                  \
    {                                                                                                 \
        const void *x[] = { c->in[0].val }, *w[] = { c->in[1].val };                                  \
        name##_map(c, false, 1, x, w, c->out.val, false);                                             \
    }                                                                                                 \
    void KN(name##_backward)(const struct op_call *c)                                                 \
    {                                                                                                 \
        const void *gy[] = { c->out.adj }, *w[] = { c->in[1].val }, *x[] = { c->in[0].val };          \
        if (c->in[0].adj)                                                                             \
            name##_map(c, true, 1, gy, w, c->in[0].adj, c->in[0].acc);                                \
        if (c->in[1].adj)                                                                             \
            name##_corr(c, 1, x, gy, c->in[1].adj);                                                   \
    }                                                                                                 \
    void KN(name##_dual_forward)(const struct op_call *c)                                             \
    {                                                                                                 \
        const int   first = c->in[0].dot ? 0 : 1; /* of the two terms */                              \
        const void *x[] = { c->in[0].dot, c->in[0].val }, *w[] = { c->in[1].val, c->in[1].dot };      \
        if (!c->kept) KN(name##_forward)(c);                                                          \
        name##_map(c, false, 2 - first, x + first, w + first, c->out.dot, false);                     \
    }                                                                                                 \
    void KN(name##_dual_backward)(const struct op_call *c)                                            \
    {                                                                                                 \
        const int   first = c->in[0].dot ? 0 : 1;                                                     \
        const void *g[] = { c->out.adj_dot, c->out.adj }, *w[] = { c->in[1].val, c->in[1].dot };      \
        const void *x[] = { c->in[0].dot, c->in[0].val }, *gy[] = { c->out.adj, c->out.adj_dot };     \
        KN(name##_backward)(c);                                                                       \
        if (c->in[0].adj_dot)                                                                         \
            name##_map(c, true, 2, g, w, c->in[0].adj_dot, c->in[0].acc);                             \
        name##_corr(c, 2 - first, x + first, gy + first, c->in[1].adj_dot);                           \
    }

#endif
