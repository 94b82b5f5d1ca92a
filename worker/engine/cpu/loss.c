/* loss.c - softmax cross-entropy with free soft labels: with logits s, p = softmax(s),
 *   l = -(1/B) sum y log p            gs = (p sum_k y_k - y) / B
 *   pdot = p (sdot - sum_j p_j sdot_j)  gsdot = pdot sum_k y_k / B
 *   d/dy of <grad_w l, u> = -(1/B)(sdot - sum_j p_j sdot_j)
 * Row by row; the loss and the sums of a row in double, in order. */
#include "worker/engine/cpu/elementary.h"
#include "worker/engine/cpu/variant.h"

/* One row's loss; its probabilities into p unless NULL. */
static double row(int K, const real *s, const real *y, real *p, double *sum_y)
{
    real   top = s[0];
    double z = 0, l = 0, sy = 0;
    for (int k = 1; k < K; k++)
        top = s[k] > top ? s[k] : top;
    for (int k = 0; k < K; k++) {
        real e = r_exp(s[k] - top);
        z += (double)e;
        if (p)
            p[k] = e;
    }
    const double log_z = (double)r_log((real)z);
    for (int k = 0; k < K; k++) {
        if (p)
            p[k] = (real)((double)p[k] / z);
        l -= (double)y[k] * ((double)(s[k] - top) - log_z);
        sy += (double)y[k];
    }
    *sum_y = sy;
    return l;
}

double KN(loss)(int B, int K, const void *logits, const void *labels, void *grad)
{
    const real *s = logits, *y = labels;
    real       *gs = grad; /* each row holds its probabilities first: K has no bound that a stack would like */
    double      total = 0, sy;
    for (int b = 0; b < B; b++, s += K, y += K) {
        total += row(K, s, y, gs, &sy);
        if (!gs)
            continue;
        for (int k = 0; k < K; k++)
            gs[k] = (real)(((double)gs[k] * sy - (double)y[k]) / B);
        gs += K;
    }
    return total / B;
}

double KN(dual_loss)(int B, int K, const void *logits, const void *tangent, const void *labels, void *grad, void *grad_dot, void *label_dot)
{
    const real *s = logits, *sd = tangent, *y = labels;
    real       *gs = grad, *gsd = grad_dot, *yu = label_dot;
    double      total = 0, sy;
    for (ptrdiff_t b = 0; b < B; b++, s += K, y += K, sd += K) {
        real *p = gs + b * K; /* until the adjoint takes its place */
        total += row(K, s, y, p, &sy);
        double mean = 0;
        for (int k = 0; k < K; k++)
            mean += (double)p[k] * (double)sd[k];
        for (int k = 0; k < K; k++) {
            double d = (double)sd[k] - mean;
            gsd[b * K + k] = (real)((double)p[k] * d * sy / B);
            p[k] = (real)(((double)p[k] * sy - (double)y[k]) / B);
            if (yu)
                yu[b * K + k] = (real)(-d / B);
        }
    }
    return total / B;
}

int KN(count_correct)(const void *logits, int n, int K, const int *label)
{
    const real *s = logits;
    int right = 0;
    for (int i = 0; i < n; i++, s += K) {
        int best = 0;
        bool finite = s[0] == s[0];
        for (int k = 1; k < K; k++) {
            finite &= s[k] == s[k];
            if (s[k] > s[best])
                best = k;
        }
        right += finite && best == label[i];
    }
    return right;
}
