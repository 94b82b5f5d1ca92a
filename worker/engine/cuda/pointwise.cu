// pointwise.cu - bias, leaky ReLU, tanh, add (../op/pointwise.c).
#include "common.cuh"

// y (+)= x
static void move(const dev_call *d, buf x, buf y, bool acc)
{
    if (x && y)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { put(&y(k)[i], x(k)[i], acc); });
}

// ---- bias ----

static void add_channels(const dev_call *d, buf x, buf b, buf y)
{
    const int  C = d->c.out.s.c;
    const bool has_x = (bool)x;
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { y(k)[i] = (has_x ? x(k)[i] : 0.0f) + b(k)[i % (uint32_t)C]; });
}

enum { SUM_LANES = 256 };
__global__ static void channel_sums(buf g, buf gb, int C, uint64_t rows)
{
    __shared__ double room[SUM_LANES];
    const int c = (int)blockIdx.x, k = (int)blockIdx.z, t = (int)threadIdx.x;
    const float *x = g(k);
    double sum = 0;
    for (uint64_t r = (uint64_t)t; r < rows; r += SUM_LANES)
        sum += (double)x[r * (uint64_t)C + (uint64_t)c];
    sum = block_sum(sum, room, t, SUM_LANES);
    if (t == 0)
        gb(k)[c] = (float)sum;
}
static void sum_channels(const dev_call *d, buf g, buf gb)
{
    const int C = d->c.out.s.c;
    if (g && gb)
        LAUNCH(channel_sums, dim3((unsigned)C, 1, (unsigned)d->K), dim3(SUM_LANES), d->queue, g, gb, C, out_elems(d) / (uint64_t)C);
}

static void bias_forward(const dev_call *d) { add_channels(d, in_val(d, 0), in_val(d, 1), out_val(d)); }
static void bias_backward(const dev_call *d)
{
    move(d, out_adj(d), in_adj(d, 0), d->c.in[0].acc);
    sum_channels(d, out_adj(d), in_adj(d, 1));
}
static void bias_dual_forward(const dev_call *d)
{
    bias_forward(d);
    add_channels(d, in_dot(d, 0), in_dot(d, 1), out_dot(d));
}
static void bias_dual_backward(const dev_call *d)
{
    bias_backward(d);
    move(d, out_adj_dot(d), in_adj_dot(d, 0), d->c.in[0].acc);
    sum_channels(d, out_adj_dot(d), in_adj_dot(d, 1));
}

// ---- leaky ReLU ----

static void masked(const dev_call *d, buf g, buf to, bool acc)
{
    const float slope = (float)d->c.at.slope;
    const buf   x = slope >= 0 ? out_val(d) : in_val(d, 0);
    if (g && to)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { put(&to(k)[i], x(k)[i] > 0 ? g(k)[i] : slope * g(k)[i], acc); });
}
static void lrelu_forward(const dev_call *d)
{
    const float slope = (float)d->c.at.slope;
    const buf   x = in_val(d, 0), y = out_val(d);
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { y(k)[i] = x(k)[i] > 0 ? x(k)[i] : slope * x(k)[i]; });
}
static void lrelu_backward(const dev_call *d) { masked(d, out_adj(d), in_adj(d, 0), d->c.in[0].acc); }
static void lrelu_dual_forward(const dev_call *d)
{
    lrelu_forward(d);
    masked(d, in_dot(d, 0), out_dot(d), false);
}
static void lrelu_dual_backward(const dev_call *d)
{
    lrelu_backward(d);
    masked(d, out_adj_dot(d), in_adj_dot(d, 0), d->c.in[0].acc);
}

// ---- tanh ----

static void tanh_forward(const dev_call *d)
{
    const buf x = in_val(d, 0), y = out_val(d);
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { y(k)[i] = tanhf(x(k)[i]); });
}
static void tanh_backward(const dev_call *d)
{
    const buf  y = out_val(d), g = out_adj(d), gx = in_adj(d, 0);
    const bool acc = d->c.in[0].acc;
    if (gx)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { put(&gx(k)[i], g(k)[i] * (1 - y(k)[i] * y(k)[i]), acc); });
}
static void tanh_dual_forward(const dev_call *d)
{
    tanh_forward(d);
    const buf y = out_val(d), xd = in_dot(d, 0), yd = out_dot(d);
    over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) { yd(k)[i] = (1 - y(k)[i] * y(k)[i]) * xd(k)[i]; });
}
static void tanh_dual_backward(const dev_call *d)
{
    tanh_backward(d);
    const buf  y = out_val(d), yd = out_dot(d), g = out_adj(d), gd = out_adj_dot(d), gxd = in_adj_dot(d, 0);
    const bool acc = d->c.in[0].acc, has_dot = (bool)yd;
    if (gxd)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
            const float v = y(k)[i];
            put(&gxd(k)[i], gd(k)[i] * (1 - v * v) - (has_dot ? 2 * g(k)[i] * v * yd(k)[i] : 0.0f), acc);
        });
}

// ---- add ----

static void sum_inputs(const dev_call *d, bool dot)
{
    bool started = false;
    for (int i = 0; i < d->c.n_in; i++) {
        const buf x = dot ? in_dot(d, i) : in_val(d, i);
        if (x) {
            move(d, x, dot ? out_dot(d) : out_val(d), started);
            started = true;
        }
    }
}
static void add_forward(const dev_call *d) { sum_inputs(d, false); }
static void add_dual_forward(const dev_call *d)
{
    sum_inputs(d, false);
    sum_inputs(d, true);
}
static void add_backward(const dev_call *d)
{
    for (int i = 0; i < d->c.n_in; i++)
        move(d, out_adj(d), in_adj(d, i), d->c.in[i].acc);
}
static void add_dual_backward(const dev_call *d)
{
    add_backward(d);
    for (int i = 0; i < d->c.n_in; i++)
        move(d, out_adj_dot(d), in_adj_dot(d, i), d->c.in[i].acc);
}

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
