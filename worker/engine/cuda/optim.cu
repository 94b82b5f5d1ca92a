// optim.cu - inner optimisers, an update and its adjoint each (../cpu/optim.c, whose equations and names these are).
// Step sizes lie on the device, so that recorded work may be played with others. Inner products: SPLITS blocks a vector, their parts
// added in order by whoever needs the sum.
#include "common.cuh"

enum { LANES = 256, SPLITS = 32, MOST_DOTS = 3 };

static double *dot_parts(const dev_optim *o) { return (double *)o->scratch; } // [K][SPLITS][MOST_DOTS]
static double *tensor_parts(const dev_optim *o) { return dot_parts(o) + (uint64_t)o->K * SPLITS * MOST_DOTS; } // [K][tensors][SPLITS][3]
static uint64_t optim_scratch(int K, int n_tensors) { return (uint64_t)K * SPLITS * MOST_DOTS * (1 + (uint64_t)n_tensors) * sizeof(double); }

// N sums over i < n of f(k, i, term)
template <int N, class F> __global__ static void dots(uint64_t n, double *part, F f)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, split = (int)blockIdx.x, k = (int)blockIdx.z;
    const uint64_t from = n * (uint64_t)split / SPLITS, to = n * (uint64_t)(split + 1) / SPLITS;
    double s[N] = {}, term[N];
    for (uint64_t i = from + (uint64_t)t; i < to; i += LANES) {
        f(k, i, term);
        for (int j = 0; j < N; j++)
            s[j] += term[j];
    }
    for (int j = 0; j < N; j++) {
        const double sum = block_sum(s[j], room, t, LANES);
        if (t == 0)
            part[((uint64_t)k * SPLITS + (uint64_t)split) * MOST_DOTS + (uint64_t)j] = sum;
    }
}
template <int N, class F> static void sum_up(const dev_optim *o, F f)
{
    auto kernel = dots<N, F>;
    LAUNCH(kernel, dim3(SPLITS, 1, (unsigned)o->K), dim3(LANES), o->queue, o->P, dot_parts(o), f);
}
__device__ static inline double joined(const double *part, int k, int j)
{
    double s = 0;
    for (int i = 0; i < SPLITS; i++)
        s += part[((uint64_t)k * SPLITS + (uint64_t)i) * MOST_DOTS + (uint64_t)j];
    return s;
}

// What every kernel of a step needs.
struct at {
    const double *lr, *mu;
    int      t, T;
    uint64_t state;
    float    beta, eps, wd;
    double   clip, beta2;
    buf      w, s, w2, s2, g, a, b, q, raw;
    double  *part, *dlr, *dmu, *prod_bar;
    int     *failed;
};
// A new weight; and a second moment, which may overflow and leave the weights finite.
__device__ static inline void new_weight(const at &x, int k, uint64_t i, float v)
{
    x.w2(k)[i] = v;
    look(v, x.failed + k, x.t);
}
__device__ static inline void new_moment(const at &x, int k, uint64_t i, float v)
{
    x.s2(k)[x.state + i] = v;
    look(v, x.failed + k, x.t);
}
static at at_of(const dev_optim *o)
{
    return { o->lr, o->mu, o->t, o->T, o->state, (float)o->cfg->beta2, (float)o->cfg->eps, (float)o->cfg->weight_decay, o->cfg->clip, o->cfg->beta2,
             of(o->w), of(o->s), of(o->w2), of(o->s2), of(o->g), of(o->a), of(o->b), of(o->q), of(o->raw), dot_parts(o), o->dlr, o->dmu, o->prod_bar, o->failed };
}

// ---- the gradient's shape ----

