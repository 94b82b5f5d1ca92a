// pointwise.cu - bias, leaky ReLU, tanh, add (../op/pointwise.c).
#include "common.cuh"

// ---- bias ----

struct biased { int n; buf x[PAIR], b[PAIR], y[PAIR]; };
static void add_channels(const dev_call *d, bool dual)
{
    const int    C = d->c.out.s.c;
    const biased m = { dual ? 2 : 1, { in_val(d, 0), in_dot(d, 0) }, { in_val(d, 1), in_dot(d, 1) }, { out_val(d), out_dot(d) } };
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        for (int s = 0; s < PAIR; s++)
            if (s < m.n && m.y[s])
                m.y[s](k)[i] = (m.x[s] ? m.x[s](k)[i] : 0.0f) + m.b[s](k)[i % (uint32_t)C];
    });
}

enum { SUM_LANES = 256 };
__global__ static void channel_sums(const pair m, int C, uint64_t rows)
{
    __shared__ double room[SUM_LANES];
    const int c = (int)blockIdx.x, k = (int)blockIdx.z, t = (int)threadIdx.x;
    const bool   first = blockIdx.y == 0;
    const float *x = first ? m.from[0](k) : m.from[1](k);
    double sum = 0;
    for (uint64_t r = (uint64_t)t; r < rows; r += SUM_LANES)
        sum += (double)x[r * (uint64_t)C + (uint64_t)c];
    sum = block_sum(sum, room, t, SUM_LANES);
    if (t == 0)
        (first ? m.to[0](k) : m.to[1](k))[c] = (float)sum;
}

// to (+)= from
static void move(const dev_call *d, pair m, bool acc)
{
    if (m.n)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
            for (int s = 0; s < PAIR; s++)
                if (s < m.n)
                    put(&m.to[s](k)[i], m.from[s](k)[i], acc);
        });
}

static void back_through_bias(const dev_call *d, bool dual)
{
    const int  C = d->c.out.s.c;
    const pair sums = and_back(d, 1, dual);
    move(d, and_back(d, 0, dual), d->c.in[0].acc);
    if (sums.n)
        LAUNCH(channel_sums, dim3((unsigned)C, (unsigned)sums.n, (unsigned)d->K), dim3(SUM_LANES), d->queue, sums, C, out_elems(d) / (uint64_t)C);
}

static void bias_forward(const dev_call *d) { add_channels(d, false); }
static void bias_backward(const dev_call *d) { back_through_bias(d, false); }
static void bias_dual_forward(const dev_call *d) { add_channels(d, true); }
static void bias_dual_backward(const dev_call *d) { back_through_bias(d, true); }

// ---- leaky ReLU ----

static void lrelu_forth(const dev_call *d, bool dual)
{
    const float slope = (float)d->c.at.slope;
    const buf   x = in_val(d, 0), y = out_val(d), xd = dual ? in_dot(d, 0) : buf{}, yd = dual ? out_dot(d) : buf{};
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const float v = x(k)[i], f = v > 0 ? 1 : slope;
        if (xd && yd)
            yd(k)[i] = f * xd(k)[i];
        y(k)[i] = f * v;
    });
}
static void lrelu_back(const dev_call *d, bool dual)
{
    const float slope = (float)d->c.at.slope;
    const buf   x = slope >= 0 ? out_val(d) : in_val(d, 0);
    const pair  m = and_back(d, 0, dual);
    const bool  acc = d->c.in[0].acc;
    if (m.n)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
            const float f = x(k)[i] > 0 ? 1 : slope;
            for (int s = 0; s < PAIR; s++)
                if (s < m.n)
                    put(&m.to[s](k)[i], f * m.from[s](k)[i], acc);
        });
}
static void lrelu_forward(const dev_call *d) { lrelu_forth(d, false); }
static void lrelu_backward(const dev_call *d) { lrelu_back(d, false); }
static void lrelu_dual_forward(const dev_call *d) { lrelu_forth(d, true); }
static void lrelu_dual_backward(const dev_call *d) { lrelu_back(d, true); }

// ---- tanh ----

