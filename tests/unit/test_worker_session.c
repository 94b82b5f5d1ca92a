/* The whole daemon but for the engine, against a ROUTER in this process that plays coordinator. Every wait is for a
 * message. Heartbeats are slow, so that a machine under load does not look like a silence, but where a test is about
 * time passing. */
#include "common/blob.h"
#include "worker/folder.h"
#include "worker/loop.h"
#include "common/wire.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define SLOW_BEAT_MS 1000
#define FAST_BEAT_MS 150
#define WAIT_MS      20000

/* ---- tasks that do what the trial's seed says ---- */
enum act { ACT_SCORE, ACT_GATE, ACT_SPIN, ACT_READ, ACT_UPLOAD };
static atomic_int gate_open, at_gate, cancelled_seen;

static int read_blob(const char *path, struct trial_result *r)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (!f)
        return -ERR_INTERNAL;
    for (int c; (c = fgetc(f)) != EOF;)
        r->macs += (unsigned)c; /* something that depends on every byte */
    fclose(f);
    return 0;
}

static int keep_file(const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/artifact", env->work_dir);
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 3 * BLOB_CHUNK; i++)
        fputc(i % 251, f);
    fclose(f);
    r->meta_steps = 1;
    return env->upload(env->arg, path, "curriculum", r->artifact, e);
}

static int fake(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    r->state = TRIAL_SCORED;
    r->score = 0.25;
    uint64_t act = t->kind == TASK_SCORE ? t->score.seed : t->train.seed;
    atomic_fetch_add(&at_gate, 1);
    switch ((enum act)act) {
    case ACT_SCORE: return 0;
    case ACT_GATE:
        while (!atomic_load(&gate_open))
            if (env->cancelled(env->arg))
                return -ERR_CANCELLED;
            else
                usleep(1000);
        return 0;
    case ACT_SPIN:
        while (!env->cancelled(env->arg))
            usleep(1000);
        atomic_fetch_add(&cancelled_seen, 1);
        return -ERR_CANCELLED;
    case ACT_READ: return read_blob(env->blob_path(env->arg, t->score.dataset), r);
    case ACT_UPLOAD: return keep_file(env, r, e);
    }
    return -ERR_INTERNAL;
}

