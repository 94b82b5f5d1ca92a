/* session.c - who is behind which ROUTER identity, and sending. */
#include "coordinator/coord.h"

#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static size_t slot_of(const struct coord *c, const struct peer *p)
{
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (int i = 0; i < p->len; i++)
        h = (h ^ p->id[i]) * 1099511628211u;
    return h & (c->n_session_slots - 1);
}

static bool same(const struct peer *a, const struct peer *b)
{
    return a->len == b->len && memcmp(a->id, b->id, a->len) == 0;
}

struct session *session_find(struct coord *c, const struct peer *p)
{
    struct session *s = c->n_session_slots ? c->sessions[slot_of(c, p)] : NULL;
    while (s && !same(&s->peer, p))
        s = s->next;
    return s;
}

static bool grow(struct coord *c)
{
    size_t old_n = c->n_session_slots, n = old_n ? 2 * old_n : 64;
    struct session **old = c->sessions, **bigger = calloc(n, sizeof *bigger);
    if (!bigger)
        return old_n > 0;
    c->sessions = bigger;
    c->n_session_slots = n;
    for (size_t i = 0; i < old_n; i++)
        for (struct session *s = old[i], *next; s; s = next) {
            next = s->next;
            size_t k = slot_of(c, &s->peer);
            s->next = bigger[k];
            bigger[k] = s;
        }
    free(old);
    return true;
}

void session_drop(struct coord *c, struct session *s)
{
    struct session **at = &c->sessions[slot_of(c, &s->peer)];
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    if (s->worker && s->worker->peer == s)
        s->worker->peer = NULL;
    c->n_sessions--;
    free(s);
}

struct session *session_add(struct coord *c, const struct peer *p, struct worker *w)
{
    struct session *s = session_find(c, p), *had = w->peer;
    if (s && s == had)
        return s;
    if (had)
        session_drop(c, had);
    if (!s) {
        if (c->n_sessions >= c->n_session_slots && !grow(c))
            return NULL;
        s = calloc(1, sizeof *s);
        if (!s)
            return NULL;
        s->peer = *p;
        size_t k = slot_of(c, p);
        s->next = c->sessions[k];
        c->sessions[k] = s;
        c->n_sessions++;
    } else if (s->worker) {
        s->worker->peer = NULL; /* the same connection now speaks for another worker */
        sched_offline(c->sched, s->worker, "its connection changed its name");
    }
    s->worker = w;
    w->peer = s;
    return s;
}

void session_sweep(struct coord *c)
{
    for (size_t i = 0; i < c->n_session_slots; i++)
        for (struct session *s = c->sessions[i], *next; s; s = next) {
            next = s->next;
            if (s->worker->peer != s)
                session_drop(c, s);
        }
}

void session_free_all(struct coord *c)
{
    for (size_t i = 0; i < c->n_session_slots; i++)
        for (struct session *s = c->sessions[i], *next; s; s = next) {
            next = s->next;
            free(s);
        }
    free(c->sessions);
    c->sessions = NULL;
    c->n_session_slots = c->n_sessions = 0;
}

void session_send(struct coord *c, const struct peer *p, const struct wire_msg *m)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    struct errbuf e = { 0 };
    int rc = wire_encode(m, &bytes, &len, &e);
    if (rc < 0) {
        log_error("cannot_send", "kind=%d error=\"%s\"", m->kind, err_message(&e, rc));
        return;
    }
    /* ROUTER_MANDATORY: a peer that has gone is an error here, not a silence. Its lease's deadline, or its next try, does the rest. */
    if (zmq_send(c->router, p->id, p->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 || zmq_send(c->router, bytes, len, ZMQ_DONTWAIT) < 0) {
        if (zmq_errno() == EHOSTUNREACH)
            log_debug("peer_gone", "kind=%d", m->kind);
        else
            log_warn("send_failed", "kind=%d error=\"%s\" next=\"the peer asks again\"", m->kind, zmq_strerror(zmq_errno()));
    }
    free(bytes);
}

void session_send_lease(void *arg, struct worker *w, const struct task *t)
{
    struct coord *c = arg;
    struct session *s = w->peer;
    struct task copy = *t;
    struct wire_msg m = { .kind = WIRE_LEASE, .lease = &copy };
    if (s)
        session_send(c, &s->peer, &m);
}

void session_error(struct coord *c, const struct reply_to *to, int rc, const struct errbuf *e)
{
    char text[600];
    snprintf(text, sizeof text, "%s", err_message(e, rc));
    struct wire_msg m = { .kind = WIRE_ERROR, .seq = to->seq, .reply = { .code = rc < 0 ? -rc : rc, .text = text } };
    session_send(c, &to->peer, &m);
}
