/* Searchers: a history is a function of the seed and the results, whoever computed them and in whatever order. */
#include "common/search/search.h"

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

/* Of a race: what is known of a network comes closer to its score with every rung, and says how far off it may be. */
static const struct racing_cfg *race; /* NULL: scores without noise */

static int hex(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static struct search_result raced(const struct proposal *p)
{
    struct search_result r = { p->idx, fails(p->hash) ? NAN : score_of(p->hash), p->rung, p->params, p->macs, p->arch, 0, 0, 0 };
    if (!race)
        return r;
    r.n_inits = p->rung ? race->inits[p->rung - 1] : 2;
    r.score_se = (0.01 + 0.002 * hex(p->hash[20])) / sqrt(r.n_inits);
    r.score += (hex(p->hash[21 + p->rung]) - 7.5) / 7.5 * 2 * r.score_se;
    return r;
}

static void finish(struct search *s, const struct proposal *p)
{
    const struct search_result r = raced(p);
    assert_int_equal(search_finish(s, &r, NULL), 0);
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

/* The searchers that propose by themselves come first in the table. */
static bool own_searcher(int k) { return searcher_at(k) && searcher_at(k)->draw; }

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
    static const int windows[] = { 1, 5, 32 };
    struct run *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int k = 0; own_searcher(k); k++)
        for (int w = 0; w < 3; w++) {
            struct job_spec s = spec_of(searcher_at(k)->name, windows[w], 11);
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
    assert_int_equal(search_finish(s, &(struct search_result){ .idx = 0, .arch = p[0].arch }, &e), -ERR_STATE); /* twice */
    assert_int_equal(search_finish(s, &(struct search_result){ .idx = 9, .arch = p[0].arch }, &e), -ERR_STATE); /* never proposed */
    search_close(s);
}

/* Stop anywhere, recall what was proposed, feed what had ended: the rest comes out the same. */
static void cut_and_go_on(const struct job_spec *spec, const struct run *whole, int cut)
{
    struct search *s;
    struct proposal p;
    struct errbuf e = { 0 };
    assert_int_equal(search_open(&s, spec, &IMG, &e), 0);
    for (int i = 0; i < cut; i++) {
        struct proposal known = { .idx = (uint64_t)i, .parent = whole->p[i].parent, .rung = whole->p[i].rung };
        memcpy(known.hash, whole->p[i].hash, sizeof known.hash);
        assert_int_equal(search_recall(s, &known, &e), 0);
        if (i < cut - 3) /* the last three still run */
            finish(s, &whole->p[i]);
    }
    for (int i = cut > 3 ? cut - 3 : 0; i < cut; i++)
        finish(s, &whole->p[i]);
    for (int i = cut; i < whole->n; i++) {
        assert_int_equal(search_propose(s, &p, &e), 0);
        assert_string_equal(p.arch, whole->p[i].arch);
        assert_int_equal(p.parent, whole->p[i].parent);
        assert_int_equal(p.rung, whole->p[i].rung);
        finish(s, &p);
    }
    search_close(s);
}

static void a_recalled_search_goes_on_as_if_nothing_had_happened(void **state)
{
    (void)state;
    struct run *whole = malloc(sizeof *whole);
    for (int k = 0; own_searcher(k); k++) {
        struct job_spec spec = spec_of(searcher_at(k)->name, 6, 5);
        snprintf(spec.space, sizeof spec.space, "nasbench201"); /* small neighbourhoods: local search restarts */
        simulate(&spec, 150, 1, whole);
        for (int cut = 1; cut < 150; cut += 11)
            cut_and_go_on(&spec, whole, cut);
    }
    free(whole);
}

/* A climb goes up: each proposal is a neighbour of the best visible result since the last restart, and a restart comes only when
 * no neighbour is new. */
static void local_search_climbs_and_restarts(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("local", 1, 4);
    snprintf(spec.space, sizeof spec.space, "nasbench201");
    struct run *a = malloc(sizeof *a);
    simulate(&spec, 300, 1, a);
    int64_t centre = -1;
    int restarts = 0;
    for (int i = 0; i < a->n; i++) {
        if (a->p[i].parent < 0 && centre >= 0) {
            struct rng r;
            char text[ARCH_TEXT_MAX];
            rng_init(&r, 1, RNG_TEST, (uint64_t)i);
            for (int k = 0; k < 500; k++) { /* nearly every neighbour of the centre has been proposed before */
                bool known = false;
                space_nasbench201.mutate(&space_nasbench201, &r, a->p[centre].arch, text);
                for (int j = 0; j < i; j++)
                    known |= strcmp(a->p[j].arch, text) == 0;
                assert_true(known);
            }
            restarts++;
            centre = -1;
        }
        assert_int_equal(a->p[i].parent, centre);
        if (!fails(a->p[i].hash) && (centre < 0 || score_of(a->p[i].hash) > score_of(a->p[centre].hash)))
            centre = i;
    }
    assert_true(restarts >= 3);
    free(a);
}

/* The area that n points (score up, params down) dominate, params counted in shares of 20,000. */
static double area(const struct run *a, double (*score)(const char *arch))
{
    double sum = 0, last = 0;
    for (int share = 1; share <= 400; share++) {
        for (int i = 0; i < a->n; i++)
            if (a->p[i].params <= (uint64_t)share * 50 && score(a->p[i].arch) > last)
                last = score(a->p[i].arch);
        sum += last / 400;
    }
    return sum;
}

static double convolutions(const char *arch) /* a smooth score: wide kernels count most */
{
    double s = 0;
    for (const char *p = arch; *p; p++)
        s += strncmp(p, "3x3", 3) == 0 ? 2 : strncmp(p, "1x1", 3) == 0 ? 1.5 : strncmp(p, "skip", 4) == 0 ? 1 : 0;
    return s;
}

static void nsga2_covers_more_than_random_search(void **state)
{
    (void)state;
    double sum[2] = { 0, 0 };
    struct run *a = malloc(sizeof *a);
    for (uint64_t seed = 1; seed <= 6; seed++)
        for (int k = 0; k < 2; k++) {
            struct job_spec spec = spec_of(k ? "nsga2" : "random", 4, seed);
            struct search *s;
            snprintf(spec.space, sizeof spec.space, "nasbench201");
            spec.n_objectives = 2; /* score and params */
            spec.searcher.population = 20;
            assert_int_equal(search_open(&s, &spec, &IMG, NULL), 0);
            for (a->n = 0; a->n < 200; a->n++) {
                struct proposal *p = &a->p[a->n];
                assert_int_equal(search_propose(s, p, NULL), 0);
                assert_int_equal(search_finish(s, &(struct search_result){ p->idx, convolutions(p->arch), 0, p->params, p->macs, p->arch, 0, 0, 0 }, NULL), 0);
            }
            search_close(s);
            sum[k] += area(a, convolutions);
        }
    assert_true(sum[1] > 1.03 * sum[0]);
    free(a);
}

/* Successive halving the slow way: the best visible result of a rung that is not promoted goes on as soon as fewer than a third of the
 * rung's results are ahead of it (of equal ones those that went on are); higher rungs first. */
static bool went_on(const struct run *a, int i, int k)
{
    bool yes = false;
    for (int j = 0; j < i; j++)
        yes |= a->p[j].rung == a->p[k].rung + 1 && a->p[j].parent == k;
    return yes;
}

static int next_by_definition(const struct run *a, int i, int window, int n_rungs, int reduction, int *rung)
{
    for (*rung = n_rungs - 1; *rung >= 0; (*rung)--) {
        int n = 0, best = -1, ahead = 0;
        for (int k = 0; k + window <= i; k++) {
            if (a->p[k].rung != *rung)
                continue;
            n++;
            if (!went_on(a, i, k) && !fails(a->p[k].hash) && (best < 0 || score_of(a->p[k].hash) > score_of(a->p[best].hash)))
                best = k;
        }
        for (int k = 0; k + window <= i && best >= 0; k++)
            ahead += a->p[k].rung == *rung && !fails(a->p[k].hash) && (score_of(a->p[k].hash) > score_of(a->p[best].hash) ||
                     (score_of(a->p[k].hash) == score_of(a->p[best].hash) && went_on(a, i, k)));
        if (best >= 0 && ahead < n / reduction)
            return best;
    }
    return -1;
}

static void halving_promotes_as_soon_as_it_may(void **state)
{
    (void)state;
    struct run *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int k = 0; own_searcher(k); k++)
        for (int window = 1; window <= 9; window += 4) {
            struct job_spec spec = spec_of(searcher_at(k)->name, window, 8);
            spec.halving = (struct halving_cfg){ .n_steps = 2, .steps = { 2, 4 }, .reduction = 3 };
            simulate(&spec, 200, 1, a);
            int of_rung[3] = { 0 };
            for (int i = 0; i < a->n; i++) {
                int rung, from = next_by_definition(a, i, window, 2, 3, &rung);
                assert_int_equal(a->p[i].rung, from < 0 ? 0 : rung + 1);
                of_rung[a->p[i].rung]++;
                if (from < 0)
                    continue;
                assert_int_equal(a->p[i].parent, from);
                assert_string_equal(a->p[i].arch, a->p[from].arch);
                assert_int_equal(a->p[i].seed, a->p[from].seed);
            }
            assert_true(of_rung[0] > 120 && of_rung[1] > 35 && of_rung[2] > 8);
            simulate(&spec, 200, 2, b);
            assert_same(a, b);
            for (int cut = 1; cut < 200; cut += 37)
                if (window > 3) /* the last three still run then */
                    cut_and_go_on(&spec, a, cut);
        }
    free(a);
    free(b);
}

