/* handle.c - what each kind of message does, and who may send it. A bad message is answered, never a reason to disconnect. */
#include "coordinator/coord.h"

#include "common/engine_version.h"
#include "common/log.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define REPLY_MAX_JSON (WIRE_MAX_BYTES - (256u << 10)) /* leaves room for the envelope */

struct request {
    struct coord   *c;
    struct reply_to to;
    struct session *session; /* NULL: has not said hello */
    struct wire_msg m;
};

static void say(struct request *r, const struct wire_msg *m)
{
    session_send(r->c, &r->to.peer, m);
}

/* ---- workers ---- */
static void on_hello(struct request *r)
{
    struct errbuf e = { 0 };
    if (strcmp(r->m.hello.engine_version, ENGINE_VERSION) != 0) {
        log_warn("worker_refused", "worker=%s engine=\"%s\" ours=%s", r->m.hello.worker_id, r->m.hello.engine_version, ENGINE_VERSION);
        session_error(r->c, &r->to, err_set(&e, ERR_VERSION, "this worker's engine is version %s, the coordinator's jobs are scored by version %s",
                                            r->m.hello.engine_version, ENGINE_VERSION), &e);
        return;
    }
    struct lease_ref *drop = calloc((size_t)r->m.hello.n_holding + 1, sizeof *drop);
    struct wire_msg a = { .kind = WIRE_WORKER_WELCOME, .seq = r->to.seq };
    struct worker *w = drop ? sched_hello(r->c->sched, &r->m, drop, &a.welcome.n_drop) : NULL;
    if (!w || !session_add(r->c, &r->to.peer, w)) {
        session_error(r->c, &r->to, err_set(&e, ERR_NOMEM, "no room for another worker"), &e);
        if (w)
            sched_offline(r->c->sched, w, "no memory for its session");
        free(drop);
        return;
    }
    a.welcome.heartbeat_ms = r->c->opts.heartbeat_ms;
    a.welcome.lease_ms = r->c->opts.lease_ms;
    a.welcome.drop = drop;
    snprintf(a.welcome.coordinator, sizeof a.welcome.coordinator, "%s", DIDACT_VERSION);
    say(r, &a);
    free(drop);
}

/* The worker of this session; without one the peer is told to say hello (again). */
static struct worker *known(struct request *r)
{
    struct errbuf e;
    if (r->session && r->session->worker && r->session->worker->online)
        return r->session->worker;
    session_error(r->c, &r->to, err_set(&e, ERR_STATE, "say hello first"), &e);
    return NULL;
}

static void on_heartbeat(struct request *r)
{
    struct worker *w = known(r);
    if (!w)
        return;
    struct lease_ref *drop = calloc((size_t)r->m.heartbeat.n_holding + 1, sizeof *drop);
    struct wire_msg a = { .kind = WIRE_HEARTBEAT_ACK, .seq = r->to.seq };
    if (!drop)
        return;
    sched_heartbeat(r->c->sched, w, &r->m, drop, &a.heartbeat_ack.n_drop);
    a.heartbeat_ack.drop = drop;
    say(r, &a);
    free(drop);
}

static void on_want_work(struct request *r)
{
    struct worker *w = known(r);
    if (w)
        sched_want(r->c->sched, w, r->m.want_work.n);
}

struct pending { struct coord *c; struct reply_to to; char note[NOTE_MAX]; };

static struct pending *pend(struct request *r)
{
    struct errbuf e;
    struct pending *p = malloc(sizeof *p);
    if (p)
        *p = (struct pending){ .c = r->c, .to = r->to };
    else
        session_error(r->c, &r->to, err_set(&e, ERR_NOMEM, "out of memory"), &e);
    return p;
}

static void on_result_acked(void *arg, struct lease_ref ref, int rc, enum ack_outcome outcome, const struct errbuf *e)
{
    struct pending *p = arg;
    struct wire_msg a = { .kind = WIRE_RESULT_ACK, .seq = p->to.seq, .result_ack = { ref, outcome } };
    if (rc == -ERR_IO || rc == -ERR_NOMEM) { /* nothing was saved: the worker keeps its result and sends it again */
        struct errbuf busy;
        session_error(p->c, &p->to, err_set(&busy, ERR_BUSY, "result not saved: %.400s", err_message(e, rc)), &busy);
    } else if (rc < 0) {
        session_error(p->c, &p->to, rc, e);
    } else {
        session_send(p->c, &p->to.peer, &a);
    }
    free(p);
}

