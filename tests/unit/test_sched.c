/* The scheduler: leases and who holds them, jobs and how they end. */
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

static void an_expired_lease_is_given_again_with_a_higher_attempt(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(3, 1);
    uint64_t job = sim_submit(s, &spec);
    struct worker *a = sim_hello(s, "a", 1, NULL, 0, NULL), *b = sim_hello(s, "b", 2, NULL, 0, NULL);
    sim_want(s, a, 1);
    struct lease_ref old = sim_last(s);
    assert_int_equal(old.attempt, 1);
    sim_want(s, b, 1);
    assert_int_equal(s->n_sent, 1); /* the window of 1 is taken */
    for (int i = 0; i < LEASE_MS / BEAT_MS; i++) { /* b is heard of, a is not */
        sim_advance(s, BEAT_MS - (i == 0));
        sim_beat(s, b, NULL, 0);
    }
    assert_int_equal(s->n_sent, 1);
    sim_advance(s, 1);
    assert_int_equal(s->n_sent, 2);
    assert_string_equal(s->sent[1].worker, "b");
    struct lease_ref new = sim_last(s);
    assert_true(new.trial == old.trial && new.attempt == 2);
    assert_int_equal(sim_scored(s, a, old, 0.9).outcome, ACK_STALE);
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_RUNNING);
    assert_int_equal(sim_trial(s, job, 0)->deaths, 1);
    assert_int_equal(sim_scored(s, b, new, 0.4).outcome, ACK_RECORDED);
    assert_int_equal(sim_scored(s, b, new, 0.5).outcome, ACK_DUPLICATE);
    assert_int_equal(sim_scored(s, a, old, 0.9).outcome, ACK_STALE);
    assert_true(sim_trial(s, job, 0)->r.score == 0.4);
}

static void heartbeats_keep_a_lease(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(3, 1);
    sim_submit(s, &spec);
    struct worker *a = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, a, 1);
    struct lease_ref ref = sim_last(s);
    for (int i = 0; i < 20; i++) {
        sim_advance(s, BEAT_MS);
        assert_int_equal(sim_beat(s, a, &ref, 1), 0);
    }
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(sim_scored(s, a, ref, 0.4).outcome, ACK_RECORDED);
    assert_int_equal(sim_beat(s, a, &ref, 1), 1); /* it is over: drop it */
}

static void time_in_which_the_coordinator_slept_counts_against_nobody(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(3, 1);
    uint64_t job = sim_submit(s, &spec);
    struct worker *a = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, a, 1);
    struct lease_ref ref = sim_last(s);
    for (int i = 0; i < 4; i++) { /* more sleeps than a trial may cost workers */
        s->now += 10 * LEASE_MS;
        sched_slept(s->sched, 10 * LEASE_MS);
        sim_advance(s, 1);
        assert_true(a->online);
        assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_RUNNING);
        assert_int_equal(sim_beat(s, a, &ref, 1), 0);
    }
    s->now -= 100 * LEASE_MS; /* set back: leases must not last a hundred times longer */
    sched_slept(s->sched, -100 * LEASE_MS);
    sim_advance(s, LEASE_MS + 1);
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_WAITING);
}

static void silence_ends_a_session_but_not_its_leases(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(3, 1);
    sim_submit(s, &spec);
    struct worker *a = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, a, 1);
    struct lease_ref ref = sim_last(s);
    sim_advance(s, MISSED_BEATS * BEAT_MS + 1);
    assert_false(a->online);
    int n_drop = -1;
    assert_ptr_equal(sim_hello(s, "a", 1, &ref, 1, &n_drop), a);
    assert_int_equal(n_drop, 0);
    assert_int_equal(sim_scored(s, a, ref, 0.4).outcome, ACK_RECORDED);
}

