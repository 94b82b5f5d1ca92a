// shape.cu - flatten, unflatten, up2, reflectpad, edgepad, concat (../op/shape.c): linear maps, each a gather there and a gather back.
#include "common.cuh"

// [n][rows][cols] -> [n][cols][rows]
static void transpose(const dev_call *d, int rows, int cols, pair m, bool acc)
{
    over(d->queue, d->K, (uint64_t)d->c.batch * (uint64_t)rows * (uint64_t)cols, [=] __device__ (int k, uint32_t i) {
        const uint32_t R = (uint32_t)rows, C = (uint32_t)cols, n = i / (R * C), c = i / R % C, r = i % R;
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                put(&m.to[s](k)[i], m.from[s](k)[(n * R + r) * C + c], acc);
    });
}
static int places(const net_shape &s) { return s.h * s.w; }

static void flatten_move(const dev_call *d, int i, pair m) { transpose(d, places(d->c.in[i].s), d->c.in[i].s.c, m, false); }
static void flatten_back(const dev_call *d, int i, pair m) { transpose(d, d->c.in[i].s.c, places(d->c.in[i].s), m, d->c.in[i].acc); }
static void unflatten_move(const dev_call *d, int, pair m) { transpose(d, d->c.out.s.c, places(d->c.out.s), m, false); }
static void unflatten_back(const dev_call *d, int i, pair m) { transpose(d, places(d->c.out.s), d->c.out.s.c, m, d->c.in[i].acc); }

static void up2_move(const dev_call *d, int, pair m)
{
    const int H = d->c.in[0].s.h, W = d->c.in[0].s.w, C = d->c.in[0].s.c;
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, 2 * H, 2 * W, C);
        const uint64_t from = index_of(o.n, o.h / 2, o.w / 2, o.c, H, W, C);
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                m.to[s](k)[i] = m.from[s](k)[from];
    });
}
static void up2_back(const dev_call *d, int, pair m)
{
    const uint32_t W = (uint32_t)d->c.in[0].s.w, C = (uint32_t)d->c.in[0].s.c, line = 2 * W * C;
    const bool acc = d->c.in[0].acc;
    over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
        const uint32_t c = i % C, w = i / C % W, row = i / C / W; // of all images: two rows of g each
        for (int s = 0; s < PAIR; s++)
            if (s < m.n) {
                const float *a = m.from[s](k) + 2 * (uint64_t)row * line + 2 * w * C + c;
                put(&m.to[s](k)[i], (a[0] + a[C]) + (a[line] + a[line + C]), acc);
            }
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

template <class Rule> static void pad(const dev_call *d, Rule rule, pair m)
{
    const int H = d->c.in[0].s.h, W = d->c.in[0].s.w, C = d->c.in[0].s.c, p = rule.p, Ho = H + 2 * p, Wo = W + 2 * p;
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, Ho, Wo, C);
        const uint64_t from = index_of(o.n, rule.shown(o.h - p, H), rule.shown(o.w - p, W), o.c, H, W, C);
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                m.to[s](k)[i] = m.from[s](k)[from];
    });
}
template <class Rule> static void unpad(const dev_call *d, Rule rule, pair m)
{
    const int  H = d->c.in[0].s.h, W = d->c.in[0].s.w, C = d->c.in[0].s.c, p = rule.p;
    const bool acc = d->c.in[0].acc;
    over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, H, W, C);
        int   hs[3], ws[3];
        const int nh = rule.showing(o.h, H, hs), nw = rule.showing(o.w, W, ws);
        float sum[PAIR] = {};
        for (int a = 0; a < nh; a++)
            for (int b = 0; b < nw; b++)
                for (int s = 0; s < PAIR; s++)
                    if (s < m.n)
                        sum[s] += m.from[s](k)[index_of(o.n, hs[a], ws[b], o.c, H + 2 * p, W + 2 * p, C)];
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                put(&m.to[s](k)[i], sum[s], acc);
    });
}
static void reflectpad_move(const dev_call *d, int, pair m) { pad(d, reflection{ d->c.at.pad }, m); }
static void reflectpad_back(const dev_call *d, int, pair m) { unpad(d, reflection{ d->c.at.pad }, m); }
static void edgepad_move(const dev_call *d, int, pair m) { pad(d, repetition{}, m); }
static void edgepad_back(const dev_call *d, int, pair m) { unpad(d, repetition{}, m); }