static void on_result(struct request *r)
{
    struct errbuf e;
    const struct trial_result *t = r->m.result.r;
    const char *need[2] = { t->artifact, t->checkpoint_blob };
    for (int i = 0; i < 2; i++)
        if (need[i][0] && !blobs_has(r->c, need[i], NULL)) {
            session_error(r->c, &r->to, err_set(&e, ERR_NOTFOUND, "blob %s is not here: upload it before the result", need[i]), &e);
            return;
        }
    struct pending *p = pend(r);
    if (p)
        sched_result(r->c->sched, r->session ? r->session->worker : NULL, r->m.result.ref, t, on_result_acked, p);
}

static void on_hand_back(struct request *r)
{
    struct worker *w = known(r);
    if (w)
        sched_hand_back(r->c->sched, w, r->m.hand_back.ref, r->m.hand_back.broke);
}

static void on_goodbye(struct request *r)
{
    if (!r->session)
        return;
    struct worker *w = r->session->worker;
    session_drop(r->c, r->session);
    r->session = NULL;
    sched_offline(r->c->sched, w, "goodbye");
}

/* ---- blobs ---- */
static void on_blob_get(struct request *r) { blobs_get(r->c, &r->to, r->m.blob_get.hash, r->m.blob_get.offset); }
static void on_blob_put(struct request *r) { blobs_put(r->c, &r->to, &r->m); }

/* ---- people ---- */
/* note: of a success, "" for none. */
static void reply(struct coord *c, const struct reply_to *to, int rc, const struct errbuf *e, const char *note, json_t *doc)
{
    char text[600] = "";
    struct wire_msg a = { .kind = WIRE_REPLY, .seq = to->seq, .reply = { .code = -rc, .text = text } };
    snprintf(text, sizeof text, "%s", rc < 0 ? err_message(e, rc) : note);
    if (doc)
        a.reply.json = json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (a.reply.json && strlen(a.reply.json) > REPLY_MAX_JSON) {
        free(a.reply.json);
        a.reply.json = NULL;
        a.reply.code = ERR_INPUT;
        snprintf(text, sizeof text, "the answer is larger than %u bytes: ask for fewer with limit=N", REPLY_MAX_JSON);
    }
    session_send(c, &to->peer, &a);
    free(a.reply.json);
}

static void on_job_done(void *arg, int rc, uint64_t job, const struct errbuf *e)
{
    struct pending *p = arg;
    json_t *doc = NULL; /* the job as it is now; that it was saved does not depend on whether it can be read */
    char path[32];
    snprintf(path, sizeof path, "jobs/%llu", (unsigned long long)job);
    if (rc == 0 && docs_get(p->c, path, &doc, NULL) < 0)
        doc = json_pack("{s:I}", "id", (json_int_t)job);
    reply(p->c, &p->to, rc, e, p->note, doc);
    json_decref(doc);
    free(p);
}

static void on_submit(struct request *r)
{
    struct errbuf e = { 0 };
    struct submission *sub = calloc(1, sizeof *sub);
    int rc = sub ? submit_prepare(r->c, &r->m, sub, &e) : err_set(&e, ERR_NOMEM, "job");
    if (rc < 0 || r->m.submit.dry_run) {
        reply(r->c, &r->to, rc, &e, sub ? sub->note : "", rc < 0 ? NULL : sub->dry);
        if (sub) {
            json_decref(sub->dry);
            free(sub->trials);
        }
    } else {
        struct pending *p = pend(r);
        if (p)
            memcpy(p->note, sub->note, sizeof p->note);
        if (p)
            sched_submit(r->c->sched, &sub->spec, sub->trials, sub->n_trials, on_job_done, p);
        else
            free(sub->trials);
    }
    free(sub);
}