/* ---- the coordinator ---- */
struct site {
    char             dir[64], endpoint[128];
    void            *ctx, *router;
    zmq_msg_t        peer;          /* identity of whoever spoke last */
    struct worker   *w;
    pthread_t        thread;
    struct wire_msg  m;             /* the message last taken */
    uint32_t         beat_ms;
    int              grace_ms;
    bool             mute;          /* leave heartbeats unanswered */
    struct lease_ref drop[4];       /* said with the next answer to a heartbeat */
    int              n_drop;
    uint8_t          blob[2 * BLOB_CHUNK + 100];
    hash_str         hash;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void open_router(struct site *s)
{
    int linger = 0;
    s->router = zmq_socket(s->ctx, ZMQ_ROUTER);
    zmq_setsockopt(s->router, ZMQ_LINGER, &linger, sizeof linger);
    int64_t until = now_ms() + WAIT_MS; /* the socket file of a router that just closed may still be in use */
    while (zmq_bind(s->router, s->endpoint) != 0 && now_ms() < until)
        usleep(5000);
}

static void say(struct site *s, struct wire_msg m)
{
    struct errbuf e = { 0 };
    uint8_t      *p = NULL;
    size_t        n = 0;
    if (wire_encode(&m, &p, &n, &e) < 0)
        fail_msg("kind %d: %s", (int)m.kind, e.text);
    zmq_send(s->router, zmq_msg_data(&s->peer), zmq_msg_size(&s->peer), ZMQ_SNDMORE);
    assert_int_equal(zmq_send(s->router, p, n, 0), n);
    free(p);
}

static bool take(struct site *s, int wait_ms)
{
    zmq_pollitem_t item = { s->router, 0, ZMQ_POLLIN, 0 };
    struct errbuf  e = { 0 };
    zmq_msg_t      body;
    if (zmq_poll(&item, 1, wait_ms) != 1)
        return false;
    zmq_msg_init(&body);
    zmq_msg_recv(&s->peer, s->router, 0);
    zmq_msg_recv(&body, s->router, 0);
    wire_msg_fini(&s->m);
    if (wire_decode(zmq_msg_data(&body), zmq_msg_size(&body), &s->m, &e) < 0)
        fail_msg("the worker sent: %s", e.text);
    zmq_msg_close(&body);
    return true;
}

/* The next message but heartbeats (answered here) and, unless asked for, WantWork. NULL: none in time. */
static struct wire_msg *next_msg(struct site *s, bool want_work, int wait_ms)
{
    int64_t until = now_ms() + wait_ms;
    while (now_ms() < until) {
        if (!take(s, (int)(until - now_ms())))
            continue;
        if (s->m.kind == WIRE_HEARTBEAT) {
            if (!s->mute)
                say(s, (struct wire_msg){ .kind = WIRE_HEARTBEAT_ACK, .seq = s->m.seq, .heartbeat_ack = { s->n_drop, s->drop } });
            s->n_drop = 0;
        } else if (s->m.kind != WIRE_WANT_WORK || want_work) {
            return &s->m;
        }
    }
    return NULL;
}

static struct wire_msg *expect(struct site *s, enum wire_kind kind)
{
    struct wire_msg *m = next_msg(s, kind == WIRE_WANT_WORK, WAIT_MS);
    if (!m || m->kind != kind)
        fail_msg("message of kind %d, wanted %d", m ? (int)m->kind : -1, (int)kind);
    return m;
}

static void welcome(struct site *s, int n_drop)
{
    assert_int_equal(s->m.kind, WIRE_WORKER_HELLO);
    say(s, (struct wire_msg){ .kind = WIRE_WORKER_WELCOME, .seq = s->m.seq,
                              .welcome = { s->beat_ms, 30000, n_drop, s->drop, "test" } });
}

static struct lease_ref lease(struct site *s, uint64_t trial, enum task_kind kind, enum act act)
{
    struct task t = { .job = 1, .trial = trial, .attempt = 1, .timeout_s = 0, .kind = kind };
    if (kind == TASK_SCORE) {
        t.score = (struct score_task){ .space = "chain", .arch = "x", .seed = act, .fidelity = { .inits = 1 } };
        memcpy(t.score.dataset, s->hash, sizeof s->hash);
        memcpy(t.score.curriculum, s->hash, sizeof s->hash);
    } else {
        t.train = (struct train_task){ .space = "chain", .arch = "x", .seed = act, .batch = 1 };
        memcpy(t.train.dataset, s->hash, sizeof s->hash);
    }
    say(s, (struct wire_msg){ .kind = WIRE_LEASE, .lease = &t });
    return (struct lease_ref){ 1, trial, 1 };
}

static void ack(struct site *s, enum ack_outcome outcome)
{
    assert_int_equal(s->m.kind, WIRE_RESULT);
    say(s, (struct wire_msg){ .kind = WIRE_RESULT_ACK, .seq = s->m.seq, .result_ack = { s->m.result.ref, outcome } });
}

static void error(struct site *s, enum err code)
{
    say(s, (struct wire_msg){ .kind = WIRE_ERROR, .seq = s->m.seq, .reply = { (int)code, (char *)"made up", NULL } });
}

/* Serve one whole blob to the worker that asked for its first chunk. */
static void serve_blob(struct site *s, const uint8_t *bytes)
{
    size_t total = sizeof s->blob;
    for (uint64_t at = 0; at < total; at += BLOB_CHUNK) {
        struct wire_msg *m = expect(s, WIRE_BLOB_GET);
        assert_string_equal(m->blob_get.hash, s->hash);
        assert_int_equal(m->blob_get.offset, at);
        struct wire_msg c = { .kind = WIRE_BLOB_CHUNK, .seq = m->seq, .blob = { .offset = at, .total = total } };
        memcpy(c.blob.hash, s->hash, sizeof s->hash);
        c.blob.data = (uint8_t *)bytes + at;
        c.blob.len = total - at < BLOB_CHUNK ? total - at : BLOB_CHUNK;
        say(s, c);
    }
}

/* ---- the worker ---- */
static void *worker_thread(void *arg)
{
    struct site *s = arg;
    worker_run(s->w, false);
    return NULL;
}

static void start_worker(struct site *s, int slots)
{
    struct worker_conf  c = { .slots = slots, .threads = 1, .mem_bytes = 1 << 20, .name = "tested", .grace_ms = s->grace_ms };
    struct worker_tasks tasks = { .fn = { fake, fake, fake }, .engine_version = "t", .isa = "portable" };
    struct errbuf       e = { 0 };
    snprintf(c.connect, sizeof c.connect, "%s", s->endpoint);
    snprintf(c.dir, sizeof c.dir, "%s/w", s->dir);
    if (worker_new(&c, &tasks, &s->w, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(pthread_create(&s->thread, NULL, worker_thread, s), 0);
}

static void end_worker(struct site *s)
{
    pthread_join(s->thread, NULL);
    worker_free(s->w);
    s->w = NULL;
}

/* Put the blob into the worker's cache, so that leases begin at once. */
static void fill_cache(struct site *s)
{
    struct blob_dir d;
    struct errbuf   e = { 0 };
    hash_str        hash;
    char            path[200];
    snprintf(path, sizeof path, "%s/w/cache", s->dir);
    assert_int_equal(blob_dir_open(&d, path, &e), 0);
    assert_int_equal(blob_put_bytes(&d, s->blob, sizeof s->blob, hash, &e), 0);
    assert_string_equal(hash, s->hash);
}

static int files_in(struct site *s, const char *folder)
{
    char cmd[300];
    int  n = -1;
    snprintf(cmd, sizeof cmd, "ls '%s/w/%s' | wc -l", s->dir, folder);
    FILE *p = popen(cmd, "r");
    assert_int_equal(fscanf(p, "%d", &n), 1);
    pclose(p);
    return n;
}

static int setup(void **state)
{
    struct site *s = calloc(1, sizeof *s);
    snprintf(s->dir, sizeof s->dir, "/tmp/didact-sess-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->endpoint, sizeof s->endpoint, "ipc://%s/sock", s->dir);
    s->ctx = zmq_ctx_new();
    zmq_msg_init(&s->peer);
    for (size_t i = 0; i < sizeof s->blob; i++)
        s->blob[i] = (uint8_t)(i * 31 >> 3);
    hash_bytes(s->blob, sizeof s->blob, s->hash);
    open_router(s);
    s->beat_ms = SLOW_BEAT_MS;
    s->grace_ms = 20000;
    atomic_store(&gate_open, 0);
    atomic_store(&at_gate, 0);
    atomic_store(&cancelled_seen, 0);
    *state = s;
    return 0;
}

static int setup_cached(void **state)
{
    setup(state);
    fill_cache(*state);
    return 0;
}

static int teardown(void **state)
{
    struct site  *s = *state;
    struct errbuf e = { 0 };
    if (s->w) {
        worker_stop(s->w);
        end_worker(s);
    }
    wire_msg_fini(&s->m);
    zmq_msg_close(&s->peer);
    zmq_close(s->router);
    zmq_ctx_term(s->ctx);
    folder_empty(s->dir, &e);
    rmdir(s->dir);
    free(s);
    return 0;
}

/* ---- tests ---- */
static void a_worker_says_hello_computes_delivers_and_says_goodbye(void **state)
{
    struct site *s = *state;
    start_worker(s, 2);
    struct wire_msg *m = expect(s, WIRE_WORKER_HELLO);
    assert_string_equal(m->hello.name, "tested");
    assert_string_equal(m->hello.device_class, "cpu");
    assert_int_equal(m->hello.slots, 2);
    assert_int_equal(m->hello.n_holding, 0);
    welcome(s, 0);
    assert_int_equal(expect(s, WIRE_WANT_WORK)->want_work.n, 2);
    lease(s, 5, TASK_SCORE, ACT_SCORE);
    m = expect(s, WIRE_RESULT);
    assert_int_equal(m->result.ref.trial, 5);
    assert_true(m->result.r->score == 0.25);
    assert_int_equal(files_in(s, "outbox"), 1);
    ack(s, ACK_RECORDED);
    worker_stop(s->w);
    expect(s, WIRE_GOODBYE);
    end_worker(s);
    assert_int_equal(files_in(s, "outbox"), 0);
}

static void a_result_finished_while_cut_off_is_held_and_delivered(void **state)
{
    struct site *s = *state;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 7, TASK_SCORE, ACT_GATE);
    while (atomic_load(&at_gate) == 0)
        assert_null(next_msg(s, false, 5));
    zmq_close(s->router);
    atomic_store(&gate_open, 1);
    while (files_in(s, "outbox") == 0) /* written although nobody listens */
        usleep(2000);
    open_router(s);
    struct wire_msg *m = NULL;
    do { /* a heartbeat of the old session may come first: a restarted coordinator does not know it */
        m = next_msg(s, false, WAIT_MS);
        assert_non_null(m);
        if (m->kind != WIRE_WORKER_HELLO)
            error(s, ERR_STATE);
    } while (m->kind != WIRE_WORKER_HELLO);
    assert_int_equal(m->hello.n_holding, 1);
    assert_int_equal(m->hello.holding[0].trial, 7);
    welcome(s, 0);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 7);
    ack(s, ACK_RECORDED);
}

static void a_session_unknown_to_the_coordinator_is_opened_again(void **state)
{
    struct site *s = *state;
    s->beat_ms = FAST_BEAT_MS;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    struct lease_ref ref = lease(s, 3, TASK_SCORE, ACT_SPIN);
    while (!(take(s, WAIT_MS) && s->m.kind == WIRE_HEARTBEAT && s->m.heartbeat.n_holding == 1))
        ;
    error(s, ERR_STATE);
    struct wire_msg *m = expect(s, WIRE_WORKER_HELLO);
    assert_int_equal(m->hello.n_holding, 1);
    assert_int_equal(m->hello.holding[0].trial, ref.trial);
    welcome(s, 0);
    assert_int_equal(expect(s, WIRE_WANT_WORK)->want_work.n, 0); /* the slot is taken: still the same computation */
    assert_int_equal(atomic_load(&at_gate), 1);
}

static void a_silent_coordinator_is_left_and_tried_again(void **state)
{
    struct site *s = *state;
    s->beat_ms = FAST_BEAT_MS;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    s->mute = true;
    expect(s, WIRE_WORKER_HELLO); /* by a fresh connection */
    s->mute = false;
    s->beat_ms = SLOW_BEAT_MS;
    welcome(s, 0);
    assert_int_equal(expect(s, WIRE_WANT_WORK)->want_work.n, 1);
}

static void an_unanswered_result_is_sent_again_and_two_answers_do_no_harm(void **state)
{
    struct site *s = *state;
    s->beat_ms = FAST_BEAT_MS;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_SCORE);
    uint64_t first = expect(s, WIRE_RESULT)->seq;
    assert_true(expect(s, WIRE_RESULT)->seq != first);
    ack(s, ACK_RECORDED);
    ack(s, ACK_DUPLICATE);
    lease(s, 2, TASK_SCORE, ACT_SCORE);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 2);
    ack(s, ACK_RECORDED);
}