static void norm_of_raw(const dev_optim *o, const at x, bool with_q)
{
    sum_up<2>(o, [=] __device__ (int k, uint64_t i, double *s) {
        const double g = (double)x.raw(k)[i];
        s[0] = g * g;
        s[1] = with_q ? (double)x.q(k)[i] * g : 0;
    });
}
static void shape(const dev_optim *o, dev_rows out)
{
    const at  x = at_of(o);
    const buf to = of(out);
    if (x.clip > 0)
        norm_of_raw(o, x, false);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const double n = x.clip > 0 ? sqrt(joined(x.part, k, 0)) : 0;
        const float  f = x.clip > 0 && n > x.clip ? (float)(x.clip / n) : 1;
        to(k)[i] = fmaf(f, x.raw(k)[i], x.wd * x.w(k)[i]);
    });
}
static void unshape(const dev_optim *o)
{
    const at x = at_of(o);
    if (x.wd != 0)
        along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) { x.a(k)[i] = fmaf(x.wd, x.q(k)[i], x.a(k)[i]); });
    if (!(x.clip > 0))
        return;
    norm_of_raw(o, x, true);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const double n = sqrt(joined(x.part, k, 0));
        if (n > x.clip)
            x.q(k)[i] = (float)(x.clip / n) * (x.q(k)[i] - (float)(joined(x.part, k, 1) / (n * n)) * x.raw(k)[i]);
    });
}

// ---- sgd, and what all with v' = mu v + (something) share ----

static void sgd_step(const dev_optim *o)
{
    const at x = at_of(o);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const float step = fmaf((float)x.mu[x.t], x.s(k)[i], x.g(k)[i]);
        x.s2(k)[i] = step;
        new_weight(x, k, i, x.w(k)[i] - (float)x.lr[x.t] * step);
    });
}
static void sgd_adjoint(const dev_optim *o)
{
    const at x = at_of(o);
    sum_up<2>(o, [=] __device__ (int k, uint64_t i, double *s) {
        s[0] = (double)x.a(k)[i] * (double)x.s2(k)[i];
        s[1] = (double)(x.b(k)[i] - (float)x.lr[x.t] * x.a(k)[i]) * (double)x.s(k)[i];
    });
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        if (i == 0) {
            x.dlr[k * x.T + x.t] = -joined(x.part, k, 0);
            x.dmu[k * x.T + x.t] = joined(x.part, k, 1);
        }
        const float u = x.b(k)[i] - (float)x.lr[x.t] * x.a(k)[i];
        x.q(k)[i] = u;
        x.b(k)[i] = (float)x.mu[x.t] * u;
    });
}

// ---- nesterov ----

static void nesterov_step(const dev_optim *o)
{
    const at x = at_of(o);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const float mu = (float)x.mu[x.t], g = x.g(k)[i], v = fmaf(mu, x.s(k)[i], g);
        x.s2(k)[i] = v;
        new_weight(x, k, i, x.w(k)[i] - (float)x.lr[x.t] * fmaf(mu, v, g));
    });
}
static void nesterov_adjoint(const dev_optim *o)
{
    const at x = at_of(o);
    sum_up<3>(o, [=] __device__ (int k, uint64_t i, double *s) {
        const float a = x.a(k)[i], u = x.b(k)[i] - (float)x.mu[x.t] * (float)x.lr[x.t] * a;
        s[0] = (double)a * (double)x.g(k)[i];
        s[1] = (double)a * (double)x.s2(k)[i];
        s[2] = (double)u * (double)x.s(k)[i];
    });
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        if (i == 0) {
            const double av = joined(x.part, k, 1);
            x.dlr[k * x.T + x.t] = -(joined(x.part, k, 0) + x.mu[x.t] * av);
            x.dmu[k * x.T + x.t] = joined(x.part, k, 2) - x.lr[x.t] * av;
        }
        const float lr = (float)x.lr[x.t], mu = (float)x.mu[x.t], a = x.a(k)[i], u = x.b(k)[i] - mu * lr * a;
        x.b(k)[i] = mu * u;
        x.q(k)[i] = u - lr * a;
    });
}

// ---- lars: a block for a split of a tensor ----

struct lars { at x; const optim_tensor *tensor; int n_tensors; double *part, eps, scale_1d; };
static lars lars_of(const dev_optim *o) { return { at_of(o), o->tensor, o->n_tensors, tensor_parts(o), o->cfg->eps, o->cfg->scale_1d }; }

struct range { uint64_t from, to; };
__device__ static inline range split_of(const optim_tensor &t, int split) { return { t.offset + t.size * (uint64_t)split / SPLITS, t.offset + t.size * (uint64_t)(split + 1) / SPLITS }; }
__device__ static inline double *tensor_part(const lars &l, int k, int tensor) { return l.part + ((uint64_t)k * (uint64_t)l.n_tensors + (uint64_t)tensor) * SPLITS * MOST_DOTS; }

