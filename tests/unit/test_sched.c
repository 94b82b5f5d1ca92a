/* The scheduler with a virtual clock, a real store in a folder of its own, and workers that are structs. */
#include "coordinator/sched.h"
#include "tests/support/tmp.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LEASE_MS 1000
#define BEAT_MS  200
#define MAX_SENT 4096

struct sent { char worker[64]; struct task t; };

struct sim {
    struct tmp    *tmp;
    struct store  *store;
    struct reader *reader;
    struct sched  *sched;
    int64_t        now;
    int            fault;
    struct sent   *sent;   /* every lease that left */
    int            n_sent;
};

static int64_t on_now(void *arg) { return ((struct sim *)arg)->now; }
static int on_fault(void *arg)   { return ((struct sim *)arg)->fault; }

static void on_send(void *arg, struct worker *w, const struct task *t)
{
    struct sim *s = arg;
    assert_true(s->n_sent < MAX_SENT);
    snprintf(s->sent[s->n_sent].worker, 64, "%s", w->id);
    s->sent[s->n_sent++].t = *t;
}

static int on_shape(void *arg, const char *hash, struct image_shape *out, struct errbuf *e)
{
    (void)arg;
    (void)e;
    (void)hash;
    *out = (struct image_shape){ 1, 12, 12, 4 };
    return 0;
}

static int on_job_data(void *arg, const struct job_spec *spec, struct job_data *out, struct errbuf *e)
{
    (void)spec;
    (void)e;
    *out = (struct job_data){ .T = 8, .B = 64, .inner = inner_default(), .n_train = 900, .n_valid = 100 };
    return on_shape(arg, "", &out->img, NULL);
}

static void start(struct sim *s)
{
    struct errbuf e = { 0 };
    struct store_cfg sc = { .fault = on_fault, .fault_arg = s };
    const char *path = tmp_path(s->tmp, "didact.db");
    assert_int_equal(store_open(&s->store, path, &sc, &e), 0);
    assert_int_equal(reader_open(&s->reader, path, &e), 0);
    struct sched_cfg cfg = { .store = s->store, .reader = s->reader, .heartbeat_ms = BEAT_MS, .lease_ms = LEASE_MS, .now_ms = on_now,
                             .send_lease = on_send, .image_shape = on_shape, .job_data = on_job_data, .arg = s };
    assert_int_equal(sched_open(&s->sched, &cfg, &e), 0);
}

static void end(struct sim *s)
{
    store_flush(s->store);
    sched_close(s->sched);
    reader_close(s->reader);
    store_close(s->store);
}

static void restart(struct sim *s)
{
    end(s);
    start(s);
}

static int setup(void **state)
{
    void *tmp;
    struct sim *s = calloc(1, sizeof *s);
    tmp_setup(&tmp);
    s->tmp = tmp;
    s->now = 1000000;
    s->sent = calloc(MAX_SENT, sizeof *s->sent);
    start(s);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct sim *s = *state;
    void *tmp = s->tmp;
    end(s);
    free(s->sent);
    free(s);
    return tmp_teardown(&tmp);
}

/* ---- people ---- */
struct answer { int rc; uint64_t job; char text[300]; };

static void on_done(void *arg, int rc, uint64_t job, const struct errbuf *e)
{
    struct answer *a = arg;
    *a = (struct answer){ .rc = rc, .job = job };
    if (rc < 0)
        snprintf(a->text, sizeof a->text, "%.250s", err_message(e, rc));
}

static struct job_spec search_spec(int trials, int window)
{
    struct job_spec s;
    job_defaults(&s, JOB_SEARCH);
    s.seed = 9;
    s.trials = trials;
    s.window = window;
    s.max_failed = 0;
    s.parallel = 0;
    s.constraints = (struct constraints){ 0 };
    s.searcher.population = 6;
    s.searcher.sample = 3;
    s.trial_timeout_s = 60;
    s.fidelity.inits = 1;
    snprintf(s.searcher.name, sizeof s.searcher.name, "evolution");
    snprintf(s.space, sizeof s.space, "chain");
    snprintf(s.name, sizeof s.name, "small");
    snprintf(s.dataset, sizeof s.dataset, "d");
    snprintf(s.curriculum, sizeof s.curriculum, "c");
    memset(s.dataset_hash, 'a', HASH_HEX_LEN);
    memset(s.curriculum_hash, 'b', HASH_HEX_LEN);
    return s;
}

static uint64_t submit(struct sim *s, const struct job_spec *spec)
{
    struct answer a = { 1, 0, "" };
    sched_submit(s->sched, spec, NULL, 0, on_done, &a);
    assert_int_equal(a.rc, 1); /* not before the commit */
    store_flush(s->store);
    assert_int_equal(a.rc, 0);
    return a.job;
}

static struct answer act(struct sim *s, uint64_t job, const char *action)
{
    struct answer a = { 1, 0, "" };
    sched_action(s->sched, job, action, on_done, &a);
    store_flush(s->store);
    assert_int_not_equal(a.rc, 1);
    return a;
}

