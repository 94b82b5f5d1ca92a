/* Searchers: a history is a function of the seed and the results, whoever computed them and in whatever order. */
#include "coordinator/search/search.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_TRIALS 400

static const struct image_shape IMG = { 1, 12, 12, 4 };

struct run { int n; struct proposal p[MAX_TRIALS]; };

static struct job_spec spec_of(const char *searcher, int window, uint64_t seed)
{
    struct job_spec s;
    job_defaults(&s, JOB_SEARCH);
    s.seed = seed;
    s.window = window;
    s.trials = MAX_TRIALS;
    s.searcher.population = 12;
    s.searcher.sample = 4;
    snprintf(s.space, sizeof s.space, "chain");
    snprintf(s.searcher.name, sizeof s.searcher.name, "%s", searcher);
    s.constraints = (struct constraints){ 0 };
    return s;
}

/* Any pure function of the architecture will do; every seventh or so fails. */
static bool fails(const char *hash) { return hash[3] == '7' || hash[4] == 'a'; }
static double score_of(const char *hash)
{
    char head[9];
    snprintf(head, sizeof head, "%.8s", hash);
    return (double)(strtoul(head, NULL, 16) % 1000) / 1000;
}

static void finish(struct search *s, const struct proposal *p)
{
    assert_int_equal(search_finish(s, p->idx, !fails(p->hash), score_of(p->hash), p->arch, NULL), 0);
}

/* Propose whenever allowed, finish outstanding trials in a random order: what many workers look like from here. */
static void simulate(const struct job_spec *spec, int n, uint64_t order, struct run *out)
{
    struct search *s;
    struct errbuf e = { 0 };
    struct rng r;
    int open[MAX_TRIALS], n_open = 0;
    rng_init(&r, order, RNG_TEST, 0);
    assert_int_equal(search_open(&s, spec, &IMG, &e), 0);
    out->n = 0;
    while (out->n < n || n_open > 0) {
        bool propose = out->n < n && search_ready(s) && (n_open == 0 || rng_below(&r, 2));
        if (propose) {
            assert_int_equal(search_propose(s, &out->p[out->n], &e), 0);
            open[n_open++] = out->n++;
        } else {
            int k = (int)rng_below(&r, (uint32_t)n_open);
            finish(s, &out->p[open[k]]);
            open[k] = open[--n_open];
        }
        assert_true(n_open <= spec->window);
    }
    search_close(s);
}

static void assert_same(const struct run *a, const struct run *b)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        assert_string_equal(a->p[i].arch, b->p[i].arch);
        assert_int_equal(a->p[i].parent, b->p[i].parent);
        assert_int_equal(a->p[i].seed, b->p[i].seed);
    }
}

static void any_order_of_completion_gives_the_same_history(void **state)
{
    (void)state;
    static const char *const names[] = { "random", "evolution" };
    static const int windows[] = { 1, 5, 32 };
    struct run *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int k = 0; k < 2; k++)
        for (int w = 0; w < 3; w++) {
            struct job_spec s = spec_of(names[k], windows[w], 11);
            simulate(&s, 120, 1, a);
            for (uint64_t order = 2; order < 6; order++) {
                simulate(&s, 120, order, b);
                assert_same(a, b);
            }
        }
    struct job_spec s = spec_of("evolution", 5, 12); /* and another seed another one */
    simulate(&s, 120, 1, b);
    assert_string_not_equal(a->p[0].arch, b->p[0].arch);
    free(a);
    free(b);
}

/* Evolution written the slow way: all results kept, the visible ones looked up anew for each proposal. */
static void reference(const struct job_spec *spec, int n, struct run *out)
{
    const struct space *sp = space_find(spec->space);
    for (int i = 0; i < n; i++) {
        struct proposal *p = &out->p[i];
        struct rng r;
        int visible = i - spec->window + 1, repeats = 0; /* results 0 … visible - 1 */
        int first = visible > spec->searcher.population ? visible - spec->searcher.population : 0;
        rng_init(&r, spec->seed, RNG_SEARCH, (uint64_t)i);
        for (;;) {
            p->parent = -1;
            if (i < spec->searcher.population || visible <= 0) {
                sp->random(sp, &r, p->arch);
            } else {
                /* Which member the k-th ticket means is fixed by the ring: place j holds the newest result with index j mod population. */
                int living = visible - first;
                for (int k = 0; k < spec->searcher.sample; k++) {
                    int place = (int)rng_below(&r, (uint32_t)living), idx = place;
                    while (idx + spec->searcher.population < visible)
                        idx += spec->searcher.population;
                    double s = fails(out->p[idx].hash) ? -INFINITY : score_of(out->p[idx].hash);
                    double best = p->parent < 0 ? NAN : fails(out->p[p->parent].hash) ? -INFINITY : score_of(out->p[p->parent].hash);
                    if (p->parent < 0 || s > best || (s == best && idx > p->parent))
                        p->parent = idx;
                }
                sp->mutate(sp, &r, out->p[p->parent].arch, p->arch);
            }
            arch_hash(sp->name, p->arch, p->hash);
            bool repeat = false;
            for (int j = 0; j < i; j++)
                repeat |= strcmp(out->p[j].hash, p->hash) == 0;
            if (!repeat || repeats++ >= SEARCH_MAX_REPEATS)
                break;
        }
        p->seed = trial_seed(spec->seed, p->hash);
    }
    out->n = n;
}

static void evolution_agrees_with_a_slow_reference(void **state)
{
    (void)state;
    struct run *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    for (uint64_t seed = 1; seed < 5; seed++) {
        struct job_spec s = spec_of("evolution", seed == 3 ? 20 : 4, seed);
        simulate(&s, 150, seed, a);
        reference(&s, 150, b);
        assert_same(a, b);
    }
    free(a);
    free(b);
}

