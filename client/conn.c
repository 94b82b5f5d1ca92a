/* conn.c - request and reply over ZeroMQ. A connection that does not answer in time is thrown away: the answer to an
 * old request must never be taken for the answer to a new one, and the sequence numbers make sure of it as well. */
#include "client/conn.h"

#include "common/fsio.h"
#include "common/keys.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define ENDPOINT_MAX 512

struct conn {
    void    *ctx, *sock;  /* owned */
    char     endpoint[ENDPOINT_MAX], key_file[FS_PATH_MAX], server_key[FS_PATH_MAX];
    int      timeout_ms;
    bool     insecure;
    void   (*on_note)(const char *text);
    char     note[256];  /* the last one that was told */
    uint64_t seq;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- where the coordinator is ---- */

int conn_default_dir(char *out, size_t cap, struct errbuf *e)
{
    const char *home = getenv("DIDACT_HOME"), *data = getenv("XDG_DATA_HOME"), *user = getenv("HOME");
    int n;
    if (home && *home)
        n = snprintf(out, cap, "%s", home);
    else if (data && *data)
        n = snprintf(out, cap, "%s/didact/local", data);
    else if (user && *user)
        n = snprintf(out, cap, "%s/.local/share/didact/local", user);
    else
        return err_set(e, ERR_USAGE, "no folder to use: set DIDACT_HOME or HOME, or give --dir");
    return n > 0 && (size_t)n < cap ? 0 : err_set(e, ERR_USAGE, "the name of the local folder is too long");
}

/* The best endpoint in DIR/endpoints.json: ipc before the others. */
static int endpoint_of_dir(const char *dir, char out[ENDPOINT_MAX], struct errbuf *e)
{
    char path[FS_PATH_MAX];
    json_error_t je;
    snprintf(path, sizeof path, "%s/endpoints.json", dir);
    if (access(path, F_OK) != 0)
        return err_set(e, ERR_UNREACHABLE, "no coordinator is running in %s (didact local start --dir %s starts one; --connect names"
                       " another)", dir, dir);
    json_t *doc = json_load_file(path, 0, &je), *list = json_object_get(doc, "zmq"), *v;
    size_t i;
    int rc = 0;
    out[0] = 0;
    json_array_foreach(list, i, v) {
        const char *s = json_string_value(v);
        if (s && strlen(s) < ENDPOINT_MAX && (!out[0] || strncmp(s, "ipc:", 4) == 0))
            snprintf(out, ENDPOINT_MAX, "%s", s);
    }
    json_int_t pid = json_integer_value(json_object_get(doc, "pid"));
    if (!out[0])
        rc = err_set(e, ERR_INPUT, "%s: names no endpoint%s%s", path, doc ? "" : ": ", doc ? "" : je.text);
    else if (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
        rc = err_set(e, ERR_UNREACHABLE, "the coordinator of %s is not running (process %lld is gone); didact local start --dir %s"
                     " starts it again", dir, (long long)pid, dir);
    json_decref(doc);
    return rc;
}

static int find_endpoint(const struct conn_cfg *cfg, char out[ENDPOINT_MAX], struct errbuf *e)
{
    char dir[FS_PATH_MAX];
    const char *env = getenv("DIDACT_CONNECT"), *ep = cfg->endpoint;
    if (!ep && !cfg->dir && env && *env)
        ep = env;
    if (ep) {
        if (strlen(ep) >= ENDPOINT_MAX || !strstr(ep, "://"))
            return err_set(e, ERR_USAGE, "'%s' is not an address like tcp://host:7707 or ipc:///path", ep);
        snprintf(out, ENDPOINT_MAX, "%s", ep);
        return 0;
    }
    if (cfg->dir)
        return endpoint_of_dir(cfg->dir, out, e);
    int rc = conn_default_dir(dir, sizeof dir, e);
    return rc < 0 ? rc : endpoint_of_dir(dir, out, e);
}

/* ---- the socket ---- */

static void drop(struct conn *c)
{
    if (c->sock)
        zmq_close(c->sock);
    c->sock = NULL;
}

/* ZeroMQ waits in silence for a socket file that nobody listens on; a plain connect knows at once. */
static int knock(const struct conn *c, struct errbuf *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    const char *path = c->endpoint + strlen("ipc://");
    if (strncmp(c->endpoint, "ipc://", strlen("ipc://")) != 0 || *path == '@' || *path == '*')
        return 0;
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(e, ERR_USAGE, "%s: a socket's path has at most %zu bytes", c->endpoint, sizeof a.sun_path - 1);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0, why = 0;
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
        why = errno;
    if (why == ENOENT || why == ECONNREFUSED)
        rc = err_set(e, ERR_UNREACHABLE, "nobody listens at %s; is the coordinator running?", c->endpoint);
    else if (why == EACCES || why == EPERM)
        rc = err_set(e, ERR_DENIED, "%s: not allowed to connect", c->endpoint);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int dial(struct conn *c, struct errbuf *e)
{
    int zero = 0, hwm = 64, ivl = 100, ivl_max = 2000, rc = 0;
    int64_t most = WIRE_MAX_BYTES;
    if (c->sock)
        return 0;
    if ((rc = knock(c, e)) < 0)
        return rc;
    c->sock = zmq_socket(c->ctx, ZMQ_DEALER);
    if (!c->sock)
        return err_set(e, ERR_IO, "cannot open a socket: %s", zmq_strerror(errno));
    zmq_setsockopt(c->sock, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(c->sock, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(c->sock, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(c->sock, ZMQ_RECONNECT_IVL, &ivl, sizeof ivl);
    zmq_setsockopt(c->sock, ZMQ_RECONNECT_IVL_MAX, &ivl_max, sizeof ivl_max);
    zmq_setsockopt(c->sock, ZMQ_MAXMSGSIZE, &most, sizeof most);
    if (c->key_file[0] || c->server_key[0]) {
        if (!c->key_file[0] || !c->server_key[0])
            rc = err_set(e, ERR_USAGE, "a connection with keys needs both --key and --server-key");
        else
            rc = keys_client_setup(c->sock, c->key_file, c->server_key, e);
    } else if (!endpoint_is_local(c->endpoint) && !c->insecure) {
        rc = err_set(e, ERR_DENIED, "%s is not on this machine: give --key and --server-key (didact keygen makes keys), or"
                     " --insecure to speak in the clear", c->endpoint);
    }
    if (rc == 0 && zmq_connect(c->sock, c->endpoint) != 0)
        rc = err_set(e, ERR_USAGE, "cannot connect to %s: %s", c->endpoint, zmq_strerror(errno));
    if (rc < 0)
        drop(c);
    return rc;
}

/* Variables are for the coordinator elsewhere; one on this machine has no keys unless a flag says so. */
static void take_keys(struct conn *c, const struct conn_cfg *cfg)
{
    bool near = endpoint_is_local(c->endpoint);
    const char *key = cfg->key_file || near ? cfg->key_file : getenv("DIDACT_KEY");
    const char *server = cfg->server_key || near ? cfg->server_key : getenv("DIDACT_SERVER_KEY");
    snprintf(c->key_file, sizeof c->key_file, "%s", key ? key : "");
    snprintf(c->server_key, sizeof c->server_key, "%s", server ? server : "");
}

int conn_open(const struct conn_cfg *cfg, struct conn **out, struct errbuf *e)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    c->timeout_ms = cfg->timeout_ms > 0 ? cfg->timeout_ms : (int)(CONN_TIMEOUT_S * 1000);
    const char *clear = getenv("DIDACT_INSECURE");
    c->insecure = cfg->insecure || (clear && strcmp(clear, "1") == 0);
    int rc = find_endpoint(cfg, c->endpoint, e);
    if (rc == 0)
        take_keys(c, cfg);
    if (rc == 0 && !(c->ctx = zmq_ctx_new()))
        rc = err_set(e, ERR_NOMEM, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    if (rc == 0)
        rc = dial(c, e); /* what can be refused at once is */
    if (rc < 0)
        conn_close(c);
    else
        *out = c;
    return rc;
}

void conn_close(struct conn *c)
{
    if (!c)
        return;
    drop(c);
    if (c->ctx)
        zmq_ctx_term(c->ctx);
    free(c);
}

const char *conn_endpoint(const struct conn *c) { return c->endpoint; }

void conn_patience(struct conn *c, double seconds)
{
    if (c->timeout_ms < seconds * 1000)
        c->timeout_ms = (int)(seconds * 1000);
}

/* ---- ask ---- */

static int silence(const struct conn *c, bool sent, struct errbuf *e)
{
    if (sent && c->key_file[0])
        return err_set(e, ERR_UNREACHABLE, "no answer from %s in %g s (not running, or it does not know this key)", c->endpoint,
                       c->timeout_ms / 1000.0);
    return err_set(e, ERR_UNREACHABLE, "no answer from %s in %g s; is the coordinator running?", c->endpoint, c->timeout_ms / 1000.0);
}

/* Take one message if it answers `seq`: 1 taken, 0 not ours or nothing there, negative error. */
static int take_answer(struct conn *c, uint64_t seq, struct wire_msg *ans, struct errbuf *e)
{
    zmq_msg_t m;
    zmq_msg_init(&m);
    int n = zmq_msg_recv(&m, c->sock, ZMQ_DONTWAIT), rc = 0;
    if (n < 0) {
        zmq_msg_close(&m);
        return errno == EAGAIN || errno == EINTR ? 0 : err_set(e, ERR_IO, "receiving from %s: %s", c->endpoint, zmq_strerror(errno));
    }
    rc = wire_decode(zmq_msg_data(&m), zmq_msg_size(&m), ans, e);
    zmq_msg_close(&m);
    if (rc < 0)
        return err_wrap(e, rc, "the answer of %s", c->endpoint);
    if (ans->seq == seq)
        return 1;
    wire_msg_fini(ans);
    return 0;
}

static int wait_answer(struct conn *c, uint64_t seq, int64_t until, struct wire_msg *ans, struct errbuf *e)
{
    for (;;) {
        int rc = take_answer(c, seq, ans, e);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        int64_t left = until - now_ms();
        if (left <= 0)
            return silence(c, true, e);
        zmq_pollitem_t item = { .socket = c->sock, .events = ZMQ_POLLIN };
        if (zmq_poll(&item, 1, (long)left) < 0 && errno != EINTR)
            return err_set(e, ERR_IO, "waiting for %s: %s", c->endpoint, zmq_strerror(errno));
    }
}

static int ask_once(struct conn *c, struct wire_msg *req, int timeout_ms, struct wire_msg *ans, struct errbuf *e)
{
    uint8_t *bytes = NULL;
    size_t   len = 0;
    req->seq = ++c->seq;
    int rc = dial(c, e);
    if (rc < 0 || (rc = wire_encode(req, &bytes, &len, e)) < 0)
        return rc;
    int64_t until = now_ms() + timeout_ms;
    while (zmq_send(c->sock, bytes, len, ZMQ_DONTWAIT) < 0 && rc == 0) { /* no peer yet: ZeroMQ is still connecting */
        zmq_pollitem_t item = { .socket = c->sock, .events = ZMQ_POLLOUT };
        int64_t left = until - now_ms();
        if (errno != EAGAIN && errno != EINTR)
            rc = err_set(e, ERR_IO, "sending to %s: %s", c->endpoint, zmq_strerror(errno));
        else if (left <= 0)
            rc = silence(c, false, e);
        else
            zmq_poll(&item, 1, (long)left);
    }
    free(bytes);
    if (rc == 0)
        rc = wait_answer(c, req->seq, until, ans, e);
    if (rc < 0)
        drop(c);
    return rc;
}

void conn_on_note(struct conn *c, void (*fn)(const char *text)) { c->on_note = fn; }

/* A verb asks several times for the same job; one note is enough. */
static void tell_note(struct conn *c, const char *text)
{
    if (!c->on_note || !text || !*text || strncmp(c->note, text, sizeof c->note - 1) == 0)
        return;
    snprintf(c->note, sizeof c->note, "%s", text);
    c->on_note(text);
}

int conn_ask(struct conn *c, struct wire_msg *req, enum wire_kind want, bool again, struct wire_msg *ans, struct errbuf *e)
{
    /* A request that may go twice gets half the time each. */
    int tries = again ? 2 : 1, rc = 0;
    for (int i = 0; i < tries; i++) {
        rc = ask_once(c, req, c->timeout_ms / tries, ans, e);
        if (rc != -ERR_UNREACHABLE)
            break;
    }
    if (rc == -ERR_UNREACHABLE && !again)
        return err_set(e, ERR_UNREACHABLE, "no answer from %s in %g s; whether the request was carried out is not known: look before"
                       " repeating it", c->endpoint, c->timeout_ms / 1000.0);
    if (rc < 0)
        return rc;
    if (ans->kind == want && !(want == WIRE_REPLY && ans->reply.code != 0)) {
        if (want == WIRE_REPLY)
            tell_note(c, ans->reply.text);
        return 0;
    }
    if (ans->kind == WIRE_ERROR || ans->kind == WIRE_REPLY)
        rc = err_set(e, (enum err)(ans->reply.code > 0 && ans->reply.code < ERR_COUNT ? ans->reply.code : ERR_INTERNAL), "%s",
                     ans->reply.text && ans->reply.text[0] ? ans->reply.text : err_text(ans->reply.code));
    else
        rc = err_set(e, ERR_INTERNAL, "the coordinator answered a message of kind %d with one of kind %d", req->kind, ans->kind);
    wire_msg_fini(ans);
    return rc;
}

/* Take the document out of a reply and end it. */
int conn_reply(struct wire_msg *ans, json_t **out, struct errbuf *e)
{
    json_error_t je;
    int rc = 0;
    *out = ans->reply.json ? json_loads(ans->reply.json, JSON_DECODE_ANY, &je) : json_null();
    if (!*out)
        rc = err_set(e, ERR_INTERNAL, "the coordinator's document is not JSON: %s", je.text);
    wire_msg_fini(ans);
    return rc;
}

int conn_query(struct conn *c, json_t **out, struct errbuf *e, const char *fmt, ...)
{
    char path[1024];
    struct wire_msg ans, req = { .kind = WIRE_QUERY, .query.path = path };
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(e, ERR_USAGE, "the name is too long");
    int rc = conn_ask(c, &req, WIRE_REPLY, true, &ans, e);
    return rc < 0 ? rc : conn_reply(&ans, out, e);
}

int conn_submit(struct conn *c, const char *yaml, const char *file, int n_set, const char *const *set, bool dry_run, json_t **out,
                struct errbuf *e)
{
    struct wire_msg ans, req = { .kind = WIRE_SUBMIT };
    req.submit.yaml = (char *)yaml;
    req.submit.n_set = n_set;
    req.submit.set = (char **)set;
    req.submit.dry_run = dry_run;
    snprintf(req.submit.file, sizeof req.submit.file, "%s", file);
    int rc = conn_ask(c, &req, WIRE_REPLY, dry_run, &ans, e);
    return rc < 0 ? rc : conn_reply(&ans, out, e);
}

int conn_action(struct conn *c, const char *job, const char *action, const char *arg, bool again, json_t **out, struct errbuf *e)
{
    struct wire_msg ans, req = { .kind = WIRE_JOB_ACTION };
    if (strlen(job) >= sizeof req.job_action.job)
        return err_set(e, ERR_NOTFOUND, "there is no job '%s'", job);
    snprintf(req.job_action.job, sizeof req.job_action.job, "%s", job);
    if (strlen(arg) >= sizeof req.job_action.arg)
        return err_set(e, ERR_USAGE, "more than %zu bytes of settings", sizeof req.job_action.arg - 1);
    snprintf(req.job_action.action, sizeof req.job_action.action, "%s", action);
    snprintf(req.job_action.arg, sizeof req.job_action.arg, "%s", arg);
    int rc = conn_ask(c, &req, WIRE_REPLY, again, &ans, e);
    return rc < 0 ? rc : conn_reply(&ans, out, e);
}
