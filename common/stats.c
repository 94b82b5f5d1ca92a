/* stats.c - a resample of n pairs is n multiplicities: pair i occurs m[i] times. Both correlations are computed from multiplicities
 * over ranks that were sorted once, so a resample sorts nothing, and the plain value is the case of all m[i] = 1. */
#include "common/stats.h"

#include "common/err.h"
#include "common/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct item { double v; int i; };

struct ranked {
    int  n, n_gx, n_gy;
    int *gx, *gy;     /* [n] dense rank of pair i in x and in y: equal values, equal rank */
    int *by_x;        /* [n] the pairs in order of x */
    double *rank;     /* [2 n] mean ranks of the groups of one resample */
    int64_t *count;   /* [2 n] how many of a resample are in each group */
    int64_t *tree;    /* [n + 1] Fenwick tree over the groups of y */
    int *m;           /* [n] */
};

const char *rank_stat_name(enum rank_stat k)
{
    static const char *const names[RANK_STAT_COUNT] = { "spearman", "kendall" };
    return k < RANK_STAT_COUNT ? names[k] : "?";
}

static int by_value(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->v != y->v ? (x->v > y->v) - (x->v < y->v) : x->i - y->i;
}

/* Dense ranks of v into g, the order into `order` (NULL: not wanted); returns the number of groups. */
static int dense(const double *v, int n, struct item *tmp, int *g, int *order)
{
    int groups = 0;
    for (int i = 0; i < n; i++)
        tmp[i] = (struct item){ v[i], i };
    qsort(tmp, (size_t)n, sizeof *tmp, by_value);
    for (int i = 0; i < n; i++) {
        groups += i == 0 || tmp[i].v != tmp[i - 1].v;
        g[tmp[i].i] = groups - 1;
        if (order)
            order[i] = tmp[i].i;
    }
    return groups;
}

static void ranked_fini(struct ranked *r)
{
    free(r->gx);
    free(r->rank);
    free(r->count);
}

static int ranked_init(struct ranked *r, const double *x, const double *y, int n)
{
    size_t N = (size_t)n + 1;
    struct item *tmp = calloc(N, sizeof *tmp);
    *r = (struct ranked){ .n = n, .gx = calloc(4 * N, sizeof *r->gx), .rank = calloc(2 * N, sizeof *r->rank),
                          .count = calloc(3 * N, sizeof *r->count) };
    if (!tmp || !r->gx || !r->rank || !r->count) {
        free(tmp);
        ranked_fini(r);
        return -ERR_NOMEM;
    }
    r->gy = r->gx + N;
    r->by_x = r->gx + 2 * N;
    r->m = r->gx + 3 * N;
    r->tree = r->count + 2 * N;
    r->n_gx = dense(x, n, tmp, r->gx, r->by_x);
    r->n_gy = dense(y, n, tmp, r->gy, NULL);
    free(tmp);
    return 0;
}

static void count_groups(const int *g, const int *m, int n, int groups, int64_t *count)
{
    memset(count, 0, (size_t)groups * sizeof *count);
    for (int i = 0; i < n; i++)
        count[g[i]] += m[i];
}

static void mean_ranks(const int64_t *count, int groups, double *rank)
{
    int64_t below = 0;
    for (int k = 0; k < groups; below += count[k++])
        rank[k] = (double)below + (double)(count[k] + 1) / 2;
}