/* Racing the slow way: sorted anew for each proposal. */
static int falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static int race_by_definition(const struct run *a, int i, int window, int *rung)
{
    static double score[MAX_TRIALS];
    for (int k = 0; k < race->n_inits; k++) {
        int visible = 0, known = 0, into = 0, gone = 0, best = -1;
        double squares = 0, df = 0;
        for (int j = 0; j < i; j++) {
            into += a->p[j].rung == k;
            gone += a->p[j].rung == k + 1;
            if (a->p[j].rung != k || j + window > i)
                continue;
            struct search_result r = raced(&a->p[j]);
            visible++;
            if (!isfinite(r.score))
                continue;
            score[known++] = r.score;
            squares += r.score_se * r.score_se * r.n_inits * (r.n_inits - 1);
            df += r.n_inits - 1;
            if (!went_on(a, i, j) && (best < 0 || r.score > raced(&a->p[best]).score))
                best = j;
        }
        if (best < 0 || known <= race->among || (k == 0 && (visible < race->after || gone + 1 > race->share * visible)) || (k > 0 && into != visible))
            continue;
        qsort(score, (size_t)known, sizeof *score, falling);
        double noise = race->z * sqrt(squares / df * 2 / raced(&a->p[best]).n_inits), last = score[race->among - 1];
        if (last - score[race->among] > noise || last - raced(&a->p[best]).score > noise)
            continue;
        *rung = k + 1;
        return best;
    }
    return -1;
}

