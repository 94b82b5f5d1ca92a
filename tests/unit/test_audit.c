#include "coordinator/audit.h"

#include "common/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct job_spec spec; /* large */

static struct audit *open_audit(int every, int window, int max, enum audit_action action, int lag)
{
    struct audit *a;
    struct errbuf e;
    job_defaults(&spec, JOB_SEARCH);
    spec.seed = 5;
    spec.window = window;
    spec.audit.share = 0.1;
    spec.audit.every = every;
    spec.audit.max = max;
    spec.audit.min = 5;
    spec.audit.action = action;
    spec.audit.lag = lag;
    assert_int_equal(audit_open(&a, &spec, &e), 0);
    assert_non_null(a);
    return a;
}

/* Candidate i of network `net` with this score; NaN: it failed. */
static void saw(struct audit *a, uint64_t i, int net, double score)
{
    static struct trial_row t;
    t = (struct trial_row){ .idx = i, .state = isfinite(score) ? TRIAL_SCORED : TRIAL_FAILED, .seed = 100 + i, .parent = -1 };
    snprintf(t.arch, sizeof t.arch, "net %d", net);
    snprintf(t.arch_hash, sizeof t.arch_hash, "%032d", net);
    t.r.score = score;
    t.r.params = 1000 + (uint64_t)net;
    assert_int_equal(audit_saw(a, &t), 0);
}

static bool ended(struct audit *a, int item, double real)
{
    static struct trial_row t;
    audit_row(a, item, false, &t);
    t.state = isfinite(real) ? TRIAL_SCORED : TRIAL_FAILED;
    t.r.score = real;
    return audit_ended(a, &t);
}

static void the_choice_does_not_depend_on_the_order_in_which_results_come(void **state)
{
    (void)state;
    enum { N = 200, W = 8 };
    struct audit *a = open_audit(10, W, 100, AUDIT_WARN, 0), *b = open_audit(10, W, 100, AUDIT_WARN, 0);
    for (uint64_t i = 0; i < N; i++)
        saw(a, i, (int)i % 150, i % 7 ? 0.5 : NAN);
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 0);
    for (uint64_t base = 0; base < N; base += W) { /* within each window, any order; and a repeat that changes nothing */
        uint32_t p[W];
        rng_permute(&r, p, W);
        for (int k = 0; k < W; k++) {
            saw(b, base + p[k], (int)(base + p[k]) % 150, (base + p[k]) % 7 ? 0.5 : NAN);
            saw(b, base + p[k], 9999, 0.9);
        }
    }
    assert_int_equal(audit_n(a), audit_n(b));
    assert_in_range(audit_n(a), 15, 20);
    for (int i = 0; i < audit_n(a); i++) {
        const struct audit_item *x = audit_at(a, i), *y = audit_at(b, i);
        assert_true(x->idx == y->idx && x->seed == 100 + x->idx && strcmp(x->hash, y->hash) == 0);
        assert_true(x->idx % 7 != 0);
        assert_int_equal(audit_find(a, TRIAL_AUDIT + x->idx), i);
        assert_int_equal(audit_find(a, TRIAL_CONTROL + x->idx), i);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(audit_at(a, k)->hash, x->hash);
            assert_true(audit_at(a, k)->idx / 10 < x->idx / 10);
        }
    }
    assert_int_equal(audit_find(a, TRIAL_AUDIT + N), -1);
    audit_close(a);
    audit_close(b);
}

static void every_place_of_a_block_is_drawn_equally_often(void **state)
{
    (void)state;
    enum { EVERY = 5, BLOCKS = 500 };
    struct audit *a = open_audit(EVERY, 1, BLOCKS, AUDIT_WARN, 0);
    double n[EVERY] = { 0 }, chi = 0;
    for (uint64_t i = 0; i < EVERY * BLOCKS; i++)
        saw(a, i, (int)i, 0.5);
    assert_int_equal(audit_n(a), BLOCKS);
    for (int i = 0; i < BLOCKS; i++)
        n[audit_at(a, i)->idx % EVERY]++;
    for (int k = 0; k < EVERY; k++)
        chi += (n[k] - BLOCKS / EVERY) * (n[k] - BLOCKS / EVERY) / (BLOCKS / EVERY);
    assert_true(chi < 18.5); /* 4 degrees of freedom: one seed in a thousand is above */
    audit_close(a);
}