static struct job_row job_row(struct sim *s, uint64_t job)
{
    struct job_row r;
    assert_int_equal(reader_job(s->reader, job, &r), 1);
    job_row_fini(&r);
    return r;
}

static struct trial_row *trial(struct sim *s, uint64_t job, uint64_t idx)
{
    static struct trial_row t;
    assert_int_equal(reader_trial(s->reader, job, idx, &t), 1);
    return &t;
}

/* ---- workers ---- */
static struct worker *hello(struct sim *s, const char *id, uint64_t pid, struct lease_ref *holding, int n, int *n_drop)
{
    static int peer;
    struct wire_msg m = { .kind = WIRE_WORKER_HELLO, .hello = { .slots = 4, .pid = pid, .n_holding = n, .holding = holding } };
    struct lease_ref drop[16];
    int dropped = 0;
    snprintf(m.hello.worker_id, sizeof m.hello.worker_id, "%s", id);
    struct worker *w = sched_hello(s->sched, &m, drop, &dropped);
    assert_non_null(w);
    w->peer = &peer;
    store_flush(s->store);
    if (n_drop)
        *n_drop = dropped;
    return w;
}

static void want(struct sim *s, struct worker *w, uint32_t n)
{
    sched_want(s->sched, w, n);
    store_flush(s->store);
}

static int beat(struct sim *s, struct worker *w, struct lease_ref *holding, int n)
{
    struct wire_msg m = { .kind = WIRE_HEARTBEAT, .heartbeat = { .n_holding = n, .holding = holding } };
    struct lease_ref drop[16];
    int n_drop = 0;
    sched_heartbeat(s->sched, w, &m, drop, &n_drop);
    store_flush(s->store);
    return n_drop;
}

static struct lease_ref ref_of(const struct task *t) { return (struct lease_ref){ t->job, t->trial, t->attempt }; }
static struct lease_ref last(struct sim *s)
{
    assert_true(s->n_sent > 0);
    return ref_of(&s->sent[s->n_sent - 1].t);
}

struct ack { int rc; enum ack_outcome outcome; };
static void on_acked(void *arg, struct lease_ref ref, int rc, enum ack_outcome outcome, const struct errbuf *e)
{
    (void)ref;
    (void)e;
    *(struct ack *)arg = (struct ack){ rc, outcome };
}

static double score_of(const char *arch)
{
    char hex[ARCH_HASH_LEN + 1];
    arch_hash("chain", arch, hex);
    hex[6] = 0;
    return (double)strtoul(hex, NULL, 16) / 0x1000000;
}

static struct ack report(struct sim *s, struct worker *w, struct lease_ref ref, struct trial_result r)
{
    struct ack a = { 1, 0 };
    sched_result(s->sched, w, ref, &r, on_acked, &a);
    store_flush(s->store);
    assert_int_not_equal(a.rc, 1);
    return a;
}

static struct ack scored(struct sim *s, struct worker *w, struct lease_ref ref, double score)
{
    return report(s, w, ref, (struct trial_result){ .state = TRIAL_SCORED, .score = score, .lr_scale = 1, .params = 10, .macs = 10, .seconds = 1 });
}

static struct ack failed(struct sim *s, struct worker *w, struct lease_ref ref, enum fail_reason why)
{
    return report(s, w, ref, (struct trial_result){ .state = TRIAL_FAILED, .reason = why, .seconds = 1 });
}

static void advance(struct sim *s, int64_t ms)
{
    s->now += ms;
    sched_tick(s->sched);
    store_flush(s->store);
}

/* ---- tests ---- */
static void an_expired_lease_is_given_again_with_a_higher_attempt(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(3, 1);
    uint64_t job = submit(s, &spec);
    struct worker *a = hello(s, "a", 1, NULL, 0, NULL), *b = hello(s, "b", 2, NULL, 0, NULL);
    want(s, a, 1);
    struct lease_ref old = last(s);
    assert_int_equal(old.attempt, 1);
    want(s, b, 1);
    assert_int_equal(s->n_sent, 1); /* the window of 1 is taken */
    for (int i = 0; i < LEASE_MS / BEAT_MS; i++) { /* b is heard of, a is not */
        advance(s, BEAT_MS - (i == 0));
        beat(s, b, NULL, 0);
    }
    assert_int_equal(s->n_sent, 1);
    advance(s, 1);
    assert_int_equal(s->n_sent, 2);
    assert_string_equal(s->sent[1].worker, "b");
    struct lease_ref new = last(s);
    assert_true(new.trial == old.trial && new.attempt == 2);
    assert_int_equal(scored(s, a, old, 0.9).outcome, ACK_STALE);
    assert_int_equal(trial(s, job, 0)->state, TRIAL_RUNNING);
    assert_int_equal(trial(s, job, 0)->deaths, 1);
    assert_int_equal(scored(s, b, new, 0.4).outcome, ACK_RECORDED);
    assert_int_equal(scored(s, b, new, 0.5).outcome, ACK_DUPLICATE);
    assert_int_equal(scored(s, a, old, 0.9).outcome, ACK_STALE);
    assert_true(trial(s, job, 0)->r.score == 0.4);
}

