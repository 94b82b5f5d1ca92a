// vector.cu - whole vectors of all learners.
#include "common.cuh"

static void copy(void *q, int K, dev_rows dst, dev_rows src, uint64_t bytes)
{
    const buf to = of(dst), from = of(src);
    over(q, K, bytes / sizeof(float), [=] __device__ (int k, uint32_t i) { to(k)[i] = from(k)[i]; });
}
static void zero(void *q, int K, dev_rows dst, uint64_t bytes)
{
    const buf to = of(dst);
    over(q, K, bytes / sizeof(float), [=] __device__ (int k, uint32_t i) { to(k)[i] = 0; }); // doubles and integers too
}
static void affine(void *q, int K, uint64_t n, double a, double b, dev_rows x, dev_rows y)
{
    const buf   from = of(x), to = of(y);
    const float f = (float)a, g = (float)b;
    over(q, K, n, [=] __device__ (int k, uint32_t i) { to(k)[i] = fmaf(f, from(k)[i], g); });
}
static void axpy(void *q, int K, uint64_t n, double a, dev_rows x, dev_rows y)
{
    const buf   from = of(x), to = of(y);
    const float f = (float)a;
    over(q, K, n, [=] __device__ (int k, uint32_t i) { to(k)[i] = fmaf(f, from(k)[i], to(k)[i]); });
}
static void total(void *q, int K, uint64_t n, dev_rows x, float *sum)
{
    const buf from = of(x);
    over(q, 1, n, [=] __device__ (int, uint32_t i) {
        float s = 0;
        for (int k = 0; k < K; k++)
            s += from(k)[i];
        sum[i] = s;
    });
}

// All that find something write the same number, and a later code never replaces an earlier one: the order does not show.
static void watch(void *q, int K, uint64_t n, dev_rows x, int *failed, int code)
{
    const buf from = of(x);
    over(q, K, n, [=] __device__ (int k, uint32_t i) {
        const float v = from(k)[i];
        if (!(v - v == 0) && failed[k] > code)
            failed[k] = code;
    });
}
static void watch_loss(void *q, int K, const double *loss, int64_t step, int *failed, int code)
{
    over(q, K, 1, [=] __device__ (int k, uint32_t) {
        const double v = loss[k * step];
        if (!(v - v == 0) && failed[k] > code)
            failed[k] = code;
    });
}

void sum_splits(void *queue, int K, buf parts, int splits, uint64_t n, buf to)
{
    over(queue, K, n, [=] __device__ (int k, uint32_t i) {
        float s = 0;
        for (int j = 0; j < splits; j++)
            s += parts(k)[(uint64_t)j * n + i];
        to(k)[i] = s;
    });
}

void rules_vector(device *d)
{
    d->copy = copy;
    d->zero = zero;
    d->affine = affine;
    d->axpy = axpy;
    d->total = total;
    d->watch = watch;
    d->watch_loss = watch_loss;
}
