// dwconv.cu - depthwise convolution (../op/dwconv.c): one k x k filter a channel. Threads lie along the channels.
#include "common.cuh"

struct dw { int N, H, W, C, Ho, Wo, k, s, p, d; };

static dw dw_of(const op_call *c)
{
    const net_shape &x = c->in[0].s, &y = c->out.s;
    return { c->batch, x.h, x.w, x.c, y.h, y.w, c->at.k, c->at.stride > 0 ? c->at.stride : 1, c->at.pad, c->at.dilation > 0 ? c->at.dilation : 1 };
}

// y = x * w, and its tangent xd * w + x * wd; a NULL among xd, wd: zero.
struct product { buf x, w, xd, wd, y, yd; };
__device__ static inline void add_terms(const product &m, int k, uint64_t at, int tap, float *sum, float *dot)
{
    const float x = m.x(k)[at], w = m.w(k)[tap];
    *sum = fmaf(x, w, *sum);
    if (m.xd)
        *dot = fmaf(m.xd(k)[at], w, *dot);
    if (m.wd)
        *dot = fmaf(x, m.wd(k)[tap], *dot);
}

static void forth(const dev_call *d, product m)
{
    const dw q = dw_of(&d->c);
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const place o = place_of(i, q.Ho, q.Wo, q.C);
        float sum = 0, dot = 0;
        for (int kh = 0; kh < q.k; kh++)
            for (int kw = 0; kw < q.k; kw++) {
                const int h = o.h * q.s - q.p + kh * q.d, w = o.w * q.s - q.p + kw * q.d;
                if (h >= 0 && h < q.H && w >= 0 && w < q.W)
                    add_terms(m, k, index_of(o.n, h, w, o.c, q.H, q.W, q.C), (kh * q.k + kw) * q.C + o.c, &sum, &dot);
            }
        if (m.y)
            m.y(k)[i] = sum;
        if (m.yd)
            m.yd(k)[i] = dot;
    });
}

static void back_to_image(const dev_call *d, product m)
{
    const dw   q = dw_of(&d->c);
    const bool acc = d->c.in[0].acc;
    if (m.y || m.yd)
        over(d->queue, d->K, in_elems(d, 0), [=] __device__ (int k, uint32_t i) {
            const place o = place_of(i, q.H, q.W, q.C);
            float sum = 0, dot = 0;
            for (int kh = 0; kh < q.k; kh++)
                for (int kw = 0; kw < q.k; kw++) {
                    const int a = o.h + q.p - kh * q.d, b = o.w + q.p - kw * q.d;
                    if (a >= 0 && b >= 0 && a % q.s == 0 && b % q.s == 0 && a / q.s < q.Ho && b / q.s < q.Wo)
                        add_terms(m, k, index_of(o.n, a / q.s, b / q.s, o.c, q.Ho, q.Wo, q.C), (kh * q.k + kw) * q.C + o.c, &sum, &dot);
                }
            if (m.y)
                put(&m.y(k)[i], sum, acc);
            if (m.yd)
                put(&m.yd(k)[i], dot, acc);
        });
}

// ---- weights: pixels are cut into splits, and a split among ROWS rows of threads ----

enum { WIDE = 32, ROWS = 8 };
struct dwcorr { dw q; int n, splits, chunk; buf x[2], gy[2], parts; };

static uint64_t weights(const dw &q) { return (uint64_t)q.k * (uint64_t)q.k * (uint64_t)q.C; }
static int splits_of(const dw &q)
{
    const uint64_t n = ((uint64_t)q.N * (uint64_t)q.Ho * (uint64_t)q.Wo + 2047) / 2048, room = (4u << 20) / (weights(q) * sizeof(float));
    const uint64_t m = n < room ? n : room;
    return m < 1 ? 1 : m > 64 ? 64 : (int)m;
}

