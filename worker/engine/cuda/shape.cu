// shape.cu - flatten, unflatten, up2, reflectpad, edgepad, concat (../op/shape.c): linear maps, each a gather there and a gather back.
#include "common.cuh"

// [n][rows][cols] -> [n][cols][rows]
static void transpose(const dev_call *d, int rows, int cols, buf a, buf b, bool acc)
{
    if (a && b)
        over(d->queue, d->K, (uint64_t)d->c.batch * (uint64_t)rows * (uint64_t)cols, [=] __device__ (int k, uint32_t i) {
            const uint32_t R = (uint32_t)rows, C = (uint32_t)cols, n = i / (R * C), c = i / R % C, r = i % R;
            put(&b(k)[i], a(k)[(n * R + r) * C + c], acc);
        });
}
static int places(const net_shape &s) { return s.h * s.w; }

static void flatten_move(const dev_call *d, int i, buf x, buf y) { transpose(d, places(d->c.in[i].s), d->c.in[i].s.c, x, y, false); }
static void flatten_back(const dev_call *d, int i, buf g, buf gx) { transpose(d, d->c.in[i].s.c, places(d->c.in[i].s), g, gx, d->c.in[i].acc); }
static void unflatten_move(const dev_call *d, int, buf x, buf y) { transpose(d, d->c.out.s.c, places(d->c.out.s), x, y, false); }
static void unflatten_back(const dev_call *d, int i, buf g, buf gx) { transpose(d, places(d->c.out.s), d->c.out.s.c, g, gx, d->c.in[i].acc); }

static void up2_move(const dev_call *d, int, buf x, buf y)
{
    const int H = d->c.in[0].s.h, W = d->c.in[0].s.w, C = d->c.in[0].s.c;
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, 2 * H, 2 * W, C);
        y(k)[i] = x(k)[index_of(o.n, o.h / 2, o.w / 2, o.c, H, W, C)];
    });
}
static void up2_back(const dev_call *d, int, buf g, buf gx)
{
    const uint32_t W = (uint32_t)d->c.in[0].s.w, C = (uint32_t)d->c.in[0].s.c, line = 2 * W * C;
    const bool acc = d->c.in[0].acc;
    over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
        const uint32_t c = i % C, w = i / C % W, row = i / C / W; // of all images: two rows of g each
        const float *a = g(k) + 2 * (uint64_t)row * line + 2 * w * C + c;
        put(&gx(k)[i], (a[0] + a[C]) + (a[line] + a[line + C]), acc);
    });
}

// Padding: which place one of the border shows, and which places show one of the image, in rising order.
struct reflection {
    int p;
    __device__ int shown(int i, int n) const { return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i; }
    __device__ int showing(int i, int n, int at[3]) const
    {
        int m = 0;
        if (i > 0 && i <= p)
            at[m++] = p - i;
        at[m++] = p + i;
        if (i < n - 1 && n - 1 - i <= p)
            at[m++] = p + 2 * (n - 1) - i;
        return m;
    }
};
struct repetition { // of the edge, once
    enum { p = 1 };
    __device__ int shown(int i, int n) const { return i < 0 ? 0 : i >= n ? n - 1 : i; }
    __device__ int showing(int i, int n, int at[3]) const
    {
        int m = 0;
        if (i == 0)
            at[m++] = 0;
        at[m++] = i + 1;
        if (i == n - 1)
            at[m++] = n + 1;
        return m;
    }
};

