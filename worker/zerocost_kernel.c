/* zerocost_kernel.c - scores that compare the images of a batch with each other (Mellor et al.; code:
 * github.com/BayesWatch/nas-without-training and SamsungLabs/zero-cost-nas).
 *
 *   naswot (ICML 2021, arXiv:2006.04647v3)  each image has a code, one bit a rectified unit: does it let through? The kernel is
 *       K_ij = units - (units in which codes i and j differ)        naswot = log det K
 *   jacob_cov (arXiv:2006.04647v1)  C is the correlation matrix of the images' input gradients (of the sum of all outputs):
 *       jacob_cov = -sum over eigenvalues v of C of log(v + k) + 1/(v + k), k = 1e-5
 *   which is -(log det A + trace A^-1) of A = C + k I: with A = L D L^T, log det A = sum log D_i and
 *       trace A^-1 = sum_ij (L^-1)_ij^2 / D_i; so no eigenvalue is ever computed. */
#include "worker/zerocost_int.h"

#include "worker/mem.h"

#include <float.h>

/* x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh s, s = (m-1)/(m+1), |s| < 0.172, by its series. */
double zc_log(double x)
{
    int e;
    if (!(x > 0) || isinf(x))
        return x == 0 ? -INFINITY : x > 0 ? x : NAN;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m += m;
        e--;
    }
    const double s = (m - 1) / (m + 1), z = s * s;
    double sum = 0;
    for (int i = 21; i >= 3; i -= 2)
        sum = sum * z + 1.0 / i;
    sum *= z;
    /* log 2 in two parts, the first with room for the product with e */
    return e * 0x1.62e42fefa38p-1 + (2 * s * sum + (2 * s + e * 0x1.ef35793c7673p-45));
}

bool zc_factor(double *a, int n)
{
    double top = 0;
    for (int i = 0; i < n; i++)
        top = fmax(top, fabs(a[i * n + i]));
    for (int j = 0; j < n; j++) {
        for (int k = 0; k < j; k++)
            a[j * n + j] -= a[j * n + k] * a[j * n + k] * a[k * n + k];
        if (!(a[j * n + j] > n * DBL_EPSILON * top)) /* NaN too */
            return false;
        for (int i = j + 1; i < n; i++) {
            for (int k = 0; k < j; k++)
                a[i * n + j] -= a[i * n + k] * a[j * n + k] * a[k * n + k];
            a[i * n + j] /= a[j * n + j];
        }
    }
    return true;
}

static double log_det(const double *ldl, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += zc_log(ldl[i * n + i]);
    return sum;
}

/* Column by column of L^-1: forward substitution with the unit vector. */
static double trace_of_inverse(const double *ldl, int n, double *column)
{
    double sum = 0;
    for (int j = 0; j < n; j++)
        for (int i = j; i < n; i++) {
            double v = i == j;
            for (int k = j; k < i; k++)
                v -= ldl[i * n + k] * column[k];
            column[i] = v;
            sum += v * v / ldl[i * n + i];
        }
    return sum;
}

/* ---- naswot ---- */

static bool lets_through(const struct eng_rectified *r, uint64_t i)
{
    return r->dtype == ENG_F64 ? ((const double *)r->val)[i] > 0 : ((const float *)r->val)[i] > 0;
}

void zc_watch_codes(void *arg, const struct eng_rectified *r)
{
    struct zc_codes *c = arg;
    const uint64_t words = (r->elems + 63) / 64, n = (uint64_t)r->batch;
    uint64_t *code = mem_array(words * n, sizeof *code);
    if (!code) {
        c->failed = true;
        return;
    }
    for (uint64_t b = 0; b < n; b++)
        for (uint64_t i = 0; i < r->elems; i++)
            code[b * words + i / 64] |= (uint64_t)lets_through(r, b * r->elems + i) << (i % 64);
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < i; j++)
            for (uint64_t k = 0; k < words; k++)
                c->differ[i * n + j] += (uint32_t)__builtin_popcountll(code[i * words + k] ^ code[j * words + k]);
    c->units += r->elems;
    free(code);
}

int zc_naswot(const struct zc_work *k, double *score, struct errbuf *e)
{
    const int n = k->in->batch;
    double *a = mem_array((uint64_t)n * (uint64_t)n, sizeof *a);
    if (!a)
        return err_set(e, ERR_NOMEM, "the kernel of %d images", n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            a[i * n + j] = (double)(k->units - k->differ[i * n + j]);
    *score = zc_factor(a, n) ? log_det(a, n) : NAN;
    free(a);
    return 0;
}

/* ---- jacob_cov ---- */

/* Rows become (x - mean) / |x - mean|. false: a row without spread has no correlation with anything. */
static bool standardise(double *x, uint64_t d, int n)
{
    for (int i = 0; i < n; i++, x += d) {
        double mean = 0, sq = 0;
        for (uint64_t k = 0; k < d; k++)
            mean += x[k];
        mean /= (double)d;
        for (uint64_t k = 0; k < d; k++) {
            x[k] -= mean;
            sq += x[k] * x[k];
        }
        if (!(sq > 0))
            return false;
        for (uint64_t k = 0; k < d; k++)
            x[k] /= sqrt(sq);
    }
    return true;
}

static void correlate(const double *x, uint64_t d, int n, double ridge, double *a)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (uint64_t k = 0; k < d; k++)
                sum += x[(uint64_t)i * d + k] * x[(uint64_t)j * d + k];
            a[i * n + j] = sum + (i == j ? ridge : 0);
        }
}

int zc_jacob_cov(const struct zc_work *k, double *score, struct errbuf *e)
{
    const int n = k->in->batch;
    const uint64_t N = (uint64_t)n;
    double *x = mem_array(N * k->image, sizeof *x), *a = mem_array(N * N, sizeof *a), *column = mem_array(N, sizeof *column);
    int rc = x && a && column ? 0 : err_set(e, ERR_NOMEM, "the correlations of %d images", n);
    if (rc == 0) {
        for (uint64_t i = 0; i < N * k->image; i++)
            x[i] = (double)k->gx[i];
        bool ok = standardise(x, k->image, n);
        if (ok)
            correlate(x, k->image, n, 1e-5, a);
        *score = ok && zc_factor(a, n) ? -(log_det(a, n) + trace_of_inverse(a, n, column)) : NAN;
    }
    free(x);
    free(a);
    free(column);
    return rc;
}
