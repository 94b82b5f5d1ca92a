/* shape.c - ops that move numbers without changing them: flatten and unflatten (between [N,H,W,C] inside and the outside
 * order c,h,w of a flat vector), nearest x2 upsampling, padding by reflection or repetition, concatenation along channels.
 * All are linear maps: an op is one function `move` from input to output and one `back`, its transpose; the four rules
 * apply them to values, tangents, adjoints and their tangents. */
#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

static size_t elems(const struct net_shape *s) { return (size_t)s->c * (size_t)s->h * (size_t)s->w; }

static inline void set(real *d, real v, bool acc) { *d = acc ? *d + v : v; }

/* rows x cols -> cols x rows */
static void transpose(int n, int rows, int cols, const real *restrict a, real *restrict b, bool acc)
{
    for (int i = 0; i < n; i++, a += (ptrdiff_t)rows * cols, b += (ptrdiff_t)rows * cols)
        for (int c = 0; c < cols; c++)
            for (int r = 0; r < rows; r++)
                set(&b[(ptrdiff_t)c * rows + r], a[(ptrdiff_t)r * cols + c], acc);
}

static void flatten_move(const struct op_call *c, int i, const real *x, real *y)
{
    (void)i;
    transpose(c->batch, c->in[0].s.h * c->in[0].s.w, c->in[0].s.c, x, y, false);
}
static void flatten_back(const struct op_call *c, int i, const real *g, real *gx)
{
    (void)i;
    transpose(c->batch, c->in[0].s.c, c->in[0].s.h * c->in[0].s.w, g, gx, c->in[0].acc);
}
static void unflatten_move(const struct op_call *c, int i, const real *x, real *y)
{
    (void)i;
    transpose(c->batch, c->out.s.c, c->out.s.h * c->out.s.w, x, y, false);
}
static void unflatten_back(const struct op_call *c, int i, const real *g, real *gx)
{
    (void)i;
    transpose(c->batch, c->out.s.h * c->out.s.w, c->out.s.c, g, gx, c->in[0].acc);
}

static void up2_move(const struct op_call *c, int i, const real *x, real *y)
{
    (void)i;
    const int H = c->in[0].s.h, W = c->in[0].s.w, C = c->in[0].s.c;
    const size_t pix = (size_t)C * sizeof(real), line = 2 * (size_t)W * (size_t)C;
    for (int r = 0; r < c->batch * H; r++, y += 2 * line) {
        real *o = y;
        for (int w = 0; w < W; w++, x += C, o += 2 * C) {
            memcpy(o, x, pix);
            memcpy(o + C, x, pix);
        }
        memcpy(y + line, y, line * sizeof(real));
    }
}
static void up2_back(const struct op_call *c, int i, const real *restrict g, real *restrict gx)
{
    (void)i;
    const int H = c->in[0].s.h, W = c->in[0].s.w, C = c->in[0].s.c;
    const size_t line = 2 * (size_t)W * (size_t)C;
    for (int r = 0; r < c->batch * H; r++, g += 2 * line)
        for (int w = 0; w < W; w++, gx += C)
            for (int k = 0; k < C; k++) {
                const real *a = g + 2 * w * C + k;
                set(&gx[k], (a[0] + a[C]) + (a[line] + a[line + (size_t)C]), c->in[0].acc);
            }
}

