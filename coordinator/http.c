/* http.c - the HTTP side: libmicrohttpd in external mode, its epoll descriptor and its timeout watched by the loop.
 * Everything answers from the loop's thread. What takes longer (replay and audit in the pool, results that are waited for, a commit)
 * suspends its connection until the answer is there.
 * Reading has no authentication: opts.c keeps it on loopback unless told otherwise. What an outside searcher writes passes http_guard.c. */
#include "coordinator/coord.h"

#include "common/log.h"
#include "coordinator/dashboard.h"
#include "coordinator/http_guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONNECTIONS 256
#define MAX_HELD        192 /* of them, waiting for results: others must get through */
#define HTTP_PATH       4096
#define MAX_BODY        (1u << 20) /* of a request that is refused: so much is read and dropped, so that the refusal is heard */
#define MAX_KEPT        (1u << 19) /* of one that is not: ASK_MAX_BATCH architectures, as JSON */
#define MAX_KEPT_ALL    (32u << 20)

struct http {
    struct coord      *c;
    struct MHD_Daemon *daemon;
    uv_poll_t          poll;
    uv_timer_t         timer;
    bool               closing;
    int                n_waiting; /* connections suspended until their answer is there */
    size_t             kept;      /* bytes of bodies */
    struct http_guard  guard;
};

/* One request; lives from the first call of on_request to on_completed. */
struct ask {
    struct http           *h;
    struct MHD_Connection *conn;
    bool   post;
    size_t body, n_kept, cap_kept;
    char  *kept;        /* owned; the body of a POST that may write */
    bool   waiting, answered;
    int    rc;
    json_t *doc;        /* owned; where it came later */
    struct errbuf e;
};

static void run_http(struct http *h);
static void close_handles(struct http *h);

static void on_timer(uv_timer_t *t) { run_http(t->data); }

static void run_http(struct http *h)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (h->closing)
        return;
    MHD_run(h->daemon);
    uv_timer_stop(&h->timer);
    if (MHD_get_timeout(h->daemon, &ms) == MHD_YES)
        uv_timer_start(&h->timer, on_timer, ms < 60000 ? ms : 60000, 0);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    run_http(p->data);
}

static enum MHD_Result send_text(struct MHD_Connection *conn, unsigned code, const char *type, char *text, enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = text ? MHD_create_response_from_buffer(strlen(text), text, mode) : NULL;
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    enum MHD_Result ok = MHD_queue_response(conn, code, r);
    MHD_destroy_response(r);
    return ok;
}

static unsigned status_of(int rc)
{
    return rc == 0 ? 200 : rc == -ERR_NOTFOUND ? 404 : err_can_retry(rc) ? 503 : rc == -ERR_INTERNAL ? 500 : rc == -ERR_DENIED ? 403 : rc == -ERR_STATE ? 409 : 400;
}

static enum MHD_Result send_doc(struct MHD_Connection *conn, int rc, const json_t *doc, const struct errbuf *e)
{
    char *text = NULL;
    if (rc == 0) {
        text = json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(17));
    } else {
        json_t *d = json_pack("{s:{s:s,s:s}}", "error", "code", err_name(rc), "text", err_message(e, rc));
        text = json_dumps(d, JSON_COMPACT);
        json_decref(d);
    }
    return send_text(conn, status_of(rc), "application/json", text, MHD_RESPMEM_MUST_FREE);
}

/* The answer of a request that may have waited for it, or may not: then whoever asked looks at `answered`. */
static void on_doc(void *arg, int rc, json_t *doc, const struct errbuf *e)
{
    struct ask *a = arg;
    struct http *h = a->h;
    a->rc = rc;
    a->doc = json_incref(doc);
    if (e)
        a->e = *e;
    a->answered = true;
    if (!a->waiting)
        return;
    a->waiting = false;
    MHD_resume_connection(a->conn);
    h->n_waiting--;
    if (h->closing && h->n_waiting == 0)
        close_handles(h);
    else
        run_http(h);
}

/* on_doc was called, or will be. */
static enum MHD_Result answer_later(struct ask *a)
{
    if (a->answered)
        return send_doc(a->conn, a->rc, a->doc, &a->e);
    MHD_suspend_connection(a->conn);
    a->waiting = true;
    a->h->n_waiting++;
    return MHD_YES;
}

static enum MHD_Result answer_api(struct ask *a, const char *path)
{
    struct errbuf e = { 0 };
    json_t *doc = NULL;
    bool full = a->h->n_waiting >= MAX_HELD && told_must_wait(a->h->c, path); /* then it is answered with what there is */
    bool slow = !full && docs_is_slow(a->h->c, path);
    int rc = slow ? docs_slow(a->h->c, path, on_doc, a, &e) : docs_get(a->h->c, path, &doc, &e);
    if (slow && rc == 0)
        return answer_later(a);
    enum MHD_Result ok = send_doc(a->conn, rc, doc, &e);
    json_decref(doc);
    return ok;
}

