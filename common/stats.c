#include "common/stats.h"

#include "common/err.h"
#include "common/rng.h"

#include <math.h>
#include <stdlib.h>

struct item { double v; int i; };

static int by_value(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->v != y->v ? (x->v > y->v) - (x->v < y->v) : x->i - y->i;
}

static void ranks(const double *v, int n, struct item *tmp, double *rank)
{
    for (int i = 0; i < n; i++)
        tmp[i] = (struct item){ v[i], i };
    qsort(tmp, (size_t)n, sizeof *tmp, by_value);
    for (int i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && tmp[j].v == tmp[i].v; j++)
            ;
        for (int k = i; k < j; k++)
            rank[tmp[k].i] = (i + j - 1) / 2.0 + 1;
    }
}

static double pearson(const double *x, const double *y, int n)
{
    double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        mx += x[i] / n;
        my += y[i] / n;
    }
    for (int i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static double rho(const double *x, const double *y, int n, struct item *tmp, double *rx, double *ry)
{
    ranks(x, n, tmp, rx);
    ranks(y, n, tmp, ry);
    return n < 2 ? NAN : pearson(rx, ry, n);
}

double spearman(const double *x, const double *y, int n)
{
    struct item *tmp = calloc((size_t)n + 1, sizeof *tmp);
    double *r = calloc(2 * (size_t)n + 1, sizeof *r), out = NAN;
    if (tmp && r)
        out = rho(x, y, n, tmp, r, r + n);
    free(tmp);
    free(r);
    return out;
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int spearman_interval(const double *x, const double *y, int n, uint64_t seed, double *low, double *high)
{
    *low = *high = NAN;
    if (n < 3)
        return 0;
    struct item *tmp = calloc((size_t)n, sizeof *tmp);
    double *buf = calloc(4 * (size_t)n + STATS_RESAMPLES, sizeof *buf);
    if (!tmp || !buf) {
        free(tmp);
        free(buf);
        return -ERR_NOMEM;
    }
    double *bx = buf, *by = buf + n, *rx = buf + 2 * n, *ry = buf + 3 * n, *out = buf + 4 * n;
    int m = 0;
    struct rng r;
    rng_init(&r, seed, RNG_BOOTSTRAP, 0);
    for (int b = 0; b < STATS_RESAMPLES; b++) {
        for (int i = 0; i < n; i++) {
            uint32_t k = rng_below(&r, (uint32_t)n);
            bx[i] = x[k];
            by[i] = y[k];
        }
        double v = rho(bx, by, n, tmp, rx, ry);
        if (isfinite(v)) /* a resample of one repeated pair has none */
            out[m++] = v;
    }
    if (m >= STATS_RESAMPLES / 2) {
        qsort(out, (size_t)m, sizeof *out, by_double);
        *low = out[(int)(0.025 * (m - 1))];
        *high = out[(int)(0.975 * (m - 1) + 0.5)];
    }
    free(tmp);
    free(buf);
    return 0;
}
