#include "worker/runner.h"

#include "common/log.h"
#include "worker/engine/device.h"
#include "worker/folder.h"
#include "worker/outbox.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One task, from runner_submit until the loop was told of its end. */
struct run {
    struct run      *next;             /* in the queue, or among the ended */
    struct runner   *runner;           /* borrowed */
    struct task      task;
    struct lease_ref ref;
    struct task_blob blob[TASK_MAX_BLOBS];
    int              n_blobs;
    char             work_dir[4096];
    atomic_bool      cancel;
    bool             timed_out;        /* compute thread only */
    int64_t          deadline_ms;      /* 0: none */
    /* the end */
    enum run_end        end;
    struct trial_result result;
    bool                stored;
    struct errbuf       why;
    /* under the runner's lock */
    struct task_progress progress;
    bool                 fresh;
};
struct kept { struct kept *next; hash_str hash; name_str kind; };

struct slot { struct runner *runner; pthread_t thread; int index; struct run *run; };

struct runner {
    struct runner_cfg    cfg;
    struct runner_events ev;
    uv_async_t           wake;
    pthread_mutex_t      lock;
    pthread_cond_t       more;
    struct run          *queue, *ended;   /* oldest first */
    struct kept         *kept;
    bool                 stopping;
    int                  n_threads;
    struct slot          slot[];
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int task_blobs(const struct task *t, hash_str hash[TASK_MAX_BLOBS])
{
    const char *want[TASK_MAX_BLOBS];
    int         n_want = 0, n = 0;
    switch (t->kind) {
    case TASK_SCORE:
        want[n_want++] = t->score.dataset;
        want[n_want++] = t->score.curriculum;
        want[n_want++] = t->score.space_hash;
        break;
    case TASK_TRAIN:
        want[n_want++] = t->train.dataset;
        want[n_want++] = t->train.space_hash;
        break;
    default:
        want[n_want++] = t->teach.dataset;
        want[n_want++] = t->teach.resume;
        for (int i = 0; i < t->teach.cfg.n_mix; i++)
            want[n_want++] = t->teach.cfg.mix_hash[i];
        break;
    }
    for (int i = 0; i < n_want; i++)
        if (want[i][0])
            memcpy(hash[n++], want[i], sizeof(hash_str));
    return n;
}

/* ---- what compute code calls, in its own thread ---- */
static const char *env_blob_path(void *arg, const char *hash)
{
    struct run *run = arg;
    for (int i = 0; i < run->n_blobs; i++)
        if (strcmp(run->blob[i].hash, hash) == 0)
            return run->blob[i].path;
    return NULL;
}

static bool env_cancelled(void *arg)
{
    struct run *run = arg;
    if (atomic_load_explicit(&run->cancel, memory_order_relaxed))
        return true;
    if (run->deadline_ms && now_ms() > run->deadline_ms)
        run->timed_out = true;
    return run->timed_out;
}

static double finite_or_0(double v) { return isfinite(v) ? v : 0; }

static void env_progress(void *arg, const struct task_progress *p)
{
    struct run    *run = arg;
    struct runner *r = run->runner;
    pthread_mutex_lock(&r->lock);
    run->progress = *p;
    run->progress.job = run->ref.job;
    run->progress.trial = run->ref.trial;
    run->progress.attempt = run->ref.attempt;
    run->progress.done = finite_or_0(p->done);
    run->progress.total = finite_or_0(p->total);
    run->progress.loss = finite_or_0(p->loss);
    run->progress.accuracy = finite_or_0(p->accuracy);
    run->progress.held_out = finite_or_0(p->held_out);
    run->progress.rate = finite_or_0(p->rate);
    run->fresh = true;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
}

static int env_upload(void *arg, const char *file, const char *kind, hash_str hash, struct errbuf *e)
{
    struct run    *run = arg;
    struct runner *r = run->runner;
    struct kept   *k = calloc(1, sizeof *k);
    if (!k)
        return err_set(e, ERR_NOMEM, "%s", file);
    int rc = blob_put_file(&r->cfg.uploads, file, hash, e);
    if (rc < 0) {
        free(k);
        return rc;
    }
    memcpy(k->hash, hash, sizeof k->hash);
    snprintf(k->kind, sizeof k->kind, "%s", kind);
    pthread_mutex_lock(&r->lock);
    struct kept **tail = &r->kept;
    while (*tail)
        tail = &(*tail)->next;
    *tail = k;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
    return 0;
}

/* ---- one task ---- */
static void failed(struct run *run, enum fail_reason reason, const char *detail)
{
    uint64_t mem = run->result.mem_bytes;
    double   seconds = run->result.seconds;
    uint64_t params = run->result.params, macs = run->result.macs;
    char     text[sizeof run->result.detail]; /* detail may be the old result's own */
    snprintf(text, sizeof text, "%s", detail);
    run->result = (struct trial_result){ .state = TRIAL_FAILED, .reason = reason, .params = params, .macs = macs,
                                         .seconds = seconds, .mem_bytes = mem };
    memcpy(run->result.detail, text, sizeof text);
    run->end = RUN_RESULT;
}

/* A result that is not finite everywhere would be refused by the wire and by every reader: say what it is. */
static void check_result(struct run *run)
{
    struct trial_result *r = &run->result;
    double              *v[] = { &r->score, &r->score_se, &r->loss_sum, &r->lr_scale, &r->valid_score };
    bool                 finite = true;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
        finite = finite && isfinite(*v[i]);
    for (int i = 0; i < r->n_inits && i < MAX_INITS; i++)
        finite = finite && isfinite(r->init_score[i]);
    for (int i = 0; i < r->n_checkpoints && i < MAX_CHECKPOINTS; i++)
        finite = finite && isfinite(r->checkpoint_score[i]);
    if (!finite && r->state == TRIAL_SCORED)
        failed(run, FAIL_NAN, "the score is not a finite number");
    else if (!finite)
        failed(run, r->reason, r->detail);
}

/* rc says nothing of the candidate: a device that fails, or has less room than was planned with, is this machine's trouble. */
static bool is_trouble(const struct run *run, int rc)
{
    return err_can_retry(rc) || (rc == -ERR_UNAVAILABLE && run->task.device != DEVICE_CPU);
}

static void translate(struct run *run, int rc)
{
    char detail[256];
    if (rc == 0) {
        run->end = RUN_RESULT;
        check_result(run);
        return;
    }
    if (rc == -ERR_CANCELLED && atomic_load(&run->cancel)) {
        run->end = RUN_CANCELLED;
        return;
    }
    if (rc == -ERR_CANCELLED && run->timed_out) {
        snprintf(detail, sizeof detail, "stopped after its limit of %g s", run->task.timeout_s);
        failed(run, FAIL_TIMEOUT, detail);
        return;
    }
    const struct device *d = run->task.device == DEVICE_CPU ? NULL : run->runner->cfg.device;
    if (d && !d->works()) { /* asked first: what has no memory or no queue any more is no fact about the candidate */
        run->end = RUN_LOST;
        return;
    }
    if (fail_reason_of(rc) != FAIL_NONE) {
        snprintf(detail, sizeof detail, "%.255s", err_message(&run->why, rc));
        failed(run, fail_reason_of(rc), detail);
        return;
    }
    if (is_trouble(run, rc)) {
        run->end = RUN_TROUBLE;
        return;
    }
    snprintf(detail, sizeof detail, "%s: %.200s", err_name(rc), err_message(&run->why, rc));
    failed(run, FAIL_CRASH, detail);
}

static void store(struct run *run)
{
    struct errbuf e = { 0 };
    const char   *dir = run->runner->cfg.outbox_dir;
    int           rc = outbox_write(dir, run->ref, &run->result, &e);
    if (rc == -ERR_INPUT) { /* compute code gave what the wire does not carry: that is our bug, and a result all the same */
        char detail[256];
        snprintf(detail, sizeof detail, "result not valid: %.200s", e.text);
        failed(run, FAIL_CRASH, detail);
        rc = outbox_write(dir, run->ref, &run->result, &e);
    }
    run->stored = rc == 0;
    if (rc < 0)
        log_error("outbox_write", "job=%llu trial=%llu attempt=%u why=\"%s\" next=\"kept in memory and sent\"",
                  (unsigned long long)run->ref.job, (unsigned long long)run->ref.trial, run->ref.attempt, e.text);
}

static void compute(struct run *run)
{
    struct runner  *r = run->runner;
    struct task_env env = { .arg = run, .blob_path = env_blob_path, .cancelled = env_cancelled, .progress = env_progress,
                            .upload = env_upload, .work_dir = run->work_dir, .mem_bytes = r->cfg.mem_bytes,
                            .threads = run->task.kind == TASK_TEACH ? r->cfg.threads : 1,
                            .device = run->task.device == DEVICE_CPU ? NULL : r->cfg.device, .device_bytes = r->cfg.device_bytes };
    int64_t begin = now_ms();
    run->deadline_ms = run->task.timeout_s > 0 ? begin + (int64_t)(run->task.timeout_s * 1000) : 0;
    int rc = folder_empty(run->work_dir, &run->why);
    if (rc < 0)
        rc = -ERR_IO; /* whatever it is, it is this machine's trouble */
    else if (run->task.device != DEVICE_CPU && !env.device)
        rc = err_set(&run->why, ERR_UNREACHABLE, "the lease asks for device %s, which this worker does not have", device_class_name(run->task.device));
    else if (atomic_load(&run->cancel))
        rc = -ERR_CANCELLED;
    else
        rc = r->cfg.fn[run->task.kind](&run->task, &env, &run->result, &run->why);
    if (run->result.seconds <= 0)
        run->result.seconds = (double)(now_ms() - begin) / 1000;
    translate(run, rc);
    if (run->end == RUN_RESULT)
        store(run);
    folder_empty(run->work_dir, NULL);
}

static void append(struct run **list, struct run *run)
{
    while (*list)
        list = &(*list)->next;
    run->next = NULL;
    *list = run;
}

static void *thread_main(void *arg)
{
    struct slot   *s = arg;
    struct runner *r = s->runner;
    if (r->cfg.thread_init)
        r->cfg.thread_init();
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->queue && !r->stopping)
            pthread_cond_wait(&r->more, &r->lock);
        struct run *run = r->queue;
        if (!run)
            break;
        r->queue = run->next;
        s->run = run;
        snprintf(run->work_dir, sizeof run->work_dir, "%s/%d", r->cfg.work_dir, s->index);
        pthread_mutex_unlock(&r->lock);
        compute(run);
        pthread_mutex_lock(&r->lock);
        s->run = NULL;
        append(&r->ended, run);
        uv_async_send(&r->wake);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- the loop's side ---- */
static bool next_progress(struct runner *r, struct task_progress *p)
{
    bool found = false;
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < r->n_threads && !found; i++) {
        struct run *run = r->slot[i].run;
        if (run && run->fresh) {
            *p = run->progress;
            run->fresh = false;
            found = true;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

static void drain(struct runner *r)
{
    struct task_progress p;
    pthread_mutex_lock(&r->lock);
    struct kept *kept = r->kept;
    struct run  *ended = r->ended;
    r->kept = NULL;
    r->ended = NULL;
    pthread_mutex_unlock(&r->lock);
    while (kept) { /* before the ends: a result may name what was kept */
        struct kept *k = kept;
        kept = k->next;
        r->ev.kept(r->ev.arg, k->hash, k->kind);
        free(k);
    }
    while (next_progress(r, &p))
        r->ev.progress(r->ev.arg, &p);
    while (ended) {
        struct run *run = ended;
        ended = run->next;
        if (run->fresh)
            r->ev.progress(r->ev.arg, &run->progress);
        r->ev.ended(r->ev.arg, run->ref, run->end, &run->result, run->stored, &run->why);
        free(run);
    }
}

static void on_wake(uv_async_t *h)
{
    drain(h->data);
}

static void on_wake_closed(uv_handle_t *h)
{
    struct runner *r = h->data;
    pthread_cond_destroy(&r->more);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static int start_threads(struct runner *r, struct errbuf *e)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* signals belong to the loop */
    for (; r->n_threads < r->cfg.slots; r->n_threads++) {
        struct slot *s = &r->slot[r->n_threads];
        s->runner = r;
        s->index = r->n_threads;
        if (pthread_create(&s->thread, NULL, thread_main, s) != 0)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r->n_threads == r->cfg.slots ? 0 : err_set(e, ERR_NOMEM, "cannot start %d compute threads", r->cfg.slots);
}

int runner_new(const struct runner_cfg *c, uv_loop_t *loop, const struct runner_events *ev, struct runner **out,
               struct errbuf *e)
{
    struct runner *r = calloc(1, sizeof *r + (size_t)c->slots * sizeof r->slot[0]);
    *out = NULL;
    if (!r)
        return err_set(e, ERR_NOMEM, "runner");
    r->cfg = *c;
    r->ev = *ev;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
    int rc = uv_async_init(loop, &r->wake, on_wake);
    if (rc < 0) {
        free(r);
        return err_set(e, ERR_IO, "runner: %s", uv_strerror(rc));
    }
    r->wake.data = r;
    rc = start_threads(r, e);
    if (rc < 0)
        runner_stop(r);
    else
        *out = r;
    return rc;
}

int runner_submit(struct runner *r, const struct task *t, const struct task_blob *blob, int n_blobs, struct errbuf *e)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        return err_set(e, ERR_NOMEM, "runner");
    run->runner = r;
    run->task = *t;
    run->ref = (struct lease_ref){ t->job, t->trial, t->attempt };
    run->n_blobs = n_blobs < TASK_MAX_BLOBS ? n_blobs : TASK_MAX_BLOBS;
    if (run->n_blobs)
        memcpy(run->blob, blob, (size_t)run->n_blobs * sizeof *blob);
    pthread_mutex_lock(&r->lock);
    append(&r->queue, run);
    pthread_cond_signal(&r->more);
    pthread_mutex_unlock(&r->lock);
    return 0;
}

static struct run *find_started(struct runner *r, struct lease_ref ref)
{
    for (int i = 0; i < r->n_threads; i++)
        if (r->slot[i].run && lease_same(r->slot[i].run->ref, ref))
            return r->slot[i].run;
    return NULL;
}

/* A task that still waits ends at once. */
static bool cancel_queued(struct runner *r, struct lease_ref ref)
{
    for (struct run **p = &r->queue; *p; p = &(*p)->next) {
        struct run *run = *p;
        if (!lease_same(run->ref, ref))
            continue;
        *p = run->next;
        run->end = RUN_CANCELLED;
        append(&r->ended, run);
        uv_async_send(&r->wake);
        return true;
    }
    return false;
}

bool runner_cancel(struct runner *r, struct lease_ref ref)
{
    pthread_mutex_lock(&r->lock);
    bool        found = cancel_queued(r, ref);
    struct run *run = found ? NULL : find_started(r, ref);
    if (run)
        atomic_store(&run->cancel, true);
    pthread_mutex_unlock(&r->lock);
    return found || run;
}

bool runner_started(struct runner *r, struct lease_ref ref)
{
    pthread_mutex_lock(&r->lock);
    bool found = find_started(r, ref) != NULL;
    pthread_mutex_unlock(&r->lock);
    return found;
}

void runner_stop(struct runner *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    while (r->queue)
        cancel_queued(r, r->queue->ref);
    for (int i = 0; i < r->n_threads; i++)
        if (r->slot[i].run)
            atomic_store(&r->slot[i].run->cancel, true);
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < r->n_threads; i++)
        pthread_join(r->slot[i].thread, NULL);
    drain(r);
    uv_close((uv_handle_t *)&r->wake, on_wake_closed);
}
