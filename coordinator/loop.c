/* loop.c - one run of the daemon: open everything in order, turn the loop, close everything in reverse.
 * A stop: intake ends, what was handed to the store is committed and acknowledged, handles are closed, the loop runs dry. */
#include "coordinator/coord.h"

#include "common/fsio.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define TICK_MS   100
#define SWEEP_TICKS 10
#define BUDGET    256   /* messages a turn of the loop */
#define HWM       20000
#define LINGER_MS 2000

int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t sched_clock(void *arg)
{
    (void)arg;
    return clock_ms();
}

/* ---- the folder ---- */
static int take_lock(struct coord *c, struct errbuf *e)
{
    char path[3100], pid[32] = "";
    snprintf(path, sizeof path, "%s/didactd.lock", c->opts.dir);
    c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (c->lock_fd < 0)
        return fs_error(e, errno, "cannot open", path);
    if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = pread(c->lock_fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return err_set(e, ERR_BUSY, "another didactd (process %s) uses the folder %.300s", *pid ? pid : "unknown", c->opts.dir);
    }
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(c->lock_fd, 0) != 0 || pwrite(c->lock_fd, pid, (size_t)n, 0) != n)
        return fs_error(e, errno, "cannot write", path);
    return 0;
}

static int write_endpoints(struct coord *c, struct errbuf *e)
{
    char path[3100];
    snprintf(path, sizeof path, "%s/endpoints.json", c->opts.dir);
    json_t *zmq = json_array();
    for (int i = 0; i < c->n_endpoints; i++)
        json_array_append_new(zmq, json_string(c->endpoint[i]));
    json_t *doc = json_pack("{s:o,s:s?,s:I,s:s}", "zmq", zmq, "http", c->http_url[0] ? c->http_url : NULL, "pid", (json_int_t)getpid(),
                            "version", DIDACT_VERSION);
    char *text = json_dumps(doc, JSON_INDENT(1));
    json_decref(doc);
    int rc = text ? fs_write_atomic(path, text, strlen(text), e) : err_set(e, ERR_NOMEM, "endpoints.json");
    free(text);
    return rc;
}

/* ---- ZeroMQ ---- */
static int set_int(void *sock, int option, int value) { return zmq_setsockopt(sock, option, &value, sizeof value); }

/* libzmq takes an ipc path over without asking; whoever serves it now would never hear of it. */
static bool ipc_in_use(const char *endpoint)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    const char *path = endpoint + 6;
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(path) >= sizeof a.sun_path || *path == '@')
        return false;
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool used = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0)
        close(fd);
    return used;
}

static int bind_one(struct coord *c, const char *endpoint, struct errbuf *e)
{
    char last[ENDPOINT_MAX] = "";
    size_t n = sizeof last;
    bool used = ipc_in_use(endpoint);
    if (used || zmq_bind(c->router, endpoint) != 0)
        return err_set(e, ERR_UNREACHABLE, "cannot listen on %s: %s", endpoint, used ? "another process serves it" : zmq_strerror(zmq_errno()));
    zmq_getsockopt(c->router, ZMQ_LAST_ENDPOINT, last, &n);
    snprintf(c->endpoint[c->n_endpoints++], ENDPOINT_MAX, "%.390s", *last ? last : endpoint);
    return 0;
}

/* Keys given: all TCP uses them, loopback too; ipc is guarded by the folder's permissions. */
static bool wants_keys(const struct coord *c, const char *endpoint)
{
    return c->opts.keys[0] && strncmp(endpoint, "tcp://", 6) == 0;
}