static void tanh_forth(const dev_call *d, bool dual)
{
    const buf x = in_val(d, 0), y = out_val(d), xd = dual ? in_dot(d, 0) : buf{}, yd = dual ? out_dot(d) : buf{};
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        const float v = tanhf(x(k)[i]);
        if (xd && yd)
            yd(k)[i] = (1 - v * v) * xd(k)[i];
        y(k)[i] = v;
    });
}
static void tanh_back(const dev_call *d, bool dual)
{
    const buf  y = out_val(d), yd = out_dot(d), g = out_adj(d), gx = in_adj(d, 0), gd = dual ? out_adj_dot(d) : buf{}, gxd = dual ? in_adj_dot(d, 0) : buf{};
    const bool acc = d->c.in[0].acc;
    if (gx || gxd)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
            const float v = y(k)[i], a = g(k)[i];
            if (gxd)
                put(&gxd(k)[i], gd(k)[i] * (1 - v * v) - (yd ? 2 * a * v * yd(k)[i] : 0.0f), acc);
            if (gx)
                put(&gx(k)[i], a * (1 - v * v), acc);
        });
}
static void tanh_forward(const dev_call *d) { tanh_forth(d, false); }
static void tanh_backward(const dev_call *d) { tanh_back(d, false); }
static void tanh_dual_forward(const dev_call *d) { tanh_forth(d, true); }
static void tanh_dual_backward(const dev_call *d) { tanh_back(d, true); }

// ---- add ----

struct addends { int n; buf x[PAIR][OP_MAX_IN], y[PAIR]; };
static void add_forth(const dev_call *d, bool dual)
{
    addends m = { d->c.n_in, {}, { out_val(d), dual ? out_dot(d) : buf{} } };
    for (int i = 0; i < m.n; i++) {
        m.x[0][i] = in_val(d, i);
        m.x[1][i] = in_dot(d, i);
    }
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        UNROLL for (int s = 0; s < PAIR; s++) {
            float sum = 0;
            UNROLL for (int j = 0; j < OP_MAX_IN && j < m.n; j++)
                if (m.y[s] && m.x[s][j])
                    sum += m.x[s][j](k)[i];
            if (m.y[s])
                m.y[s](k)[i] = sum;
        }
    });
}

struct shares { int n; buf from[PAIR], to[PAIR][OP_MAX_IN]; bool acc[OP_MAX_IN]; };
static void add_back(const dev_call *d, bool dual)
{
    shares m = { d->c.n_in, { out_adj(d), dual ? out_adj_dot(d) : buf{} }, {}, {} };
    for (int i = 0; i < m.n; i++) {
        m.to[0][i] = in_adj(d, i);
        m.to[1][i] = in_adj_dot(d, i);
        m.acc[i] = d->c.in[i].acc;
    }
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
        UNROLL for (int s = 0; s < PAIR; s++) {
            const float g = m.from[s] ? m.from[s](k)[i] : 0.0f;
            UNROLL for (int j = 0; j < OP_MAX_IN && j < m.n; j++)
                if (m.from[s] && m.to[s][j])
                    put(&m.to[s][j](k)[i], g, m.acc[j]);
        }
    });
}
static void add_forward(const dev_call *d) { add_forth(d, false); }
static void add_backward(const dev_call *d) { add_back(d, false); }
static void add_dual_forward(const dev_call *d) { add_forth(d, true); }
static void add_dual_backward(const dev_call *d) { add_back(d, true); }

void rules_pointwise(device *d)
{
    const struct { enum op op; dev_rule rule[DEV_RULES]; } row[] = {
        { OP_BIAS, { bias_forward, bias_backward, bias_dual_forward, bias_dual_backward } },
        { OP_LRELU, { lrelu_forward, lrelu_backward, lrelu_dual_forward, lrelu_dual_backward } },
        { OP_TANH, { tanh_forward, tanh_backward, tanh_dual_forward, tanh_dual_backward } },
        { OP_ADD, { add_forward, add_backward, add_dual_forward, add_dual_backward } },
    };
    for (const auto &r : row)
        memcpy(d->rule[r.op], r.rule, sizeof r.rule);
}
