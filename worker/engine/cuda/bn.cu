// bn.cu - batch normalisation with the leaky ReLU that follows it (../op/bn.c, whose equations and names these are).
//
// Sums over N, H, W: a block sums CHUNK rows of 32 channels, the last one of these channels joins all parts, in double and in a fixed order. Statistics are taken
// about the channel's first number s, d = x - s: mean = s + sum d / M, deviations = sum d^2 - (sum d)^2 / M.
// Running statistics are the CPU's alone: a slab's learners normalise by their batch.
#include "common.cuh"

enum { WIDE = 32, ROWS = 8, CHUNK = 512 };
enum { M_, R_, MDOT, RDOT, S1, S2, S1DOT, S2DOT, N_KEPT };
enum { MAX_SUMS = 4 };
enum mode { SUM_STAT, SUM_STAT_DUAL, SUM_BACK, SUM_DUAL };

struct bn {
    int      C, chunks;
    uint64_t rows;
    float    slope, eps;
    bool     mean_only, acc;
    buf      x, xdot, y, ydot, g, gdot, gx, gxdot, gain, gaindot, bias, biasdot;
    buf      kept, parts;          // [N_KEPT][C] floats in aux; [chunks][MAX_SUMS][C] doubles in scratch
    unsigned *ticket;              // one for 32 channels of a learner
    buf      gb, gg, gbd, ggd;     // gradients of bias and gain, and their tangents
};

static bn bn_of(const dev_call *d)
{
    const bool mo = d->c.at.mean_only;
    const int  ib = mo ? 1 : 2;
    bn b = {};
    b.C = d->c.out.s.c;
    b.rows = out_elems(d) / (uint64_t)b.C;
    b.chunks = (int)((b.rows + CHUNK - 1) / CHUNK);
    b.slope = (float)d->c.at.slope;
    b.eps = (float)d->c.at.eps;
    b.mean_only = mo;
    b.acc = d->c.in[0].acc;
    b.x = in_val(d, 0), b.xdot = in_dot(d, 0), b.y = out_val(d), b.ydot = out_dot(d);
    b.g = out_adj(d), b.gdot = out_adj_dot(d), b.gx = in_adj(d, 0), b.gxdot = in_adj_dot(d, 0);
    if (!mo)
        b.gain = in_val(d, 1), b.gaindot = in_dot(d, 1), b.gg = in_adj(d, 1), b.ggd = in_adj_dot(d, 1);
    b.bias = in_val(d, ib), b.biasdot = in_dot(d, ib), b.gb = in_adj(d, ib), b.gbd = in_adj_dot(d, ib);
    b.kept = aux_of(d);
    b.kept.at += MAX_SUMS * sizeof(double) * (size_t)b.C; // where the CPU keeps its sums
    b.parts = scratch_of(d);
    b.ticket = d->ticket;
    return b;
}
static size_t scratch(const op_call *c)
{
    const uint64_t rows = (uint64_t)c->batch * (uint64_t)c->out.s.h * (uint64_t)c->out.s.w;
    return (size_t)((rows + CHUNK - 1) / CHUNK) * MAX_SUMS * (size_t)c->out.s.c * sizeof(double);
}

struct coef { float m, r, gain, bias, mdot, rdot, gaindot, biasdot, s1, s2, s1dot, s2dot; };
__device__ static inline coef coef_of(const bn &b, int k, int c)
{
    const float *kept = b.kept(k);
    coef q;
    q.m = kept[M_ * b.C + c], q.r = kept[R_ * b.C + c], q.mdot = kept[MDOT * b.C + c], q.rdot = kept[RDOT * b.C + c];
    q.s1 = kept[S1 * b.C + c], q.s2 = kept[S2 * b.C + c], q.s1dot = kept[S1DOT * b.C + c], q.s2dot = kept[S2DOT * b.C + c];
    q.gain = b.gain ? b.gain(k)[c] : 1, q.gaindot = b.gaindot ? b.gaindot(k)[c] : 0;
    q.bias = b.bias(k)[c], q.biasdot = b.biasdot ? b.biasdot(k)[c] : 0;
    return q;
}