static void heartbeats_keep_a_lease(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(3, 1);
    submit(s, &spec);
    struct worker *a = hello(s, "a", 1, NULL, 0, NULL);
    want(s, a, 1);
    struct lease_ref ref = last(s);
    for (int i = 0; i < 20; i++) {
        advance(s, BEAT_MS);
        assert_int_equal(beat(s, a, &ref, 1), 0);
    }
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(scored(s, a, ref, 0.4).outcome, ACK_RECORDED);
    assert_int_equal(beat(s, a, &ref, 1), 1); /* it is over: drop it */
}

static void time_in_which_the_coordinator_slept_counts_against_nobody(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(3, 1);
    uint64_t job = submit(s, &spec);
    struct worker *a = hello(s, "a", 1, NULL, 0, NULL);
    want(s, a, 1);
    struct lease_ref ref = last(s);
    for (int i = 0; i < 4; i++) { /* more sleeps than a trial may cost workers */
        s->now += 10 * LEASE_MS;
        sched_slept(s->sched, 10 * LEASE_MS);
        advance(s, 1);
        assert_true(a->online);
        assert_int_equal(trial(s, job, 0)->state, TRIAL_RUNNING);
        assert_int_equal(beat(s, a, &ref, 1), 0);
    }
    s->now -= 100 * LEASE_MS; /* set back: leases must not last a hundred times longer */
    sched_slept(s->sched, -100 * LEASE_MS);
    advance(s, LEASE_MS + 1);
    assert_int_equal(trial(s, job, 0)->state, TRIAL_WAITING);
}

static void silence_ends_a_session_but_not_its_leases(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(3, 1);
    submit(s, &spec);
    struct worker *a = hello(s, "a", 1, NULL, 0, NULL);
    want(s, a, 1);
    struct lease_ref ref = last(s);
    advance(s, MISSED_BEATS * BEAT_MS + 1);
    assert_false(a->online);
    int n_drop = -1;
    assert_ptr_equal(hello(s, "a", 1, &ref, 1, &n_drop), a);
    assert_int_equal(n_drop, 0);
    assert_int_equal(scored(s, a, ref, 0.4).outcome, ACK_RECORDED);
}

static void a_trial_that_kills_three_workers_is_recorded_as_failed(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(2, 1);
    uint64_t job = submit(s, &spec);
    for (int i = 0; i < LEASE_MAX_DEATHS; i++) {
        char id[16];
        snprintf(id, sizeof id, "w%d", i);
        struct worker *w = hello(s, id, (uint64_t)i + 1, NULL, 0, NULL);
        want(s, w, 1);
        assert_true(last(s).trial == 0 && last(s).attempt == (uint32_t)i + 1);
        advance(s, LEASE_MS + 1);
    }
    assert_int_equal(trial(s, job, 0)->state, TRIAL_FAILED);
    assert_int_equal(trial(s, job, 0)->r.reason, FAIL_CRASH);
    assert_int_equal(trial(s, job, 0)->deaths, 3);
    struct worker *w = hello(s, "w9", 99, NULL, 0, NULL); /* the job goes on */
    want(s, w, 1);
    assert_int_equal(last(s).trial, 1);
}

static void a_lease_handed_back_is_no_death(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(2, 1);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    for (uint32_t i = 1; i < 6; i++) {
        want(s, w, 1);
        assert_int_equal(last(s).attempt, i);
        sched_hand_back(s->sched, w, last(s));
        store_flush(s->store);
    }
    assert_int_equal(trial(s, job, 0)->state, TRIAL_WAITING);
    assert_int_equal(trial(s, job, 0)->deaths, 0);
}

static void a_restart_loses_no_lease_that_is_still_worked_on(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(20, 4);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 7, NULL, 0, NULL);
    struct lease_ref held[4] = { 0 };
    want(s, w, 3);
    assert_int_equal(s->n_sent, 3);
    for (int i = 0; i < 3; i++)
        held[i] = ref_of(&s->sent[i].t);
    held[3] = (struct lease_ref){ job, 0, 5 }; /* an attempt that never was */
    restart(s);
    assert_int_equal(sched_job(s->sched, job)->n_running, 3);
    advance(s, LEASE_MS / 2);
    int n_drop = -1;
    w = hello(s, "a", 7, held, 4, &n_drop);
    assert_int_equal(n_drop, 1);
    assert_int_equal(w->n_leases, 3);
    for (int i = 0; i < 2 * LEASE_MS / BEAT_MS; i++) {
        advance(s, BEAT_MS);
        assert_int_equal(beat(s, w, held, 3), 0);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(scored(s, w, held[i], 0.5).outcome, ACK_RECORDED);
    for (int i = 0; i < 3; i++)
        assert_true(trial(s, job, (uint64_t)i)->attempt == 1 && trial(s, job, (uint64_t)i)->deaths == 0);
    want(s, w, 1);
    assert_int_equal(last(s).trial, 3);
}

static void a_worker_restarted_without_its_lease_died_with_it(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(5, 1);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 7, NULL, 0, NULL);
    want(s, w, 1);
    w = hello(s, "a", 8, NULL, 0, NULL); /* no waiting for the deadline */
    assert_int_equal(trial(s, job, 0)->state, TRIAL_WAITING);
    assert_int_equal(trial(s, job, 0)->deaths, 1);
    want(s, w, 1);
    assert_true(last(s).trial == 0 && last(s).attempt == 2);
}

