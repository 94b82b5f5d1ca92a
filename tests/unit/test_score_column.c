#include "common/score_column.h"

#include "common/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void every_column_has_a_name_that_finds_it(void **state)
{
    (void)state;
    for (int i = 0; i < SCORE_COLUMNS; i++) {
        assert_int_equal(score_column_from(score_columns[i].name), i);
        assert_non_null(score_columns[i].about);
    }
    assert_int_equal(score_column_from(FUSED_NAME), -1);
    for (int i = 0; i < ZC_COUNT; i++)
        assert_string_equal(score_columns[COLUMN_ZERO_COST + i].name, zero_cost_table[i].name);
}

static void values_come_from_their_fields(void **state)
{
    (void)state;
    struct trial_result r = { .score = 0.5, .loss_sum = 7, .params = 9, .macs = 11, .zero_cost = { 1u << ZC_ZICO, { [ZC_ZICO] = 3 } } };
    assert_true(score_column_value(COLUMN_SCORE, &r) == 0.5 && score_column_value(COLUMN_LOSS_SUM, &r) == 7);
    assert_true(score_column_value(COLUMN_PARAMS, &r) == 9 && score_column_value(COLUMN_MACS, &r) == 11);
    assert_true(score_column_value(COLUMN_ZERO_COST + ZC_ZICO, &r) == 3);
    assert_true(isnan(score_column_value(COLUMN_ZERO_COST + ZC_SNIP, &r)));
}

/* Four trials. score 3 1 2 2: ranks 4, 1, 2.5, 2.5. loss_sum, lower is better, 5 6 4 7: ranks 3 2 4 1. */
static void fusion_by_hand(void **state)
{
    (void)state;
    const bool higher[] = { true, false };
    const double v[] = { 3, 1, 2, 2, 5, 6, 4, 7 }, want[] = { log(3. / 4), log(1. / 4) + log(2. / 4), log(2.5 / 4), log(2.5 / 4) + log(1. / 4) };
    double out[4];
    assert_int_equal(score_fuse(higher, 2, 4, v, out, NULL), 0);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(out[i] - want[i]) < 1e-15);
}

static void what_is_not_known_ranks_last_and_together(void **state)
{
    (void)state;
    const bool higher[] = { true };
    const double v[] = { NAN, -5, NAN, 1 };
    double out[4];
    assert_int_equal(score_fuse(higher, 1, 4, v, out, NULL), 0);
    assert_true(out[0] == out[2] && fabs(out[0] - log(1.5 / 4)) < 1e-15 && out[1] > out[0] && out[3] == 0);
}

/* Only order counts, and the trials' own order does not. */
static void fusion_sees_ranks_alone(void **state)
{
    (void)state;
    enum { N = 200 };
    const bool higher[] = { true, true };
    double v[2 * N], warped[2 * N], back[2 * N], a[N], b[N], c[N];
    struct rng r;
    rng_init(&r, 8, RNG_TEST, 0);
    for (int i = 0; i < 2 * N; i++) {
        v[i] = rng_below(&r, 60); /* with ties */
        warped[i] = exp(v[i] / 9) - 4;
        back[i / N * N + N - 1 - i % N] = v[i];
    }
    assert_int_equal(score_fuse(higher, 2, N, v, a, NULL), 0);
    assert_int_equal(score_fuse(higher, 2, N, warped, b, NULL), 0);
    assert_int_equal(score_fuse(higher, 2, N, back, c, NULL), 0);
    assert_memory_equal(a, b, sizeof a);
    for (int i = 0; i < N; i++)
        assert_true(a[i] == c[N - 1 - i]);
    assert_int_equal(score_fuse(higher, 2, 0, v, a, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_column_has_a_name_that_finds_it),
        cmocka_unit_test(values_come_from_their_fields),
        cmocka_unit_test(fusion_by_hand),
        cmocka_unit_test(what_is_not_known_ranks_last_and_together),
        cmocka_unit_test(fusion_sees_ranks_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