/* ---- what an outside searcher writes ---- */

static void on_asked(void *arg, int rc, const struct trial_row *row, size_t n, bool before, const struct errbuf *e)
{
    struct ask *a = arg;
    json_t *doc = rc == 0 ? proposals_doc(a->h->c->sched, row, n, before) : NULL;
    on_doc(a, rc, doc, e);
    json_decref(doc);
}

static void on_finished(void *arg, int rc, uint64_t job, const struct errbuf *e)
{
    struct ask *a = arg;
    json_t *doc = NULL;
    char path[32];
    snprintf(path, sizeof path, "jobs/%llu", (unsigned long long)job);
    if (rc == 0 && docs_get(a->h->c, path, &doc, NULL) < 0) /* saved it is, whether it can be read or not */
        doc = json_pack("{s:I}", "id", (json_int_t)job);
    on_doc(a, rc, doc, e);
    json_decref(doc);
}

static int post_trials(struct ask *a, uint64_t job, struct errbuf *e)
{
    struct proposals p;
    int rc = proposals_parse(a->kept ? a->kept : "", a->n_kept, &p, e);
    if (rc < 0)
        return rc;
    sched_propose(a->h->c->sched, job, p.request, p.v, p.n, on_asked, a);
    proposals_fini(&p);
    return 0;
}

static int post_finish(struct ask *a, uint64_t job, struct errbuf *e)
{
    (void)e;
    sched_change(a->h->c->sched, job, "finish", "", on_finished, a);
    return 0;
}

static enum MHD_Result answer_post(struct ask *a, const char *url)
{
    static const struct { const char *what; int (*fn)(struct ask *, uint64_t, struct errbuf *); } table[] = {
        { "trials", post_trials }, { "finish", post_finish },
    };
    char name[NAME_MAX_LEN + 1], what[16];
    int used = 0;
    uint64_t job;
    if (a->rc < 0)
        return send_doc(a->conn, a->rc, NULL, &a->e);
    if (sscanf(url, "/api/v1/jobs/%63[^/]/%15[a-z]%n", name, what, &used) == 2 && !url[used])
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
            if (strcmp(what, table[i].what) == 0) {
                int rc = submit_find_job(a->h->c, name, &job, &a->e);
                if (rc == 0)
                    rc = table[i].fn(a, job, &a->e);
                return rc < 0 ? send_doc(a->conn, rc, NULL, &a->e) : answer_later(a);
            }
    return send_doc(a->conn, err_set(&a->e, ERR_NOTFOUND, "POST takes jobs/JOB/trials and jobs/JOB/finish here; didact submits jobs"), NULL, &a->e);
}

/* A part of the body: kept where it is wanted and there is room. */
static void keep(struct ask *a, const char *part, size_t n)
{
    if (!a->post || a->rc < 0)
        return;
    if (n > MAX_KEPT - a->n_kept) {
        a->rc = err_set(&a->e, ERR_INPUT, "the body is larger than %u bytes: propose fewer at once", MAX_KEPT);
        return;
    }
    if (a->n_kept + n > a->cap_kept) {
        size_t cap = a->cap_kept ? 2 * a->cap_kept : 4096;
        while (cap < a->n_kept + n)
            cap *= 2;
        char *bigger = a->h->kept + cap - a->cap_kept <= MAX_KEPT_ALL ? realloc(a->kept, cap) : NULL;
        if (!bigger) {
            a->rc = err_set(&a->e, ERR_BUSY, "no room for the body of another request");
            return;
        }
        a->h->kept += cap - a->cap_kept;
        a->kept = bigger;
        a->cap_kept = cap;
    }
    memcpy(a->kept + a->n_kept, part, n);
    a->n_kept += n;
}

static enum MHD_Result on_argument(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
    char *path = arg; /* HTTP_PATH bytes; one that is cut here is too long for docs.c, which says so */
    size_t n = strlen(path);
    (void)kind;
    snprintf(path + n, HTTP_PATH - n, "%c%s=%s", strchr(path, '?') ? '&' : '?', key, value ? value : "");
    return MHD_YES;
}