static void a_race_goes_on_with_what_cannot_be_told_apart(void **state)
{
    (void)state;
    struct run *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    for (int k = 0; own_searcher(k); k++)
        for (int among = 1; among <= 7; among += 3) {
            struct job_spec spec = spec_of(searcher_at(k)->name, 4, 3);
            int rung, from, rounds[4] = { 0 };
            spec.racing = (struct racing_cfg){ .n_inits = 3, .inits = { 4, 8, 16 }, .among = among, .z = 2, .after = 40, .share = 0.3 };
            race = &spec.racing;
            simulate(&spec, 300, 1, a);
            for (int i = 0; i < a->n; i++) {
                from = race_by_definition(a, i, spec.window, &rung);
                assert_int_equal(a->p[i].rung, from < 0 ? 0 : rung);
                rounds[a->p[i].rung]++;
                if (from < 0)
                    continue;
                assert_int_equal(a->p[i].parent, from);
                assert_string_equal(a->p[i].arch, a->p[from].arch);
                assert_int_equal(a->p[i].seed, a->p[from].seed);
            }
            assert_true(rounds[1] > 2 && rounds[0] > 150 && rounds[1] >= rounds[2] && rounds[2] >= rounds[3]);
            simulate(&spec, 300, 2, b);
            assert_same(a, b);
            for (int cut = 5; cut < 300; cut += 59)
                cut_and_go_on(&spec, a, cut);
        }
    race = NULL;
    free(a);
    free(b);
}