static void a_trial_that_kills_three_workers_is_recorded_as_failed(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(2, 1);
    uint64_t job = sim_submit(s, &spec);
    for (int i = 0; i < LEASE_MAX_DEATHS; i++) {
        char id[16];
        snprintf(id, sizeof id, "w%d", i);
        struct worker *w = sim_hello(s, id, (uint64_t)i + 1, NULL, 0, NULL);
        sim_want(s, w, 1);
        assert_true(sim_last(s).trial == 0 && sim_last(s).attempt == (uint32_t)i + 1);
        sim_advance(s, LEASE_MS + 1);
    }
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_FAILED);
    assert_int_equal(sim_trial(s, job, 0)->r.reason, FAIL_CRASH);
    assert_int_equal(sim_trial(s, job, 0)->deaths, 3);
    struct worker *w = sim_hello(s, "w9", 99, NULL, 0, NULL); /* the job goes on */
    sim_want(s, w, 1);
    assert_int_equal(sim_last(s).trial, 1);
}

static void a_lease_that_broke_devices_ends_as_failed(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(2, 1);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    for (uint32_t i = 1; i <= LEASE_MAX_DEATHS; i++) {
        sim_want(s, w, 1);
        assert_int_equal(sim_last(s).trial, 0);
        assert_int_equal(sim_last(s).attempt, i);
        sched_hand_back(s->sched, w, sim_last(s), true);
        store_flush(s->store);
        assert_int_equal(sim_trial(s, job, 0)->deaths, i);
    }
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_FAILED);
    assert_int_equal(sim_trial(s, job, 0)->r.reason, FAIL_CRASH);
}

static void a_lease_handed_back_is_no_death(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(2, 1);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    for (uint32_t i = 1; i < 6; i++) {
        sim_want(s, w, 1);
        assert_int_equal(sim_last(s).attempt, i);
        sched_hand_back(s->sched, w, sim_last(s), false);
        store_flush(s->store);
    }
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_WAITING);
    assert_int_equal(sim_trial(s, job, 0)->deaths, 0);
}

static void a_restart_loses_no_lease_that_is_still_worked_on(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(20, 4);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 7, NULL, 0, NULL);
    struct lease_ref held[4] = { 0 };
    sim_want(s, w, 3);
    assert_int_equal(s->n_sent, 3);
    for (int i = 0; i < 3; i++)
        held[i] = sim_ref_of(&s->sent[i].t);
    held[3] = (struct lease_ref){ job, 0, 5 }; /* an attempt that never was */
    sim_restart(s);
    assert_int_equal(sched_job(s->sched, job)->n_running, 3);
    sim_advance(s, LEASE_MS / 2);
    int n_drop = -1;
    w = sim_hello(s, "a", 7, held, 4, &n_drop);
    assert_int_equal(n_drop, 1);
    assert_int_equal(w->n_leases, 3);
    for (int i = 0; i < 2 * LEASE_MS / BEAT_MS; i++) {
        sim_advance(s, BEAT_MS);
        assert_int_equal(sim_beat(s, w, held, 3), 0);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(sim_scored(s, w, held[i], 0.5).outcome, ACK_RECORDED);
    for (int i = 0; i < 3; i++)
        assert_true(sim_trial(s, job, (uint64_t)i)->attempt == 1 && sim_trial(s, job, (uint64_t)i)->deaths == 0);
    sim_want(s, w, 1);
    assert_int_equal(sim_last(s).trial, 3);
}

static void a_worker_restarted_without_its_lease_died_with_it(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(5, 1);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 7, NULL, 0, NULL);
    sim_want(s, w, 1);
    w = sim_hello(s, "a", 8, NULL, 0, NULL); /* no waiting for the deadline */
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_WAITING);
    assert_int_equal(sim_trial(s, job, 0)->deaths, 1);
    sim_want(s, w, 1);
    assert_true(sim_last(s).trial == 0 && sim_last(s).attempt == 2);
}

static void a_lease_lost_on_its_way_is_sent_again_as_the_same_attempt(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(5, 1);
    sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 7, NULL, 0, NULL);
    sim_want(s, w, 1);
    w = sim_hello(s, "a", 7, NULL, 0, NULL);
    assert_int_equal(s->n_sent, 1);
    sim_want(s, w, 1);
    assert_int_equal(s->n_sent, 2);
    assert_true(sim_last(s).trial == 0 && sim_last(s).attempt == 1);
    assert_int_equal(sim_scored(s, w, sim_last(s), 0.5).outcome, ACK_RECORDED);
}

