#include "worker/loop.h"

#include "common/log.h"
#include "worker/blobcache.h"
#include "worker/engine/device.h"
#include "worker/folder.h"
#include "worker/leases.h"
#include "worker/outbox.h"
#include "worker/runner.h"
#include "worker/session.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <zmq.h>

#define EXIT_DEVICE_LOST 75 /* EX_TEMPFAIL: try again */
#define DELIVER_MS 5000  /* after the last lease has ended: how long acknowledgements are waited for */
#define UNWIND_MS  20000 /* after the grace: how long compute threads may take to notice that they are cancelled */

struct worker {
    struct worker_conf  conf;
    struct worker_tasks tasks;
    uint64_t            device_bytes; /* of a slot */
    struct folder       folder;
    uv_loop_t           loop;
    void               *ctx;
    struct session     *session;
    struct runner      *runner;
    struct blobcache   *blobs;
    struct outbox       outbox;
    struct leases       leases;
    uv_async_t          told;
    uv_signal_t         sigterm, sigint;
    bool                has_signals, finishing;
    atomic_int          asked;        /* times worker_stop was called */
    int                 stops;        /* of these, seen by the loop */
    int64_t             stop_ms, idle_ms;
    bool                cancelled_all;
    int                 status;       /* of the process */
};

/* ---- the session's events ---- */
static void fill_hello(void *arg, struct wire_msg *m)
{
    struct worker *w = arg;
    const struct device *d = w->tasks.device;
    char           host[256] = "unknown";
    gethostname(host, sizeof host - 1);
    snprintf(m->hello.worker_id, sizeof m->hello.worker_id, "%s", w->folder.worker_id);
    snprintf(m->hello.name, sizeof m->hello.name, "%s", w->conf.name);
    snprintf(m->hello.engine_version, sizeof m->hello.engine_version, "%s", w->tasks.engine_version);
    snprintf(m->hello.device_class, sizeof m->hello.device_class, "%s", d ? d->kind : "cpu");
    snprintf(m->hello.device_name, sizeof m->hello.device_name, "%s", d ? d->name() : "");
    m->hello.device_bytes = d ? w->device_bytes : 0;
    snprintf(m->hello.isa, sizeof m->hello.isa, "%s", w->tasks.isa);
    snprintf(m->hello.host, sizeof m->hello.host, "%.*s", NAME_MAX_LEN, host);
    m->hello.slots = (uint32_t)w->conf.slots;
    m->hello.mem_bytes = w->conf.mem_bytes;
    m->hello.pid = (uint64_t)getpid();
    m->hello.n_holding = leases_holding(&w->leases, &m->hello.holding);
}

static void fill_heartbeat(void *arg, struct wire_msg *m)
{
    struct worker *w = arg;
    m->heartbeat.n_progress = leases_progress(&w->leases, &m->heartbeat.progress);
    m->heartbeat.n_holding = leases_holding(&w->leases, &m->heartbeat.holding);
}

static void on_up(void *arg, const struct wire_msg *welcome)
{
    leases_up(&((struct worker *)arg)->leases, welcome);
}

static void on_down(void *arg)
{
    leases_down(&((struct worker *)arg)->leases);
}

static void on_message(void *arg, struct wire_msg *m)
{
    leases_on_message(&((struct worker *)arg)->leases, m);
}

/* ---- the other parts' events ---- */
static void on_ended(void *arg, struct lease_ref ref, enum run_end end, const struct trial_result *r, bool stored,
                     const struct errbuf *e)
{
    struct worker *w = arg;
    if (w->finishing)
        return;
    leases_ended(&w->leases, ref, end, r, stored, e);
    if (end == RUN_LOST && w->status == 0) { /* whoever started this process starts another one, which may find the device well */
        log_error("device_lost", "why=\"%s\" next=\"this worker takes no more work and stops with status %d\"", err_message(e, e ? -e->code : -ERR_UNAVAILABLE),
                  EXIT_DEVICE_LOST);
        w->status = EXIT_DEVICE_LOST;
        leases_stop(&w->leases, STOP_DRAIN);
    }
}

static void on_progress(void *arg, const struct task_progress *p)
{
    leases_on_progress(&((struct worker *)arg)->leases, p);
}

static void on_kept(void *arg, const char *hash, const char *kind)
{
    struct worker *w = arg;
    struct errbuf  e = { 0 };
    if (!w->finishing && blobcache_send(w->blobs, hash, kind, &e) < 0)
        log_warn("upload_later", "blob=%s why=\"%s\"", hash, e.text);
}

static int send_blob_message(void *arg, struct wire_msg *m)
{
    return session_post(((struct worker *)arg)->session, m);
}