static int open_router(struct coord *c, struct errbuf *e)
{
    c->zctx = zmq_ctx_new();
    c->router = c->zctx ? zmq_socket(c->zctx, ZMQ_ROUTER) : NULL;
    if (!c->router)
        return err_set(e, ERR_NOMEM, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    int64_t most = WIRE_MAX_BYTES;
    if (set_int(c->router, ZMQ_ROUTER_MANDATORY, 1) || set_int(c->router, ZMQ_ROUTER_HANDOVER, 1) || set_int(c->router, ZMQ_LINGER, LINGER_MS) ||
        set_int(c->router, ZMQ_SNDHWM, HWM) || set_int(c->router, ZMQ_RCVHWM, HWM) || set_int(c->router, ZMQ_IPV6, 1) ||
        set_int(c->router, ZMQ_HEARTBEAT_IVL, 10000) || set_int(c->router, ZMQ_BACKLOG, 1024) ||
        zmq_setsockopt(c->router, ZMQ_MAXMSGSIZE, &most, sizeof most))
        return err_set(e, ERR_INTERNAL, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    int rc = 0;
    for (int keyed = 0; keyed < 2 && rc == 0; keyed++) {
        for (int i = 0; i < c->opts.n_listen && rc == 0; i++) {
            if (wants_keys(c, c->opts.listen[i]) != (keyed == 1))
                continue;
            if (keyed && !c->auth)
                rc = keys_server_setup(c->zctx, c->router, c->opts.keys, &c->auth, e);
            if (rc == 0)
                rc = bind_one(c, c->opts.listen[i], e);
            if (rc == 0 && !keyed && !endpoint_is_local(c->opts.listen[i]))
                log_warn("insecure", "endpoint=%s meaning=\"no keys: whoever reaches this address may do anything\"", c->opts.listen[i]);
        }
    }
    return rc == 0 ? zwatch_init(&c->watch, &c->loop, c->router, handle_ready, c, BUDGET, e) : rc;
}

/* ---- the loop ---- */
static void on_wake(uv_async_t *a)
{
    struct coord *c = a->data;
    store_pump(c->store);
    told_look(c, false);
}

static void wake(void *arg) /* the store's thread */
{
    struct coord *c = arg;
    uv_async_send(&c->wake);
}

/* A tick that comes much too late (or early: the clock was set back) tells that we were away, not that workers were silent. */
static void notice_sleep(struct coord *c)
{
    int64_t now = clock_ms(), away = c->tick_ms ? now - c->tick_ms - TICK_MS : 0;
    c->tick_ms = now;
    if (away > (int64_t)c->opts.heartbeat_ms || away < -(int64_t)c->opts.heartbeat_ms) {
        log_warn("slept", "ms=%lld meaning=\"stopped, overloaded, or the clock was set; leases are prolonged\"", (long long)away);
        sched_slept(c->sched, away);
    }
}

static void on_tick(uv_timer_t *t)
{
    struct coord *c = t->data;
    static int n;
    notice_sleep(c);
    sched_tick(c->sched);
    told_look(c, false);
    if (++n % SWEEP_TICKS == 0) {
        session_sweep(c);
        blobs_tick(c);
    }
}

static void stop(struct coord *c)
{
    if (c->stopping)
        return;
    c->stopping = true;
    sched_stop(c->sched);
    store_flush(c->store); /* commits what is under way; its acknowledgements leave now */
    told_look(c, true);
    zwatch_close(&c->watch, NULL, NULL);
    http_close(c);
    uv_close((uv_handle_t *)&c->tick, NULL);
    uv_close((uv_handle_t *)&c->sig[0], NULL);
    uv_close((uv_handle_t *)&c->sig[1], NULL);
    uv_close((uv_handle_t *)&c->wake, NULL); /* nothing is put into the store after this */
}

static void on_signal(uv_signal_t *h, int signum)
{
    log_info("stopping", "signal=%d", signum);
    stop(h->data);
}

static int open_loop(struct coord *c, struct errbuf *e)
{
    static const int signals[2] = { SIGTERM, SIGINT };
    int rc = uv_loop_init(&c->loop);
    if (rc == 0)
        rc = uv_async_init(&c->loop, &c->wake, on_wake);
    if (rc < 0)
        return err_set(e, ERR_NOMEM, "loop: %s", uv_strerror(rc));
    uv_timer_init(&c->loop, &c->tick);
    c->wake.data = c->tick.data = c;
    uv_timer_start(&c->tick, on_tick, TICK_MS, TICK_MS);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&c->loop, &c->sig[i]);
        c->sig[i].data = c;
        uv_signal_start(&c->sig[i], on_signal, signals[i]);
    }
    return 0;
}