__global__ static void lars_norms(const lars l, bool with_q)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, j = (int)blockIdx.x, split = (int)blockIdx.y, k = (int)blockIdx.z;
    const range r = split_of(l.tensor[j], split);
    double s[MOST_DOTS] = {};
    for (uint64_t i = r.from + (uint64_t)t; i < r.to; i += LANES) {
        const double w = (double)l.x.w(k)[i], g = (double)l.x.g(k)[i];
        s[0] += w * w;
        s[1] += g * g;
        if (with_q)
            s[2] += (double)l.x.q(k)[i] * g;
    }
    for (int i = 0; i < MOST_DOTS; i++) {
        const double sum = block_sum(s[i], room, t, LANES);
        if (t == 0)
            tensor_part(l, k, j)[split * MOST_DOTS + i] = sum;
    }
}
__device__ static inline double tensor_sum(const lars &l, int k, int tensor, int i)
{
    double s = 0;
    for (int j = 0; j < SPLITS; j++)
        s += tensor_part(l, k, tensor)[j * MOST_DOTS + i];
    return s;
}

__global__ static void lars_update(const lars l)
{
    const int t = (int)threadIdx.x, j = (int)blockIdx.x, k = (int)blockIdx.z;
    const range r = split_of(l.tensor[j], (int)blockIdx.y);
    const float lr = (float)l.x.lr[l.x.t], mu = (float)l.x.mu[l.x.t];
    const float s = (float)(l.tensor[j].ndim < 2 ? l.scale_1d : sqrt(tensor_sum(l, k, j, 0)) / (sqrt(tensor_sum(l, k, j, 1)) + l.eps));
    for (uint64_t i = r.from + (uint64_t)t; i < r.to; i += LANES) {
        const float step = fmaf(mu, l.x.s(k)[i], s * l.x.g(k)[i]);
        l.x.s2(k)[i] = step;
        new_weight(l.x, k, i, l.x.w(k)[i] - lr * step);
    }
}
__global__ static void lars_back(const lars l)
{
    const int t = (int)threadIdx.x, j = (int)blockIdx.x, k = (int)blockIdx.z;
    const range r = split_of(l.tensor[j], (int)blockIdx.y);
    double s = l.scale_1d, on_g = 0, on_w = 0;
    if (l.tensor[j].ndim >= 2) {
        const double nw = sqrt(tensor_sum(l, k, j, 0)), ng = sqrt(tensor_sum(l, k, j, 1)), ug = tensor_sum(l, k, j, 2), d = ng + l.eps;
        s = nw / d;
        on_g = ng > 0 ? ug * nw / (d * d * ng) : 0;
        on_w = nw > 0 ? ug / (d * nw) : 0;
    }
    for (uint64_t i = r.from + (uint64_t)t; i < r.to; i += LANES) {
        l.x.a(k)[i] = fmaf((float)on_w, l.x.w(k)[i], l.x.a(k)[i]);
        l.x.q(k)[i] = (float)s * l.x.q(k)[i] - (float)on_g * l.x.g(k)[i];
    }
}
static dim3 tensor_grid(const dev_optim *o) { return dim3((unsigned)o->n_tensors, SPLITS, (unsigned)o->K); }

static void lars_step(const dev_optim *o)
{
    const lars l = lars_of(o);
    LAUNCH(lars_norms, tensor_grid(o), dim3(LANES), o->queue, l, false);
    LAUNCH(lars_update, tensor_grid(o), dim3(LANES), o->queue, l);
}
static void lars_adjoint(const dev_optim *o)
{
    const lars l = lars_of(o);
    sgd_adjoint(o);
    LAUNCH(lars_norms, tensor_grid(o), dim3(LANES), o->queue, l, true);
    LAUNCH(lars_back, tensor_grid(o), dim3(LANES), o->queue, l);
}

// ---- rmsprop: states v, r ----

static void rmsprop_step(const dev_optim *o)
{
    const at x = at_of(o);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const float g = x.g(k)[i], r = x.beta * x.s(k)[x.state + i] + (1 - x.beta) * g * g;
        const float v = (float)x.mu[x.t] * x.s(k)[i] + g / (sqrtf(r + x.eps) + x.eps);
        new_moment(x, k, i, r);
        x.s2(k)[i] = v;
        new_weight(x, k, i, x.w(k)[i] - (float)x.lr[x.t] * v);
    });
}
static void rmsprop_adjoint(const dev_optim *o)
{
    const at x = at_of(o);
    sgd_adjoint(o);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const float g = x.g(k)[i], root = sqrtf(x.s2(k)[x.state + i] + x.eps), d = root + x.eps, n = g / d, u = x.q(k)[i];
        const float rb = x.b(k)[x.state + i] - u * n / (2 * root * d);
        x.q(k)[i] = u / d + 2 * (1 - x.beta) * g * rb;
        x.b(k)[x.state + i] = x.beta * rb;
    });
}

