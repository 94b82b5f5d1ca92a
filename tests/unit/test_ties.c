#include "client/ties.h"

#include "common/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* Rows of two initialisations each. */
static json_t *rows(const double (*x)[2], int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:f, s:[f, f]}", "score", (x[i][0] + x[i][1]) / 2, "init_scores", x[i][0], x[i][1]));
    return list;
}

/* Squares 2 * 0.01^2 in each of three rows, df 3: s = sqrt(0.0006 / 3) = 0.014142, t = 3.182, bound = t s sqrt(1/2 + 1/2) = 0.0450. */
static void the_bound_by_hand(void **state)
{
    (void)state;
    const double in[][2] = { { 0.81, 0.79 }, { 0.766, 0.746 }, { 0.754, 0.734 } }, out[][2] = { { 0.81, 0.79 }, { 0.7649, 0.7449 }, { 0.754, 0.734 } };
    int df;
    json_t *a = rows(in, 3), *b = rows(out, 3);
    assert_int_equal(ties_with_first(a, &df), 2); /* 0.044 below: within; 0.056: not */
    assert_int_equal(df, 3);
    assert_int_equal(ties_with_first(b, &df), 1); /* 0.0451 below */
    json_decref(a);
    json_decref(b);
}

static void one_initialisation_says_nothing(void **state)
{
    (void)state;
    int df;
    json_t *a = json_pack("[{s:f, s:[f]}, {s:f, s:[f]}]", "score", 0.8, "init_scores", 0.8, "score", 0.8, "init_scores", 0.8), *none = json_array();
    assert_int_equal(ties_with_first(a, &df), 1);
    assert_int_equal(df, 0);
    assert_int_equal(ties_with_first(none, &df), 0);
    json_decref(a);
    json_decref(none);
}

/* Ten equal networks, two initialisations: the second in the list, a random one, is told apart in about 5 % of the lists. */
static void equal_networks_are_told_apart_as_rarely_as_promised(void **state)
{
    (void)state;
    enum { LISTS = 4000, N = 10 };
    struct rng r;
    int apart = 0, df;
    rng_init(&r, 12, RNG_TEST, 0);
    for (int k = 0; k < LISTS; k++) {
        double x[N][2];
        for (int i = 0; i < N; i++)
            for (int j = 0; j < 2; j++)
                x[i][j] = 0.8 + 0.01 * rng_normal(&r);
        if (x[1][0] + x[1][1] > x[0][0] + x[0][1])
            for (int j = 0; j < 2; j++) { /* the better of the two first */
                double t = x[0][j];
                x[0][j] = x[1][j];
                x[1][j] = t;
            }
        json_t *list = rows(x, N);
        apart += ties_with_first(list, &df) == 1;
        json_decref(list);
    }
    assert_int_equal(df, N);
    assert_true(apart > 0.035 * LISTS && apart < 0.065 * LISTS);
}

/* Rows of rung 2 with a small spread, and below them rows of rung 1 with a large one. */
static json_t *two_rungs(int n_low)
{
    static const double high[][2] = { { 0.805, 0.795 }, { 0.795, 0.785 }, { 0.60, 0.59 } };
    json_t *list = rows(high, 3);
    size_t i;
    json_t *r;
    json_array_foreach(list, i, r)
        json_object_set_new(r, "rung", json_integer(2));
    for (int k = 0; k < n_low; k++)
        json_array_append_new(list, json_pack("{s:i, s:f, s:[f, f], s:i}", "trial", k, "score", 0.9 - 0.05 * k, "init_scores", 1.0 - 0.05 * k, 0.8 - 0.05 * k,
                                              "rung", 1));
    return list;
}

static void other_rungs_say_nothing_of_the_first(void **state)
{
    (void)state;
    for (int n_low = 0; n_low < 30; n_low += 9) {
        json_t *a = two_rungs(n_low);
        int df;
        assert_int_equal(ties_with_first(a, &df), 2); /* with the spread of rung 1, 0.14, the third would be tied, too */
        assert_int_equal(df, 3);
        assert_int_equal(ties_rung(a), 3);
        json_decref(a);
    }
}

static void what_of_lower_rounds_scores_above_the_first_is_counted(void **state)
{
    (void)state;
    const json_t *top;
    json_t *a = two_rungs(9), *none = json_array();
    assert_int_equal(ties_above(a, 1, &top), 2); /* 0.90 and 0.85; 0.80 is no more than the first */
    assert_true(json_integer_value(json_object_get(top, "trial")) == 0);
    assert_int_equal(ties_above(a, 2, &top), 0); /* rung 1 is below what may be compared */
    assert_null(top);
    assert_int_equal(ties_above(none, 0, &top), 0);
    json_decref(a);
    json_decref(none);
}

static void quantiles_are_students(void **state)
{
    (void)state;
    assert_true(ties_t975(1) == 12.706 && ties_t975(10) == 2.228 && ties_t975(30) == 2.042);
    assert_true(fabs(ties_t975(40) - 2.0211) < 0.001 && fabs(ties_t975(120) - 1.9799) < 0.001 && fabs(ties_t975(100000) - 1.95996) < 1e-4);
    for (int df = 1; df < 200; df++)
        assert_true(ties_t975(df + 1) < ties_t975(df));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_by_hand),
        cmocka_unit_test(one_initialisation_says_nothing),
        cmocka_unit_test(equal_networks_are_told_apart_as_rarely_as_promised),
        cmocka_unit_test(other_rungs_say_nothing_of_the_first),
        cmocka_unit_test(what_of_lower_rounds_scores_above_the_first_is_counted),
        cmocka_unit_test(quantiles_are_students),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