static void on_job_action(struct request *r)
{
    struct errbuf e = { 0 };
    uint64_t id = 0;
    int rc = submit_find_job(r->c, r->m.job_action.job, &id, &e);
    struct pending *p = rc == 0 ? pend(r) : NULL;
    if (p)
        submit_say_namesakes(r->c, r->m.job_action.job, p->note, sizeof p->note);
    if (rc < 0)
        reply(r->c, &r->to, rc, &e, "", NULL);
    else if (p && sched_is_change(r->m.job_action.action))
        sched_change(r->c->sched, id, r->m.job_action.action, r->m.job_action.arg, on_job_done, p);
    else if (p)
        sched_action(r->c->sched, id, r->m.job_action.action, on_job_done, p);
}

static void on_asked(void *arg, int rc, const struct trial_row *row, size_t n, bool before, const struct errbuf *e)
{
    struct pending *p = arg;
    json_t *doc = rc == 0 ? proposals_doc(p->c->sched, row, n, before) : NULL;
    reply(p->c, &p->to, rc, e, p->note, doc);
    json_decref(doc);
    free(p);
}

static void on_propose(struct request *r)
{
    struct errbuf e = { 0 };
    struct proposals v = { .n = 0 };
    uint64_t id = 0;
    int rc = submit_find_job(r->c, r->m.propose.job, &id, &e);
    if (rc == 0)
        rc = proposals_parse(r->m.propose.json, strlen(r->m.propose.json), &v, &e);
    struct pending *p = rc == 0 ? pend(r) : NULL;
    if (p)
        submit_say_namesakes(r->c, r->m.propose.job, p->note, sizeof p->note);
    if (rc < 0)
        reply(r->c, &r->to, rc, &e, "", NULL);
    else if (p)
        sched_propose(r->c->sched, id, v.request, v.v, v.n, on_asked, p);
    proposals_fini(&v);
}

static void on_slow_doc(void *arg, int rc, json_t *doc, const struct errbuf *e)
{
    struct pending *p = arg;
    reply(p->c, &p->to, rc, e, p->note, doc);
    free(p);
}

static void on_query(struct request *r)
{
    struct errbuf e = { 0 };
    json_t *doc = NULL;
    const char *path = r->m.query.path;
    char note[NOTE_MAX];
    int rc;
    docs_say_namesakes(r->c, path, note, sizeof note);
    if (docs_is_slow(r->c, path)) {
        struct pending *p = pend(r);
        if (!p)
            return;
        memcpy(p->note, note, sizeof note);
        rc = docs_slow(r->c, path, on_slow_doc, p, &e);
        if (rc == 0)
            return;
        free(p);
    } else {
        rc = docs_get(r->c, path, &doc, &e);
    }
    reply(r->c, &r->to, rc, &e, note, doc);
    json_decref(doc);
}

static void on_book_added(struct store_op *op)
{
    struct pending *p = op->arg;
    json_t *doc = NULL;
    if (sched_saved(p->c->sched, op))
        doc = json_pack("{s:I,s:I}", "rows", (json_int_t)op->book.n, op->book.remove ? "removed" : "new", (json_int_t)op->book.added);
    reply(p->c, &p->to, op->rc, &op->err, "", doc);
    json_decref(doc);
    free(p);
}

static void on_book_add(struct request *r)
{
    struct errbuf e = { 0 };
    struct store_op *op = store_op_new(OP_BOOK_ADD);
    struct pending *p = NULL;
    int rc = op ? book_parse(r->c, r->m.book_add.csv, r->m.book_add.first_row, !r->m.book_add.remove, &op->book.row, &op->book.n, &e) : err_set(&e, ERR_NOMEM, "score book");
    if (rc < 0)
        reply(r->c, &r->to, rc, &e, "", NULL);
    else if ((p = pend(r))) {
        op->book.first = r->m.book_add.first_row;
        op->book.check_only = r->m.book_add.check_only;
        op->book.remove = r->m.book_add.remove;
        op->arg = p;
        op->done = on_book_added;
        store_put(r->c->store, op);
        return;
    }
    if (op)
        free(op->book.row);
    free(op);
}