static double spearman(struct ranked *r)
{
    int64_t *cx = r->count, *cy = r->count + r->n;
    double *rx = r->rank, *ry = r->rank + r->n, xx = 0, yy = 0, xy = 0;
    count_groups(r->gx, r->m, r->n, r->n_gx, cx);
    count_groups(r->gy, r->m, r->n, r->n_gy, cy);
    mean_ranks(cx, r->n_gx, rx);
    mean_ranks(cy, r->n_gy, ry);
    double mean = (double)(r->n + 1) / 2; /* the multiplicities add up to n */
    for (int i = 0; i < r->n; i++) {
        double a = rx[r->gx[i]] - mean, b = ry[r->gy[i]] - mean;
        xx += r->m[i] * a * a;
        yy += r->m[i] * b * b;
        xy += r->m[i] * a * b;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static void tree_add(int64_t *tree, int n, int at, int64_t v)
{
    for (int k = at + 1; k <= n; k += k & -k)
        tree[k] += v;
}

static int64_t tree_below(const int64_t *tree, int at) /* sum over groups 0 … at - 1 */
{
    int64_t s = 0;
    for (int k = at; k > 0; k -= k & -k)
        s += tree[k];
    return s;
}

static double tied_pairs(const int64_t *count, int groups)
{
    double s = 0;
    for (int k = 0; k < groups; k++)
        s += 0.5 * (double)count[k] * (double)(count[k] - 1);
    return s;
}

static double kendall(struct ranked *r)
{
    int64_t *cx = r->count, *cy = r->count + r->n, seen = 0;
    double score = 0, pairs = 0.5 * r->n * (r->n - 1.0);
    count_groups(r->gx, r->m, r->n, r->n_gx, cx);
    count_groups(r->gy, r->m, r->n, r->n_gy, cy);
    memset(r->tree, 0, ((size_t)r->n + 1) * sizeof *r->tree);
    for (int i = 0, j; i < r->n; i = j) { /* one group of x at a time: its members are no pairs of each other */
        for (j = i; j < r->n && r->gx[r->by_x[j]] == r->gx[r->by_x[i]]; j++) {
            int p = r->by_x[j];
            int64_t less = tree_below(r->tree, r->gy[p]), more = seen - tree_below(r->tree, r->gy[p] + 1);
            score += (double)r->m[p] * (double)(less - more);
        }
        for (int k = i; k < j; k++) {
            tree_add(r->tree, r->n_gy, r->gy[r->by_x[k]], r->m[r->by_x[k]]);
            seen += r->m[r->by_x[k]];
        }
    }
    double x = pairs - tied_pairs(cx, r->n_gx), y = pairs - tied_pairs(cy, r->n_gy);
    return x > 0 && y > 0 ? score / (sqrt(x) * sqrt(y)) : NAN;
}

static double (*const stat_fn[RANK_STAT_COUNT])(struct ranked *) = { spearman, kendall };

double rank_corr(enum rank_stat k, const double *x, const double *y, int n)
{
    struct ranked r;
    if (ranked_init(&r, x, y, n) < 0)
        return NAN;
    for (int i = 0; i < n; i++)
        r.m[i] = 1;
    double v = n < 2 ? NAN : stat_fn[k](&r);
    ranked_fini(&r);
    return v;
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the first ranking's correlation, less the second's where there are two. */
static double value_of(enum rank_stat k, struct ranked *r, int n_r)
{
    return n_r == 1 ? stat_fn[k](&r[0]) : stat_fn[k](&r[0]) - stat_fn[k](&r[1]);
}

struct key { int y, x1, x2, i; };

static int by_key(const void *a, const void *b)
{
    const struct key *p = a, *q = b;
    return p->y != q->y ? p->y - q->y : p->x1 != q->x1 ? p->x1 - q->x1 : p->x2 - q->x2;
}

/* Whoever lists the same pairs, in whatever order, draws the same resamples. Pairs with one key are interchangeable. */
static int canonical_order(const struct ranked *r, int n_r, struct key **out)
{
    struct key *key = calloc((size_t)r->n + 1, sizeof *key);
    if (!(*out = key))
        return -ERR_NOMEM;
    for (int i = 0; i < r->n; i++)
        key[i] = (struct key){ r->gy[i], r->gx[i], r[n_r - 1].gx[i], i };
    qsort(key, (size_t)r->n, sizeof *key, by_key);
    return 0;
}

static int bootstrap(enum rank_stat k, struct ranked *r, int n_r, int least, uint64_t seed, struct estimate *out)
{
    int n = r->n, found = 0;
    double *v = calloc(STATS_RESAMPLES, sizeof *v);
    struct key *key = NULL;
    struct rng rng;
    if (!v || canonical_order(r, n_r, &key) < 0) {
        free(v);
        return -ERR_NOMEM;
    }
    for (int j = 0; j < n_r; j++)
        for (int i = 0; i < n; i++)
            r[j].m[i] = 1;
    out->value = n < 2 ? NAN : value_of(k, r, n_r);
    rng_init(&rng, seed, RNG_BOOTSTRAP, 0);
    for (int b = 0; b < STATS_RESAMPLES && n >= least; b++) {
        memset(r->m, 0, (size_t)n * sizeof *r->m);
        for (int i = 0; i < n; i++)
            r->m[key[rng_below(&rng, (uint32_t)n)].i]++;
        for (int j = 1; j < n_r; j++)
            memcpy(r[j].m, r->m, (size_t)n * sizeof *r->m);
        double one = value_of(k, r, n_r);
        if (isfinite(one)) /* a resample of one repeated pair has none */
            v[found++] = one;
    }
    if (found >= STATS_RESAMPLES / 2) {
        qsort(v, (size_t)found, sizeof *v, by_double);
        out->low = v[(int)(0.025 * (found - 1))];
        out->high = v[(int)(0.975 * (found - 1) + 0.5)];
    }
    free(key);
    free(v);
    return 0;
}

/* Widen to the interval of a small sample: atanh of the correlation is nearly normal. Half the distance to the next value that n pairs can
 * have keeps it finite; with it, between 0 and 3.4 % lie beyond either end for n from 4 to 14 and true correlations from -0.5 to 0.9. */
static void widen(enum rank_stat k, int n, struct estimate *e)
{
    const double r = e->value, N = n, half_step = k == RANK_SPEARMAN ? 6 / (N * (N * N - 1)) : 2 / (N * (N - 1));
    double low = -1, high = 1;
    if (n > (k == RANK_SPEARMAN ? 3 : 4)) {
        double most = 1 - half_step, at = fmax(-most, fmin(r, most));
        double se = k == RANK_SPEARMAN ? sqrt((1 + at * at / 2) / (N - 3)) : sqrt(0.437 / (N - 4));
        low = tanh(atanh(at) - 1.96 * se);
        high = tanh(atanh(at) + 1.96 * se);
    }
    e->low = fmin(e->low, low);
    e->high = fmax(e->high, high);
}

int rank_interval(enum rank_stat k, const double *x, const double *y, int n, uint64_t seed, struct estimate *out)
{
    struct ranked r;
    *out = (struct estimate){ NAN, NAN, NAN };
    if (ranked_init(&r, x, y, n) < 0)
        return -ERR_NOMEM;
    int rc = bootstrap(k, &r, 1, 3, seed, out);
    if (rc == 0 && n < STATS_SMALL && isfinite(out->value) && isfinite(out->high))
        widen(k, n, out);
    ranked_fini(&r);
    return rc;
}

int rank_difference(enum rank_stat k, const double *x1, const double *x2, const double *y, int n, uint64_t seed, struct estimate *out)
{
    struct ranked r[2];
    *out = (struct estimate){ NAN, NAN, NAN };
    if (ranked_init(&r[0], x1, y, n) < 0)
        return -ERR_NOMEM;
    int rc = ranked_init(&r[1], x2, y, n);
    if (rc == 0) {
        rc = bootstrap(k, r, 2, STATS_LEAST_DIFFERENCE, seed, out);
        ranked_fini(&r[1]);
    }
    ranked_fini(&r[0]);
    return rc;
}

int stats_top_half(const double *x, const double *y, int n, double *tx, double *ty)
{
    double *sorted = calloc((size_t)n + 1, sizeof *sorted);
    int m = 0;
    if (!sorted)
        return -ERR_NOMEM;
    memcpy(sorted, y, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_double);
    double least = n ? sorted[n / 2] : 0; /* ceil(n / 2) values from here on */
    for (int i = 0; i < n; i++)
        if (y[i] >= least) {
            tx[m] = x[i];
            ty[m++] = y[i];
        }
    free(sorted);
    return m;
}

/* Mean of max(floor, largest of `draw` of v[0 … n - 1] without replacement), v rising: the largest is at most v[j] in
 * C(j+1, draw) of the C(n, draw) choices. */
static double expected_max(const double *v, int n, int draw, double floor)
{
    double mean = 0, above = 1; /* above: the chance that none of v[j + 1 …] was drawn */
    for (int j = n - 1; j >= draw - 1; j--) {
        double below = above * (double)(j + 1 - draw) / (double)(j + 1);
        mean += (above - below) * fmax(v[j], floor);
        above = below;
    }
    return mean;
}

double stats_regret(const double *x, const double *y, int n, int k)
{
    struct item *order = calloc((size_t)n + 1, sizeof *order);
    double *tied = calloc((size_t)n + 1, sizeof *tied), best = -INFINITY, sure = -INFINITY, out = NAN;
    if (!order || !tied || n < 1)
        goto done;
    k = k < n ? k : n;
    for (int i = 0; i < n; i++) {
        order[i] = (struct item){ -x[i], i };
        best = fmax(best, y[i]);
    }
    qsort(order, (size_t)n, sizeof *order, by_value);
    int from = k - 1, n_tied = 0; /* the group of ties that the k-th belongs to begins at `from` */
    while (from > 0 && order[from - 1].v == order[k - 1].v)
        from--;
    for (int i = 0; i < n && (i < from || order[i].v == order[k - 1].v); i++) {
        if (i < from)
            sure = fmax(sure, y[order[i].i]);
        else
            tied[n_tied++] = y[order[i].i];
    }
    qsort(tied, (size_t)n_tied, sizeof *tied, by_double);
    out = best - expected_max(tied, n_tied, k - from, sure);
done:
    free(order);
    free(tied);
    return out;
}
