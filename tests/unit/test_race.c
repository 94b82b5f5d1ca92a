/* Racing in the scheduler: a round computes what the one before has not, and records the score over all of it. */
#include "tests/support/sim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct worker *w[2];
static int n_taken; /* of s->sent */

static int setup(void **state)
{
    n_taken = 0;
    int rc = sim_setup_as(state, (struct sim_rules){ .beat_ms = 10000000, .lease_ms = 10000000, .any_size = true });
    w[0] = sim_hello(*state, "w0", 1, NULL, 0, NULL);
    return rc;
}

/* A network's score under one initialisation: a fact. Many networks are close to each other. */
static double score_of(const char *arch, int init)
{
    struct rng r;
    rng_init(&r, (uint64_t)(sim_score_of(arch) * 1e9), RNG_TEST, (uint64_t)init);
    return floor(sim_score_of(arch) * 8) / 8 + 0.04 * rng_uniform(&r);
}

static struct trial_result compute(const struct score_task *t)
{
    const struct fidelity *f = &t->fidelity;
    struct trial_result r = { .state = TRIAL_SCORED, .n_inits = f->inits, .lr_scale = f->n_lr_scales > 1 ? f->lr_scale[strlen(t->arch) % 2] : f->lr_scale[0],
                              .loss_sum = 10 + f->first_init, .params = 10, .macs = 10, .seconds = 1, .n_checkpoints = 1, .checkpoint = { 4 },
                              .checkpoint_score = { (double)f->first_init / 100 } };
    double squares = 0;
    for (int i = 0; i < f->inits; i++)
        r.score += (r.init_score[i] = score_of(t->arch, f->first_init + i));
    r.score /= f->inits;
    for (int i = 0; i < f->inits; i++)
        squares += (r.init_score[i] - r.score) * (r.init_score[i] - r.score);
    r.score_se = f->inits > 1 ? sqrt(squares / (f->inits - 1) / f->inits) : 0;
    return r;
}

static struct job_spec spec; /* large */

static uint64_t submit(struct sim *s, bool book)
{
    spec = sim_search_spec(120, 6);
    spec.use_book = book;
    spec.fidelity.inits = 2;
    spec.fidelity.n_checkpoints = 1;
    spec.fidelity.checkpoint[0] = 4;
    spec.fidelity.n_lr_scales = 2;
    spec.fidelity.lr_scale[1] = 0.5;
    spec.racing = (struct racing_cfg){ .n_inits = 2, .inits = { 4, 9 }, .among = 2, .z = 2, .after = 20, .share = 0.5 };
    return sim_submit(s, &spec);
}

static bool over(struct sim *s, uint64_t job) { return sim_job_row(s, job).state == JOB_SUCCEEDED; }

/* The next lease that left, done and reported by whoever got it. */
static void work_one(struct sim *s)
{
    const struct sent *x = &s->sent[n_taken++];
    struct worker *by = w[strcmp(x->worker, "w1") == 0];
    assert_int_equal(sim_report(s, by, sim_ref_of(&x->t), compute(&x->t.score)).outcome, ACK_RECORDED);
}

static void run(struct sim *s, uint64_t job, int restart_every)
{
    for (int n = 0; !over(s, job); n++) {
        if (restart_every && n % restart_every == restart_every - 1) {
            struct lease_ref held[16];
            int n_held = 0;
            for (int i = n_taken; i < s->n_sent; i++)
                held[n_held++] = sim_ref_of(&s->sent[i].t);
            sim_restart(s);
            w[0] = sim_hello(s, "w0", 1, held, n_held, NULL);
        }
        for (int i = 0; i < 2 && w[i]; i++)
            sim_want(s, w[i], i ? 3 : 1);
        if (over(s, job))
            break;
        assert_true(n_taken < s->n_sent);
        work_one(s);
    }
}

static int line(char *out, size_t size, const struct trial_row *t)
{
    int n = snprintf(out, size, "%llu %s %lld %d %.17g %.17g %.17g %.17g %.17g", (unsigned long long)t->idx, t->arch, (long long)t->parent, t->rung, t->r.score,
                     t->r.score_se, t->r.loss_sum, t->r.checkpoint_score[0], t->r.lr_scale);
    for (int i = 0; i < t->r.n_inits && i < 3; i++)
        n += snprintf(out + n, size - (size_t)n, " %.17g", t->r.init_score[i]);
    return n + snprintf(out + n, size - (size_t)n, "\n");
}

