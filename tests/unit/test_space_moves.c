/* Random, mutate, crossover and neighbours: what they can give, and how often. Statistical tests use fixed seeds: they are
 * deterministic. A chi-square statistic of d degrees of freedom stays below d + 4 sqrt(2d) + 6 with a probability far above 0.999. */
#include "common/space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Texts with what was counted of them. */
struct tally { struct arch_list list; double *count, *share; };

static int at(const struct arch_list *l, const char *text) /* in a sorted list; -1: not there */
{
    size_t lo = 0, hi = l->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int d = strcmp(l->text[mid], text);
        if (d == 0)
            return (int)mid;
        if (d < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return -1;
}

static void tally_start(struct tally *t) /* the list is filled and sorted */
{
    t->count = calloc(t->list.n, sizeof *t->count);
    t->share = calloc(t->list.n, sizeof *t->share);
    assert_true(t->count && t->share);
}

static void tally_fini(struct tally *t)
{
    arch_list_fini(&t->list);
    free(t->count);
    free(t->share);
}

static void add(struct arch_list *l, const char *text)
{
    assert_int_equal(arch_list_add(l, text, NULL), 0);
}

static void count(struct tally *t, const char *text)
{
    int i = at(&t->list, text);
    if (i < 0)
        fail_msg("'%s' is not among those that may come", text);
    t->count[i]++;
}

static void expect_shares(const char *what, const struct tally *t, int draws)
{
    double all = 0, chi = 0, d = (double)t->list.n - 1;
    for (size_t i = 0; i < t->list.n; i++)
        all += t->share[i];
    for (size_t i = 0; i < t->list.n; i++) {
        double want = draws * t->share[i] / all;
        assert_true(want > 5);
        chi += (t->count[i] - want) * (t->count[i] - want) / want;
    }
    if (chi > d + 4 * sqrt(2 * d) + 6)
        fail_msg("%s: chi-square %.1f for %zu networks, %d draws", what, chi, t->list.n, draws);
}

static void random_cells_come_as_often_as_they_are_written(void **state)
{
    (void)state;
    static const char *const op[] = { "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3" };
    static char text[15625][ARCH_TEXT_MAX];
    const struct space *s = &space_nasbench201;
    const char *pathless = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|";
    struct tally t = { 0 };
    struct rng r;
    enum { DRAWS = 120000 };
    for (int code = 0; code < 15625; code++) {
        int o[6], c = code;
        char in[ARCH_TEXT_MAX];
        for (int i = 0; i < 6; i++, c /= 5)
            o[i] = c % 5;
        snprintf(in, sizeof in, "|%s~0|+|%s~0|%s~1|+|%s~0|%s~1|%s~2|", op[o[0]], op[o[1]], op[o[2]], op[o[3]], op[o[4]], op[o[5]]);
        assert_int_equal(s->canon(s, in, text[code], NULL), 0);
        if (strcmp(text[code], pathless) != 0)
            add(&t.list, text[code]);
    }
    arch_list_sort(&t.list);
    assert_int_equal(t.list.n, 5259);
    tally_start(&t);
    for (int code = 0; code < 15625; code++)
        if (strcmp(text[code], pathless) != 0)
            t.share[at(&t.list, text[code])]++;
    rng_init(&r, 21, RNG_TEST, 0);
    for (int k = 0; k < DRAWS; k++) {
        char out[ARCH_TEXT_MAX];
        s->random(s, &r, out);
        count(&t, out);
    }
    expect_shares("random", &t, DRAWS);
    tally_fini(&t);
}

static void neighbours_are_what_mutation_gives(void **state)
{
    (void)state;
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++)
        for (uint64_t k = 0; k < 6; k++) {
            struct tally t = { 0 };
            struct rng r;
            char text[ARCH_TEXT_MAX], child[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
            size_t reached = 0;
            rng_init(&r, 22, RNG_TEST, k);
            s->random(s, &r, text);
            assert_int_equal(s->neighbours(s, text, &t.list, NULL), 0);
            tally_start(&t);
            assert_true(t.list.n >= 8 && at(&t.list, text) < 0);
            for (size_t j = 0; j < t.list.n; j++) {
                struct net n;
                assert_int_equal(s->canon(s, t.list.text[j], again, NULL), 0);
                assert_string_equal(t.list.text[j], again);
                if (j)
                    assert_true(strcmp(t.list.text[j - 1], again) < 0);
                if (j % 16)
                    continue;
                assert_int_equal(space_build(s, again, 1, 28, 28, 10, NULL, &n, NULL), 0);
                net_fini(&n);
            }
            for (int draw = 0; draw < 20000; draw++) {
                s->mutate(s, &r, text, child);
                count(&t, child);
            }
            for (size_t j = 0; j < t.list.n; j++)
                reached += t.count[j] > 0;
            if (t.list.n < 500 && reached != t.list.n) /* a chain may have thousands of stages to insert */
                fail_msg("%s: mutation reached %zu of %zu neighbours of %s", s->name, reached, t.list.n, text);
            tally_fini(&t);
        }
}

static void inserted_stages_are_all_listed(void **state)
{
    (void)state;
    struct arch_list l = { 0 };
    const char *parent = "bn relu | c8k3 max2 | c12k3 | gap";
    assert_int_equal(space_chain.neighbours(&space_chain, parent, &l, NULL), 0);
    assert_true(l.n > 672 && l.n < 2 * 672 + 40); /* before the stage and after it, within the limits of cost */
    assert_true(at(&l, "bn relu | c8k3 max2 | c12k3 | str2 b64k5x2 skip | gap") >= 0);
    assert_true(at(&l, "bn relu | c8k3 max2 | avg2 s24k5 | c12k3 | gap") >= 0);
    assert_true(at(&l, "wn relu | c8k3 max2 | c12k3 | gap") >= 0);
    assert_true(at(&l, "bn relu | c8k3 | c12k3 | gap") < 0); /* the stem's pooling is never proposed away */
    arch_list_fini(&l);
}

/* Children of two parents; expects `want` different ones, equally often, both parents among them. */
static void expect_uniform_crossover(const struct space *s, const char *a, const char *b, size_t want)
{
    struct tally t = { 0 };
    struct rng r;
    char child[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
    int draws = 300 * (int)want;
    for (int pass = 0; pass < 2; pass++) {
        rng_init(&r, 23, RNG_TEST, 0);
        for (int k = 0; k < draws; k++) {
            s->crossover(s, &r, a, b, child);
            if (pass)
                count(&t, child);
            else
                add(&t.list, child);
        }
        if (pass)
            break;
        arch_list_sort(&t.list);
        tally_start(&t);
    }
    if (t.list.n != want)
        fail_msg("%s x %s: %zu children, not %zu", a, b, t.list.n, want);
    assert_true(at(&t.list, a) >= 0 && at(&t.list, b) >= 0);
    for (size_t i = 0; i < want; i++) {
        t.share[i] = 1;
        assert_int_equal(s->canon(s, t.list.text[i], again, NULL), 0);
        assert_string_equal(again, t.list.text[i]);
    }
    expect_shares(a, &t, draws);
    tally_fini(&t);
}

#define N_REDUCE(op) " | reduce: " op "~0+sep3~1 sep3~0+sep3~2 avg3~2+sep5~3 skip~2+sep5~4 skip~0+skip~5"

static void crossover_is_uniform_over_the_combinations(void **state)
{
    (void)state;
    /* All six edges differ, and no combination equals another: 64. */
    expect_uniform_crossover(&space_nasbench201, "|nor_conv_1x1~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_1x1~2|",
                             "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|", 64);
    /* norm, activation, stem width, head, two stages: 64. */
    expect_uniform_crossover(&space_chain, "bn relu | c8k3 max2 | max2 s12k3 | max2 b16k3 | gap",
                             "wn lrelu | c12k3 max2 | avg2 c24k3 | s32k5 | flat", 64);
    /* Six terms of twenty differ: 64. */
    expect_uniform_crossover(&space_nasnet, "normal: skip~0+sep3~1 max3~0+max3~1 skip~2+skip~3 sep3~3+sep5~4 avg3~4+avg3~5" N_REDUCE("max3"),
                             "normal: skip~0+sep5~1 max3~0+max3~2 avg3~2+sep3~3 sep3~3+sep5~4 sep5~3+avg3~5" N_REDUCE("skip"), 64);
    /* One stage more or not, and one stage that differs: 4. */
    expect_uniform_crossover(&space_chain, "bn relu | c8k3 max2 | s12k3 | max2 b16k3 | gap", "bn relu | c8k3 max2 | c24k3 | gap", 4);
}

static void crossover_with_itself_changes_nothing(void **state)
{
    (void)state;
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++)
        for (uint64_t k = 0; k < 50; k++) {
            struct rng r;
            char text[ARCH_TEXT_MAX], child[ARCH_TEXT_MAX];
            rng_init(&r, 24, RNG_TEST, k);
            s->random(s, &r, text);
            s->crossover(s, &r, text, text, child);
            assert_string_equal(text, child);
        }
}

static void children_of_random_parents_are_canonical_and_build(void **state)
{
    (void)state;
    const struct space *s;
    for (int i = 0; (s = space_at(i)); i++) {
        char p[2][ARCH_TEXT_MAX], child[ARCH_TEXT_MAX], again[ARCH_TEXT_MAX];
        struct rng r;
        rng_init(&r, 25, RNG_TEST, 0);
        for (int k = 0; k < 1000; k++) {
            struct net n;
            s->random(s, &r, p[0]);
            s->random(s, &r, p[1]);
            s->crossover(s, &r, p[0], p[1], child);
            assert_int_equal(s->canon(s, child, again, NULL), 0);
            assert_string_equal(child, again);
            assert_int_equal(space_build(s, child, 1, 28, 28, 10, NULL, &n, NULL), 0);
            net_fini(&n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_cells_come_as_often_as_they_are_written),
        cmocka_unit_test(neighbours_are_what_mutation_gives),
        cmocka_unit_test(inserted_stages_are_all_listed),
        cmocka_unit_test(crossover_is_uniform_over_the_combinations),
        cmocka_unit_test(crossover_with_itself_changes_nothing),
        cmocka_unit_test(children_of_random_parents_are_canonical_and_build),
    };
    return cmocka_run_group_tests_name("space_moves", tests, NULL, NULL);
}