static void promotions_and_what_was_told_as_failed_are_not_chosen(void **state)
{
    (void)state;
    struct audit *a = open_audit(3, 1, 100, AUDIT_WARN, 0);
    for (uint64_t i = 0; i < 90; i++) {
        static struct trial_row t;
        t = (struct trial_row){ .idx = i, .state = TRIAL_SCORED, .rung = i % 3 == 1, .told_failed = i % 3 == 2, .parent = -1 };
        snprintf(t.arch_hash, sizeof t.arch_hash, "%032d", (int)i);
        assert_int_equal(audit_saw(a, &t), 0);
    }
    assert_in_range(audit_n(a), 3, 20); /* only a block whose place is the first */
    for (int i = 0; i < audit_n(a); i++)
        assert_int_equal(audit_at(a, i)->idx % 3, 0);
    audit_close(a);
}

static void no_more_than_max_are_chosen(void **state)
{
    (void)state;
    struct audit *a = open_audit(2, 1, 7, AUDIT_WARN, 0);
    for (uint64_t i = 0; i < 100; i++)
        saw(a, i, (int)i, 0.5);
    assert_int_equal(audit_n(a), 7);
    audit_close(a);
}

/* Scores rank exactly against real training. */
static void a_low_verdict_ends_the_search_where_the_order_says(void **state)
{
    (void)state;
    enum { LAG = 12 };
    struct audit *a = open_audit(1, 1, 50, AUDIT_STOP, LAG);
    struct estimate rho;
    int n;
    for (uint64_t i = 0; i < 20; i++)
        saw(a, i, (int)i, 0.01 * (double)i);
    assert_int_equal(audit_n(a), 20);
    assert_true(audit_lets(a, LAG - 1));
    assert_false(audit_lets(a, LAG)); /* waits for the training of candidate 0 */
    for (int i = 1; i < 7; i++)
        assert_false(ended(a, i, 0.9 - 0.01 * i)); /* early ones wait for the first */
    assert_false(audit_lets(a, LAG));
    assert_int_equal(audit_verdict(a, &rho, &n), AUDIT_FEW);
    assert_int_equal(n, 0);
    assert_true(ended(a, 0, 0.9));
    assert_int_equal(audit_verdict(a, &rho, &n), AUDIT_LOW);
    assert_true(n == 7 && fabs(rho.value + 1) < 1e-12);
    assert_true(audit_stop_at(a) == 4 + LAG); /* candidate 4 was the fifth, and five are enough */
    char text[200];
    audit_stop_text(a, text, sizeof text);
    assert_non_null(strstr(text, "-1.00 (95 % -1.00 to -0.16) over 5 networks is below the floor of 0.3"));
    for (int i = 7; i < 20; i++)
        ended(a, i, 0.01 * i); /* what comes later does not move it */
    assert_true(audit_stop_at(a) == 4 + LAG && audit_complete(a));
    audit_close(a);
}

/* Four pairs in the reverse order are no proof, whatever `min` says. */
static void a_handful_of_networks_ends_no_search(void **state)
{
    (void)state;
    struct audit *a = open_audit(1, 1, 50, AUDIT_STOP, 12);
    struct estimate rho;
    int n;
    audit_close(a);
    spec.audit.min = 3;
    assert_int_equal(audit_open(&a, &spec, NULL), 0);
    for (uint64_t i = 0; i < 5; i++)
        saw(a, i, (int)i, 0.01 * (double)i);
    for (int i = 0; i < 4; i++)
        assert_false(ended(a, i, 0.9 - 0.01 * i));
    assert_int_equal(audit_verdict(a, &rho, &n), AUDIT_FINE);
    assert_true(n == 4 && fabs(rho.value + 1) < 1e-12 && rho.high > 0.6 && audit_stop_at(a) == UINT64_MAX);
    assert_true(ended(a, 4, 0.1)); /* the fifth is */
    assert_true(audit_stop_at(a) == 4 + 12);
    audit_close(a);
}

static bool took(struct audit *a, int item, bool control, double seconds)
{
    static struct trial_row t;
    audit_row(a, item, control, &t);
    t.state = TRIAL_SCORED;
    t.r.score = 0.5;
    t.r.seconds = seconds;
    return audit_ended(a, &t);
}

