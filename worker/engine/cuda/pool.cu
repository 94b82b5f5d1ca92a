// pool.cu - max, average and global average pooling (../op/pool.c). Backwards each place of x gathers from the windows that hold
// it, in order: nobody scatters.
#include "common.cuh"

struct pool { int H, W, C, Ho, Wo, k, s, p; };

static pool pool_of(const dev_call *d, bool global)
{
    const net_shape &x = d->c.in[0].s, &y = d->c.out.s;
    pool q = { x.h, x.w, x.c, y.h, y.w, d->c.at.k, d->c.at.stride, d->c.at.pad };
    if (global) { // the window that covers the image
        q.k = x.h > x.w ? x.h : x.w;
        q.s = q.k;
        q.p = 0;
        q.Ho = q.Wo = 1;
    }
    return q;
}

struct win { int h0, h1, w0, w1; };
__device__ static inline win window(const pool &q, int oh, int ow)
{
    const int h = oh * q.s - q.p, w = ow * q.s - q.p;
    return { h < 0 ? 0 : h, h + q.k < q.H ? h + q.k : q.H, w < 0 ? 0 : w, w + q.k < q.W ? w + q.k : q.W };
}

// First and one past the last output row (or column) whose window may hold place i.
__device__ static inline void holders(int i, int k, int s, int p, int n, int *from, int *to)
{
    const int a = i + p - k + 1, last = (i + p) / s;
    *from = a <= 0 ? 0 : (a + s - 1) / s;
    *to = last + 1 < n ? last + 1 : n;
}

// ---- max: the winner's number in its clipped window is kept ----

static void max_forth(const dev_call *d, bool dual)
{
    const pool q = pool_of(d, false);
    const buf  x = in_val(d, 0), y = out_val(d), at = aux_of(d), xd = dual ? in_dot(d, 0) : buf{}, yd = dual ? out_dot(d) : buf{};
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, q.Ho, q.Wo, q.C);
        const win   v = window(q, o.h, o.w);
        const float *a = x(k);
        float best = a[index_of(o.n, v.h0, v.w0, o.c, q.H, q.W, q.C)];
        int   who = 0, number = 0;
        for (int h = v.h0; h < v.h1; h++)
            for (int w = v.w0; w < v.w1; w++, number++) {
                const float u = a[index_of(o.n, h, w, o.c, q.H, q.W, q.C)];
                if (u > best || u != u) { // a NaN wins, and stays
                    best = u;
                    who = number;
                }
            }
        y(k)[i] = best;
        at(k)[i] = (float)who;
        if (xd && yd) {
            const int wide = v.w1 - v.w0;
            yd(k)[i] = xd(k)[index_of(o.n, v.h0 + who / wide, v.w0 + who % wide, o.c, q.H, q.W, q.C)];
        }
    });
}
static void max_back(const dev_call *d, bool dual)
{
    const pool q = pool_of(d, false);
    const buf  at = aux_of(d);
    const pair m = and_back(d, 0, dual);
    const bool acc = d->c.in[0].acc;
    if (m.n)
        over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
            const place a = place_of(i, q.H, q.W, q.C);
            int h0, h1, w0, w1;
            holders(a.h, q.k, q.s, q.p, q.Ho, &h0, &h1);
            holders(a.w, q.k, q.s, q.p, q.Wo, &w0, &w1);
            float sum[PAIR] = {};
            for (int h = h0; h < h1; h++)
                for (int w = w0; w < w1; w++) {
                    const win v = window(q, h, w);
                    const uint64_t o = index_of(a.n, h, w, a.c, q.Ho, q.Wo, q.C);
                    if ((int)at(k)[o] == (a.h - v.h0) * (v.w1 - v.w0) + a.w - v.w0)
                        for (int s = 0; s < PAIR; s++)
                            if (s < m.n)
                                sum[s] += m.from[s](k)[o];
                }
            for (int s = 0; s < PAIR; s++)
                if (s < m.n)
                    put(&m.to[s](k)[i], sum[s], acc);
        });
}
static void maxpool_forward(const dev_call *d) { max_forth(d, false); }
static void maxpool_backward(const dev_call *d) { max_back(d, false); }
static void maxpool_dual_forward(const dev_call *d) { max_forth(d, true); }
static void maxpool_dual_backward(const dev_call *d) { max_back(d, true); }

// ---- average ----

static void mean(const dev_call *d, pair m, bool global)
{
    const pool q = pool_of(d, global);
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, q.Ho, q.Wo, q.C);
        const win   v = window(q, o.h, o.w);
        float sum[PAIR] = {};
        for (int h = v.h0; h < v.h1; h++)
            for (int w = v.w0; w < v.w1; w++)
                for (int s = 0; s < PAIR; s++)
                    if (s < m.n)
                        sum[s] += m.from[s](k)[index_of(o.n, h, w, o.c, q.H, q.W, q.C)];
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                m.to[s](k)[i] = sum[s] / (float)((v.h1 - v.h0) * (v.w1 - v.w0));
    });
}
static void spread(const dev_call *d, pair m, bool global)
{
    const pool q = pool_of(d, global);
    const bool acc = d->c.in[0].acc;
    if (m.n)
        over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
            const place a = place_of(i, q.H, q.W, q.C);
            int h0, h1, w0, w1;
            holders(a.h, q.k, q.s, q.p, q.Ho, &h0, &h1);
            holders(a.w, q.k, q.s, q.p, q.Wo, &w0, &w1);
            float sum[PAIR] = {};
            for (int h = h0; h < h1; h++)
                for (int w = w0; w < w1; w++) {
                    const win   v = window(q, h, w);
                    const float n = (float)((v.h1 - v.h0) * (v.w1 - v.w0));
                    for (int s = 0; s < PAIR; s++)
                        if (s < m.n)
                            sum[s] += m.from[s](k)[index_of(a.n, h, w, a.c, q.Ho, q.Wo, q.C)] / n;
                }
            for (int s = 0; s < PAIR; s++)
                if (s < m.n)
                    put(&m.to[s](k)[i], sum[s], acc);
        });
}
#define MEAN_RULES(name, global)                                                                            \
    static void name##_forward(const dev_call *d) { mean(d, there(d, 0, false), global); }                  \
    static void name##_backward(const dev_call *d) { spread(d, and_back(d, 0, false), global); }            \
    static void name##_dual_forward(const dev_call *d) { mean(d, there(d, 0, true), global); }              \
    static void name##_dual_backward(const dev_call *d) { spread(d, and_back(d, 0, true), global); }
MEAN_RULES(avgpool, false)
MEAN_RULES(gap, true)

void rules_pool(device *d)
{
    const struct { enum op op; dev_rule rule[DEV_RULES]; } row[] = {
        { OP_MAXPOOL, { maxpool_forward, maxpool_backward, maxpool_dual_forward, maxpool_dual_backward } },
        { OP_AVGPOOL, { avgpool_forward, avgpool_backward, avgpool_dual_forward, avgpool_dual_backward } },
        { OP_GAP, { gap_forward, gap_backward, gap_dual_forward, gap_dual_backward } },
    };
    for (const auto &r : row)
        memcpy(d->rule[r.op], r.rule, sizeof r.rule);
}