static enum MHD_Result answer(struct ask *a, const char *url)
{
    struct coord *c = a->h->c;
    struct errbuf e = { 0 };
    char path[HTTP_PATH];
    if (strcmp(url, "/") == 0)
        return send_text(a->conn, 200, "text/html; charset=utf-8", (char *)(uintptr_t)dashboard_html, MHD_RESPMEM_PERSISTENT);
    if (strcmp(url, "/healthz") == 0)
        return send_text(a->conn, 200, "text/plain", strdup("ok\n"), MHD_RESPMEM_MUST_FREE);
    if (strcmp(url, "/readyz") == 0) {
        bool ready = !c->sched->store_down && !c->stopping;
        return send_text(a->conn, ready ? 200 : 503, "text/plain", strdup(ready ? "ok\n" : "the store cannot be written\n"), MHD_RESPMEM_MUST_FREE);
    }
    if (strcmp(url, "/metrics") == 0)
        return send_text(a->conn, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics_text(c), MHD_RESPMEM_MUST_FREE);
    if (strcmp(url, "/status") == 0)
        return answer_api(a, "status");
    if (strncmp(url, "/api/v1/", 8) != 0 || strlen(url) > 300)
        return send_doc(a->conn, err_set(&e, ERR_NOTFOUND, "there is nothing at %.100s", url), NULL, &e);
    snprintf(path, sizeof path, "%s", url + 8);
    MHD_get_connection_values(a->conn, MHD_GET_ARGUMENT_KIND, on_argument, path);
    return answer_api(a, path);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url, const char *method, const char *version,
                                  const char *upload, size_t *upload_size, void **con_cls)
{
    struct ask *a = *con_cls;
    (void)version;
    if (!a) { /* headers are here; the body, if any, comes with later calls */
        a = *con_cls = calloc(1, sizeof *a);
        if (!a)
            return MHD_NO;
        a->h = cls;
        a->conn = conn;
        a->post = strcmp(method, "POST") == 0;
        a->rc = http_guard_host(&a->h->guard, conn, &a->e);
        if (a->rc == 0 && a->post)
            a->rc = http_guard_write(&a->h->guard, conn, &a->e);
        return MHD_YES;
    }
    if (*upload_size) {
        keep(a, upload, *upload_size);
        a->body += *upload_size;
        *upload_size = 0;
        return a->body > MAX_BODY ? MHD_NO : MHD_YES;
    }
    if (a->answered)
        return send_doc(conn, a->rc, a->doc, &a->e);
    if (a->waiting)
        return MHD_YES;
    if (a->post)
        return answer_post(a, url);
    if (a->rc == 0 && strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        a->rc = err_set(&a->e, ERR_INPUT, "%.16s: there are GET, HEAD and POST", method);
    return a->rc < 0 ? send_doc(conn, a->rc, NULL, &a->e) : answer(a, url);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode why)
{
    struct ask *a = *con_cls;
    (void)cls;
    (void)conn;
    (void)why;
    if (a) {
        json_decref(a->doc);
        a->h->kept -= a->cap_kept;
        free(a->kept);
    }
    free(a);
    *con_cls = NULL;
}

/* %00 would cut the path short, and so name another document. */
static size_t unescape(void *cls, struct MHD_Connection *conn, char *text)
{
    (void)cls;
    (void)conn;
    size_t n = MHD_http_unescape(text);
    for (size_t i = 0; i < n; i++)
        if (text[i] == 0)
            text[i] = 1;
    return n;
}

int http_open(struct coord *c, struct errbuf *e)
{
    if (!c->opts.http_addr[0])
        return 0;
    struct http *h = calloc(1, sizeof *h);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(c->opts.http_port) };
    if (!h)
        return err_set(e, ERR_NOMEM, "http");
    h->c = c;
    int rc = http_guard_init(&h->guard, &c->opts, e);
    if (rc < 0) {
        free(h);
        return rc;
    }
    inet_pton(AF_INET, c->opts.http_addr, &at.sin_addr);
    errno = 0;
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR,
                                 (struct sockaddr *)&at, MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
                                 MHD_OPTION_CONNECTION_TIMEOUT, 60u, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                                 MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *port = h->daemon ? MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    const union MHD_DaemonInfo *fd = h->daemon ? MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!port || !fd || uv_poll_init(&c->loop, &h->poll, fd->epoll_fd) != 0) {
        int err = errno;
        if (h->daemon)
            MHD_stop_daemon(h->daemon);
        free(h);
        return err_set(e, ERR_UNREACHABLE, "cannot serve HTTP on %s:%u: %s", c->opts.http_addr, c->opts.http_port,
                       err ? strerror(err) : "the address is in use, or not of this machine");
    }
    uv_timer_init(&c->loop, &h->timer);
    h->poll.data = h->timer.data = h;
    uv_poll_start(&h->poll, UV_READABLE, on_poll);
    snprintf(c->http_url, sizeof c->http_url, "http://%s:%u", c->opts.http_addr, port->port);
    c->http = h;
    return 0;
}

static void on_timer_closed(uv_handle_t *t)
{
    struct http *h = t->data;
    MHD_stop_daemon(h->daemon);
    free(h);
}

static void on_poll_closed(uv_handle_t *p)
{
    struct http *h = p->data;
    uv_close((uv_handle_t *)&h->timer, on_timer_closed);
}

static void close_handles(struct http *h)
{
    uv_close((uv_handle_t *)&h->poll, on_poll_closed);
}

void http_close(struct coord *c)
{
    struct http *h = c->http;
    if (!h)
        return;
    h->closing = true;
    c->http = NULL;
    uv_poll_stop(&h->poll);
    uv_timer_stop(&h->timer);
    if (h->n_waiting == 0) /* else the last document does it: a suspended connection must not outlive the daemon */
        close_handles(h);
}