static void on_blobs_ready(void *arg, void *who, int rc, const struct errbuf *e)
{
    leases_blobs_ready(&((struct worker *)arg)->leases, who, rc, e);
}

static void on_file_sent(void *arg, const char *hash, int rc, const struct errbuf *e)
{
    leases_file_sent(&((struct worker *)arg)->leases, hash, rc, e);
}

/* ---- stopping ---- */
static void finish(struct worker *w)
{
    w->finishing = true;
    session_stop(w->session);
    w->session = NULL;
    blobcache_stop(w->blobs);
    runner_stop(w->runner);
    w->runner = NULL;
    uv_close((uv_handle_t *)&w->told, NULL);
    if (w->has_signals) {
        uv_close((uv_handle_t *)&w->sigterm, NULL);
        uv_close((uv_handle_t *)&w->sigint, NULL);
    }
}

/* A compute thread hangs: everything else is in order, so leave without it. */
static void leave_without_threads(struct worker *w)
{
    log_error("stop_forced", "why=\"a compute thread does not end\" next=\"its lease is handed back\"");
    leases_abandon(&w->leases);
    session_stop(w->session);
    w->session = NULL;
    uv_run(&w->loop, UV_RUN_NOWAIT);
    usleep(200 * 1000); /* the socket's linger */
    _exit(w->status);
}

static void advance_stop(struct worker *w, int64_t now)
{
    if (w->leases.n > 0) {
        w->idle_ms = now;
        if (!w->cancelled_all && now - w->stop_ms >= w->conf.grace_ms) {
            w->cancelled_all = true;
            leases_stop(&w->leases, STOP_NOW);
        } else if (w->cancelled_all && now - w->stop_ms >= w->conf.grace_ms + UNWIND_MS) {
            leave_without_threads(w);
        }
        return;
    }
    if (w->outbox.n > 0 && session_is_up(w->session) && now - w->idle_ms < DELIVER_MS)
        return;
    log_info("stopped", "delivered=%llu kept=%d", (unsigned long long)w->leases.n_done, w->outbox.n);
    finish(w);
}

static void stop_once(struct worker *w)
{
    if (w->finishing)
        return;
    if (w->stops++ > 0) {
        log_warn("stopped_at_once", "kept=%d", w->outbox.n);
        _exit(1);
    }
    w->stop_ms = w->idle_ms = (int64_t)uv_now(&w->loop);
    log_info("stopping", "leases=%d results=%d grace_ms=%d", w->leases.n, w->outbox.n, w->conf.grace_ms);
    leases_stop(&w->leases, STOP_SOON);
}

static void on_tick(void *arg, int64_t now_ms)
{
    struct worker *w = arg;
    if (w->finishing)
        return;
    leases_tick(&w->leases, now_ms);
    if (w->status == EXIT_DEVICE_LOST && w->leases.n == 0 && w->stops == 0)
        stop_once(w);
    if (w->stops > 0)
        advance_stop(w, now_ms);
}

static void on_told(uv_async_t *h)
{
    struct worker *w = h->data;
    while (w->stops < atomic_load(&w->asked) && !w->finishing)
        stop_once(w);
}

static void on_signal(uv_signal_t *h, int signum)
{
    (void)signum;
    worker_stop(h->data);
}

void worker_stop(struct worker *w)
{
    atomic_fetch_add(&w->asked, 1);
    uv_async_send(&w->told);
}

/* ---- assembly ---- */
/* Files of the uploads folder that no result names belong to computations that ended with an earlier process. */
static void sweep_uploads(struct worker *w)
{
    char path[FS_PATH_MAX + 300];
    DIR *d = opendir(w->folder.uploads);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        bool named = !blob_valid_hash(ent->d_name);
        for (int i = 0; !named && i < w->outbox.n; i++)
            named = strcmp(w->outbox.item[i]->r.artifact, ent->d_name) == 0 ||
                    strcmp(w->outbox.item[i]->r.checkpoint_blob, ent->d_name) == 0;
        if (named)
            continue;
        snprintf(path, sizeof path, "%s/%s", w->folder.uploads, ent->d_name);
        unlink(path);
    }
    if (d)
        closedir(d);
}

