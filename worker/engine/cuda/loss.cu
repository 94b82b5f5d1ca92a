// loss.cu - softmax cross-entropy with free soft labels, its gradient, and both with tangents (../cpu/loss.c); correct answers.
// A block a learner, a thread a row; the loss is the sum of the rows' in a fixed tree, in double.
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

struct loss_job { int B, K; buf logits, dot, y, gs, gs_dot, yu; double *loss, weight; int64_t step; bool add; int *failed, code; };

__global__ static void losses(const loss_job j)
{
    __shared__ double room[LANES];
    const int t = (int)threadIdx.x, k = (int)blockIdx.z;
    double sum = 0;
    for (int b = t; b < j.B; b += LANES) {
        const uint64_t at = (uint64_t)b * (uint64_t)j.K;
        const float *s = j.logits(k) + at, *y = j.y(k) + at, *sd = j.dot ? j.dot(k) + at : NULL;
        float *gs = j.gs(k) + at;
        double sy, mean = 0;
        sum += row(j.K, s, y, gs, &sy);
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
    }
    if (!j.loss)
        return;
    sum = block_sum(sum, room, t, LANES) / j.B;
    if (t == 0) {
        double *to = j.loss + k * j.step;
        *to = j.add ? *to + j.weight * sum : sum;
        if (j.failed)
            look(*to, j.failed + k, j.code);
    }
}

static void loss(const dev_loss *l)
{
    const loss_job j = { l->B, l->classes, of(l->logits), of(l->dot), of(l->y), of(l->gs), of(l->gs_dot), of(l->yu), l->loss, l->weight, l->loss_step, l->add, l->failed, l->code };
    LAUNCH(losses, dim3(1, 1, (unsigned)l->K), dim3(LANES), l->queue, j);
}

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
    d->loss = loss;
    d->count_correct = count_correct;
}