static void no_more_leases_than_wanted_nor_than_parallel(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(50, 20);
    spec.parallel = 5;
    sim_submit(s, &spec);
    struct worker *a = sim_hello(s, "a", 1, NULL, 0, NULL), *b = sim_hello(s, "b", 2, NULL, 0, NULL);
    sim_want(s, a, 2);
    assert_int_equal(s->n_sent, 2);
    sim_want(s, b, 9);
    assert_int_equal(s->n_sent, 5);
    assert_int_equal(sim_scored(s, a, sim_ref_of(&s->sent[0].t), 0.1).rc, 0);
    assert_int_equal(s->n_sent, 6);
    sim_want(s, b, 0);
    assert_int_equal(sim_scored(s, a, sim_ref_of(&s->sent[1].t), 0.1).rc, 0);
    assert_int_equal(s->n_sent, 6);
}

static void higher_priority_goes_first_and_equals_take_turns(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(50, 20);
    uint64_t a = sim_submit(s, &spec), b = sim_submit(s, &spec);
    spec.priority = 5;
    spec.trials = 2;
    uint64_t high = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 6);
    uint64_t n[8] = { 0 };
    assert_true(s->sent[0].t.job == high && s->sent[1].t.job == high);
    for (int i = 2; i < 6; i++)
        n[s->sent[i].t.job]++;
    assert_true(n[a] == 2 && n[b] == 2);
}

static void what_cannot_be_saved_is_not_acknowledged(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(4, 2);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    struct lease_ref ref = sim_last(s);
    s->fault = ERR_IO; /* the disk is full */
    assert_int_equal(sim_scored(s, w, ref, 0.5).rc, -ERR_IO);
    sim_want(s, w, 1);
    assert_int_equal(s->n_sent, 1);
    struct answer a = { 1, 0, "" };
    sched_submit(s->sched, &spec, NULL, 0, sim_on_done, &a);
    store_flush(s->store);
    assert_int_equal(a.rc, -ERR_IO);
    for (int i = 0; i < 20; i++) {
        s->fault = i < 10 ? ERR_IO : 0;
        sim_advance(s, BEAT_MS);
        assert_int_equal(sim_beat(s, w, &ref, 1), 0); /* the lease is kept */
    }
    assert_false(s->sched->store_down); /* the probe has noticed */
    assert_int_equal(s->n_sent, 2);     /* and what was wanted goes out */
    assert_int_equal(sim_trial(s, job, 0)->attempt, 1);
    assert_int_equal(sim_scored(s, w, ref, 0.5).outcome, ACK_RECORDED);
    assert_int_equal(reader_last_job(s->reader), job);
}

static void a_lease_does_not_expire_while_that_cannot_be_saved(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(4, 1);
    uint64_t job = sim_submit(s, &spec);
    struct worker *a = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, a, 1);
    struct lease_ref ref = sim_last(s);
    s->fault = ERR_IO;
    sim_advance(s, LEASE_MS + 1);
    sim_advance(s, 1001);
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_RUNNING);
    s->fault = 0;
    for (int i = 0; i < 4; i++)
        sim_advance(s, 1001);
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_WAITING);
    assert_int_equal(sim_trial(s, job, 0)->deaths, 1); /* once, however often it was tried */
    assert_int_equal(sim_scored(s, a, ref, 0.5).outcome, ACK_STALE);
}