// N sums of each lane, over the rows of threads, in their order; to room[i][0].
template <int N, class T> __device__ static inline void add_rows(double room[N][ROWS][WIDE], const T s[MAX_SUMS], int row, int lane)
{
    for (int i = 0; i < N; i++)
        room[i][row][lane] = (double)s[i];
    __syncthreads();
    for (int i = row; i < N; i += ROWS) {
        double sum = 0;
        for (int r = 0; r < ROWS; r++)
            sum += room[i][r][lane];
        room[i][0][lane] = sum;
    }
    __syncthreads();
}

// What all rows' sums of a channel say.
template <int MODE> __device__ static inline void settle(const bn &b, int k, int c, const double s[MAX_SUMS])
{
    const double M = (double)b.rows;
    float *kept = b.kept(k);
    if (MODE == SUM_STAT || MODE == SUM_STAT_DUAL) {
        const double var = (s[1] - s[0] * s[0] / M) / M, r = b.mean_only ? 1 : 1 / sqrt((var < 0 ? 0 : var) + (double)b.eps), vdot = 2 * (s[3] - s[0] * s[2] / M) / M;
        kept[M_ * b.C + c] = (float)((double)b.x(k)[c] + s[0] / M);
        kept[R_ * b.C + c] = (float)r;
        kept[MDOT * b.C + c] = (float)(s[2] / M);
        kept[RDOT * b.C + c] = b.mean_only ? 0 : (float)(-0.5 * r * r * r * vdot);
    } else {
        const buf into[MAX_SUMS] = { b.gb, b.gg, b.gbd, b.ggd };
        for (int i = 0; i < (MODE == SUM_DUAL ? 4 : 2); i++) {
            kept[(S1 + i) * b.C + c] = b.mean_only && i % 2 ? 0 : (float)(s[i] / M);
            if (into[i])
                into[i](k)[c] = (float)s[i];
        }
    }
}

template <int MODE> __global__ static void gather(const bn b)
{
    enum { N = MODE == SUM_STAT || MODE == SUM_BACK ? 2 : MAX_SUMS };
    __shared__ double room[N][ROWS][WIDE];
    const int lane = (int)threadIdx.x, row = (int)threadIdx.y, c = (int)blockIdx.y * WIDE + lane, k = (int)blockIdx.z;
    const uint64_t from = (uint64_t)blockIdx.x * CHUNK, to = from + CHUNK < b.rows ? from + CHUNK : b.rows;
    float s[MAX_SUMS] = {};
    if (c < b.C) {
        const float *x = b.x(k), *xdot = b.xdot ? b.xdot(k) : NULL, first = x[c];
        const coef   q = MODE == SUM_BACK || MODE == SUM_DUAL ? coef_of(b, k, c) : coef();
        for (uint64_t r = from + (uint64_t)row; r < to; r += ROWS) {
            const uint64_t at = r * (uint64_t)b.C + (uint64_t)c;
            if (MODE == SUM_STAT || MODE == SUM_STAT_DUAL) {
                const float d = x[at] - first;
                s[0] += d;
                s[1] = fmaf(d, d, s[1]);
                if (MODE == SUM_STAT_DUAL && xdot) {
                    s[2] += xdot[at];
                    s[3] = fmaf(d, xdot[at], s[3]);
                }
            } else {
                const float d = x[at] - q.m, h = d * q.r, mask = fmaf(h, q.gain, q.bias) > 0 ? 1 : b.slope, g = b.g(k)[at] * mask;
                s[0] += g;
                s[1] = fmaf(g, h, s[1]);
                if (MODE == SUM_DUAL) {
                    const float hd = xdot ? fmaf(xdot[at] - q.mdot, q.r, d * q.rdot) : 0, gd = b.gdot(k)[at] * mask;
                    s[2] += gd;
                    s[3] = fmaf(gd, h, fmaf(g, hd, s[3]));
                }
            }
        }
    }
    add_rows<N>(room, s, row, lane);
    double *part = (double *)b.parts(k);
    if (row == 0 && c < b.C)
        for (int i = 0; i < N; i++)
            part[((uint64_t)blockIdx.x * MAX_SUMS + (uint64_t)i) * (uint64_t)b.C + (uint64_t)c] = room[i][0][lane];
    if (!last_of(b.ticket + blockIdx.z * gridDim.y + blockIdx.y, gridDim.x))
        return;
    double sum[MAX_SUMS] = {};
    for (int j = row; j < b.chunks && c < b.C; j += ROWS)
        for (int i = 0; i < N; i++)
            sum[i] += part[((uint64_t)j * MAX_SUMS + (uint64_t)i) * (uint64_t)b.C + (uint64_t)c];
    add_rows<N>(room, sum, row, lane);
    if (row == 0 && c < b.C) {
        for (int i = 0; i < N; i++)
            sum[i] = room[i][0][lane];
        settle<MODE>(b, k, c, sum);
    }
}