static int open_all(struct coord *c, bool *loop_open, struct errbuf *e)
{
    struct store_cfg sc = { .wake = wake, .wake_arg = c };
    int rc = fs_mkdir_p(c->opts.dir, e);
    if (rc == 0)
        rc = take_lock(c, e);
    if (rc == 0)
        rc = blobs_open(c, e);
    if (rc < 0)
        return rc;
    snprintf(c->db_path, sizeof c->db_path, "%s/didact.db", c->opts.dir);
    rc = open_loop(c, e);
    *loop_open = rc == 0;
    if (rc == 0)
        rc = store_open(&c->store, c->db_path, &sc, e);
    if (rc == 0)
        rc = reader_open(&c->reader, c->db_path, e);
    if (rc < 0)
        return rc;
    struct sched_cfg cfg = { .store = c->store, .reader = c->reader, .heartbeat_ms = c->opts.heartbeat_ms, .lease_ms = c->opts.lease_ms,
                             .now_ms = sched_clock, .send_lease = session_send_lease, .image_shape = coord_image_shape,
                             .spaces = spaces_of_job, .job_data = coord_job_data, .arg = c };
    rc = sched_open(&c->sched, &cfg, e);
    if (rc == 0)
        rc = open_router(c, e);
    if (rc == 0)
        rc = http_open(c, e);
    return rc == 0 ? write_endpoints(c, e) : rc;
}

/* What is open of a start that failed half-way. */
static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

static int close_all(struct coord *c, bool loop_open, bool ready)
{
    int rc = 0;
    char path[3100];
    if (ready) {
        snprintf(path, sizeof path, "%s/endpoints.json", c->opts.dir);
        unlink(path);
    } else if (loop_open) {
        http_close(c);
        zwatch_close(&c->watch, NULL, NULL);
        uv_run(&c->loop, UV_RUN_NOWAIT);
        if (c->store)
            store_flush(c->store);
        uv_walk(&c->loop, close_handle, NULL);
        uv_run(&c->loop, UV_RUN_DEFAULT);
    }
    reader_close(c->reader); /* before the writer: the last to close folds the log into the database */
    store_close(c->store);
    if (loop_open && uv_loop_close(&c->loop) != 0) {
        log_error("handle_leaked", "bug=\"the loop still has handles\"");
        rc = -ERR_INTERNAL;
    }
    sched_close(c->sched);
    blobs_close(c);
    session_free_all(c);
    if (c->router)
        zmq_close(c->router);
    keys_server_stop(c->auth);
    if (c->zctx)
        zmq_ctx_term(c->zctx);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    return rc;
}

int coord_run(const struct opts *o)
{
    struct coord *c = calloc(1, sizeof *c);
    struct errbuf e = { 0 };
    bool loop_open = false;
    if (!c)
        return err_exit_status(-ERR_NOMEM);
    c->opts = *o;
    c->lock_fd = -1;
    list_init(&c->told_waits);
    c->started_ms = clock_ms();
    signal(SIGPIPE, SIG_IGN);
    int rc = open_all(c, &loop_open, &e);
    if (rc == 0) {
        log_info("ready", "version=%s dir=\"%s\" zmq=%s http=%s jobs=%d pid=%ld", DIDACT_VERSION, o->dir, c->endpoint[0],
                 c->http_url[0] ? c->http_url : "off", c->sched->n_jobs, (long)getpid());
        uv_run(&c->loop, UV_RUN_DEFAULT);
        rc = close_all(c, true, true);
        log_info("stopped", "status=%d", err_exit_status(rc));
    } else {
        log_error("cannot_start", "code=%s error=\"%s\"", err_name(rc), err_message(&e, rc));
        close_all(c, loop_open, false);
    }
    free(c);
    return err_exit_status(rc);
}