/* Every second candidate is trained for real: before anything new is proposed, beside the candidates' own counts, and over a restart. */
static void an_audit_adds_trainings_that_are_no_candidates(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(6, 1);
    spec.audit.share = 0.1;
    spec.audit.min = 3;
    spec.audit.every = 2;
    spec.audit.batch = 8;
    spec.audit.timeout_s = 77;
    uint64_t job = sim_submit(s, &spec), trained = 0, first = 0;
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    for (int scored_n = 0; sim_job_row(s, job).state != JOB_SUCCEEDED && scored_n < 30; scored_n++) {
        struct task t = s->sent[s->n_sent - 1].t;
        bool audit = t.trial >= TRIAL_AUDIT;
        assert_int_equal(t.kind, audit ? TASK_TRAIN : TASK_SCORE);
        if (audit) {
            assert_true(t.train.no_test && !t.train.keep_weights && t.timeout_s == 77 && t.train.batch == 8);
            assert_string_equal(t.train.arch, sim_trial(s, job, t.trial - TRIAL_AUDIT)->arch);
            first = trained++ ? first : t.trial;
            if (trained == 2) { /* the training under way is kept */
                struct lease_ref ref = sim_ref_of(&t);
                sim_restart(s);
                int n_drop = -1;
                w = sim_hello(s, "a", 1, &ref, 1, &n_drop);
                assert_int_equal(n_drop, 0);
                assert_int_equal(sched_job(s->sched, job)->n_running, 1);
            }
        }
        assert_int_equal(sim_scored(s, w, sim_ref_of(&t), audit ? 0.99 : 0.2 + 0.01 * (double)t.trial).outcome, ACK_RECORDED);
        if (sim_job_row(s, job).state != JOB_SUCCEEDED)
            sim_want(s, w, 1);
    }
    struct job_row row = sim_job_row(s, job);
    assert_int_equal(row.state, JOB_SUCCEEDED);
    assert_true(trained == 3 && row.n.scored == 6 && row.best_trial == 5); /* 0.99 was no candidate's score */
    assert_true(sim_trial(s, job, first)->group == GROUP_AUDIT && sim_trial(s, job, first)->parent == (int64_t)(first - TRIAL_AUDIT));
    assert_true(sim_trial(s, job, first)->proxy == sim_trial(s, job, first - TRIAL_AUDIT)->r.score);
}

static void a_job_whose_time_is_over_does_not_wait_for_trainings_that_nobody_began(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(3, 1);
    spec.audit.share = 0.1;
    spec.audit.min = 3;
    spec.audit.every = 1;
    spec.seconds = 60;
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    for (int i = 0; i < 5; i++) { /* three candidates, two trainings: the third waits */
        sim_want(s, w, 1);
        assert_int_equal(sim_scored(s, w, sim_last(s), 0.5).outcome, ACK_RECORDED);
    }
    assert_true(sim_last(s).trial == 2);
    assert_int_equal(sim_job_row(s, job).state, JOB_RUNNING);
    for (int i = 0; i < 70; i++) {
        sim_advance(s, 1000);
        sim_beat(s, w, NULL, 0);
    }
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_non_null(strstr(sim_job_row(s, job).reason, "its 60 seconds were over after 3 of 3 trials"));
}

static void pause_resume_and_cancel_do_what_they_say(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(10, 3);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    assert_int_equal(sim_act(s, job, "pause").rc, 0);
    assert_int_equal(sim_job_row(s, job).state, JOB_PAUSED);
    sim_want(s, w, 2);
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(sim_scored(s, w, sim_last(s), 0.5).outcome, ACK_RECORDED); /* what runs may end */
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(sim_act(s, job, "resume").rc, 0);
    assert_int_equal(s->n_sent, 3);
    struct lease_ref held = sim_last(s);
    assert_int_equal(sim_act(s, job, "cancel").rc, 0);
    assert_int_equal(sim_job_row(s, job).state, JOB_CANCELLED);
    assert_int_equal(sim_beat(s, w, &held, 1), 1);
    assert_int_equal(sim_scored(s, w, held, 0.9).outcome, ACK_STALE);
    assert_int_equal(sim_trial(s, job, held.trial)->state, TRIAL_CANCELLED);
    struct answer a = sim_act(s, job, "resume");
    assert_int_equal(a.rc, -ERR_STATE);
    assert_non_null(strstr(a.text, "cancelled"));
    assert_int_equal(sim_act(s, job, "explode").rc, -ERR_INPUT);
    assert_int_equal(sim_act(s, 99, "pause").rc, -ERR_NOTFOUND);
}

