/* http.c - the read-only HTTP side: libmicrohttpd in external mode, its epoll descriptor and its timeout watched by the loop.
 * Everything answers from the loop's thread except replay, which suspends its connection until the pool is done.
 * There is no authentication: opts.c keeps it on loopback unless told otherwise. Host headers are checked there, so that a web page
 * cannot read it through a name that resolves to 127.0.0.1. */
#include "coordinator/coord.h"

#include "common/log.h"
#include "coordinator/dashboard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONNECTIONS 256
#define MAX_BODY        (1u << 20) /* of a request: we want none; so much is read and dropped, so that the refusal is heard */

struct http {
    struct coord      *c;
    struct MHD_Daemon *daemon;
    uv_poll_t          poll;
    uv_timer_t         timer;
    bool               closing;
    int                n_waiting; /* connections suspended for the pool */
};

/* One request; lives from the first call of on_request to on_completed. */
struct ask {
    struct http           *h;
    struct MHD_Connection *conn;
    size_t body;
    bool   waiting, answered;
    int    rc;
    json_t *doc;        /* of a replay */
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
    return rc == 0 ? 200 : rc == -ERR_NOTFOUND ? 404 : err_can_retry(rc) ? 503 : rc == -ERR_INTERNAL ? 500 : rc == -ERR_DENIED ? 403 : 400;
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

static void on_replayed(void *arg, int rc, json_t *doc, const struct errbuf *e)
{
    struct ask *a = arg;
    struct http *h = a->h;
    a->waiting = false;
    a->rc = rc;
    a->doc = json_incref(doc);
    if (e)
        a->e = *e;
    a->answered = true;
    MHD_resume_connection(a->conn);
    h->n_waiting--;
    if (h->closing && h->n_waiting == 0)
        close_handles(h);
    else
        run_http(h);
}

static enum MHD_Result answer_api(struct ask *a, const char *path)
{
    struct errbuf e = { 0 };
    json_t *doc = NULL;
    if (docs_is_slow(path)) {
        MHD_suspend_connection(a->conn);
        a->waiting = true;
        a->h->n_waiting++;
        int rc = docs_slow(a->h->c, path, on_replayed, a, &e);
        if (rc == 0)
            return MHD_YES;
        a->h->n_waiting--;
        a->waiting = false;
        a->answered = true;
        a->rc = rc;
        a->e = e;
        MHD_resume_connection(a->conn);
        return MHD_YES;
    }
    int rc = docs_get(a->h->c, path, &doc, &e);
    enum MHD_Result ok = send_doc(a->conn, rc, doc, &e);
    json_decref(doc);
    return ok;
}

static enum MHD_Result on_argument(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
    char *path = arg;
    size_t n = strlen(path);
    (void)kind;
    snprintf(path + n, 500 - n, "%c%s=%s", strchr(path, '?') ? '&' : '?', key, value ? value : "");
    return MHD_YES;
}

/* Loopback alone: only names of this machine, whatever a browser was told. */
static bool host_ok(struct ask *a)
{
    const char *host = MHD_lookup_connection_value(a->conn, MHD_HEADER_KIND, "Host");
    if (a->h->c->opts.http_public || !host)
        return true;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 || strncmp(host, "[::1]", 5) == 0;
}

static enum MHD_Result answer(struct ask *a, const char *url)
{
    struct coord *c = a->h->c;
    struct errbuf e = { 0 };
    char path[512];
    if (!host_ok(a))
        return send_doc(a->conn, err_set(&e, ERR_DENIED, "this address answers to 127.0.0.1 and localhost only"), NULL, &e);
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
    struct errbuf e = { 0 };
    (void)version;
    (void)upload;
    if (!a) { /* headers are here; the body, if any, comes with later calls */
        a = *con_cls = calloc(1, sizeof *a);
        if (!a)
            return MHD_NO;
        a->h = cls;
        a->conn = conn;
        return MHD_YES;
    }
    if (*upload_size) {
        a->body += *upload_size;
        *upload_size = 0;
        return a->body > MAX_BODY ? MHD_NO : MHD_YES;
    }
    if (a->answered)
        return send_doc(conn, a->rc, a->doc, &a->e);
    if (a->waiting)
        return MHD_YES;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return send_doc(conn, err_set(&e, ERR_INPUT, "%.16s: HTTP here is read-only; use didact to submit", method), NULL, &e);
    return answer(a, url);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode why)
{
    struct ask *a = *con_cls;
    (void)cls;
    (void)conn;
    (void)why;
    if (a)
        json_decref(a->doc);
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
    if (h->n_waiting == 0) /* else the last replay does it: a suspended connection must not outlive the daemon */
        close_handles(h);
}