/* One candidate far ahead of all others: there is nothing to race about. */
static void what_is_told_apart_is_not_raced(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("random", 2, 3);
    struct search *s;
    struct proposal p;
    spec.racing = (struct racing_cfg){ .n_inits = 1, .inits = { 4 }, .among = 1, .z = 2, .after = 5, .share = 1 };
    assert_int_equal(search_open(&s, &spec, &IMG, NULL), 0);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(search_propose(s, &p, NULL), 0);
        assert_int_equal(p.rung, 0);
        assert_int_equal(search_finish(s, &(struct search_result){ p.idx, i == 3 ? 0.9 : 0.5, 0, 1, 1, p.arch, 2, 0.01, 0 }, NULL), 0);
    }
    search_close(s);
}

/* What it is for: the pick of 120 noisy candidates, against as many initialisations spent evenly. Regret in true score. */
static double truth(const char *hash) { return score_of(hash); }

static double noisy(const char *hash, uint64_t seed, int n, double *se)
{
    double v[MAX_INITS], mean = 0, squares = 0;
    struct rng r;
    rng_init(&r, trial_seed(seed, hash), RNG_TEST, 1);
    for (int i = 0; i < n; i++)
        mean += (v[i] = truth(hash) + 0.05 * rng_normal(&r)) / n;
    for (int i = 0; i < n; i++)
        squares += (v[i] - mean) * (v[i] - mean);
    *se = sqrt(squares / (n - 1) / n);
    return mean;
}

static void a_race_picks_better_for_the_same_cost(void **state)
{
    (void)state;
    enum { N = 120, SEEDS = 60 };
    double raced_regret = 0, even_regret = 0, se;
    struct proposal *p = malloc(MAX_TRIALS * sizeof *p);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct job_spec spec = spec_of("random", 8, seed);
        struct search *s;
        int cost = 0, pick = -1, n = 0;
        double best = 0, at = -INFINITY, even = -INFINITY, even_truth = 0;
        spec.racing = (struct racing_cfg){ .n_inits = 4, .inits = { 4, 8, 16, 32 }, .among = 1, .z = 2, .after = N, .share = 0.3 };
        assert_int_equal(search_open(&s, &spec, &IMG, NULL), 0);
        for (; n < MAX_TRIALS; n++) {
            assert_int_equal(search_propose(s, &p[n], NULL), 0);
            int inits = p[n].rung ? spec.racing.inits[p[n].rung - 1] : 2;
            double score = noisy(p[n].hash, seed, inits, &se);
            if (p[n].rung == 0 && n >= N + 40) /* the race is over; candidates beyond N only filled its pauses */
                break;
            cost += p[n].rung > 1 ? inits - spec.racing.inits[p[n].rung - 2] : 2;
            best = truth(p[n].hash) > best ? truth(p[n].hash) : best;
            if (pick < 0 || p[n].rung > p[pick].rung || (p[n].rung == p[pick].rung && score > at)) {
                pick = n;
                at = score;
            }
            assert_int_equal(search_finish(s, &(struct search_result){ p[n].idx, score, p[n].rung, 1, 1, p[n].arch, inits, se, 0 }, NULL), 0);
        }
        search_close(s);
        int candidates = 0;
        for (int i = 0; i < n; i++)
            candidates += p[i].rung == 0;
        for (int i = 0; i < n; i++) {
            double v = p[i].rung ? -INFINITY : noisy(p[i].hash, seed, (cost + candidates - 1) / candidates, &se);
            if (v > even) {
                even = v;
                even_truth = truth(p[i].hash);
            }
        }
        raced_regret += best - truth(p[pick].hash);
        even_regret += best - even_truth;
    }
    if (raced_regret > 0.7 * even_regret)
        fail_msg("regret %g raced, %g spent evenly", raced_regret / SEEDS, even_regret / SEEDS);
    free(p);
}