static void a_job_ends_when_its_time_is_over(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(100, 3);
    spec.seconds = 5;
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 2);
    struct lease_ref a = sim_ref_of(&s->sent[0].t), b = sim_ref_of(&s->sent[1].t), both[2] = { a, b };
    for (int i = 0; i < 26; i++) {
        sim_advance(s, BEAT_MS);
        sim_beat(s, w, both, 2);
    }
    assert_int_equal(sim_job_row(s, job).state, JOB_STOPPING);
    assert_int_equal(sim_scored(s, w, a, 0.5).outcome, ACK_RECORDED);
    sim_want(s, w, 2);
    assert_int_equal(s->n_sent, 2);
    assert_int_equal(sim_scored(s, w, b, 0.5).outcome, ACK_RECORDED);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_non_null(strstr(sim_job_row(s, job).reason, "2 of 100"));
}

static void run_all(struct sim *s, struct worker *w, bool (*bad)(uint64_t))
{
    for (int i = 0; i < s->n_sent; i++) {
        if (bad(s->sent[i].t.trial))
            sim_failed(s, w, sim_ref_of(&s->sent[i].t), FAIL_NAN);
        else
            sim_scored(s, w, sim_ref_of(&s->sent[i].t), 0.5);
        sim_want(s, w, 1);
    }
}

static bool always(uint64_t i) { return i < UINT64_MAX; }
static bool odd(uint64_t i)    { return i % 2; }

static void a_job_of_failures_is_failed_and_says_why(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(6, 2);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    run_all(s, w, always);
    assert_int_equal(sim_job_row(s, job).state, JOB_FAILED);
    assert_non_null(strstr(sim_job_row(s, job).reason, "6 of 6 failed with nan"));
    assert_int_equal(sim_job_row(s, job).n.reason[FAIL_NAN], 6);
}

static void a_job_with_some_failures_succeeds_unless_there_are_too_many(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(6, 2);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    run_all(s, w, odd);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(sim_job_row(s, job).n.failed, 3);
    s->n_sent = 0;
    spec.max_failed = 2;
    job = sim_submit(s, &spec);
    sim_want(s, w, 1);
    run_all(s, w, odd);
    assert_int_equal(sim_job_row(s, job).state, JOB_FAILED);
    assert_non_null(strstr(sim_job_row(s, job).reason, "max_failed is 2"));
}

static void impossible_constraints_fail_the_job(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(6, 2);
    spec.constraints.max_params = 1;
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    assert_int_equal(s->n_sent, 0);
    assert_int_equal(sim_job_row(s, job).state, JOB_FAILED);
    assert_non_null(strstr(sim_job_row(s, job).reason, "constraints leave nothing"));
}

static int finished_line(char *out, size_t size, const struct trial_row *t)
{
    return snprintf(out, size, "%llu %s %lld %llu %d %.17g\n", (unsigned long long)t->idx, t->arch, (long long)t->parent,
                    (unsigned long long)t->seed, t->state, t->r.score);
}

/* Random order of completion, random silence, random restarts of the coordinator: the history of one undisturbed worker. */
static char *history(struct sim *s, int n_workers, uint64_t chaos)
{
    struct job_spec spec = sim_search_spec(60, 5);
    sim_restart(s); /* without the workers of an earlier history */
    uint64_t job = sim_submit(s, &spec);
    struct rng r;
    rng_init(&r, chaos, RNG_TEST, 0);
    struct worker *w[4];
    struct lease_ref held[4] = { 0 };
    bool busy[4] = { false };
    int first = s->n_sent;
    for (int i = 0; i < n_workers; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%d", i);
        w[i] = sim_hello(s, id, (uint64_t)i + 50, NULL, 0, NULL);
    }
    while (sched_job(s->sched, job)) {
        if (chaos && rng_below(&r, 25) == 0) {
            sim_restart(s);
            for (int i = 0; i < n_workers; i++) {
                char id[16];
                snprintf(id, sizeof id, "c%d", i);
                w[i] = sim_hello(s, id, (uint64_t)i + 50, &held[i], busy[i], NULL);
            }
        }
        int k = (int)rng_below(&r, (uint32_t)n_workers);
        int before = s->n_sent;
        if (!busy[k]) {
            sim_want(s, w[k], 1);
        } else if (chaos && rng_below(&r, 20) == 0) {
            sched_hand_back(s->sched, w[k], held[k], false);
            store_flush(s->store);
            busy[k] = false;
        } else {
            const char *arch = NULL;
            for (int i = s->n_sent - 1; i >= first && !arch; i--)
                if (memcmp(&held[k], &(struct lease_ref){ s->sent[i].t.job, s->sent[i].t.trial, s->sent[i].t.attempt }, 16) == 0)
                    arch = s->sent[i].t.score.arch;
            busy[k] = false;
            assert_int_equal(sim_scored(s, w[k], held[k], sim_score_of(arch)).outcome, ACK_RECORDED);
        }
        for (int i = before; i < s->n_sent; i++)
            for (int j = 0; j < n_workers; j++)
                if (strcmp(s->sent[i].worker, w[j]->id) == 0) {
                    held[j] = (struct lease_ref){ 0 };
                    held[j] = sim_ref_of(&s->sent[i].t);
                    busy[j] = true;
                }
        for (int i = 0; i < n_workers; i++)
            sim_beat(s, w[i], &held[i], busy[i]);
        sim_advance(s, 1);
    }
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    char *text;
    assert_int_equal(sim_rows(s, job, SORT_INDEX, finished_line, &text), 60);
    return text;
}