template <int MODE> static void sums(const dev_call *d, const bn &b)
{
    auto kernel = gather<MODE>;
    LAUNCH(kernel, dim3((unsigned)b.chunks, (unsigned)((b.C + WIDE - 1) / WIDE), (unsigned)d->K), dim3(WIDE, ROWS), d->queue, b);
}

template <bool DUAL> static void apply(const dev_call *d, const bn b)
{
    if (b.y || DUAL)
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
            const coef  q = coef_of(b, k, (int)(i % (uint32_t)b.C));
            const float dx = b.x(k)[i] - q.m, h = dx * q.r, p = fmaf(h, q.gain, q.bias), mask = p > 0 ? 1 : b.slope;
            if (DUAL) {
                const float hd = b.xdot ? fmaf(b.xdot(k)[i] - q.mdot, q.r, dx * q.rdot) : 0;
                b.ydot(k)[i] = fmaf(q.gaindot, h, fmaf(q.gain, hd, q.biasdot)) * mask;
            }
            if (b.y)
                b.y(k)[i] = p * mask;
        });
}
template <bool DUAL> static void back(const dev_call *d, const bn b)
{
    if (b.gx || (DUAL && b.gxdot))
        over(d->queue, d->K, out_elems(d), [=] __device__ (int k, uint32_t i) {
            const coef  q = coef_of(b, k, (int)(i % (uint32_t)b.C));
            const float dx = b.x(k)[i] - q.m, h = dx * q.r, mask = fmaf(h, q.gain, q.bias) > 0 ? 1 : b.slope, g = b.g(k)[i] * mask, core = g - q.s1 - h * q.s2;
            if (DUAL && b.gxdot) {
                const float hd = b.xdot ? fmaf(b.xdot(k)[i] - q.mdot, q.r, dx * q.rdot) : 0, gd = b.gdot(k)[i] * mask;
                const float cd = gd - q.s1dot - fmaf(hd, q.s2, h * q.s2dot);
                put(&b.gxdot(k)[i], fmaf(fmaf(q.gaindot, q.r, q.gain * q.rdot), core, q.gain * q.r * cd), b.acc);
            }
            if (b.gx)
                put(&b.gx(k)[i], q.gain * q.r * core, b.acc);
        });
}

// The two parts of a rule may be two calls (op.h).
static bool gathers(const dev_call *d) { return d->c.part != OP_APPLY; }
static bool applies(const dev_call *d) { return d->c.part != OP_GATHER; }

template <int STAT, bool DUAL> static void go_forth(const dev_call *d)
{
    const bn b = bn_of(d);
    if (gathers(d) && !d->c.again)
        sums<STAT>(d, b);
    if (applies(d))
        apply<DUAL>(d, b);
}
template <int BACK, bool DUAL> static void go_back(const dev_call *d)
{
    const bn b = bn_of(d);
    if (gathers(d))
        sums<BACK>(d, b);
    if (applies(d))
        back<DUAL>(d, b);
}

void rules_bn(device *d)
{
    const dev_rule rule[DEV_RULES] = { go_forth<SUM_STAT, false>, go_back<SUM_BACK, false>, go_forth<SUM_STAT_DUAL, true>, go_back<SUM_DUAL, true> };
    memcpy(d->rule[OP_BN], rule, sizeof rule);
    d->scratch[OP_BN] = scratch;
}