static void a_lease_lost_on_its_way_is_sent_again_as_the_same_attempt(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(5, 1);
    submit(s, &spec);
    struct worker *w = hello(s, "a", 7, NULL, 0, NULL);
    want(s, w, 1);
    w = hello(s, "a", 7, NULL, 0, NULL);
    assert_int_equal(s->n_sent, 1);
    want(s, w, 1);
    assert_int_equal(s->n_sent, 2);
    assert_true(last(s).trial == 0 && last(s).attempt == 1);
    assert_int_equal(scored(s, w, last(s), 0.5).outcome, ACK_RECORDED);
}

static void no_more_leases_than_wanted_nor_than_parallel(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(50, 20);
    spec.parallel = 5;
    submit(s, &spec);
    struct worker *a = hello(s, "a", 1, NULL, 0, NULL), *b = hello(s, "b", 2, NULL, 0, NULL);
    want(s, a, 2);
    assert_int_equal(s->n_sent, 2);
    want(s, b, 9);
    assert_int_equal(s->n_sent, 5);
    assert_int_equal(scored(s, a, ref_of(&s->sent[0].t), 0.1).rc, 0);
    assert_int_equal(s->n_sent, 6);
    want(s, b, 0);
    assert_int_equal(scored(s, a, ref_of(&s->sent[1].t), 0.1).rc, 0);
    assert_int_equal(s->n_sent, 6);
}

static void higher_priority_goes_first_and_equals_take_turns(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(50, 20);
    uint64_t a = submit(s, &spec), b = submit(s, &spec);
    spec.priority = 5;
    spec.trials = 2;
    uint64_t high = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 6);
    uint64_t n[8] = { 0 };
    assert_true(s->sent[0].t.job == high && s->sent[1].t.job == high);
    for (int i = 2; i < 6; i++)
        n[s->sent[i].t.job]++;
    assert_true(n[a] == 2 && n[b] == 2);
}

static void what_cannot_be_saved_is_not_acknowledged(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(4, 2);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    struct lease_ref ref = last(s);
    s->fault = ERR_IO; /* the disk is full */
    assert_int_equal(scored(s, w, ref, 0.5).rc, -ERR_IO);
    want(s, w, 1);
    assert_int_equal(s->n_sent, 1);
    struct answer a = { 1, 0, "" };
    sched_submit(s->sched, &spec, NULL, 0, on_done, &a);
    store_flush(s->store);
    assert_int_equal(a.rc, -ERR_IO);
    for (int i = 0; i < 20; i++) {
        s->fault = i < 10 ? ERR_IO : 0;
        advance(s, BEAT_MS);
        assert_int_equal(beat(s, w, &ref, 1), 0); /* the lease is kept */
    }
    assert_false(s->sched->store_down); /* the probe has noticed */
    assert_int_equal(s->n_sent, 2);     /* and what was wanted goes out */
    assert_int_equal(trial(s, job, 0)->attempt, 1);
    assert_int_equal(scored(s, w, ref, 0.5).outcome, ACK_RECORDED);
    assert_int_equal(reader_last_job(s->reader), job);
}

static void a_lease_does_not_expire_while_that_cannot_be_saved(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(4, 1);
    uint64_t job = submit(s, &spec);
    struct worker *a = hello(s, "a", 1, NULL, 0, NULL);
    want(s, a, 1);
    struct lease_ref ref = last(s);
    s->fault = ERR_IO;
    advance(s, LEASE_MS + 1);
    advance(s, 1001);
    assert_int_equal(trial(s, job, 0)->state, TRIAL_RUNNING);
    s->fault = 0;
    for (int i = 0; i < 4; i++)
        advance(s, 1001);
    assert_int_equal(trial(s, job, 0)->state, TRIAL_WAITING);
    assert_int_equal(trial(s, job, 0)->deaths, 1); /* once, however often it was tried */
    assert_int_equal(scored(s, a, ref, 0.5).outcome, ACK_STALE);
}

