// vector.cu - whole vectors of all learners.
#include "common.cuh"

static void copy(void *q, int K, dev_rows dst, dev_rows src, uint64_t bytes)
{
    const buf to = of(dst), from = of(src);
    along(q, K, bytes / sizeof(float), [=] __device__ (int k, uint64_t i) { to(k)[i] = from(k)[i]; });
}
static void zero(void *q, int K, dev_rows dst, uint64_t bytes)
{
    const buf to = of(dst);
    along(q, K, bytes / sizeof(float), [=] __device__ (int k, uint64_t i) { to(k)[i] = 0; }); // doubles and integers too
}
static void affine(void *q, int K, uint64_t n, double a, double b, dev_rows x, dev_rows y)
{
    const buf   from = of(x), to = of(y);
    const float f = (float)a, g = (float)b;
    along(q, K, n, [=] __device__ (int k, uint64_t i) { to(k)[i] = fmaf(f, from(k)[i], g); });
}
static void axpy(void *q, int K, uint64_t n, double a, dev_rows x, dev_rows y)
{
    const buf   from = of(x), to = of(y);
    const float f = (float)a;
    along(q, K, n, [=] __device__ (int k, uint64_t i) { to(k)[i] = fmaf(f, from(k)[i], to(k)[i]); });
}
static void total(void *q, int K, uint64_t n, dev_rows x, float *sum)
{
    const buf from = of(x);
    along(q, 1, n, [=] __device__ (int, uint64_t i) {
        float s = 0;
        for (int k = 0; k < K; k++)
            s += from(k)[i];
        sum[i] = s;
    });
}

static void weigh(void *q, int K, uint64_t n, const double *weight, dev_rows x, float *sum)
{
    const buf from = of(x);
    along(q, 1, n, [=] __device__ (int, uint64_t i) {
        float s = sum[i];
        for (int k = 0; k < K; k++)
            if (weight[k] != 0)
                s = fmaf((float)weight[k], from(k)[i], s);
        sum[i] = s;
    });
}

// Sums of squares: PARTS blocks a learner, then one that adds their parts; each in a fixed tree, in double.
enum { LANES = 256, PARTS = 64 };
__global__ static void square_parts(uint64_t n, buf x, double *part)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, p = (int)blockIdx.x, k = (int)blockIdx.z;
    double s = 0;
    for (uint64_t i = n * (uint64_t)p / PARTS + (uint64_t)t; i < n * (uint64_t)(p + 1) / PARTS; i += LANES)
        s += (double)x(k)[i] * (double)x(k)[i];
    s = block_sum(s, room, t, LANES);
    if (t == 0)
        part[(uint64_t)k * PARTS + (uint64_t)p] = s;
}
__global__ static void square_total(const double *part, double *sum)
{
    __shared__ double room[PARTS];
    const int t = (int)threadIdx.x, k = (int)blockIdx.z;
    const double s = block_sum(part[(uint64_t)k * PARTS + (uint64_t)t], room, t, PARTS);
    if (t == 0)
        sum[k] = s;
}
static uint64_t squares_scratch(int K) { return (uint64_t)K * PARTS * sizeof(double); }
static void squares(void *q, int K, uint64_t n, dev_rows x, double *sum, void *scratch)
{
    double *part = (double *)scratch;
    LAUNCH(square_parts, dim3(PARTS, 1, (unsigned)K), dim3(LANES), q, n, of(x), part);
    LAUNCH(square_total, dim3(1, 1, (unsigned)K), dim3(PARTS), q, (const double *)part, sum);
}

static void watch(void *q, int K, uint64_t n, dev_rows x, int *failed, int code)
{
    const buf from = of(x);
    along(q, K, n, [=] __device__ (int k, uint64_t i) {
        look(from(k)[i], failed + k, code);
    });
}

void sum_splits(void *queue, int K, buf parts, int splits, uint64_t n, buf to)
{
    along(queue, K, n, [=] __device__ (int k, uint64_t i) {
        float s = 0;
        for (int j = 0; j < splits; j++)
            s += parts(k)[(uint64_t)j * n + i];
        to(k)[i] = s;
    });
}

static void draw(void *q, int K, int n, const dev_data *from, const int *row, dev_rows x, dev_rows y)
{
    const dev_data d = *from;
    const buf      to = of(x), label = of(y);
    const uint64_t C = (uint64_t)d.c, image = C * (uint64_t)d.hw, classes = (uint64_t)d.classes, N = (uint64_t)n;
    along(q, K, N * image, [=] __device__ (int k, uint64_t i) {
        const uint64_t at = i % image; // [H,W,C] of [C,H,W]
        to(k)[i] = d.value[d.images[(uint64_t)row[(uint64_t)k * N + i / image] * image + at % C * (uint64_t)d.hw + at / C]];
    });
    along(q, K, N * classes, [=] __device__ (int k, uint64_t i) {
        label(k)[i] = (uint64_t)d.label[row[(uint64_t)k * N + i / classes]] == i % classes ? 1.f : 0.f;
    });
}

void rules_vector(device *d)
{
    d->draw = draw;
    d->copy = copy;
    d->zero = zero;
    d->affine = affine;
    d->axpy = axpy;
    d->total = total;
    d->weigh = weigh;
    d->squares_scratch = squares_scratch;
    d->squares = squares;
    d->watch = watch;
}