static void the_time_that_is_left_is_that_of_what_is_left(void **state)
{
    (void)state;
    struct audit *a = open_audit(4, 1, 5, AUDIT_WARN, 0);
    audit_close(a);
    spec.audit.control = true;
    assert_int_equal(audit_open(&a, &spec, NULL), 0);
    for (uint64_t i = 0; i < 8; i++)
        saw(a, i, (int)i, 0.5);
    assert_int_equal(audit_n(a), 2);
    assert_true(isnan(audit_seconds_left(a, 20)));
    took(a, 0, false, 30);
    assert_true(isnan(audit_seconds_left(a, 20))); /* nothing is known of controls */
    took(a, 0, true, 2);
    assert_true(fabs(audit_seconds_left(a, 20) - 4 * 32) < 1e-9);    /* item 1, and a block each of 8 … 19 */
    assert_true(fabs(audit_seconds_left(a, 10000) - 4 * 32) < 1e-9); /* no more than `max` */
    assert_true(fabs(audit_seconds_left(a, 8) - 32) < 1e-9);
    took(a, 1, false, 10);
    assert_true(fabs(audit_seconds_left(a, 8) - 2) < 1e-9);
    took(a, 1, true, 2);
    assert_true(audit_seconds_left(a, 8) == 0 && fabs(audit_seconds_left(a, 20) - 3 * 22) < 1e-9);
    audit_close(a);
}

static void a_failed_training_counts_for_nothing_and_holds_up_nobody(void **state)
{
    (void)state;
    struct audit *a = open_audit(1, 1, 50, AUDIT_WARN, 0);
    struct audit_summary s;
    for (uint64_t i = 0; i < 8; i++)
        saw(a, i, (int)i, 0.01 * (double)i);
    for (int i = 0; i < 8; i++)
        ended(a, i, i == 3 ? NAN : 0.5 + 0.01 * i);
    assert_int_equal(audit_summarise(a, &s), 0);
    assert_true(s.trained == 8 && s.failed == 1 && s.n == 7 && s.state == AUDIT_FINE && s.score.value > 0.999);
    assert_true(s.params.value > 0.999 && s.n_control == 0 && isnan(s.control.value));
    assert_true(audit_stop_at(a) == UINT64_MAX);
    audit_close(a);
}

static void a_plan_spends_the_share_between_its_least_and_its_most(void **state)
{
    (void)state;
    struct audit_cfg c = { .share = 0.05, .min = 8, .max = 200 };
    audit_plan(&c, 10000, 8, 9.5, 0);
    double n = 10000 / c.every, spent = n * 9.5 / (n * 9.5 + 10000);
    assert_true(fabs(spent - 0.05) < 0.001);
    assert_int_equal(c.lag, 8 * 11);
    audit_plan(&c, 10000, 8, 9.5, 1);
    n = 10000 / c.every;
    assert_true(fabs(n * 10.5 / (n * 10.5 + 10000) - 0.05) < 0.001);
    audit_plan(&c, 200, 8, 9.5, 0); /* 5 % would be one training */
    assert_int_equal(c.every, 25);
    audit_plan(&c, 1000000, 8, 9.5, 0);
    assert_int_equal(c.every, 5000);
}

static void a_job_without_a_share_has_none(void **state)
{
    (void)state;
    struct audit *a;
    struct errbuf e;
    job_defaults(&spec, JOB_SEARCH);
    assert_int_equal(audit_open(&a, &spec, &e), 0);
    assert_null(a);
    audit_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_choice_does_not_depend_on_the_order_in_which_results_come),
        cmocka_unit_test(every_place_of_a_block_is_drawn_equally_often),
        cmocka_unit_test(promotions_and_what_was_told_as_failed_are_not_chosen), cmocka_unit_test(no_more_than_max_are_chosen),
        cmocka_unit_test(a_low_verdict_ends_the_search_where_the_order_says),
        cmocka_unit_test(a_handful_of_networks_ends_no_search),
        cmocka_unit_test(the_time_that_is_left_is_that_of_what_is_left),
        cmocka_unit_test(a_failed_training_counts_for_nothing_and_holds_up_nobody),
        cmocka_unit_test(a_plan_spends_the_share_between_its_least_and_its_most),
        cmocka_unit_test(a_job_without_a_share_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