/* Every second candidate is trained for real: before anything new is proposed, beside the candidates' own counts, and over a restart. */
static void an_audit_adds_trainings_that_are_no_candidates(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(6, 1);
    spec.audit.share = 0.1;
    spec.audit.min = 3;
    spec.audit.every = 2;
    spec.audit.batch = 8;
    spec.audit.timeout_s = 77;
    uint64_t job = submit(s, &spec), trained = 0, first = 0;
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    for (int scored_n = 0; job_row(s, job).state != JOB_SUCCEEDED && scored_n < 30; scored_n++) {
        struct task t = s->sent[s->n_sent - 1].t;
        bool audit = t.trial >= TRIAL_AUDIT;
        assert_int_equal(t.kind, audit ? TASK_TRAIN : TASK_SCORE);
        if (audit) {
            assert_true(t.train.no_test && !t.train.keep_weights && t.timeout_s == 77 && t.train.batch == 8);
            assert_string_equal(t.train.arch, trial(s, job, t.trial - TRIAL_AUDIT)->arch);
            first = trained++ ? first : t.trial;
            if (trained == 2) { /* the training under way is kept */
                struct lease_ref ref = ref_of(&t);
                restart(s);
                int n_drop = -1;
                w = hello(s, "a", 1, &ref, 1, &n_drop);
                assert_int_equal(n_drop, 0);
                assert_int_equal(sched_job(s->sched, job)->n_running, 1);
            }
        }
        assert_int_equal(scored(s, w, ref_of(&t), audit ? 0.99 : 0.2 + 0.01 * (double)t.trial).outcome, ACK_RECORDED);
        if (job_row(s, job).state != JOB_SUCCEEDED)
            want(s, w, 1);
    }
    struct job_row row = job_row(s, job);
    assert_int_equal(row.state, JOB_SUCCEEDED);
    assert_true(trained == 3 && row.n.scored == 6 && row.best_trial == 5); /* 0.99 was no candidate's score */
    assert_true(trial(s, job, first)->group == GROUP_AUDIT && trial(s, job, first)->parent == (int64_t)(first - TRIAL_AUDIT));
    assert_true(trial(s, job, first)->proxy == trial(s, job, first - TRIAL_AUDIT)->r.score);
}

static void a_job_whose_time_is_over_does_not_wait_for_trainings_that_nobody_began(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(3, 1);
    spec.audit.share = 0.1;
    spec.audit.min = 3;
    spec.audit.every = 1;
    spec.seconds = 60;
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    for (int i = 0; i < 5; i++) { /* three candidates, two trainings: the third waits */
        want(s, w, 1);
        assert_int_equal(scored(s, w, last(s), 0.5).outcome, ACK_RECORDED);
    }
    assert_true(last(s).trial == 2);
    assert_int_equal(job_row(s, job).state, JOB_RUNNING);
    for (int i = 0; i < 70; i++) {
        advance(s, 1000);
        beat(s, w, NULL, 0);
    }
    assert_int_equal(job_row(s, job).state, JOB_SUCCEEDED);
    assert_non_null(strstr(job_row(s, job).reason, "its 60 seconds were over after 3 of 3 trials"));
}

static void pause_resume_and_cancel_do_what_they_say(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(10, 3);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    assert_int_equal(act(s, job, "pause").rc, 0);
    assert_int_equal(job_row(s, job).state, JOB_PAUSED);
    want(s, w, 2);
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(scored(s, w, last(s), 0.5).outcome, ACK_RECORDED); /* what runs may end */
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(act(s, job, "resume").rc, 0);
    assert_int_equal(s->n_sent, 3);
    struct lease_ref held = last(s);
    assert_int_equal(act(s, job, "cancel").rc, 0);
    assert_int_equal(job_row(s, job).state, JOB_CANCELLED);
    assert_int_equal(beat(s, w, &held, 1), 1);
    assert_int_equal(scored(s, w, held, 0.9).outcome, ACK_STALE);
    assert_int_equal(trial(s, job, held.trial)->state, TRIAL_CANCELLED);
    struct answer a = act(s, job, "resume");
    assert_int_equal(a.rc, -ERR_STATE);
    assert_non_null(strstr(a.text, "cancelled"));
    assert_int_equal(act(s, job, "explode").rc, -ERR_INPUT);
    assert_int_equal(act(s, 99, "pause").rc, -ERR_NOTFOUND);
}

static void a_job_ends_when_its_time_is_over(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(100, 3);
    spec.seconds = 5;
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 2);
    struct lease_ref a = ref_of(&s->sent[0].t), b = ref_of(&s->sent[1].t), both[2] = { a, b };
    for (int i = 0; i < 26; i++) {
        advance(s, BEAT_MS);
        beat(s, w, both, 2);
    }
    assert_int_equal(job_row(s, job).state, JOB_STOPPING);
    assert_int_equal(scored(s, w, a, 0.5).outcome, ACK_RECORDED);
    want(s, w, 2);
    assert_int_equal(s->n_sent, 2);
    assert_int_equal(scored(s, w, b, 0.5).outcome, ACK_RECORDED);
    assert_int_equal(job_row(s, job).state, JOB_SUCCEEDED);
    assert_non_null(strstr(job_row(s, job).reason, "2 of 100"));
}

static void run_all(struct sim *s, struct worker *w, bool (*bad)(uint64_t))
{
    for (int i = 0; i < s->n_sent; i++) {
        if (bad(s->sent[i].t.trial))
            failed(s, w, ref_of(&s->sent[i].t), FAIL_NAN);
        else
            scored(s, w, ref_of(&s->sent[i].t), 0.5);
        want(s, w, 1);
    }
}

static bool always(uint64_t i) { return i < UINT64_MAX; }
static bool odd(uint64_t i)    { return i % 2; }

static void a_job_of_failures_is_failed_and_says_why(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(6, 2);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    run_all(s, w, always);
    assert_int_equal(job_row(s, job).state, JOB_FAILED);
    assert_non_null(strstr(job_row(s, job).reason, "6 of 6 failed with nan"));
    assert_int_equal(job_row(s, job).n.reason[FAIL_NAN], 6);
}