/* The pool is proposed first, best first; and no candidate beats what was kept. */
static void a_warm_up_starts_from_the_best_of_its_candidates(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("evolution", 4, 6);
    struct run *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    uint64_t least = UINT64_MAX, larger = 0;
    spec.constraints.max_params = 60000;
    spec.warmup = (struct warmup_cfg){ .candidates = 300, .score = "params" }; /* keep: the population, 12 */
    simulate(&spec, 40, 1, a);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(a->p[i].parent, -1);
        assert_true(a->p[i].params <= least && a->p[i].params <= 60000);
        least = a->p[i].params;
    }
    spec.warmup.candidates = 0; /* as many uniform draws: about 12 in 300 are as large */
    simulate(&spec, 12, 1, b);
    for (int i = 0; i < 12; i++)
        larger += b->p[i].params >= least;
    assert_true(larger <= 4);
    spec.warmup = (struct warmup_cfg){ .candidates = 300, .keep = 5, .score = "macs" };
    simulate(&spec, 12, 1, b);
    for (int i = 1, fell = 0; i < 12; i++) { /* after the five the draws are uniform again */
        fell += b->p[i].macs > b->p[i - 1].macs;
        assert_true(i >= 5 || fell == 0);
        assert_true(i < 11 || fell > 0);
    }
    for (int cut = 1; cut < 40; cut += 6) { /* and a later life goes on from the same pool */
        spec.warmup = (struct warmup_cfg){ .candidates = 300, .score = "params" };
        cut_and_go_on(&spec, a, cut);
    }
    free(a);
    free(b);
}

/* What a worker would say; a candidate in ten fails. */
static bool asked(const struct warmup_candidate *c, struct zero_cost_scores *z)
{
    *z = (struct zero_cost_scores){ .known = 1u << ZC_SYNFLOW, .value[ZC_SYNFLOW] = score_of(c->hash) };
    return c->hash[5] != '3';
}

/* Told in this order; the first `n` proposals. */
static void vote(const struct job_spec *spec, uint64_t order, int n, struct run *out)
{
    struct search *s;
    struct rng r;
    uint32_t told[300];
    assert_int_equal(search_open(&s, spec, &IMG, NULL), 0);
    int candidates = search_warmup(s, NULL);
    assert_in_range(candidates, 250, 300);
    assert_int_equal(search_warmup(s, NULL), candidates); /* again, and nothing is drawn anew */
    rng_init(&r, order, RNG_TEST, 1);
    rng_permute(&r, told, (uint32_t)candidates);
    for (int k = 0; k < candidates; k++) {
        struct warmup_candidate c = search_warmup_at(s, (int)told[k]);
        struct zero_cost_scores z;
        bool works = asked(&c, &z);
        assert_false(search_ready(s) || c.told);
        assert_int_equal(c.seed, trial_seed(spec->seed, c.hash));
        assert_int_equal(search_warmup_tell(s, (int)told[k], works ? &z : NULL, NULL), 0);
    }
    assert_true(search_ready(s));
    assert_int_equal(search_warmup(s, NULL), 0);
    for (out->n = 0; out->n < n; out->n++) {
        assert_int_equal(search_propose(s, &out->p[out->n], NULL), 0);
        finish(s, &out->p[out->n]);
    }
    search_close(s);
}