static void a_busy_coordinator_gets_the_result_later(void **state)
{
    struct site *s = *state;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_SCORE);
    expect(s, WIRE_RESULT);
    error(s, ERR_BUSY);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 1);
    assert_int_equal(files_in(s, "outbox"), 1);
    ack(s, ACK_RECORDED);
}

static void a_result_that_is_refused_for_good_is_set_aside(void **state)
{
    struct site *s = *state;
    s->beat_ms = FAST_BEAT_MS;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_SCORE);
    expect(s, WIRE_RESULT);
    error(s, ERR_INPUT);
    lease(s, 2, TASK_SCORE, ACT_SCORE);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 2);
    ack(s, ACK_RECORDED);
    assert_null(next_msg(s, false, 10 * FAST_BEAT_MS)); /* and not sent again */
}

static void a_dropped_lease_stops_and_frees_its_slot_without_a_word(void **state)
{
    struct site *s = *state;
    s->beat_ms = FAST_BEAT_MS;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    assert_int_equal(expect(s, WIRE_WANT_WORK)->want_work.n, 1);
    struct lease_ref ref = lease(s, 4, TASK_SCORE, ACT_SPIN);
    while (atomic_load(&at_gate) == 0)
        assert_null(next_msg(s, true, 5));
    s->drop[0] = ref;
    s->n_drop = 1;
    assert_int_equal(expect(s, WIRE_WANT_WORK)->want_work.n, 1);
    assert_int_equal(atomic_load(&cancelled_seen), 1);
}