static void a_job_with_some_failures_succeeds_unless_there_are_too_many(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(6, 2);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    run_all(s, w, odd);
    assert_int_equal(job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(job_row(s, job).n.failed, 3);
    s->n_sent = 0;
    spec.max_failed = 2;
    job = submit(s, &spec);
    want(s, w, 1);
    run_all(s, w, odd);
    assert_int_equal(job_row(s, job).state, JOB_FAILED);
    assert_non_null(strstr(job_row(s, job).reason, "max_failed is 2"));
}

static void impossible_constraints_fail_the_job(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(6, 2);
    spec.constraints.max_params = 1;
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    assert_int_equal(s->n_sent, 0);
    assert_int_equal(job_row(s, job).state, JOB_FAILED);
    assert_non_null(strstr(job_row(s, job).reason, "constraints leave nothing"));
}

struct text { char *p; size_t n; };
static bool on_row(void *arg, const struct trial_row *t)
{
    struct text *x = arg;
    char line[ARCH_TEXT_MAX + 200];
    int n = snprintf(line, sizeof line, "%llu %s %lld %llu %d %.17g\n", (unsigned long long)t->idx, t->arch, (long long)t->parent,
                     (unsigned long long)t->seed, t->state, t->r.score);
    x->p = realloc(x->p, x->n + (size_t)n + 1);
    memcpy(x->p + x->n, line, (size_t)n + 1);
    x->n += (size_t)n;
    return true;
}

/* Random order of completion, random silence, random restarts of the coordinator: the history of one undisturbed worker. */
static char *history(struct sim *s, int n_workers, uint64_t chaos)
{
    struct job_spec spec = search_spec(60, 5);
    restart(s); /* without the workers of an earlier history */
    uint64_t job = submit(s, &spec);
    struct rng r;
    rng_init(&r, chaos, RNG_TEST, 0);
    struct worker *w[4];
    struct lease_ref held[4] = { 0 };
    bool busy[4] = { false };
    int first = s->n_sent;
    for (int i = 0; i < n_workers; i++) {
        char id[16];
        snprintf(id, sizeof id, "c%d", i);
        w[i] = hello(s, id, (uint64_t)i + 50, NULL, 0, NULL);
    }
    while (sched_job(s->sched, job)) {
        if (chaos && rng_below(&r, 25) == 0) {
            restart(s);
            for (int i = 0; i < n_workers; i++) {
                char id[16];
                snprintf(id, sizeof id, "c%d", i);
                w[i] = hello(s, id, (uint64_t)i + 50, &held[i], busy[i], NULL);
            }
        }
        int k = (int)rng_below(&r, (uint32_t)n_workers);
        int before = s->n_sent;
        if (!busy[k]) {
            want(s, w[k], 1);
        } else if (chaos && rng_below(&r, 20) == 0) {
            sched_hand_back(s->sched, w[k], held[k]);
            store_flush(s->store);
            busy[k] = false;
        } else {
            const char *arch = NULL;
            for (int i = s->n_sent - 1; i >= first && !arch; i--)
                if (memcmp(&held[k], &(struct lease_ref){ s->sent[i].t.job, s->sent[i].t.trial, s->sent[i].t.attempt }, 16) == 0)
                    arch = s->sent[i].t.score.arch;
            busy[k] = false;
            assert_int_equal(scored(s, w[k], held[k], score_of(arch)).outcome, ACK_RECORDED);
        }
        for (int i = before; i < s->n_sent; i++)
            for (int j = 0; j < n_workers; j++)
                if (strcmp(s->sent[i].worker, w[j]->id) == 0) {
                    held[j] = (struct lease_ref){ 0 };
                    held[j] = ref_of(&s->sent[i].t);
                    busy[j] = true;
                }
        for (int i = 0; i < n_workers; i++)
            beat(s, w[i], &held[i], busy[i]);
        advance(s, 1);
    }
    assert_int_equal(job_row(s, job).state, JOB_SUCCEEDED);
    struct text x = { NULL, 0 };
    assert_int_equal(reader_trials(s->reader, job, -1, SORT_INDEX, 0, 0, on_row, &x), 60);
    return x.p;
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
    struct job_spec spec = search_spec(6, 2);
    uint64_t job = submit(s, &spec);
    struct worker *w = hello(s, "a", 1, NULL, 0, NULL);
    want(s, w, 1);
    assert_int_equal(report(s, w, last(s), (struct trial_result){ .state = TRIAL_RUNNING }).rc, -ERR_INPUT);
    assert_int_equal(report(s, w, last(s), (struct trial_result){ .state = TRIAL_FAILED }).rc, -ERR_INPUT);
    assert_int_equal(report(s, w, last(s), (struct trial_result){ .state = TRIAL_SCORED, .score = NAN }).rc, -ERR_INPUT);
    assert_int_equal(scored(s, w, (struct lease_ref){ job, 77, 1 }, 0.5).outcome, ACK_STALE);
    assert_int_equal(scored(s, w, (struct lease_ref){ 77, 0, 1 }, 0.5).outcome, ACK_STALE);
    assert_int_equal(scored(s, w, last(s), 0.5).outcome, ACK_RECORDED);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
/* ---- memory ---- */

static uint64_t need_of(const struct sim *s, const struct job_spec *spec, const char *arch)
{
    struct job_data data;
    struct demand d;
    on_job_data((void *)(uintptr_t)s, spec, &data, NULL);
    assert_int_equal(fit_demand(spec, &data, arch, 0, GROUP_NONE, &d, NULL), 0);
    assert_true(d.mem_bytes > 0 && d.train_flops > 0);
    return d.mem_bytes;
}

static void an_audits_trials_are_measured_as_what_they_are(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(6, 1), verify;
    struct search *search;
    struct proposal p;
    struct job_data data;
    struct demand score, train, control, as_verify;
    on_job_data(s, &spec, &data, NULL);
    assert_int_equal(search_open(&search, &spec, &data.img, NULL), 0);
    assert_int_equal(search_propose(search, &p, NULL), 0);
    search_close(search);
    data.control_B = 4 * data.B;
    data.control_inner = data.inner;
    job_defaults(&verify, JOB_VERIFY);
    memcpy(verify.space, spec.space, sizeof verify.space);
    spec.audit.batch = verify.verify.batch = 48;
    assert_int_equal(fit_demand(&spec, &data, p.arch, 0, GROUP_NONE, &score, NULL), 0);
    assert_int_equal(fit_demand(&spec, &data, p.arch, 0, GROUP_AUDIT, &train, NULL), 0);
    assert_int_equal(fit_demand(&spec, &data, p.arch, 0, GROUP_CONTROL, &control, NULL), 0);
    assert_int_equal(fit_demand(&verify, &data, p.arch, 0, GROUP_LIST, &as_verify, NULL), 0);
    assert_true(train.mem_bytes == as_verify.mem_bytes && train.mem_bytes != score.mem_bytes);
    assert_true(control.mem_bytes > score.mem_bytes && control.train_flops > score.train_flops);
}

/* A memory that about half of the first n architectures of the search fit in. */
static uint64_t middle(const struct sim *s, const struct job_spec *spec, int n)
{
    struct search *search;
    struct proposal p;
    struct job_spec random = *spec;
    uint64_t need[64];
    snprintf(random.searcher.name, sizeof random.searcher.name, "random");
    random.window = n + 1;
    assert_int_equal(search_open(&search, &random, &(struct image_shape){ 1, 12, 12, 4 }, NULL), 0);
    for (int i = 0; i < n; i++) {
        assert_int_equal(search_propose(search, &p, NULL), 0);
        int k = i;
        uint64_t v = need_of(s, spec, p.arch);
        for (; k > 0 && need[k - 1] > v; k--)
            need[k] = need[k - 1];
        need[k] = v;
    }
    search_close(search);
    return need[n / 2];
}

static void memory_is_that_of_networks_in_the_size_of_the_job(void **state)
{
    static const char cell[] = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|";
    struct sim *s = *state;
    struct job_spec search = search_spec(4, 4), verify;
    job_defaults(&verify, JOB_VERIFY);
    snprintf(search.space, sizeof search.space, "nasbench201");
    snprintf(verify.space, sizeof verify.space, "nasbench201");
    const uint64_t small = need_of(s, &search, cell), trained = need_of(s, &verify, cell);
    search.fidelity.proxy = (struct proxy){ .channels = 32, .cells = 3 };
    verify.fidelity.proxy = search.fidelity.proxy; /* not what a verify job builds by */
    assert_true(need_of(s, &search, cell) > 2 * small);
    assert_int_equal(need_of(s, &verify, cell), trained);
    verify.verify.proxy = search.fidelity.proxy;
    assert_true(need_of(s, &verify, cell) > 2 * trained);
}

static struct worker *sized_hello(struct sim *s, const char *id, uint64_t mem_bytes)
{
    struct worker *w = hello(s, id, 7, NULL, 0, NULL);
    w->mem_bytes = mem_bytes;
    return w;
}

static void a_trial_goes_to_no_worker_that_is_too_small_for_it(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(24, 24);
    snprintf(spec.searcher.name, sizeof spec.searcher.name, "random");
    const uint64_t room = middle(s, &spec, 24);
    uint64_t job = submit(s, &spec);
    struct worker *small = sized_hello(s, "small", room), *large = sized_hello(s, "large", 1ull << 40);
    int to_small = 0, too_large = 0;
    want(s, small, 100);
    for (int i = 0; i < s->n_sent; i++) {
        assert_string_equal(s->sent[i].worker, "small");
        assert_true(need_of(s, &spec, s->sent[i].t.score.arch) <= room);
    }
    to_small = s->n_sent;
    assert_true(to_small > 4 && to_small < 20); /* what does not fit waits for the large one, and is no failure */
    assert_int_equal(sched_job(s->sched, job)->row.n.failed, 0);
    s->now += LEASE_MS / 2;
    sched_tick(s->sched);
    store_flush(s->store);
    want(s, large, 100);
    assert_int_equal(s->n_sent, 24);
    for (int i = to_small; i < 24; i++) {
        assert_string_equal(s->sent[i].worker, "large");
        too_large += need_of(s, &spec, s->sent[i].t.score.arch) > room;
    }
    assert_int_equal(too_large, 24 - to_small);
}

static void a_trial_that_fits_no_worker_is_recorded_as_out_of_memory(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(12, 3);
    const uint64_t room = middle(s, &spec, 12);
    uint64_t job = submit(s, &spec);
    s->now += MISSED_BEATS * BEAT_MS;
    struct worker *w = sized_hello(s, "only", room);
    for (int i = 0; i < 200 && sched_job(s->sched, job); i++) {
        int before = s->n_sent;
        s->now += 1;
        sched_tick(s->sched);
        store_flush(s->store);
        want(s, w, 1);
        if (s->n_sent > before)
            scored(s, w, last(s), score_of(s->sent[s->n_sent - 1].t.score.arch));
    }
    int failed = 0;
    for (uint64_t i = 0; i < 12; i++) {
        const struct trial_row *t = trial(s, job, i);
        const uint64_t need = need_of(s, &spec, t->arch);
        char says[200];
        assert_int_equal(t->state, need > room ? TRIAL_FAILED : TRIAL_SCORED);
        if (need <= room)
            continue;
        failed++;
        snprintf(says, sizeof says, "needs %llu MiB, the largest worker has %llu MiB", (unsigned long long)((need + 1048575) >> 20),
                 (unsigned long long)(room >> 20));
        assert_string_equal(t->r.detail, says);
        assert_int_equal(t->r.reason, FAIL_OOM);
        assert_int_equal(t->r.mem_bytes, need);
        assert_string_equal(t->worker, "");
    }
    assert_true(failed > 0 && failed < 12);
    assert_int_equal(job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(s->n_sent, 12 - failed);
}

static void what_waited_for_a_worker_that_has_gone_fails(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(1, 1);
    uint64_t job = submit(s, &spec);
    s->now += MISSED_BEATS * BEAT_MS;
    struct worker *small = sized_hello(s, "small", 1000), *large = sized_hello(s, "large", 1ull << 40);
    want(s, small, 1);
    assert_int_equal(s->n_sent, 0);
    assert_int_equal(sched_job(s->sched, job)->n_waiting, 1);
    sched_offline(s->sched, large, "test");
    sched_tick(s->sched);
    store_flush(s->store);
    assert_int_equal(trial(s, job, 0)->state, TRIAL_FAILED);
    assert_int_equal(trial(s, job, 0)->r.reason, FAIL_OOM);
    assert_int_equal(job_row(s, job).state, JOB_FAILED);
}

static void after_a_start_nothing_is_too_large_before_old_workers_can_be_back(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = search_spec(1, 1);
    uint64_t job = submit(s, &spec);
    s->now += LEASE_MS;
    restart(s);
    struct worker *small = sized_hello(s, "small", 1000);
    want(s, small, 1);
    sched_tick(s->sched);
    store_flush(s->store);
    assert_int_equal(sched_job(s->sched, job)->n_waiting, 1);
    struct worker *large = sized_hello(s, "large", 1ull << 40);
    s->now += MISSED_BEATS * BEAT_MS - 1;
    want(s, large, 1);
    assert_int_equal(s->n_sent, 1);
    assert_string_equal(s->sent[0].worker, "large");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_expired_lease_is_given_again_with_a_higher_attempt), T(heartbeats_keep_a_lease),
        T(time_in_which_the_coordinator_slept_counts_against_nobody), T(silence_ends_a_session_but_not_its_leases),
        T(a_trial_that_kills_three_workers_is_recorded_as_failed), T(a_lease_handed_back_is_no_death),
        T(a_restart_loses_no_lease_that_is_still_worked_on), T(a_worker_restarted_without_its_lease_died_with_it),
        T(a_lease_lost_on_its_way_is_sent_again_as_the_same_attempt), T(no_more_leases_than_wanted_nor_than_parallel),
        T(higher_priority_goes_first_and_equals_take_turns), T(what_cannot_be_saved_is_not_acknowledged),
        T(a_lease_does_not_expire_while_that_cannot_be_saved),
        T(an_audits_trials_are_measured_as_what_they_are), T(an_audit_adds_trainings_that_are_no_candidates),
        T(a_job_whose_time_is_over_does_not_wait_for_trainings_that_nobody_began),
        T(pause_resume_and_cancel_do_what_they_say), T(a_job_ends_when_its_time_is_over), T(a_job_of_failures_is_failed_and_says_why),
        T(a_job_with_some_failures_succeeds_unless_there_are_too_many), T(impossible_constraints_fail_the_job),
        T(the_history_does_not_depend_on_workers_or_crashes), T(nonsense_results_are_refused),
        T(memory_is_that_of_networks_in_the_size_of_the_job), T(a_trial_goes_to_no_worker_that_is_too_small_for_it),
        T(a_trial_that_fits_no_worker_is_recorded_as_out_of_memory),
        T(what_waited_for_a_worker_that_has_gone_fails),
        T(after_a_start_nothing_is_too_large_before_old_workers_can_be_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