__global__ static void dw_corr(const dwcorr j)
{
    __shared__ float room[ROWS][WIDE];
    const dw &q = j.q;
    const int lane = (int)threadIdx.x, row = (int)threadIdx.y, c = (int)blockIdx.x * WIDE + lane, tap = (int)blockIdx.y;
    const int k = (int)blockIdx.z / j.splits, split = (int)blockIdx.z % j.splits, pixels = q.N * q.Ho * q.Wo;
    const int from = split * j.chunk, to = from + j.chunk < pixels ? from + j.chunk : pixels, kh = tap / q.k, kw = tap % q.k;
    float sum = 0;
    for (int s = 0; s < j.n && c < q.C; s++) {
        const float *x = j.x[s](k), *gy = j.gy[s](k);
        for (int p = from + row; p < to; p += ROWS) {
            const int n = p / (q.Ho * q.Wo), h = p / q.Wo % q.Ho * q.s - q.p + kh * q.d, w = p % q.Wo * q.s - q.p + kw * q.d;
            if (h >= 0 && h < q.H && w >= 0 && w < q.W)
                sum = fmaf(gy[(uint64_t)p * (uint64_t)q.C + (uint64_t)c], x[index_of(n, h, w, c, q.H, q.W, q.C)], sum);
        }
    }
    room[row][lane] = sum;
    __syncthreads();
    if (row == 0 && c < q.C) {
        for (int r = 1; r < ROWS; r++)
            sum += room[r][lane];
        j.parts(k)[(uint64_t)split * (uint64_t)(q.k * q.k * q.C) + (uint64_t)(tap * q.C + c)] = sum;
    }
}

static void to_weights(const dev_call *d, int n, const buf *x, const buf *gy, buf gw)
{
    dwcorr j = {};
    if (!gw)
        return;
    j.q = dw_of(&d->c);
    j.n = n;
    j.splits = splits_of(j.q);
    j.chunk = (j.q.N * j.q.Ho * j.q.Wo + j.splits - 1) / j.splits;
    j.parts = j.splits > 1 ? scratch_of(d) : gw;
    for (int s = 0; s < n; s++) {
        j.x[s] = x[s];
        j.gy[s] = gy[s];
    }
    LAUNCH(dw_corr, dim3((unsigned)((j.q.C + WIDE - 1) / WIDE), (unsigned)(j.q.k * j.q.k), (unsigned)(d->K * j.splits)), dim3(WIDE, ROWS), d->queue, j);
    if (j.splits > 1)
        sum_splits(d->queue, d->K, j.parts, j.splits, weights(j.q), gw);
}

static void go_forth(const dev_call *d, bool dual)
{
    product m = { in_val(d, 0), in_val(d, 1), {}, {}, out_val(d), {} };
    if (dual)
        m.xd = in_dot(d, 0), m.wd = in_dot(d, 1), m.yd = out_dot(d);
    forth(d, m);
}
static void go_back(const dev_call *d, bool dual)
{
    product m = { out_adj(d), in_val(d, 1), {}, {}, in_adj(d, 0), {} };
    const buf x[] = { in_val(d, 0), in_dot(d, 0) }, gy[] = { out_adj(d), out_adj_dot(d) };
    if (dual)
        m.xd = gy[1], m.wd = in_dot(d, 1), m.yd = in_adj_dot(d, 0);
    back_to_image(d, m);
    to_weights(d, 1, x, gy, in_adj(d, 1));
    if (!dual)
        return;
    const buf turned[] = { gy[1], gy[0] }; // x gyd + xd gy
    to_weights(d, x[1] ? 2 : 1, x, turned, in_adj_dot(d, 1));
}
static void forward(const dev_call *d) { go_forth(d, false); }
static void backward(const dev_call *d) { go_back(d, false); }
static void dual_forward(const dev_call *d) { go_forth(d, true); }
static void dual_backward(const dev_call *d) { go_back(d, true); }
static size_t scratch(const op_call *c)
{
    const dw  q = dw_of(c);
    const int n = splits_of(q);
    return n > 1 ? (size_t)n * (size_t)weights(q) * sizeof(float) : 0;
}

void rules_dwconv(device *d)
{
    const dev_rule rule[DEV_RULES] = { forward, backward, dual_forward, dual_backward };
    memcpy(d->rule[OP_DWCONV], rule, sizeof rule);
    d->scratch[OP_DWCONV] = scratch;
}