static void a_finished_result_is_sent_although_it_was_dropped_and_stale_clears_it(void **state)
{
    struct site *s = *state;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    s->drop[0] = lease(s, 4, TASK_SCORE, ACT_SCORE);
    expect(s, WIRE_RESULT);
    error(s, ERR_STATE);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 1);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 4);
    ack(s, ACK_STALE);
    worker_stop(s->w);
    expect(s, WIRE_GOODBYE);
    end_worker(s);
    assert_int_equal(files_in(s, "outbox"), 0);
}

static void a_restarted_worker_has_its_identity_and_delivers_what_it_kept(void **state)
{
    struct site *s = *state;
    name_str     id;
    s->beat_ms = FAST_BEAT_MS;
    start_worker(s, 1);
    memcpy(id, expect(s, WIRE_WORKER_HELLO)->hello.worker_id, sizeof id);
    welcome(s, 0);
    lease(s, 6, TASK_SCORE, ACT_SCORE);
    expect(s, WIRE_RESULT);
    error(s, ERR_BUSY);
    s->mute = true;
    worker_stop(s->w);
    while (take(s, 500)) /* nobody answers any more: it gives up waiting and keeps the result */
        ;
    end_worker(s);
    assert_int_equal(files_in(s, "outbox"), 1);
    s->mute = false;
    start_worker(s, 1);
    struct wire_msg *m = expect(s, WIRE_WORKER_HELLO);
    assert_string_equal(m->hello.worker_id, id);
    assert_int_equal(m->hello.n_holding, 1);
    assert_int_equal(m->hello.holding[0].trial, 6);
    welcome(s, 0);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 6);
    ack(s, ACK_DUPLICATE);
}

