#include "common/stats.h"

#include "common/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The constants of scipy 1.17 come from:
 * python3 - <<'END'
 * import numpy as np
 * from scipy.stats import spearmanr, kendalltau
 * i = np.arange(24); x = i * 7 % 11; y = i * i * 5 % 13 * 5 + x * 3; top = y >= np.sort(y)[12]
 * u = np.sin(i * 1.7); v = u + np.cos(i * 2.3)
 * for a, b in ((x, y), (x[top], y[top]), (u, v)): print(len(a), "%.17g %.17g" % (spearmanr(a, b)[0], kendalltau(a, b)[0]))
 * END */
enum { N = 24 };
static const struct { int n; double rho, tau; } scipy[3] = { { 24, 0.5050257629427094, 0.37531445759253751 }, { 13, 0.3124131350926464, 0.1904805979638515 },
                                                               { 24, 0.65478260869565219, 0.46376811594202899 } };

static void with_ties(double *x, double *y)
{
    for (int i = 0; i < N; i++) {
        x[i] = i * 7 % 11;
        y[i] = i * i * 5 % 13 * 5 + x[i] * 3;
    }
}

static void without_ties(double *x, double *y)
{
    for (int i = 0; i < N; i++) {
        x[i] = sin(i * 1.7);
        y[i] = x[i] + cos(i * 2.3);
    }
}

static bool near(double a, double b) { return fabs(a - b) < 1e-12; }

static void correlations_are_those_of_scipy_with_ties_and_without(void **state)
{
    (void)state;
    double x[N], y[N], tx[N], ty[N];
    with_ties(x, y);
    assert_true(near(rank_corr(RANK_SPEARMAN, x, y, N), scipy[0].rho));
    assert_true(near(rank_corr(RANK_KENDALL, x, y, N), scipy[0].tau));
    int n = stats_top_half(x, y, N, tx, ty);
    assert_int_equal(n, scipy[1].n);
    assert_true(near(rank_corr(RANK_SPEARMAN, tx, ty, n), scipy[1].rho));
    assert_true(near(rank_corr(RANK_KENDALL, tx, ty, n), scipy[1].tau));
    without_ties(x, y);
    assert_true(near(rank_corr(RANK_SPEARMAN, x, y, N), scipy[2].rho));
    assert_true(near(rank_corr(RANK_KENDALL, x, y, N), scipy[2].tau));
}

static void a_constant_side_or_a_lone_pair_has_no_correlation(void **state)
{
    (void)state;
    const double x[5] = { 1, 2, 3, 4, 5 }, down[5] = { 9, 7, 5, 3, 1 }, flat[5] = { 2, 2, 2, 2, 2 };
    for (int k = 0; k < RANK_STAT_COUNT; k++) {
        assert_true(near(rank_corr((enum rank_stat)k, x, down, 5), -1));
        assert_true(near(rank_corr((enum rank_stat)k, x, x, 5), 1));
        assert_true(isnan(rank_corr((enum rank_stat)k, x, flat, 5)));
        assert_true(isnan(rank_corr((enum rank_stat)k, x, down, 1)));
        assert_true(isnan(rank_corr((enum rank_stat)k, x, down, 0)));
    }
}

/* ---- bootstrap ---- */
static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* By y, then by x: the order in which pairs are drawn. */
static void sort_pairs(double *x, double *y, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && (y[j] < y[j - 1] || (y[j] == y[j - 1] && x[j] < x[j - 1])); j--) {
            double a = x[j], b = y[j];
            x[j] = x[j - 1], y[j] = y[j - 1];
            x[j - 1] = a, y[j - 1] = b;
        }
}

/* The textbook's way: draw the pairs, write them down, rank them anew. */
static void by_hand(enum rank_stat k, const double *x, const double *y, int n, uint64_t seed, double *low, double *high)
{
    static double out[STATS_RESAMPLES];
    double bx[N], by[N];
    struct rng r;
    int m = 0;
    rng_init(&r, seed, RNG_BOOTSTRAP, 0);
    for (int b = 0; b < STATS_RESAMPLES; b++) {
        for (int i = 0; i < n; i++) {
            uint32_t at = rng_below(&r, (uint32_t)n);
            bx[i] = x[at];
            by[i] = y[at];
        }
        out[m] = rank_corr(k, bx, by, n);
        m += isfinite(out[m]);
    }
    qsort(out, (size_t)m, sizeof *out, by_double);
    *low = out[(int)(0.025 * (m - 1))];
    *high = out[(int)(0.975 * (m - 1) + 0.5)];
}