// ---- adam: states m, r ----

struct corrections { double prod, full1; float c1, c2; };
__device__ static inline corrections correct(const at &x)
{
    corrections c;
    c.prod = 1;
    for (int i = 0; i < x.t; i++)
        c.prod *= x.mu[i];
    c.full1 = 1 - c.prod * x.mu[x.t];
    c.c1 = (float)c.full1;
    c.c2 = (float)(1 - pow(x.beta2, (double)(x.t + 1)));
    return c;
}
struct adam_terms { float n, um, rb, q; };
__device__ static inline adam_terms adam_back(const at &x, const corrections &c, int k, uint64_t i)
{
    adam_terms r;
    const float mu = (float)x.mu[x.t], g = x.g(k)[i], root = sqrtf(x.s2(k)[x.state + i] / c.c2 + x.eps), d = root + x.eps, on = -(float)x.lr[x.t] * x.a(k)[i];
    r.n = x.s2(k)[i] / c.c1 / d;
    r.um = x.b(k)[i] + on / (c.c1 * d);
    r.rb = x.b(k)[x.state + i] - on * r.n / (2 * root * d * c.c2);
    r.q = (1 - mu) * r.um + 2 * (1 - x.beta) * g * r.rb;
    return r;
}
static void adam_step(const dev_optim *o)
{
    const at x = at_of(o);
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const corrections c = correct(x);
        const float mu = (float)x.mu[x.t], g = x.g(k)[i], m = mu * x.s(k)[i] + (1 - mu) * g, r = x.beta * x.s(k)[x.state + i] + (1 - x.beta) * g * g;
        x.s2(k)[i] = m;
        new_moment(x, k, i, r);
        new_weight(x, k, i, x.w(k)[i] - (float)x.lr[x.t] * (m / c.c1 / (sqrtf(r / c.c2 + x.eps) + x.eps)));
    });
}
static void adam_adjoint(const dev_optim *o)
{
    const at x = at_of(o);
    sum_up<2>(o, [=] __device__ (int k, uint64_t i, double *s) {
        const adam_terms r = adam_back(x, correct(x), k, i);
        s[0] = (double)x.a(k)[i] * (double)r.n;
        s[1] = (double)r.um * ((double)x.s(k)[i] - (double)x.g(k)[i]);
    });
    along(o->queue, o->K, o->P, [=] __device__ (int k, uint64_t i) {
        const corrections c = correct(x);
        const adam_terms r = adam_back(x, c, k, i);
        if (i == 0) {
            const double an = joined(x.part, k, 0);
            const double bar = x.prod_bar[k] - x.lr[x.t] * an / c.full1;
            x.dlr[k * x.T + x.t] = -an;
            x.dmu[k * x.T + x.t] = joined(x.part, k, 1) + bar * c.prod;
            x.prod_bar[k] = bar * x.mu[x.t];
        }
        x.q(k)[i] = r.q;
        x.b(k)[i] = (float)x.mu[x.t] * r.um;
        x.b(k)[x.state + i] = x.beta * r.rb;
    });
}

void rules_optim(device *d)
{
    const struct { inner_type type; void (*step)(const dev_optim *), (*adjoint)(const dev_optim *); } row[] = {
        { INNER_SGD, sgd_step, sgd_adjoint }, { INNER_NESTEROV, nesterov_step, nesterov_adjoint }, { INNER_LARS, lars_step, lars_adjoint },
        { INNER_RMSPROP, rmsprop_step, rmsprop_adjoint }, { INNER_ADAM, adam_step, adam_adjoint },
    };
    for (const auto &r : row) {
        d->step[r.type] = r.step;
        d->adjoint[r.type] = r.adjoint;
    }
    d->optim_scratch = optim_scratch;
    d->shape = shape;
    d->unshape = unshape;
}