static void a_vote_is_waited_for_and_does_not_depend_on_the_order_of_its_answers(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("evolution", 4, 6);
    struct run *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    spec.warmup = (struct warmup_cfg){ .candidates = 300, .keep = 8, .n_vote = 1, .vote = { COLUMN_ZERO_COST + ZC_SYNFLOW } };
    vote(&spec, 1, 30, a);
    vote(&spec, 2, 30, b);
    assert_memory_equal(a->p, b->p, 30 * sizeof *a->p);
    for (int i = 0; i < 8; i++) { /* one vote: its own order, without those that failed */
        struct warmup_candidate c = { .hash = a->p[i].hash };
        struct zero_cost_scores z;
        assert_true(asked(&c, &z) && a->p[i].parent == -1);
        assert_true(i == 0 || score_of(a->p[i].hash) <= score_of(a->p[i - 1].hash));
    }
    assert_true(score_of(a->p[7].hash) > 0.9);
    /* Parameters and multiply-adds can vote without anybody's help: here with the same order, so as one of them. */
    spec.warmup = (struct warmup_cfg){ .candidates = 300, .keep = 8, .n_vote = 1, .vote = { COLUMN_MACS } };
    simulate(&spec, 8, 1, a);
    spec.warmup = (struct warmup_cfg){ .candidates = 300, .keep = 8, .score = "macs" };
    simulate(&spec, 8, 1, b);
    assert_memory_equal(a->p, b->p, 8 * sizeof *a->p);
    free(a);
    free(b);
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

/* What comes from outside is looked at, and taken up in order; told is the prefix of what has ended. */
static void proposals_from_outside_are_checked_and_taken_in_order(void **state)
{
    (void)state;
    struct job_spec spec = spec_of("external", 3, 4);
    struct search *s;
    struct proposal p[4];
    struct errbuf e = { 0 };
    char text[ARCH_TEXT_MAX];
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 0);
    spec.constraints.max_params = 30000;
    assert_int_equal(search_open(&s, &spec, &IMG, &e), 0);
    assert_true(search_is_external(s));
    assert_int_equal(search_propose(s, &p[0], &e), -ERR_STATE);
    assert_int_equal(search_offer(s, 0, "bn relu | c16k99 | flat | fc", &p[0], &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "c16k99"));
    do
        space_chain.random(&space_chain, &r, text);
    while (search_offer(s, 0, text, &p[0], &e) == 0);
    assert_true(p[0].params > 30000);
    assert_non_null(strstr(e.text, "constraints.max_params is 30000"));
    for (int i = 0; i < 4;) {
        space_chain.random(&space_chain, &r, text);
        i += search_offer(s, (uint64_t)i, text, &p[i], NULL) == 0;
    }
    assert_int_equal(search_next_index(s), 0); /* looking takes nothing up */
    assert_true(search_ready_for(s, 2) && !search_ready_for(s, 3) && !search_had(s, p[1].hash));
    for (int i = 0; i < 3; i++)
        assert_int_equal(search_recall(s, &p[i], &e), 0);
    assert_true(search_had(s, p[1].hash) && search_told(s) == 0);
    assert_int_equal(search_recall(s, &p[3], &e), -ERR_CORRUPT);
    finish(s, &p[1]);
    assert_true(search_told(s) == 0 && !search_ready_for(s, 3));
    finish(s, &p[0]);
    assert_true(search_told(s) == 2 && search_ready_for(s, 4) && !search_ready_for(s, 5));
    assert_int_equal(search_recall(s, &p[3], &e), 0);
    finish(s, &p[3]);
    finish(s, &p[2]);
    assert_int_equal(search_told(s), 4);
    assert_int_equal(p[2].seed, trial_seed(4, p[2].hash));
    search_close(s);
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
        cmocka_unit_test(local_search_climbs_and_restarts),
        cmocka_unit_test(nsga2_covers_more_than_random_search),
        cmocka_unit_test(halving_promotes_as_soon_as_it_may),
        cmocka_unit_test(a_race_goes_on_with_what_cannot_be_told_apart),
        cmocka_unit_test(what_is_told_apart_is_not_raced),
        cmocka_unit_test(a_race_picks_better_for_the_same_cost),
        cmocka_unit_test(a_vote_is_waited_for_and_does_not_depend_on_the_order_of_its_answers),
        cmocka_unit_test(a_warm_up_starts_from_the_best_of_its_candidates),
        cmocka_unit_test(constraints_hold_for_every_proposal),
        cmocka_unit_test(impossible_constraints_say_so),
        cmocka_unit_test(no_architecture_is_proposed_twice_while_there_are_others),
        cmocka_unit_test(proposals_from_outside_are_checked_and_taken_in_order),
        cmocka_unit_test(wrong_settings_are_refused),
        cmocka_unit_test(the_seed_of_a_trial_depends_on_job_and_architecture_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