static void multiplicities_give_what_drawn_pairs_give(void **state)
{
    (void)state;
    double x[N], y[N], low, high;
    struct estimate e;
    for (int ties = 0; ties < 2; ties++)
        for (int k = 0; k < RANK_STAT_COUNT; k++) {
            ties ? with_ties(x, y) : without_ties(x, y);
            sort_pairs(x, y, N);
            by_hand((enum rank_stat)k, x, y, N, 11, &low, &high);
            assert_int_equal(rank_interval((enum rank_stat)k, x, y, N, 11, &e), 0);
            assert_true(near(e.low, low) && near(e.high, high));
            assert_true(e.low < e.value && e.value < e.high && e.high - e.low < 1);
            assert_true(near(e.value, rank_corr((enum rank_stat)k, x, y, N)));
        }
}

static void a_difference_is_taken_within_each_resample(void **state)
{
    (void)state;
    double x[N], y[N], z[N];
    struct estimate one, two, d, same;
    without_ties(x, y);
    for (int i = 0; i < N; i++)
        z[i] = x[i] + 0.05 * cos(i * 3.1); /* nearly the same column */
    for (int k = 0; k < RANK_STAT_COUNT; k++) {
        assert_int_equal(rank_difference((enum rank_stat)k, x, z, y, N, 11, &d), 0);
        rank_interval((enum rank_stat)k, x, y, N, 11, &one);
        rank_interval((enum rank_stat)k, z, y, N, 11, &two);
        assert_true(near(d.value, one.value - two.value) && d.low < d.value && d.value < d.high);
        assert_true(d.high - d.low < 0.5 * (one.high - one.low)); /* though each alone is uncertain */
        rank_difference((enum rank_stat)k, x, x, y, N, 11, &same);
        assert_true(same.value == 0 && same.low == 0 && same.high == 0);
    }
}

static void an_interval_is_named_by_its_seed(void **state)
{
    (void)state;
    double x[N], y[N];
    struct estimate a, b, c;
    without_ties(x, y);
    rank_interval(RANK_SPEARMAN, x, y, N, 7, &a);
    rank_interval(RANK_SPEARMAN, x, y, N, 7, &b);
    rank_interval(RANK_SPEARMAN, x, y, N, 8, &c);
    assert_true(a.low == b.low && a.high == b.high && a.value == c.value);
    assert_true(a.low != c.low || a.high != c.high);
}

static void the_order_of_the_pairs_does_not_matter(void **state)
{
    (void)state;
    double x[N], y[N], z[N], px[N], py[N], pz[N];
    struct estimate a, b;
    for (int i = 0; i < N; i++)
        z[i] = i * 3 % 7;
    with_ties(x, y);
    for (int i = 0; i < N; i++) {
        px[i] = x[i * 5 % N];
        py[i] = y[i * 5 % N];
        pz[i] = z[i * 5 % N];
    }
    for (int k = 0; k < RANK_STAT_COUNT; k++) {
        rank_interval((enum rank_stat)k, x, y, N, 7, &a);
        rank_interval((enum rank_stat)k, px, py, N, 7, &b);
        assert_true(near(a.value, b.value) && near(a.low, b.low) && near(a.high, b.high));
        rank_difference((enum rank_stat)k, x, z, y, N, 7, &a);
        rank_difference((enum rank_stat)k, px, pz, py, N, 7, &b);
        assert_true(near(a.value, b.value) && near(a.low, b.low) && near(a.high, b.high) && a.low < a.high);
    }
}

/* Every resample of a few pairs in perfect order is in perfect order; the interval says all the same how little they show. */
static void a_small_sample_has_a_wide_interval(void **state)
{
    (void)state;
    const double x[N] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 };
    /* tanh(atanh(1 - 6/120) - 1.96 sqrt((1 + 0.95^2 / 2) / 2)) and so on */
    static const struct { int n; double low[RANK_STAT_COUNT]; } want[] = {
        { 3, { -1, -1 } }, { 4, { -0.6916, -1 } }, { 5, { 0.1608, 0.1747 } }, { 8, { 0.9033, 0.8754 } }, { STATS_SMALL, { 1, 1 } } };
    struct estimate e;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        for (int k = 0; k < RANK_STAT_COUNT; k++) {
            rank_interval((enum rank_stat)k, x, x, want[i].n, 7, &e);
            if (!near(e.value, 1) || !near(e.high, 1) || fabs(e.low - want[i].low[k]) > 1e-4)
                fail_msg("%s of %d: %.4f [%.4f %.4f]", rank_stat_name((enum rank_stat)k), want[i].n, e.value, e.low, e.high);
        }
    double y[N];
    for (int i = 0; i < N; i++)
        y[i] = -x[i];
    rank_interval(RANK_SPEARMAN, x, y, 5, 7, &e);
    assert_true(near(e.low, -1) && fabs(e.high + 0.1608) < 1e-4);
    rank_difference(RANK_SPEARMAN, x, y, x, STATS_LEAST_DIFFERENCE - 1, 7, &e);
    assert_true(near(e.value, 2) && isnan(e.low) && isnan(e.high));
    rank_difference(RANK_SPEARMAN, x, y, x, STATS_LEAST_DIFFERENCE, 7, &e);
    assert_true(near(e.low, 2) && near(e.high, 2));
}

