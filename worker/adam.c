#include "worker/adam.h"

#include <math.h>

void adam_next(struct adam *a) { a->step++; }

void adam_apply(struct adam *a, float *p, const float *g, double g_scale, uint64_t first, uint64_t n, double lr)
{
    /* m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t). The powers are products, not pow(): libms differ in the last bit. */
    double p1 = 1, p2 = 1, b1 = a->beta1, b2 = a->beta2;
    for (uint64_t k = a->step; k; k >>= 1) {
        if (k & 1) {
            p1 *= b1;
            p2 *= b2;
        }
        b1 *= b1;
        b2 *= b2;
    }
    float beta1 = (float)a->beta1, beta2 = (float)a->beta2, keep1 = (float)(1 - a->beta1), keep2 = (float)(1 - a->beta2);
    float rate = (float)(lr / (1 - p1)), root = (float)(1 / sqrt(1 - p2)), eps = (float)a->eps, gs = (float)g_scale;
    float *m = a->m, *v = a->v;
    for (uint64_t i = first; i < first + n; i++) {
        float gi = g[i] * gs;
        m[i] = beta1 * m[i] + keep1 * gi;
        v[i] = beta2 * v[i] + keep2 * gi * gi;
        p[i] -= rate * m[i] / (sqrtf(v[i]) * root + eps);
    }
}