static void a_blob_comes_in_chunks_and_damage_on_the_way_is_mended(void **state)
{
    struct site *s = *state;
    uint64_t     sum = 0;
    uint8_t     *damaged = malloc(sizeof s->blob);
    memcpy(damaged, s->blob, sizeof s->blob);
    damaged[BLOB_CHUNK + 5] ^= 1;
    for (size_t i = 0; i < sizeof s->blob; i++)
        sum += s->blob[i];
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_READ);
    serve_blob(s, damaged);
    serve_blob(s, s->blob);
    struct wire_msg *m = expect(s, WIRE_RESULT);
    assert_int_equal(m->result.r->state, TRIAL_SCORED);
    assert_int_equal(m->result.r->macs, sum);
    ack(s, ACK_RECORDED);
    lease(s, 2, TASK_SCORE, ACT_READ); /* now it is cached */
    expect(s, WIRE_RESULT);
    ack(s, ACK_RECORDED);
    free(damaged);
}

static void a_blob_that_is_damaged_twice_or_missing_fails_the_trial_by_name(void **state)
{
    struct site *s = *state;
    uint8_t     *damaged = calloc(1, sizeof s->blob);
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_READ);
    serve_blob(s, damaged);
    serve_blob(s, damaged);
    struct wire_msg *m = expect(s, WIRE_RESULT);
    assert_int_equal(m->result.r->reason, FAIL_INPUT);
    assert_non_null(strstr(m->result.r->detail, s->hash));
    ack(s, ACK_RECORDED);
    lease(s, 2, TASK_SCORE, ACT_READ);
    expect(s, WIRE_BLOB_GET);
    error(s, ERR_NOTFOUND);
    m = expect(s, WIRE_RESULT);
    assert_int_equal(m->result.r->reason, FAIL_INPUT);
    assert_non_null(strstr(m->result.r->detail, s->hash));
    ack(s, ACK_RECORDED);
    lease(s, 3, TASK_SCORE, ACT_READ); /* and it is not remembered as bad */
    serve_blob(s, s->blob);
    assert_int_equal(expect(s, WIRE_RESULT)->result.r->state, TRIAL_SCORED);
    ack(s, ACK_RECORDED);
    free(damaged);
}

static void a_damaged_blob_in_the_cache_is_fetched_again(void **state)
{
    struct site *s = *state;
    char         path[300];
    fill_cache(s);
    snprintf(path, sizeof path, "%s/w/cache/%s", s->dir, s->hash);
    FILE *f = fopen(path, "r+");
    fseek(f, 1000, SEEK_SET);
    fputc(~s->blob[1000], f);
    fclose(f);
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_READ);
    serve_blob(s, s->blob);
    assert_int_equal(expect(s, WIRE_RESULT)->result.r->state, TRIAL_SCORED);
    ack(s, ACK_RECORDED);
}

static struct wire_msg put_ack(const struct wire_msg *m, uint64_t have, bool complete)
{
    struct wire_msg a = { .kind = WIRE_BLOB_PUT_ACK, .seq = m->seq, .blob_put_ack = { .have = have, .complete = complete } };
    memcpy(a.blob_put_ack.hash, m->blob.hash, sizeof a.blob_put_ack.hash);
    return a;
}