static void too_few_pairs_have_no_interval(void **state)
{
    (void)state;
    const double x[2] = { 1, 2 };
    struct estimate e;
    assert_int_equal(rank_interval(RANK_SPEARMAN, x, x, 2, 7, &e), 0);
    assert_true(near(e.value, 1) && isnan(e.low) && isnan(e.high));
    assert_int_equal(rank_interval(RANK_KENDALL, x, x, 0, 7, &e), 0);
    assert_true(isnan(e.value) && isnan(e.low) && isnan(e.high));
}

/* ---- halves and picks ---- */
static void the_top_half_keeps_all_that_tie_at_its_border(void **state)
{
    (void)state;
    const double x[6] = { 1, 2, 3, 4, 5, 6 }, y[6] = { 5, 1, 3, 3, 3, 2 };
    double tx[6], ty[6];
    assert_int_equal(stats_top_half(x, y, 6, tx, ty), 4);
    assert_true(tx[0] == 1 && tx[1] == 3 && tx[2] == 4 && tx[3] == 5 && ty[0] == 5);
    assert_int_equal(stats_top_half(x, y, 5, tx, ty), 4); /* 5 3 3 | 3 1: three of five, and the third's equal */
    assert_int_equal(stats_top_half(x, y, 1, tx, ty), 1);
    assert_int_equal(stats_top_half(x, y, 0, tx, ty), 0);
}

static void regret_is_the_distance_from_the_best_to_the_best_picked(void **state)
{
    (void)state;
    const double x[5] = { 9, 8, 7, 2, 1 }, y[5] = { 0.5, 0.75, 0.25, 1.0, 0 };
    assert_true(near(stats_regret(x, y, 5, 1), 0.5));
    assert_true(near(stats_regret(x, y, 5, 2), 0.25));
    assert_true(near(stats_regret(x, y, 5, 3), 0.25));
    assert_true(near(stats_regret(x, y, 5, 4), 0));
    assert_true(near(stats_regret(x, y, 5, 10), 0));
    assert_true(isnan(stats_regret(x, y, 0, 1)));
}

/* All choices of the tied, counted one by one. */
static void regret_of_a_tied_pick_is_the_mean_over_choices(void **state)
{
    (void)state;
    const double x[6] = { 9, 5, 5, 5, 5, 1 }, y[6] = { 0.5, 0.1, 0.6, 0.9, 0.7, 1.0 };
    double sum = 0;
    int n = 0;
    for (int a = 1; a <= 4; a++)
        for (int b = a + 1; b <= 4; b++, n++)
            sum += 1.0 - fmax(0.5, fmax(y[a], y[b]));
    assert_int_equal(n, 6);
    assert_true(near(stats_regret(x, y, 6, 3), sum / n));
    assert_true(near(stats_regret(x, y, 6, 1), 0.5));
    const double flat[4] = { 3, 3, 3, 3 };
    assert_true(near(stats_regret(flat, y, 4, 1), 0.9 - (0.5 + 0.1 + 0.6 + 0.9) / 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(correlations_are_those_of_scipy_with_ties_and_without),
        cmocka_unit_test(a_constant_side_or_a_lone_pair_has_no_correlation),
        cmocka_unit_test(multiplicities_give_what_drawn_pairs_give),
        cmocka_unit_test(a_difference_is_taken_within_each_resample),
        cmocka_unit_test(an_interval_is_named_by_its_seed),
        cmocka_unit_test(the_order_of_the_pairs_does_not_matter),
        cmocka_unit_test(a_small_sample_has_a_wide_interval),
        cmocka_unit_test(too_few_pairs_have_no_interval),
        cmocka_unit_test(the_top_half_keeps_all_that_tie_at_its_border),
        cmocka_unit_test(regret_is_the_distance_from_the_best_to_the_best_picked),
        cmocka_unit_test(regret_of_a_tied_pick_is_the_mean_over_choices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
