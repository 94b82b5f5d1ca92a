/* fold.c - the weights of a doubling and a 3 x 3 convolution in one: w [3,3,Ci,Co] -> f [4,4,Co,Ci].
 *
 * A convolution (stride 1, pad 1) of an image doubled by repetition reads every pixel up to four times. With o = 2i + parity,
 *     y[o] = sum_k w[k] x[floor((o + k - 1) / 2)] = sum_i f[o + 1 - 2i] x[i]
 *     f[0] = w[2]    f[1] = w[1] + w[2]    f[2] = w[0] + w[1]    f[3] = w[0]
 * in each direction: a transposed convolution of the small image, 4 x 4, stride 2, pad 1 (upconv in conv.c), of 16 products a pixel of
 * x instead of 36. f is linear in w, so that its tangent is that of w folded, and the way back sums the same places. */
#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

static const struct { int n, k[2]; } part[4] = { { 1, { 2, 0 } }, { 2, { 1, 2 } }, { 2, { 0, 1 } }, { 1, { 0, 0 } } }; /* of f[r], which w[k] */

struct fold { int ci, co; };

static struct fold fold_of(const struct op_call *c)
{
    return (struct fold){ c->in[0].s.h / 9, c->in[0].s.c }; /* rows of w are (place, input channel) */
}

static void forth(const struct op_call *c, const real *w, real *f)
{
    const struct fold d = fold_of(c);
    const size_t m = (size_t)d.ci * (size_t)d.co;
    for (int r = 0; r < 4; r++)
        for (int q = 0; q < 4; q++, f += m)
            for (int o = 0; o < d.co; o++)
                for (int i = 0; i < d.ci; i++) {
                    real sum = 0;
                    for (int a = 0; a < part[r].n; a++)
                        for (int b = 0; b < part[q].n; b++)
                            sum += w[(size_t)(part[r].k[a] * 3 + part[q].k[b]) * m + (size_t)i * (size_t)d.co + (size_t)o];
                    f[(size_t)o * (size_t)d.ci + (size_t)i] = sum;
                }
}

static void back(const struct op_call *c, const real *f, real *w)
{
    const struct fold d = fold_of(c);
    const size_t m = (size_t)d.ci * (size_t)d.co;
    memset(w, 0, 9 * m * sizeof *w);
    for (int r = 0; r < 4; r++)
        for (int q = 0; q < 4; q++, f += m)
            for (int a = 0; a < part[r].n; a++)
                for (int b = 0; b < part[q].n; b++) {
                    real *to = w + (size_t)(part[r].k[a] * 3 + part[q].k[b]) * m;
                    for (int i = 0; i < d.ci; i++)
                        for (int o = 0; o < d.co; o++)
                            to[(size_t)i * (size_t)d.co + (size_t)o] += f[(size_t)o * (size_t)d.ci + (size_t)i];
                }
}

void KN(fold_forward)(const struct op_call *c) { forth(c, c->in[0].val, c->out.val); }
void KN(fold_backward)(const struct op_call *c)
{
    if (c->in[0].adj)
        back(c, c->out.adj, c->in[0].adj);
}
void KN(fold_dual_forward)(const struct op_call *c)
{
    if (!c->kept)
        KN(fold_forward)(c);
    forth(c, c->in[0].dot, c->out.dot);
}
void KN(fold_dual_backward)(const struct op_call *c)
{
    KN(fold_backward)(c);
    if (c->in[0].adj_dot)
        back(c, c->out.adj_dot, c->in[0].adj_dot);
}