static void a_proposal_waits_for_the_results_that_it_may_see(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("evolution", 3, 1);
    struct search *s;
    struct proposal p[5];
    struct errbuf e = { 0 };
    assert_int_equal(search_open(&s, &spec, &IMG, &e), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(search_propose(s, &p[i], &e), 0);
    assert_false(search_ready(s));
    assert_int_equal(search_propose(s, &p[3], &e), -ERR_STATE);
    finish(s, &p[1]);
    finish(s, &p[2]);
    assert_false(search_ready(s)); /* it needs trial 0, and no other */
    finish(s, &p[0]);
    assert_true(search_ready(s));
    assert_int_equal(search_finish(s, 0, true, 0.5, p[0].arch, &e), -ERR_STATE); /* twice */
    assert_int_equal(search_finish(s, 9, true, 0.5, p[0].arch, &e), -ERR_STATE); /* never proposed */
    search_close(s);
}

/* Stop anywhere, recall what was proposed, feed what had ended: the rest comes out the same. */
static void a_recalled_search_goes_on_as_if_nothing_had_happened(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("evolution", 6, 5);
    struct run *whole = malloc(sizeof *whole);
    simulate(&spec, 90, 1, whole);
    for (int cut = 1; cut < 90; cut += 11) {
        struct search *s;
        struct proposal p;
        struct errbuf e = { 0 };
        assert_int_equal(search_open(&s, &spec, &IMG, &e), 0);
        for (int i = 0; i < cut; i++) {
            assert_int_equal(search_recall(s, (uint64_t)i, whole->p[i].arch, whole->p[i].hash, &e), 0);
            if (i < cut - 3) /* the last three still run */
                finish(s, &whole->p[i]);
        }
        for (int i = cut > 3 ? cut - 3 : 0; i < cut; i++)
            finish(s, &whole->p[i]);
        for (int i = cut; i < 90; i++) {
            assert_int_equal(search_propose(s, &p, &e), 0);
            assert_string_equal(p.arch, whole->p[i].arch);
            assert_int_equal(p.parent, whole->p[i].parent);
            finish(s, &p);
        }
        search_close(s);
    }
    free(whole);
}

static void constraints_hold_for_every_proposal(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("evolution", 4, 2);
    struct run *a = malloc(sizeof *a);
    spec.constraints = (struct constraints){ .max_params = 8000, .max_macs = 400000, .min_params = 300 };
    simulate(&spec, 100, 1, a);
    for (int i = 0; i < a->n; i++) {
        uint64_t params, macs;
        assert_int_equal(search_fits(space_find("chain"), a->p[i].arch, &IMG, NULL, &spec.constraints, &params, &macs, NULL), 1);
        assert_true(params <= 8000 && params >= 300 && macs <= 400000);
        assert_int_equal(params, a->p[i].params);
        assert_int_equal(macs, a->p[i].macs);
    }
    free(a);
}

static void impossible_constraints_say_so(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("random", 4, 2);
    struct search *s;
    struct proposal p;
    struct errbuf e = { 0 };
    spec.constraints.max_params = 1;
    assert_int_equal(search_open(&s, &spec, &IMG, &e), 0);
    assert_int_equal(search_propose(s, &p, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "constraints leave nothing to propose"));
    assert_int_equal(search_next_index(s), 0);
    search_close(s);
}

static void no_architecture_is_proposed_twice_while_there_are_others(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("evolution", 8, 3);
    struct run *a = malloc(sizeof *a);
    simulate(&spec, 300, 1, a);
    for (int i = 0; i < a->n; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(a->p[i].hash, a->p[j].hash);
    free(a);
}

static void wrong_settings_are_refused(void **state)
{
    (void)state;
    struct search *s;
    struct errbuf e = { 0 };
    struct job_spec spec = spec_of("evolution", 4, 1);
    spec.searcher.sample = 13;
    assert_int_equal(search_open(&s, &spec, &IMG, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "sample"));
    spec = spec_of("annealing", 4, 1);
    assert_int_equal(search_open(&s, &spec, &IMG, &e), -ERR_NOTFOUND);
    spec = spec_of("random", 4, 1);
    snprintf(spec.space, sizeof spec.space, "nowhere");
    assert_int_equal(search_open(&s, &spec, &IMG, &e), -ERR_NOTFOUND);
}

static void the_seed_of_a_trial_depends_on_job_and_architecture_alone(void **state)
{
    (void)state;
    assert_int_equal(trial_seed(1, "00ff00ff00ff00ff1111"), trial_seed(1, "00ff00ff00ff00ff2222"));
    assert_int_not_equal(trial_seed(1, "00ff00ff00ff00ff"), trial_seed(2, "00ff00ff00ff00ff"));
    assert_int_not_equal(trial_seed(1, "00ff00ff00ff00ff"), trial_seed(1, "00ff00ff00ff00fe"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order_of_completion_gives_the_same_history),
        cmocka_unit_test(evolution_agrees_with_a_slow_reference),
        cmocka_unit_test(a_proposal_waits_for_the_results_that_it_may_see),
        cmocka_unit_test(a_recalled_search_goes_on_as_if_nothing_had_happened),
        cmocka_unit_test(constraints_hold_for_every_proposal),
        cmocka_unit_test(impossible_constraints_say_so),
        cmocka_unit_test(no_architecture_is_proposed_twice_while_there_are_others),
        cmocka_unit_test(wrong_settings_are_refused),
        cmocka_unit_test(the_seed_of_a_trial_depends_on_job_and_architecture_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