static int open_runner(struct worker *w, struct errbuf *e)
{
    if (w->tasks.device)
        w->device_bytes = (uint64_t)(DEVICE_SHARE * (double)w->tasks.device->free_bytes()) / (uint64_t)w->conf.slots;
    struct runner_events ev = { on_ended, on_progress, on_kept, w };
    struct runner_cfg    c = { .slots = w->conf.slots, .threads = w->conf.threads, .mem_bytes = w->conf.mem_bytes,
                               .device = w->tasks.device, .device_bytes = w->device_bytes,
                               .uploads = *blobcache_uploads(w->blobs), .thread_init = w->tasks.thread_init };
    if (snprintf(c.work_dir, sizeof c.work_dir, "%s", w->folder.work) >= (int)sizeof c.work_dir ||
        snprintf(c.outbox_dir, sizeof c.outbox_dir, "%s", w->folder.outbox) >= (int)sizeof c.outbox_dir)
        return err_set(e, ERR_INPUT, "%.60s...: the path is too long", w->conf.dir);
    memcpy(c.fn, w->tasks.fn, sizeof c.fn);
    return runner_new(&c, &w->loop, &ev, &w->runner, e);
}

static int open_session(struct worker *w, struct errbuf *e)
{
    struct session_events ev = { fill_hello, fill_heartbeat, on_up, on_down, on_message, on_tick, w };
    struct session_cfg    c = { .jitter_seed = 0 };
    memcpy(c.connect, w->conf.connect, sizeof c.connect);
    memcpy(c.key, w->conf.key, sizeof c.key);
    memcpy(c.server_key, w->conf.server_key, sizeof c.server_key);
    randombytes_buf(&c.jitter_seed, sizeof c.jitter_seed);
    return session_new(&c, &w->loop, w->ctx, &ev, &w->session, e);
}

int worker_new(const struct worker_conf *c, const struct worker_tasks *tasks, struct worker **out, struct errbuf *e)
{
    struct worker *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return err_set(e, ERR_NOMEM, "worker");
    w->conf = *c;
    w->tasks = *tasks;
    leases_init(&w->leases, c->slots);
    w->folder.lock_fd = -1;
    uv_loop_init(&w->loop);
    uv_async_init(&w->loop, &w->told, on_told);
    w->told.data = w;
    struct blobcache_io io = { send_blob_message, on_blobs_ready, on_file_sent, w };
    int                 rc = folder_open(&w->folder, c->dir, e);
    if (rc == 0)
        rc = outbox_open(&w->outbox, w->folder.outbox, e);
    if (rc == 0)
        rc = blobcache_new(w->folder.cache, w->folder.uploads, &w->loop, &io, &w->blobs, e);
    if (rc == 0) {
        sweep_uploads(w);
        w->ctx = zmq_ctx_new();
        rc = w->ctx ? open_runner(w, e) : err_set(e, ERR_NOMEM, "ZeroMQ");
    }
    if (rc == 0)
        rc = open_session(w, e);
    w->leases.session = w->session;
    w->leases.runner = w->runner;
    w->leases.blobs = w->blobs;
    w->leases.outbox = &w->outbox;
    if (rc < 0)
        worker_free(w);
    else
        *out = w;
    return rc;
}

/* What asks for a stop. */
static const sigset_t *stop_signals(void)
{
    static sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return &set;
}

void worker_hold_signals(void)
{
    pthread_sigmask(SIG_BLOCK, stop_signals(), NULL);
}

int worker_run(struct worker *w, bool signals)
{
    if (signals) {
        uv_signal_init(&w->loop, &w->sigterm);
        uv_signal_init(&w->loop, &w->sigint);
        w->sigterm.data = w->sigint.data = w;
        uv_signal_start(&w->sigterm, on_signal, SIGTERM);
        uv_signal_start(&w->sigint, on_signal, SIGINT);
        w->has_signals = true;
        pthread_sigmask(SIG_UNBLOCK, stop_signals(), NULL);
    }
    log_info("start", "id=%s name=\"%s\" connect=%s slots=%d threads=%d mem_mb=%llu isa=%s results_kept=%d", w->folder.worker_id,
             w->conf.name, w->conf.connect, w->conf.slots, w->conf.threads, (unsigned long long)(w->conf.mem_bytes >> 20),
             w->tasks.isa, w->outbox.n);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    return w->status;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    if (!w->finishing) { /* never ran, or half built */
        w->finishing = true;
        session_stop(w->session);
        if (w->blobs)
            blobcache_stop(w->blobs);
        runner_stop(w->runner);
        uv_close((uv_handle_t *)&w->told, NULL);
    }
    uv_run(&w->loop, UV_RUN_DEFAULT);
    int open = uv_loop_close(&w->loop);
    assert(open == 0); /* a handle that nobody closed */
    blobcache_free(w->blobs);
    leases_fini(&w->leases);
    outbox_close(&w->outbox);
    if (w->ctx)
        zmq_ctx_term(w->ctx);
    folder_close(&w->folder);
    free(w);
}
