// weights.cu - what is done to weights before they are used: normalisation (../op/wnorm.c), folding for a doubling (../op/fold.c).
#include "common.cuh"

// ---- weight normalisation: w = g v / |v| per column of v [rows, Co]. A block of threads a column; sums in double. ----

enum { LANES = 128 };
struct wn {
    int rows, co;
    buf v, g, vd, gd, w, wd;          // values and tangents
    buf gw, gwd, gv, gg, gvd, ggd;    // adjoints
};

__device__ static inline double column_dot(const float *a, const float *b, int rows, int co, double *room, int t)
{
    double s = 0;
    for (int r = t; r < rows; r += LANES)
        s += (double)a[(uint64_t)r * (uint64_t)co] * (double)b[(uint64_t)r * (uint64_t)co];
    return block_sum(s, room, t, LANES);
}

template <bool DUAL> __global__ static void wn_forward(const wn q)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, o = (int)blockIdx.x, k = (int)blockIdx.z;
    const float *v = q.v(k) + o, *vd = DUAL ? q.vd(k) + o : NULL;
    const double n = sqrt(column_dot(v, v, q.rows, q.co, room, t)), g = (double)q.g(k)[o], a = g / n;
    const double ad = DUAL ? (double)q.gd(k)[o] / n - g * (column_dot(v, vd, q.rows, q.co, room, t) / n) / (n * n) : 0;
    for (int r = t; r < q.rows; r += LANES) {
        const uint64_t at = (uint64_t)r * (uint64_t)q.co;
        q.w(k)[at + (uint64_t)o] = (float)(a * (double)v[at]);
        if (DUAL)
            q.wd(k)[at + (uint64_t)o] = (float)(ad * (double)v[at] + a * (double)vd[at]);
    }
}

template <bool DUAL> __global__ static void wn_backward(const wn q)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, o = (int)blockIdx.x, k = (int)blockIdx.z;
    const float *v = q.v(k) + o, *gw = q.gw(k) + o, *vd = DUAL ? q.vd(k) + o : NULL, *gwd = DUAL ? q.gwd(k) + o : NULL;
    const double n2 = column_dot(v, v, q.rows, q.co, room, t), s = column_dot(v, gw, q.rows, q.co, room, t), n = sqrt(n2), n3 = n2 * n, g = (double)q.g(k)[o];
    const double a = g / n, b = g * s / n3;
    double ad = 0, bd = 0;
    if (t == 0 && q.gg)
        q.gg(k)[o] = (float)(s / n);
    if (DUAL) {
        const double nd = column_dot(v, vd, q.rows, q.co, room, t) / n, gd = (double)q.gd(k)[o];
        const double sd = column_dot(vd, gw, q.rows, q.co, room, t) + column_dot(v, gwd, q.rows, q.co, room, t);
        if (t == 0 && q.ggd)
            q.ggd(k)[o] = (float)(sd / n - s * nd / n2);
        ad = gd / n - g * nd / n2;
        bd = (gd * s + g * sd) / n3 - 3 * g * s * nd / (n2 * n2);
    }
    for (int r = t; r < q.rows; r += LANES) {
        const uint64_t at = (uint64_t)r * (uint64_t)q.co;
        if (q.gv)
            q.gv(k)[at + (uint64_t)o] = (float)(a * (double)gw[at] - b * (double)v[at]);
        if (DUAL && q.gvd)
            q.gvd(k)[at + (uint64_t)o] = (float)(ad * (double)gw[at] + a * (double)gwd[at] - bd * (double)v[at] - b * (double)vd[at]);
    }
}