static int reflected(int i, int n) { return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i; }
static int repeated(int i, int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

/* Around the image p rows and columns; which place one shows, `shown` says. */
static void pad(const struct op_call *c, int p, int (*shown)(int i, int n), const real *x, real *y)
{
    const int H = c->in[0].s.h, W = c->in[0].s.w, C = c->in[0].s.c;
    for (int n = 0; n < c->batch; n++, x += (ptrdiff_t)H * W * C)
        for (int h = -p; h < H + p; h++)
            for (int w = -p; w < W + p; w++, y += C)
                memcpy(y, x + ((ptrdiff_t)shown(h, H) * W + shown(w, W)) * C, (size_t)C * sizeof(real));
}
static void unpad(const struct op_call *c, int p, int (*shown)(int i, int n), const real *g, real *gx)
{
    const int H = c->in[0].s.h, W = c->in[0].s.w, C = c->in[0].s.c;
    if (!c->in[0].acc)
        memset(gx, 0, (size_t)c->batch * elems(&c->in[0].s) * sizeof(real));
    for (int n = 0; n < c->batch; n++, gx += (ptrdiff_t)H * W * C)
        for (int h = -p; h < H + p; h++)
            for (int w = -p; w < W + p; w++, g += C) {
                real *restrict d = gx + ((ptrdiff_t)shown(h, H) * W + shown(w, W)) * C;
                for (int k = 0; k < C; k++)
                    d[k] += g[k];
            }
}
static void reflectpad_move(const struct op_call *c, int i, const real *x, real *y)
{
    (void)i;
    pad(c, c->at.pad, reflected, x, y);
}
static void reflectpad_back(const struct op_call *c, int i, const real *g, real *gx)
{
    (void)i;
    unpad(c, c->at.pad, reflected, g, gx);
}
static void edgepad_move(const struct op_call *c, int i, const real *x, real *y)
{
    (void)i;
    pad(c, 1, repeated, x, y);
}
static void edgepad_back(const struct op_call *c, int i, const real *g, real *gx)
{
    (void)i;
    unpad(c, 1, repeated, g, gx);
}

static int channels_before(const struct op_call *c, int i)
{
    int at = 0;
    for (int j = 0; j < i; j++)
        at += c->in[j].s.c;
    return at;
}
static void concat_move(const struct op_call *c, int i, const real *x, real *y)
{
    const int C = c->in[i].s.c, Co = c->out.s.c;
    const size_t pix = (size_t)c->batch * (size_t)(c->out.s.h * c->out.s.w);
    y += channels_before(c, i);
    for (size_t r = 0; r < pix; r++, y += Co) {
        if (!x)
            memset(y, 0, (size_t)C * sizeof(real)); /* the tangent of the network's input is zero */
        else {
            memcpy(y, x, (size_t)C * sizeof(real));
            x += C;
        }
    }
}
static void concat_back(const struct op_call *c, int i, const real *restrict g, real *restrict gx)
{
    const int C = c->in[i].s.c, Co = c->out.s.c;
    const size_t pix = (size_t)c->batch * (size_t)(c->out.s.h * c->out.s.w);
    g += channels_before(c, i);
    for (size_t r = 0; r < pix; r++, g += Co, gx += C)
        for (int k = 0; k < C; k++)
            set(&gx[k], g[k], c->in[i].acc);
}

#define MOVE_RULES(name)                                                                                     \
    void KN(name##_forward)(const struct op_call *c)                                                         \
    {                                                                                                        \
        for (int i = 0; i < c->n_in; i++) name##_move(c, i, c->in[i].val, c->out.val);                       \
    }                                                                                                        \
    void KN(name##_dual_forward)(const struct op_call *c)                                                    \
    {                                                                                                        \
        if (!c->kept) KN(name##_forward)(c);                                                                 \
        for (int i = 0; i < c->n_in; i++) name##_move(c, i, c->in[i].dot, c->out.dot);                       \
    }                                                                                                        \
    void KN(name##_backward)(const struct op_call *c)                                                        \
    {                                                                                                        \
        for (int i = 0; i < c->n_in; i++)                                                                    \
            if (c->in[i].adj) name##_back(c, i, c->out.adj, c->in[i].adj);                                   \
    }                                                                                                        \
    void KN(name##_dual_backward)(const struct op_call *c)                                                   \
    {                                                                                                        \
        KN(name##_backward)(c);                                                                              \
        for (int i = 0; i < c->n_in; i++)                                                                    \
            if (c->in[i].adj_dot) name##_back(c, i, c->out.adj_dot, c->in[i].adj_dot);                       \
    }
MOVE_RULES(flatten)
MOVE_RULES(unflatten)
MOVE_RULES(up2)
MOVE_RULES(reflectpad)
MOVE_RULES(edgepad)
MOVE_RULES(concat)