static uint32_t channels_before(const dev_call *d, int i)
{
    uint32_t at = 0;
    for (int j = 0; j < i; j++)
        at += (uint32_t)d->c.in[j].s.c;
    return at;
}
static void concat_there(const dev_call *d, bool dual)
{
    for (int i = 0; i < d->c.n_in; i++) {
        const uint32_t C = (uint32_t)d->c.in[i].s.c, Co = (uint32_t)d->c.out.s.c, first = channels_before(d, i);
        const buf x = in_val(d, i), y = out_val(d), xd = dual ? in_dot(d, i) : buf{}, yd = dual ? out_dot(d) : buf{};
        over(d->queue, d->K, in_elems(d, i), [=] __device__ (int k, uint32_t e) {
            const uint32_t at = e / C * Co + first + e % C;
            if (y)
                y(k)[at] = x(k)[e];
            if (yd)
                yd(k)[at] = xd ? xd(k)[e] : 0.0f; // the tangent of the network's input is zero
        });
    }
}
static void concat_back(const dev_call *d, int i, pair m)
{
    const uint32_t C = (uint32_t)d->c.in[i].s.c, Co = (uint32_t)d->c.out.s.c, first = channels_before(d, i);
    const bool acc = d->c.in[i].acc;
    over(d->queue, d->K, in_elems(d, i), [=] __device__ (int k, uint32_t e) {
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                put(&m.to[s](k)[e], m.from[s](k)[e / C * Co + first + e % C], acc);
    });
}

// Each input by itself.
typedef void (*mover)(const dev_call *d, int i, pair m);
static void all_there(const dev_call *d, mover move, bool dual)
{
    for (int i = 0; i < d->c.n_in; i++) {
        const pair m = there(d, i, dual);
        if (m.n)
            move(d, i, m);
    }
}
static void all_back(const dev_call *d, mover back, bool dual)
{
    for (int i = 0; i < d->c.n_in; i++) {
        const pair m = and_back(d, i, dual);
        if (m.n)
            back(d, i, m);
    }
}
#define MOVE_RULES(name)                                                                                    \
    static void name##_forward(const dev_call *d) { all_there(d, name##_move, false); }                     \
    static void name##_backward(const dev_call *d) { all_back(d, name##_back, false); }                     \
    static void name##_dual_forward(const dev_call *d) { all_there(d, name##_move, true); }                 \
    static void name##_dual_backward(const dev_call *d) { all_back(d, name##_back, true); }
MOVE_RULES(flatten)
MOVE_RULES(unflatten)
MOVE_RULES(up2)
MOVE_RULES(reflectpad)
MOVE_RULES(edgepad)
static void concat_forward(const dev_call *d) { concat_there(d, false); }
static void concat_backward(const dev_call *d) { all_back(d, concat_back, false); }
static void concat_dual_forward(const dev_call *d) { concat_there(d, true); }
static void concat_dual_backward(const dev_call *d) { all_back(d, concat_back, true); }

#define ROW(e, name) { e, { name##_forward, name##_backward, name##_dual_forward, name##_dual_backward } }
void rules_shape(device *d)
{
    const struct { enum op op; dev_rule rule[DEV_RULES]; } row[] = {
        ROW(OP_FLATTEN, flatten), ROW(OP_UNFLATTEN, unflatten), ROW(OP_UP2, up2), ROW(OP_REFLECTPAD, reflectpad), ROW(OP_EDGEPAD, edgepad), ROW(OP_CONCAT, concat),
    };
    for (const auto &r : row)
        memcpy(d->rule[r.op], r.rule, sizeof r.rule);
}