static wn wn_of(const dev_call *d)
{
    return { d->c.in[0].s.h, d->c.in[0].s.c, in_val(d, 0), in_val(d, 1), in_dot(d, 0), in_dot(d, 1), out_val(d), out_dot(d),
             out_adj(d), out_adj_dot(d), in_adj(d, 0), in_adj(d, 1), in_adj_dot(d, 0), in_adj_dot(d, 1) };
}
static void launch(const dev_call *d, void (*kernel)(const wn))
{
    const wn q = wn_of(d);
    LAUNCH(kernel, dim3((unsigned)q.co, 1, (unsigned)d->K), dim3(LANES), d->queue, q);
}
static void wnorm_forward(const dev_call *d) { launch(d, wn_forward<false>); }
static void wnorm_backward(const dev_call *d) { launch(d, wn_backward<false>); }
static void wnorm_dual_forward(const dev_call *d) { launch(d, wn_forward<true>); }
static void wnorm_dual_backward(const dev_call *d) { launch(d, wn_backward<true>); }

// ---- folding: f[r][q] is a sum of one, two or four of w's nine places ----

__device__ static inline int part(int r, int i) // the i-th place of w in row r of f; -1: there is none
{
    const int place[4][2] = { { 2, -1 }, { 1, 2 }, { 0, 1 }, { 0, -1 } };
    return place[r][i];
}

static void forth(const dev_call *d, pair m)
{
    const uint32_t ci = (uint32_t)d->c.in[0].s.h / 9, co = (uint32_t)d->c.in[0].s.c; // rows of w are (place, input channel)
    over(d->queue, d->K, (uint64_t)16 * ci * co, [=] __device__ (int k, uint32_t e) {
        const uint32_t i = e % ci, o = e / ci % co, p = e / ci / co;
        float sum[PAIR] = {};
        for (int a = 0; a < 2; a++)
            for (int b = 0; b < 2; b++) {
                const int kh = part((int)p / 4, a), kw = part((int)p % 4, b);
                for (int s = 0; s < PAIR; s++)
                    if (s < m.n && kh >= 0 && kw >= 0)
                        sum[s] += m.from[s](k)[((uint64_t)(kh * 3 + kw) * ci + i) * co + o];
            }
        for (int s = 0; s < PAIR; s++)
            if (s < m.n)
                m.to[s](k)[e] = sum[s];
    });
}
static void back(const dev_call *d, pair m)
{
    const uint32_t ci = (uint32_t)d->c.in[0].s.h / 9, co = (uint32_t)d->c.in[0].s.c;
    if (m.n)
        over(d->queue, d->K, (uint64_t)9 * ci * co, [=] __device__ (int k, uint32_t e) {
            const uint32_t o = e % co, i = e / co % ci, p = e / co / ci;
            float sum[PAIR] = {};
            for (int r = 0; r < 4; r++)
                for (int q = 0; q < 4; q++)
                    for (int a = 0; a < 2; a++)
                        for (int b = 0; b < 2; b++)
                            if (part(r, a) == (int)p / 3 && part(q, b) == (int)p % 3)
                                for (int s = 0; s < PAIR; s++)
                                    if (s < m.n)
                                        sum[s] += m.from[s](k)[((uint64_t)(r * 4 + q) * co + o) * ci + i];
            for (int s = 0; s < PAIR; s++)
                if (s < m.n)
                    m.to[s](k)[e] = sum[s];
        });
}
static void fold_forward(const dev_call *d) { forth(d, there(d, 0, false)); }
static void fold_backward(const dev_call *d) { back(d, and_back(d, 0, false)); }
static void fold_dual_forward(const dev_call *d) { forth(d, there(d, 0, true)); }
static void fold_dual_backward(const dev_call *d) { back(d, and_back(d, 0, true)); }

void rules_weights(device *d)
{
    const dev_rule wnorm[DEV_RULES] = { wnorm_forward, wnorm_backward, wnorm_dual_forward, wnorm_dual_backward };
    const dev_rule fold[DEV_RULES] = { fold_forward, fold_backward, fold_dual_forward, fold_dual_backward };
    memcpy(d->rule[OP_WNORM], wnorm, sizeof wnorm);
    memcpy(d->rule[OP_FOLD], fold, sizeof fold);
}