/* ---- dispatch ---- */
#define WORKER (1u << ROLE_WORKER)
#define SUBMITTER (1u << ROLE_SUBMITTER)
#define VIEWER (1u << ROLE_VIEWER)
#define ADMIN (1u << ROLE_ADMIN)

static const struct row { void (*fn)(struct request *r); unsigned roles; const char *name; } rows[WIRE_KIND_COUNT] = {
    [WIRE_WORKER_HELLO] = { on_hello, WORKER, "hello" },
    [WIRE_HEARTBEAT] = { on_heartbeat, WORKER, "heartbeat" },
    [WIRE_WANT_WORK] = { on_want_work, WORKER, "want_work" },
    [WIRE_RESULT] = { on_result, WORKER, "result" },
    [WIRE_HAND_BACK] = { on_hand_back, WORKER, "hand_back" },
    [WIRE_GOODBYE] = { on_goodbye, WORKER, "goodbye" },
    [WIRE_BLOB_GET] = { on_blob_get, WORKER | SUBMITTER | VIEWER, "blob_get" },
    [WIRE_BLOB_PUT] = { on_blob_put, WORKER | SUBMITTER, "blob_put" },
    [WIRE_SUBMIT] = { on_submit, SUBMITTER, "submit" },
    [WIRE_JOB_ACTION] = { on_job_action, SUBMITTER, "job_action" },
    [WIRE_PROPOSE] = { on_propose, SUBMITTER, "propose" },
    [WIRE_QUERY] = { on_query, SUBMITTER | VIEWER, "query" },
    [WIRE_BOOK_ADD] = { on_book_add, ADMIN, "book_add" }, /* it decides what every later job gets */
};

static bool allowed(enum key_role role, unsigned roles)
{
    for (int need = 0; need < ROLE_COUNT; need++)
        if ((roles & 1u << need) && role_may(role, (enum key_role)need))
            return true;
    return false;
}

static void dispatch(struct coord *c, const struct peer *peer, enum key_role role, const void *bytes, size_t len)
{
    struct request r = { .c = c, .to.peer = *peer };
    struct errbuf e = { 0 };
    int rc = wire_decode(bytes, len, &r.m, &e);
    c->messages++;
    if (rc == 0) {
        r.to.seq = r.m.seq;
        const struct row *row = r.m.kind > WIRE_NONE && r.m.kind < WIRE_KIND_COUNT ? &rows[r.m.kind] : &rows[WIRE_NONE];
        if (!row->fn)
            rc = err_set(&e, ERR_INPUT, "a coordinator takes no message of kind %d", r.m.kind);
        else if (!allowed(role, row->roles))
            rc = err_set(&e, ERR_DENIED, "a key with the role %s may not send %s", role_name(role), row->name);
        if (rc == 0) {
            r.session = session_find(c, peer);
            row->fn(&r);
        }
        wire_msg_fini(&r.m);
    }
    if (rc < 0) {
        c->refused++;
        log_debug("refused", "error=\"%s\"", err_message(&e, rc));
        session_error(c, &r.to, rc, &e);
    }
}

/* One message: identity, [empty], envelope. More frames than that are dropped whole. */
void handle_ready(void *arg)
{
    struct coord *c = arg;
    struct peer peer = { .len = 0 };
    zmq_msg_t id, body;
    zmq_msg_init(&id);
    zmq_msg_init(&body);
    if (zmq_msg_recv(&id, c->router, ZMQ_DONTWAIT) >= 0) {
        peer.len = (uint8_t)zmq_msg_size(&id);
        memcpy(peer.id, zmq_msg_data(&id), peer.len);
        int frames = 0;
        bool more = zmq_msg_more(&id);
        while (more && zmq_msg_recv(&body, c->router, ZMQ_DONTWAIT) >= 0) {
            more = zmq_msg_more(&body);
            frames += zmq_msg_size(&body) > 0 || !more;
        }
        if (frames == 1 && !c->stopping)
            dispatch(c, &peer, keys_role(&body), zmq_msg_data(&body), zmq_msg_size(&body));
        else if (frames != 1)
            c->refused++;
    }
    zmq_msg_close(&body);
    zmq_msg_close(&id);
}
