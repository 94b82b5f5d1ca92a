#include "tests/support/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_SENT = 4096, MAX_HELD = 16 };
static const struct image_shape shape = { 1, 12, 12, 4 };

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
    *out = shape;
    return 0;
}

void sim_job_data(struct job_data *out)
{
    *out = (struct job_data){ .img = shape, .T = 8, .B = 64, .inner = inner_default(), .n_train = 900, .n_valid = 100 };
}

static int on_job_data(void *arg, const struct job_spec *spec, struct job_data *out, struct errbuf *e)
{
    (void)arg;
    (void)spec;
    (void)e;
    sim_job_data(out);
    return 0;
}

void sim_start(struct sim *s)
{
    struct errbuf e = { 0 };
    struct store_cfg sc = { .fault = on_fault, .fault_arg = s };
    const char *path = tmp_path(s->tmp, "didact.db");
    assert_int_equal(store_open(&s->store, path, &sc, &e), 0);
    assert_int_equal(reader_open(&s->reader, path, &e), 0);
    struct sched_cfg cfg = { .store = s->store, .reader = s->reader, .heartbeat_ms = s->rules.beat_ms, .lease_ms = s->rules.lease_ms,
                             .now_ms = on_now, .send_lease = on_send, .image_shape = on_shape,
                             .job_data = s->rules.any_size ? NULL : on_job_data, .arg = s };
    assert_int_equal(sched_open(&s->sched, &cfg, &e), 0);
}

void sim_end(struct sim *s)
{
    store_flush(s->store);
    sched_close(s->sched);
    reader_close(s->reader);
    store_close(s->store);
}

void sim_restart(struct sim *s)
{
    sim_end(s);
    sim_start(s);
}

void sim_advance(struct sim *s, int64_t ms)
{
    s->now += ms;
    sched_tick(s->sched);
    store_flush(s->store);
}

int sim_setup_as(void **state, struct sim_rules rules)
{
    void *tmp;
    struct sim *s = calloc(1, sizeof *s);
    tmp_setup(&tmp);
    s->tmp = tmp;
    s->rules = rules;
    s->now = 1000000;
    s->sent = calloc(MAX_SENT, sizeof *s->sent);
    sim_start(s);
    *state = s;
    return 0;
}

int sim_setup(void **state)
{
    return sim_setup_as(state, (struct sim_rules){ .beat_ms = BEAT_MS, .lease_ms = LEASE_MS });
}

int sim_teardown(void **state)
{
    struct sim *s = *state;
    void *tmp = s->tmp;
    sim_end(s);
    free(s->sent);
    free(s);
    return tmp_teardown(&tmp);
}

/* ---- people ---- */
void sim_on_done(void *arg, int rc, uint64_t job, const struct errbuf *e)
{
    struct answer *a = arg;
    *a = (struct answer){ .rc = rc, .job = job };
    if (rc < 0)
        snprintf(a->text, sizeof a->text, "%.390s", err_message(e, rc));
}

struct job_spec sim_search_spec(int trials, int window)
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

uint64_t sim_submit(struct sim *s, const struct job_spec *spec)
{
    struct answer a = { 1, 0, "" };
    sched_submit(s->sched, spec, NULL, 0, sim_on_done, &a);
    assert_int_equal(a.rc, 1); /* not before the commit */
    store_flush(s->store);
    assert_int_equal(a.rc, 0);
    return a.job;
}

struct answer sim_act(struct sim *s, uint64_t job, const char *action)
{
    struct answer a = { 1, 0, "" };
    sched_action(s->sched, job, action, sim_on_done, &a);
    store_flush(s->store);
    assert_int_not_equal(a.rc, 1);
    return a;
}

struct job_row sim_job_row(struct sim *s, uint64_t job)
{
    struct job_row r;
    assert_int_equal(reader_job(s->reader, job, &r), 1);
    job_row_fini(&r);
    return r;
}

struct trial_row *sim_trial(struct sim *s, uint64_t job, uint64_t idx)
{
    static struct trial_row t;
    assert_int_equal(reader_trial(s->reader, job, idx, &t), 1);
    return &t;
}

