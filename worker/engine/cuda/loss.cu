// loss.cu - softmax cross-entropy with free soft labels, its gradient, and both with tangents (../cpu/loss.c); correct answers.
// A thread a row; a learner's loss is the sum of its rows' in a fixed tree, in double.
#include "common.cuh"

enum { LANES = 256 };

// The row's loss; its probabilities to p (the adjoint's own place).
__device__ static inline double row(int K, const float *s, const float *y, float *p, double *sum_y)
{
    float  top = s[0];
    double z = 0, l = 0, sy = 0;
    for (int k = 1; k < K; k++)
        top = s[k] > top ? s[k] : top;
    for (int k = 0; k < K; k++) {
        const float e = expf(s[k] - top);
        z += (double)e;
        p[k] = e;
    }
    const double log_z = log(z);
    for (int k = 0; k < K; k++) {
        p[k] = (float)((double)p[k] / z);
        l -= (double)y[k] * ((double)(s[k] - top) - log_z);
        sy += (double)y[k];
    }
    *sum_y = sy;
    return l;
}

struct loss_job { int B, K; buf logits, dot, y, gs, gs_dot, yu; double *part; };

static void rows(const dev_loss *l, const loss_job j)
{
    over(l->queue, l->K, (uint64_t)j.B, [=] __device__ (int k, uint64_t b) {
        const uint64_t at = b * (uint64_t)j.K;
        const float *s = j.logits(k) + at, *y = j.y(k) + at, *sd = j.dot ? j.dot(k) + at : NULL;
        float *gs = j.gs(k) + at;
        double sy, mean = 0;
        j.part[(uint64_t)k * (uint64_t)j.B + b] = row(j.K, s, y, gs, &sy);
        for (int i = 0; sd && i < j.K; i++)
            mean += (double)gs[i] * (double)sd[i];
        for (int i = 0; i < j.K; i++) {
            const double p = (double)gs[i];
            if (sd) {
                const double d = (double)sd[i] - mean;
                j.gs_dot(k)[at + (uint64_t)i] = (float)(p * d * sy / j.B);
                if (j.yu)
                    j.yu(k)[at + (uint64_t)i] = (float)(-d / j.B);
            }
            gs[i] = (float)((p * sy - (double)y[i]) / j.B);
        }
    });
}

__global__ static void total_loss(int B, const double *part, double weight, bool add, double *loss, int64_t step)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, k = (int)blockIdx.z;
    double s = 0;
    for (int b = t; b < B; b += LANES)
        s += part[(uint64_t)k * (uint64_t)B + (uint64_t)b];
    s = block_sum(s, room, t, LANES) / B;
    if (t == 0)
        loss[k * step] = add ? loss[k * step] + weight * s : s;
}

static void loss(const dev_loss *l)
{
    const loss_job j = { l->B, l->classes, of(l->logits), of(l->dot), of(l->y), of(l->gs), of(l->gs_dot), of(l->yu), (double *)l->scratch };
    rows(l, j);
    if (l->loss)
        LAUNCH(total_loss, dim3(1, 1, (unsigned)l->K), dim3(LANES), l->queue, l->B, (const double *)l->scratch, l->weight, l->add, l->loss, l->loss_step);
}

static uint64_t loss_scratch(int K, int B) { return (uint64_t)K * (uint64_t)B * sizeof(double); }

__global__ static void count(int n, int K, buf logits, const int *label, int *right)
{
    __shared__ int room[LANES];
    const int t = (int)threadIdx.x, k = (int)blockIdx.z;
    int good = 0;
    for (int i = t; i < n; i += LANES) {
        const float *s = logits(k) + (uint64_t)i * (uint64_t)K;
        int  best = 0;
        bool finite = s[0] == s[0];
        for (int c = 1; c < K; c++) {
            finite &= s[c] == s[c];
            best = s[c] > s[best] ? c : best;
        }
        good += finite && best == label[i];
    }
    good = block_sum(good, room, t, LANES);
    if (t == 0)
        right[k] += good;
}
static void count_correct(void *q, int K, int n, int classes, dev_rows logits, const int *label, int *right)
{
    LAUNCH(count, dim3(1, 1, (unsigned)K), dim3(LANES), q, n, classes, of(logits), label, right);
}

void rules_loss(device *d)
{
    d->loss_scratch = loss_scratch;
    d->loss = loss;
    d->count_correct = count_correct;
}
