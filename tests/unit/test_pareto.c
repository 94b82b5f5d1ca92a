/* Fronts: who dominates whom, and how crowded it is. */
#include "common/rng.h"
#include "common/search/pareto.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The front of the front, by definition: rank r is what only ranks below r dominate. */
static void fronts_and_crowding_are_those_of_the_definition(void **state)
{
    (void)state;
    enum { N = 60, M = 3 };
    double v[N * M], crowd[N];
    int rank[N], work[2 * N];
    struct rng r;
    rng_init(&r, 9, RNG_TEST, 0);
    for (int i = 0; i < N * M; i++)
        v[i] = rng_below(&r, 8); /* ties, too */
    pareto_rank(v, N, M, rank, crowd, work);
    for (int i = 0; i < N; i++) {
        int least = 0, ends = 0;
        for (int j = 0; j < N; j++)
            if (pareto_dominates(v + j * M, v + i * M, M) && rank[j] + 1 > least)
                least = rank[j] + 1;
        assert_int_equal(rank[i], least);
        assert_true(crowd[i] >= 0 && crowd[i] <= INFINITY);
        for (int j = 0; j < N; j++)
            ends += rank[j] == rank[i] && isinf(crowd[j]);
        assert_true(ends >= 1);
    }
    const double line[] = { 0, 10, 1, 9, 4, 6, 10, 0 }; /* one front of four; crowding by hand: (4 + 4) / 10 and (9 + 9) / 10 */
    pareto_rank(line, 4, 2, rank, crowd, work);
    assert_true(isinf(crowd[0]) && isinf(crowd[3]) && fabs(crowd[1] - 0.8) < 1e-12 && fabs(crowd[2] - 1.8) < 1e-12);
}

static void an_unknown_latency_is_worse_than_any(void **state)
{
    (void)state;
    struct job_spec spec = { .n_objectives = 2, .objective = { { METRIC_SCORE, true }, { METRIC_LATENCY, false } } };
    double fast[2], slow[2], unknown[2];
    pareto_values(&spec, 0.5, 1, 1, 0.1, fast);
    pareto_values(&spec, 0.5, 1, 1, 1e6, slow);
    pareto_values(&spec, 0.5, 1, 1, 0, unknown);
    assert_true(fast[0] == -0.5 && fast[1] == 0.1 && isfinite(unknown[1]));
    assert_true(pareto_dominates(fast, slow, 2) && pareto_dominates(slow, unknown, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fronts_and_crowding_are_those_of_the_definition),
        cmocka_unit_test(an_unknown_latency_is_worse_than_any),
    };
    return cmocka_run_group_tests_name("pareto", tests, NULL, NULL);
}