/* A text that grows by a line a row. */
struct text { sim_line *line; char *p; size_t n; };
static bool on_row(void *arg, const struct trial_row *t)
{
    struct text *x = arg;
    char line[ARCH_TEXT_MAX + 200];
    int n = x->line(line, sizeof line, t);
    assert_true(n > 0 && (size_t)n < sizeof line);
    x->p = realloc(x->p, x->n + (size_t)n + 1);
    memcpy(x->p + x->n, line, (size_t)n + 1);
    x->n += (size_t)n;
    return true;
}

int sim_rows(struct sim *s, uint64_t job, enum trial_sort sort, sim_line *line, char **text)
{
    struct text x = { .line = line };
    int n = reader_trials(s->reader, job, -1, sort, 0, 0, on_row, &x);
    *text = x.p;
    return n;
}

/* ---- workers ---- */
struct worker *sim_hello(struct sim *s, const char *id, uint64_t pid, struct lease_ref *holding, int n, int *n_drop)
{
    static int peer;
    struct wire_msg m = { .kind = WIRE_WORKER_HELLO, .hello = { .slots = 4, .pid = pid, .n_holding = n, .holding = holding } };
    struct lease_ref drop[MAX_HELD];
    int dropped = 0;
    assert_true(n <= MAX_HELD);
    snprintf(m.hello.worker_id, sizeof m.hello.worker_id, "%s", id);
    struct worker *w = sched_hello(s->sched, &m, drop, &dropped);
    assert_non_null(w);
    w->peer = &peer;
    store_flush(s->store);
    if (n_drop)
        *n_drop = dropped;
    return w;
}

void sim_want(struct sim *s, struct worker *w, uint32_t n)
{
    sched_want(s->sched, w, n);
    store_flush(s->store);
}

int sim_beat(struct sim *s, struct worker *w, struct lease_ref *holding, int n)
{
    struct wire_msg m = { .kind = WIRE_HEARTBEAT, .heartbeat = { .n_holding = n, .holding = holding } };
    struct lease_ref drop[MAX_HELD];
    int n_drop = 0;
    assert_true(n <= MAX_HELD);
    sched_heartbeat(s->sched, w, &m, drop, &n_drop);
    store_flush(s->store);
    return n_drop;
}

struct lease_ref sim_ref_of(const struct task *t) { return (struct lease_ref){ t->job, t->trial, t->attempt }; }
struct lease_ref sim_last(const struct sim *s)
{
    assert_true(s->n_sent > 0);
    return sim_ref_of(&s->sent[s->n_sent - 1].t);
}

static void on_acked(void *arg, struct lease_ref ref, int rc, enum ack_outcome outcome, const struct errbuf *e)
{
    (void)ref;
    (void)e;
    *(struct ack *)arg = (struct ack){ rc, outcome };
}

double sim_score_of(const char *arch)
{
    char hex[ARCH_HASH_LEN + 1];
    arch_hash("chain", arch, hex);
    hex[6] = 0;
    return (double)strtoul(hex, NULL, 16) / 0x1000000;
}

struct ack sim_report(struct sim *s, struct worker *w, struct lease_ref ref, struct trial_result r)
{
    struct ack a = { 1, 0 };
    sched_result(s->sched, w, ref, &r, on_acked, &a);
    store_flush(s->store);
    assert_int_not_equal(a.rc, 1);
    return a;
}

struct ack sim_scored(struct sim *s, struct worker *w, struct lease_ref ref, double score)
{
    struct trial_result r = { .state = TRIAL_SCORED, .score = score, .lr_scale = 1, .params = 10, .macs = 10, .seconds = 1 };
    return sim_report(s, w, ref, r);
}

struct ack sim_failed(struct sim *s, struct worker *w, struct lease_ref ref, enum fail_reason why)
{
    return sim_report(s, w, ref, (struct trial_result){ .state = TRIAL_FAILED, .reason = why, .seconds = 1 });
}