static char *history(struct sim *s, uint64_t job)
{
    char *text;
    assert_int_equal(sim_rows(s, job, SORT_INDEX, line, &text), 120);
    return text;
}

static void a_round_records_the_score_over_all_initialisations(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, false);
    run(s, job, 0);
    int rounds[3] = { 0 };
    for (int i = 0; i < s->n_sent; i++) { /* what was asked for */
        const struct fidelity *f = &s->sent[i].t.score.fidelity;
        struct trial_row t = *sim_trial(s, job, s->sent[i].t.trial);
        static const int first[] = { 0, 2, 4 }, inits[] = { 2, 2, 5 };
        assert_true(f->first_init == first[t.rung] && f->inits == inits[t.rung]);
        rounds[t.rung]++;
        if (t.rung == 0)
            continue;
        struct trial_row below = *sim_trial(s, job, (uint64_t)t.parent);
        assert_string_equal(t.arch, below.arch);
        assert_true(f->n_lr_scales == 1 && f->lr_scale[0] == below.r.lr_scale && t.r.lr_scale == below.r.lr_scale);
        assert_int_equal(t.r.n_inits, first[t.rung] + inits[t.rung]);
        double mean = 0, squares = 0;
        for (int k = 0; k < t.r.n_inits; k++) {
            assert_true(t.r.init_score[k] == score_of(t.arch, k));
            mean += t.r.init_score[k];
        }
        mean /= t.r.n_inits;
        for (int k = 0; k < t.r.n_inits; k++)
            squares += pow(t.r.init_score[k] - mean, 2);
        assert_true(t.r.score == mean && fabs(t.r.score_se - sqrt(squares / (t.r.n_inits - 1) / t.r.n_inits)) < 1e-15);
        if (t.rung == 1) /* half of each */
            assert_true(fabs(t.r.loss_sum - 11) < 1e-12 && fabs(t.r.checkpoint_score[0] - 0.01) < 1e-12);
    }
    assert_true(rounds[0] > 60 && rounds[1] > 4 && rounds[2] > 2 && rounds[2] <= rounds[1]);
    struct trial_row best = *sim_trial(s, job, (uint64_t)sim_job_row(s, job).best_trial);
    assert_int_equal(best.rung, 2);
}

static void the_history_does_not_depend_on_who_computes_and_what_restarts(void **state)
{
    struct sim *s = *state;
    uint64_t calm = submit(s, false), rough, many;
    run(s, calm, 0);
    rough = submit(s, false);
    run(s, rough, 5);
    w[1] = sim_hello(s, "w1", 2, NULL, 0, NULL);
    many = submit(s, false);
    run(s, many, 0);
    w[1] = NULL;
    char *a = history(s, calm), *b = history(s, rough), *c = history(s, many);
    assert_string_equal(a, b);
    assert_string_equal(a, c);
    free(a);
    free(b);
    free(c);
}

static void the_book_answers_rounds_too(void **state)
{
    struct sim *s = *state;
    uint64_t first = submit(s, true), again;
    run(s, first, 0);
    int sent = s->n_sent;
    again = submit(s, true);
    store_flush(s->store);
    assert_true(over(s, again) && s->n_sent == sent); /* nothing was computed */
    assert_true(sim_trial(s, again, 119)->from_book);
    char *a = history(s, first), *b = history(s, again);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void a_result_of_other_initialisations_is_refused(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, false);
    const struct sent *x = NULL;
    while (!x) {
        sim_want(s, w[0], 1);
        if (s->sent[n_taken].t.score.fidelity.first_init == 0)
            work_one(s);
        else
            x = &s->sent[n_taken];
    }
    struct trial_result r = compute(&x->t.score);
    r.n_inits++;
    assert_int_equal(sim_report(s, w[0], sim_ref_of(&x->t), r).rc, -ERR_INPUT);
    assert_int_equal(sim_trial(s, job, x->t.trial)->state, TRIAL_RUNNING);
    work_one(s);
    assert_int_equal(sim_trial(s, job, x->t.trial)->state, TRIAL_SCORED);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, sim_teardown)
    const struct CMUnitTest tests[] = {
        T(a_round_records_the_score_over_all_initialisations),
        T(the_history_does_not_depend_on_who_computes_and_what_restarts),
        T(the_book_answers_rounds_too),
        T(a_result_of_other_initialisations_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