static void an_artifact_goes_before_the_result_that_names_it_and_from_where_it_stopped(void **state)
{
    struct site *s = *state;
    start_worker(s, 1);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_UPLOAD);
    struct wire_msg *m = expect(s, WIRE_BLOB_PUT);
    assert_int_equal(m->blob.offset, 0);
    assert_int_equal(m->blob.total, 3 * BLOB_CHUNK);
    assert_string_equal(m->blob.kind, "curriculum");
    say(s, put_ack(m, 2 * BLOB_CHUNK, false)); /* the coordinator kept two chunks of an earlier try */
    m = expect(s, WIRE_BLOB_PUT);
    assert_int_equal(m->blob.offset, 2 * BLOB_CHUNK);
    assert_int_equal(m->blob.len, BLOB_CHUNK);
    assert_int_equal(m->blob.data[5], (2 * BLOB_CHUNK + 5) % 251);
    error(s, ERR_BUSY);
    m = expect(s, WIRE_BLOB_PUT);
    say(s, put_ack(m, 3 * BLOB_CHUNK, true));
    hash_str hash;
    memcpy(hash, m->blob.hash, sizeof hash);
    m = expect(s, WIRE_RESULT);
    assert_string_equal(m->result.r->artifact, hash);
    assert_int_equal(files_in(s, "uploads"), 0);
    ack(s, ACK_RECORDED);
}

static void stopping_finishes_a_score_and_hands_back_what_is_longer(void **state)
{
    struct site *s = *state;
    start_worker(s, 3);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_GATE);
    lease(s, 2, TASK_TRAIN, ACT_SPIN);
    while (atomic_load(&at_gate) < 2)
        assert_null(next_msg(s, false, 5));
    worker_stop(s->w);
    assert_int_equal(expect(s, WIRE_HAND_BACK)->hand_back.ref.trial, 2);
    atomic_store(&gate_open, 1);
    assert_int_equal(expect(s, WIRE_RESULT)->result.ref.trial, 1);
    ack(s, ACK_RECORDED);
    expect(s, WIRE_GOODBYE);
    end_worker(s);
}

static void a_score_that_outlasts_the_grace_is_handed_back_and_new_leases_too(void **state)
{
    struct site *s = *state;
    s->grace_ms = 300;
    start_worker(s, 2);
    expect(s, WIRE_WORKER_HELLO);
    welcome(s, 0);
    lease(s, 1, TASK_SCORE, ACT_SPIN);
    while (atomic_load(&at_gate) < 1)
        assert_null(next_msg(s, false, 5));
    worker_stop(s->w);
    struct wire_msg *m = expect(s, WIRE_WANT_WORK);
    while (m->want_work.n != 0)
        m = expect(s, WIRE_WANT_WORK);
    lease(s, 9, TASK_SCORE, ACT_SCORE); /* crossed the WantWork on the way */
    assert_int_equal(expect(s, WIRE_HAND_BACK)->hand_back.ref.trial, 9);
    assert_int_equal(expect(s, WIRE_HAND_BACK)->hand_back.ref.trial, 1);
    expect(s, WIRE_GOODBYE);
    end_worker(s);
}

static void stopping_without_a_coordinator_ends_too(void **state)
{
    struct site *s = *state;
    zmq_close(s->router);
    start_worker(s, 1);
    worker_stop(s->w);
    end_worker(s);
    open_router(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_worker_says_hello_computes_delivers_and_says_goodbye, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_result_finished_while_cut_off_is_held_and_delivered, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_session_unknown_to_the_coordinator_is_opened_again, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_silent_coordinator_is_left_and_tried_again, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(an_unanswered_result_is_sent_again_and_two_answers_do_no_harm, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_busy_coordinator_gets_the_result_later, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_result_that_is_refused_for_good_is_set_aside, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_dropped_lease_stops_and_frees_its_slot_without_a_word, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_finished_result_is_sent_although_it_was_dropped_and_stale_clears_it, setup_cached,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_restarted_worker_has_its_identity_and_delivers_what_it_kept, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_blob_comes_in_chunks_and_damage_on_the_way_is_mended, setup, teardown),
        cmocka_unit_test_setup_teardown(a_blob_that_is_damaged_twice_or_missing_fails_the_trial_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_blob_in_the_cache_is_fetched_again, setup, teardown),
        cmocka_unit_test_setup_teardown(an_artifact_goes_before_the_result_that_names_it_and_from_where_it_stopped, setup_cached,
                                        teardown),
        cmocka_unit_test_setup_teardown(stopping_finishes_a_score_and_hands_back_what_is_longer, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(a_score_that_outlasts_the_grace_is_handed_back_and_new_leases_too, setup_cached, teardown),
        cmocka_unit_test_setup_teardown(stopping_without_a_coordinator_ends_too, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