static void the_history_does_not_depend_on_workers_or_crashes(void **state)
{
    struct sim *s = *state;
    char *one = history(s, 1, 0);
    for (uint64_t chaos = 1; chaos < 5; chaos++) {
        char *many = history(s, 1 + (int)(chaos % 4), chaos);
        assert_string_equal(one, many);
        free(many);
    }
    free(one);
}

static void nonsense_results_are_refused(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(6, 2);
    uint64_t job = sim_submit(s, &spec);
    struct worker *w = sim_hello(s, "a", 1, NULL, 0, NULL);
    sim_want(s, w, 1);
    assert_int_equal(sim_report(s, w, sim_last(s), (struct trial_result){ .state = TRIAL_RUNNING }).rc, -ERR_INPUT);
    assert_int_equal(sim_report(s, w, sim_last(s), (struct trial_result){ .state = TRIAL_FAILED }).rc, -ERR_INPUT);
    assert_int_equal(sim_report(s, w, sim_last(s), (struct trial_result){ .state = TRIAL_SCORED, .score = NAN }).rc, -ERR_INPUT);
    assert_int_equal(sim_scored(s, w, (struct lease_ref){ job, 77, 1 }, 0.5).outcome, ACK_STALE);
    assert_int_equal(sim_scored(s, w, (struct lease_ref){ 77, 0, 1 }, 0.5).outcome, ACK_STALE);
    assert_int_equal(sim_scored(s, w, sim_last(s), 0.5).outcome, ACK_RECORDED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, sim_setup, sim_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_expired_lease_is_given_again_with_a_higher_attempt), T(heartbeats_keep_a_lease),
        T(time_in_which_the_coordinator_slept_counts_against_nobody), T(silence_ends_a_session_but_not_its_leases),
        T(a_trial_that_kills_three_workers_is_recorded_as_failed), T(a_lease_handed_back_is_no_death),
        T(a_lease_that_broke_devices_ends_as_failed),
        T(a_restart_loses_no_lease_that_is_still_worked_on), T(a_worker_restarted_without_its_lease_died_with_it),
        T(a_lease_lost_on_its_way_is_sent_again_as_the_same_attempt), T(no_more_leases_than_wanted_nor_than_parallel),
        T(higher_priority_goes_first_and_equals_take_turns), T(what_cannot_be_saved_is_not_acknowledged),
        T(a_lease_does_not_expire_while_that_cannot_be_saved), T(an_audit_adds_trainings_that_are_no_candidates),
        T(a_job_whose_time_is_over_does_not_wait_for_trainings_that_nobody_began),
        T(pause_resume_and_cancel_do_what_they_say), T(a_job_ends_when_its_time_is_over), T(a_job_of_failures_is_failed_and_says_why),
        T(a_job_with_some_failures_succeeds_unless_there_are_too_many), T(impossible_constraints_fail_the_job),
        T(the_history_does_not_depend_on_workers_or_crashes), T(nonsense_results_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