template <class Rule> static void pad(const dev_call *d, Rule rule, buf x, buf y)
{
    const int H = d->c.in[0].s.h, W = d->c.in[0].s.w, C = d->c.in[0].s.c, p = rule.p, Ho = H + 2 * p, Wo = W + 2 * p;
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, Ho, Wo, C);
        y(k)[i] = x(k)[index_of(o.n, rule.shown(o.h - p, H), rule.shown(o.w - p, W), o.c, H, W, C)];
    });
}
template <class Rule> static void unpad(const dev_call *d, Rule rule, buf g, buf gx)
{
    const int  H = d->c.in[0].s.h, W = d->c.in[0].s.w, C = d->c.in[0].s.c, p = rule.p;
    const bool acc = d->c.in[0].acc;
    over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, H, W, C);
        int   hs[3], ws[3];
        const int nh = rule.showing(o.h, H, hs), nw = rule.showing(o.w, W, ws);
        float sum = 0;
        for (int a = 0; a < nh; a++)
            for (int b = 0; b < nw; b++)
                sum += g(k)[index_of(o.n, hs[a], ws[b], o.c, H + 2 * p, W + 2 * p, C)];
        put(&gx(k)[i], sum, acc);
    });
}
static void reflectpad_move(const dev_call *d, int, buf x, buf y) { pad(d, reflection{ d->c.at.pad }, x, y); }
static void reflectpad_back(const dev_call *d, int, buf g, buf gx) { unpad(d, reflection{ d->c.at.pad }, g, gx); }
static void edgepad_move(const dev_call *d, int, buf x, buf y) { pad(d, repetition{}, x, y); }
static void edgepad_back(const dev_call *d, int, buf g, buf gx) { unpad(d, repetition{}, g, gx); }

static uint32_t channels_before(const dev_call *d, int i)
{
    uint32_t at = 0;
    for (int j = 0; j < i; j++)
        at += (uint32_t)d->c.in[j].s.c;
    return at;
}
static void concat_move(const dev_call *d, int i, buf x, buf y)
{
    const uint32_t C = (uint32_t)d->c.in[i].s.c, Co = (uint32_t)d->c.out.s.c, first = channels_before(d, i);
    const bool there = (bool)x; // the tangent of the network's input is zero
    over(d->queue, d->K, in_elems(d, i), [=] __device__ (int k, uint32_t e) { y(k)[e / C * Co + first + e % C] = there ? x(k)[e] : 0.0f; });
}
static void concat_back(const dev_call *d, int i, buf g, buf gx)
{
    const uint32_t C = (uint32_t)d->c.in[i].s.c, Co = (uint32_t)d->c.out.s.c, first = channels_before(d, i);
    const bool acc = d->c.in[i].acc;
    over(d->queue, d->K, in_elems(d, i), [=] __device__ (int k, uint32_t e) { put(&gx(k)[e], g(k)[e / C * Co + first + e % C], acc); });
}

#define MOVE_RULES(name)                                                                                    \
    static void name##_forward(const dev_call *d)                                                           \
    {                                                                                                       \
        for (int i = 0; i < d->c.n_in; i++) name##_move(d, i, in_val(d, i), out_val(d));                    \
    }                                                                                                       \
    static void name##_dual_forward(const dev_call *d)                                                      \
    {                                                                                                       \
        name##_forward(d);                                                                                  \
        for (int i = 0; i < d->c.n_in; i++) name##_move(d, i, in_dot(d, i), out_dot(d));                    \
    }                                                                                                       \
    static void name##_backward(const dev_call *d)                                                          \
    {                                                                                                       \
        for (int i = 0; i < d->c.n_in; i++)                                                                 \
            if (in_adj(d, i)) name##_back(d, i, out_adj(d), in_adj(d, i));                                  \
    }                                                                                                       \
    static void name##_dual_backward(const dev_call *d)                                                     \
    {                                                                                                       \
        name##_backward(d);                                                                                 \
        for (int i = 0; i < d->c.n_in; i++)                                                                 \
            if (in_adj_dot(d, i)) name##_back(d, i, out_adj_dot(d), in_adj_dot(d, i));                      \
    }
MOVE_RULES(flatten)
MOVE_RULES(unflatten)
MOVE_RULES(up2)
MOVE_RULES(reflectpad)
MOVE_RULES(edgepad)
MOVE_RULES(concat)

#define ROW(e, name) { e, { name##_forward, name##_backward, name##_dual_forward, name##_dual_backward } }
void rules_shape(device *d)
{
    const struct { enum op op; dev_rule rule[DEV_RULES]; } row[] = {
        ROW(OP_FLATTEN, flatten), ROW(OP_UNFLATTEN, unflatten), ROW(OP_UP2, up2), ROW(OP_REFLECTPAD, reflectpad), ROW(OP_EDGEPAD, edgepad), ROW(OP_CONCAT, concat),
    };
    for (const auto &r : row)
        memcpy(d->rule[r.op], r.rule, sizeof r.rule);
}
