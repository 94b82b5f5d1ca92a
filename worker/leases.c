#include "worker/leases.h"

#include "common/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define OUTBOX_MAX       64    /* undelivered results, above which no more work is asked for */
#define RESEND_BEATS     5     /* heartbeats until an unanswered result is sent again */
#define BUSY_PAUSE_MS    500   /* after "not now" to a result; doubled up to BUSY_PAUSE_MAX */
#define BUSY_PAUSE_MAX   10000
#define TROUBLE_PAUSE_MS 1000  /* after trouble on this machine; doubled up to TROUBLE_PAUSE_MAX */
#define TROUBLE_PAUSE_MAX 60000

#define REF_FMT     "job=%llu trial=%llu attempt=%u"
#define REF_ARGS(r) (unsigned long long)(r).job, (unsigned long long)(r).trial, (r).attempt

static int64_t doubled(int64_t first, int64_t most, int times)
{
    while (times-- > 1 && first < most)
        first *= 2;
    return first < most ? first : most;
}

void leases_init(struct leases *l, int slots)
{
    memset(l, 0, sizeof *l);
    l->slots = slots;
}

void leases_fini(struct leases *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->held[i]);
    free(l->held);
    l->held = NULL;
    l->n = l->cap = 0;
}

/* ---- the table ---- */
static struct held *find(struct leases *l, struct lease_ref ref)
{
    for (int i = 0; i < l->n; i++)
        if (lease_same(l->held[i]->ref, ref))
            return l->held[i];
    return NULL;
}

static struct held *add(struct leases *l, const struct task *t)
{
    if (l->n == l->cap) {
        int           cap = l->cap ? 2 * l->cap : 16;
        struct held **p = l->n < WIRE_MAX_LEASES / 2 ? realloc(l->held, (size_t)cap * sizeof(struct held *)) : NULL;
        if (!p)
            return NULL;
        l->held = p;
        l->cap = cap;
    }
    struct held *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->task = *t;
    h->ref = (struct lease_ref){ t->job, t->trial, t->attempt };
    l->held[l->n++] = h;
    return h;
}

static void forget(struct leases *l, struct held *h)
{
    int i = 0;
    while (l->held[i] != h)
        i++;
    l->held[i] = l->held[--l->n];
    blobcache_forget(l->blobs, h);
    free(h);
}

int leases_holding(struct leases *l, struct lease_ref **out)
{
    int n = 0;
    for (int i = 0; i < l->n && n < WIRE_MAX_LEASES; i++)
        if (l->held[i]->state != HELD_DROPPED)
            l->list[n++] = l->held[i]->ref;
    for (int i = 0; i < l->outbox->n && n < WIRE_MAX_LEASES; i++)
        l->list[n++] = l->outbox->item[i]->ref;
    *out = l->list;
    return n;
}

/* A checkpoint is announced once it is at the coordinator; until then the one before it is. The one that is waited for is not
 * exchanged for a newer one on the way: where checkpoints come faster than they travel, none would ever arrive. */
static void announce(struct leases *l, struct held *h)
{
    if (!h->travelling[0])
        memcpy(h->travelling, h->progress.checkpoint_blob, sizeof h->travelling);
    if (!h->travelling[0] || blobcache_unsent(l->blobs, h->travelling))
        return;
    memcpy(h->announced, h->travelling, sizeof h->announced);
    h->travelling[0] = '\0';
}

int leases_progress(struct leases *l, struct task_progress **out)
{
    int n = 0;
    for (int i = 0; i < l->n && n < WIRE_MAX_LEASES; i++) {
        struct held *h = l->held[i];
        if (!h->fresh || h->state != HELD_COMPUTING)
            continue;
        announce(l, h);
        h->fresh = strcmp(h->announced, h->progress.checkpoint_blob) != 0; /* again with the next heartbeat */
        l->progress[n] = h->progress;
        memcpy(l->progress[n++].checkpoint_blob, h->announced, sizeof h->announced);
    }
    *out = l->progress;
    return n;
}

/* ---- asking for work ---- */
static void send_credit(struct leases *l)
{
    int free_slots = l->slots - l->n;
    if (l->stopping || l->now_ms < l->pause_until_ms || l->outbox->n >= OUTBOX_MAX || free_slots < 0)
        free_slots = 0;
    if (!session_is_up(l->session) || (l->credit_known && l->credit == (uint32_t)free_slots))
        return;
    struct wire_msg m = { .kind = WIRE_WANT_WORK, .want_work = { (uint32_t)free_slots } };
    if (session_post(l->session, &m) == 0) {
        l->credit = (uint32_t)free_slots;
        l->credit_known = true;
    }
}

static void give_back(struct leases *l, struct lease_ref ref, bool broke, const char *why)
{
    struct wire_msg m = { .kind = WIRE_HAND_BACK, .hand_back = { ref, broke } };
    log_info("hand_back", REF_FMT " broke=%d why=\"%s\"", REF_ARGS(ref), broke, why);
    session_post(l->session, &m); /* without a session: it is not in the next hello's list, which says the same */
}
static void hand_back(struct leases *l, struct lease_ref ref, const char *why) { give_back(l, ref, false, why); }

/* This machine cannot do the work now: give it back and wait before asking for more. */
static void trouble(struct leases *l, struct lease_ref ref, const struct errbuf *e)
{
    int64_t pause = doubled(TROUBLE_PAUSE_MS, TROUBLE_PAUSE_MAX, ++l->troubles);
    l->pause_until_ms = l->now_ms + pause;
    log_warn("trouble", REF_FMT " why=\"%s\" next=\"handed back; no new work for %lld ms\"", REF_ARGS(ref),
             err_message(e, e ? -e->code : -ERR_IO), (long long)pause);
    hand_back(l, ref, "trouble on this machine");
}

/* ---- results ---- */
/* The blobs that a result names go first. True: one of them is still under way. */
static bool blobs_first(struct leases *l, const struct trial_result *r)
{
    bool wait = false;
    if (r->artifact[0] && blobcache_unsent(l->blobs, r->artifact)) {
        blobcache_send(l->blobs, r->artifact, r->meta_steps > 0 ? "curriculum" : "weights", NULL);
        wait = true;
    }
    if (r->checkpoint_blob[0] && blobcache_unsent(l->blobs, r->checkpoint_blob)) {
        blobcache_send(l->blobs, r->checkpoint_blob, "checkpoint", NULL);
        wait = true;
    }
    return wait;
}

static void send_result(struct leases *l, struct outbox_item *it)
{
    struct wire_msg m = { .kind = WIRE_RESULT, .result = { it->ref, &it->r } };
    if (l->now_ms < it->not_before_ms || blobs_first(l, &it->r))
        return;
    if (session_post(l->session, &m) == 0) {
        it->seq = m.seq;
        it->sent_ms = l->now_ms;
    }
}

static void send_results(struct leases *l)
{
    int64_t patience = (int64_t)session_heartbeat_ms(l->session) * RESEND_BEATS;
    for (int i = 0; session_is_up(l->session) && i < l->outbox->n; i++) {
        struct outbox_item *it = l->outbox->item[i];
        if (it->seq == 0 || l->now_ms - it->sent_ms > patience)
            send_result(l, it);
    }
}

static void finished(struct leases *l, struct lease_ref ref, const struct trial_result *r, bool stored)
{
    struct outbox_item *it = outbox_add(l->outbox, ref, r, stored);
    if (r->state == TRIAL_SCORED)
        log_info("trial_scored", REF_FMT " score=%.6g seconds=%.3f", REF_ARGS(ref), r->score, r->seconds);
    else
        log_warn("trial_failed", REF_FMT " reason=%s why=\"%s\"", REF_ARGS(ref), fail_reason_name(r->reason), r->detail);
    if (!it)
        log_error("outbox_add", REF_FMT " why=\"out of memory\" next=\"%s\"", REF_ARGS(ref),
                  stored ? "sent after a restart" : "the trial will run again");
    else if (session_is_up(l->session))
        send_result(l, it);
}

static void on_result_ack(struct leases *l, const struct wire_msg *m)
{
    static const char *const names[] = { "recorded", "duplicate", "stale" };
    struct outbox_item      *it = outbox_find(l->outbox, m->result_ack.ref);
    if (!it)
        return; /* acknowledged twice */
    log_event(m->result_ack.outcome == ACK_STALE ? LOG_INFO : LOG_DEBUG, "result_ack", REF_FMT " outcome=%s", REF_ARGS(it->ref),
              names[m->result_ack.outcome]);
    l->n_done++;
    outbox_remove(l->outbox, it);
}

static void on_error(struct leases *l, const struct wire_msg *m)
{
    struct outbox_item *it = NULL;
    if (blobcache_on_error(l->blobs, m))
        return;
    for (int i = 0; m->seq && !it && i < l->outbox->n; i++)
        if (l->outbox->item[i]->seq == m->seq)
            it = l->outbox->item[i];
    if (!it) {
        log_warn("coordinator_error", "error=%s why=\"%s\"", err_name(m->reply.code), m->reply.text);
    } else if (err_can_retry(m->reply.code)) {
        it->seq = 0;
        it->not_before_ms = l->now_ms + doubled(BUSY_PAUSE_MS, BUSY_PAUSE_MAX, ++it->refusals);
        log_event(it->refusals == 1 ? LOG_WARN : LOG_DEBUG, "result_not_now", REF_FMT " error=%s why=\"%s\" next=\"kept\"",
                  REF_ARGS(it->ref), err_name(m->reply.code), m->reply.text);
    } else {
        log_error("result_refused", REF_FMT " error=%s why=\"%s\" next=\"kept as *.refused\"", REF_ARGS(it->ref),
                  err_name(m->reply.code), m->reply.text);
        outbox_refuse(l->outbox, it);
    }
}

/* ---- leases ---- */
static void fail_here(struct leases *l, struct held *h, const char *detail)
{
    struct trial_result r = { .state = TRIAL_FAILED, .reason = FAIL_INPUT };
    struct errbuf       e = { 0 };
    struct lease_ref    ref = h->ref;
    size_t              n = strnlen(detail, sizeof r.detail - 1);
    memcpy(r.detail, detail, n);
    forget(l, h);
    /* A small file, and rare: the loop may wait for it. */
    int rc = outbox_write(l->outbox->dir, ref, &r, &e);
    if (rc < 0)
        log_error("outbox_write", REF_FMT " why=\"%s\"", REF_ARGS(ref), e.text);
    finished(l, ref, &r, rc == 0);
}

_Static_assert(TASK_MAX_BLOBS <= NEED_MAX, "all blobs of a task are asked for at once");

static void begin(struct leases *l, struct held *h)
{
    struct errbuf     e = { 0 };
    hash_str          hash[TASK_MAX_BLOBS];
    struct task_blob *blob = calloc(TASK_MAX_BLOBS, sizeof *blob);
    int               n = task_blobs(&h->task, hash);
    int               rc = blob ? 0 : err_set(&e, ERR_NOMEM, "blobs of a task");
    for (int i = 0; blob && i < n; i++) {
        memcpy(blob[i].hash, hash[i], sizeof blob[i].hash);
        blobcache_path(l->blobs, hash[i], blob[i].path, sizeof blob[i].path);
    }
    if (rc == 0)
        rc = runner_submit(l->runner, &h->task, blob, n, &e);
    free(blob);
    if (rc == 0) {
        h->state = HELD_COMPUTING;
        return;
    }
    struct lease_ref ref = h->ref;
    forget(l, h);
    trouble(l, ref, &e);
}

void leases_blobs_ready(struct leases *l, struct held *h, int rc, const struct errbuf *e)
{
    if (rc == 0) {
        begin(l, h);
    } else if (rc == -ERR_INPUT) {
        fail_here(l, h, err_message(e, rc));
    } else {
        struct lease_ref ref = h->ref;
        forget(l, h);
        trouble(l, ref, e);
    }
}

static void on_lease(struct leases *l, const struct task *t)
{
    static const char *const kinds[TASK_KIND_COUNT] = { "score", "train", "teach" };
    struct errbuf            e = { 0 };
    hash_str                 hash[TASK_MAX_BLOBS];
    struct lease_ref         ref = { t->job, t->trial, t->attempt };
    if (l->credit > 0)
        l->credit--;
    if (find(l, ref) || outbox_find(l->outbox, ref)) {
        log_info("lease_again", REF_FMT, REF_ARGS(ref));
        return;
    }
    struct held *h = l->stopping ? NULL : add(l, t);
    if (!h) {
        hand_back(l, ref, l->stopping ? "stopping" : "no room");
        return;
    }
    log_info("lease", REF_FMT " kind=%s", REF_ARGS(ref), kinds[t->kind]);
    int rc = blobcache_need(l->blobs, h, hash, task_blobs(t, hash), &e);
    if (rc == 1)
        begin(l, h);
    else if (rc < 0)
        leases_blobs_ready(l, h, rc, &e);
}

void leases_ended(struct leases *l, struct lease_ref ref, enum run_end end, const struct trial_result *r, bool stored,
                  const struct errbuf *e)
{
    struct held *h = find(l, ref);
    bool         dropped = !h || h->state == HELD_DROPPED;
    if (h)
        forget(l, h);
    if (end == RUN_RESULT) { /* even where it was dropped: the answer `stale` clears it away */
        l->troubles = 0;
        finished(l, ref, r, stored);
    } else if (end == RUN_LOST && !dropped) { /* the first may be what broke the device, others only found it so */
        give_back(l, ref, !l->stopping, "the device does not work any more");
    } else if (end == RUN_TROUBLE && !dropped) {
        trouble(l, ref, e);
    } else if (!dropped) {
        hand_back(l, ref, "stopped");
    }
    send_credit(l);
}

void leases_on_progress(struct leases *l, const struct task_progress *p)
{
    struct held *h = find(l, (struct lease_ref){ p->job, p->trial, p->attempt });
    if (!h)
        return;
    h->progress = *p;
    h->fresh = true;
}

void leases_file_sent(struct leases *l, const char *hash, int rc, const struct errbuf *e)
{
    if (rc < 0) /* results that name it are sent all the same: the coordinator's answer decides about them */
        log_error("upload_failed", "blob=%s why=\"%s\"", hash, err_message(e, rc));
    send_results(l);
}

static void drop(struct leases *l, const struct lease_ref *ref, int n)
{
    for (int i = 0; i < n; i++) {
        struct held *h = find(l, ref[i]);
        if (!h || h->state == HELD_DROPPED)
            continue;
        log_info("lease_dropped", REF_FMT, REF_ARGS(ref[i]));
        if (h->state == HELD_COMPUTING && runner_cancel(l->runner, h->ref))
            h->state = HELD_DROPPED;
        else
            forget(l, h);
    }
}

void leases_on_message(struct leases *l, struct wire_msg *m)
{
    switch (m->kind) {
    case WIRE_LEASE: on_lease(l, m->lease); break;
    case WIRE_HEARTBEAT_ACK: drop(l, m->heartbeat_ack.drop, m->heartbeat_ack.n_drop); break;
    case WIRE_RESULT_ACK: on_result_ack(l, m); break;
    case WIRE_BLOB_CHUNK:
    case WIRE_BLOB_PUT_ACK: blobcache_on_message(l->blobs, m); break;
    case WIRE_ERROR: on_error(l, m); break;
    default: log_warn("message_unexpected", "kind=%d", (int)m->kind); return;
    }
    send_credit(l);
}

/* ---- sessions ---- */
void leases_up(struct leases *l, const struct wire_msg *welcome)
{
    l->credit_known = false;
    l->credit = 0;
    for (int i = 0; i < l->outbox->n; i++) {
        l->outbox->item[i]->seq = 0;
        l->outbox->item[i]->not_before_ms = 0;
    }
    blobcache_reset(l->blobs);
    drop(l, welcome->welcome.drop, welcome->welcome.n_drop);
    send_results(l); /* what was dropped but is finished too */
    send_credit(l);
}

void leases_down(struct leases *l)
{
    l->credit_known = false;
    l->credit = 0;
    blobcache_reset(l->blobs);
}

void leases_tick(struct leases *l, int64_t now_ms)
{
    l->now_ms = now_ms;
    blobcache_tick(l->blobs, now_ms);
    send_results(l);
    send_credit(l);
}

/* ---- the end ---- */
static bool may_finish(const struct leases *l, const struct held *h, enum stop_how how)
{
    const enum stop_how longest = h->task.kind == TASK_SCORE ? STOP_SOON : STOP_DRAIN; /* that it outlives */
    return h->state == HELD_DROPPED || (h->task.kind != TASK_TEACH && how <= longest && runner_started(l->runner, h->ref));
}

void leases_stop(struct leases *l, enum stop_how how)
{
    l->stopping = true;
    for (int i = l->n - 1; i >= 0; i--) {
        struct held *h = l->held[i];
        if (may_finish(l, h, how))
            continue;
        if (h->state == HELD_COMPUTING) { /* handed back when its thread lets go, unless it was quicker */
            runner_cancel(l->runner, h->ref);
            continue;
        }
        struct lease_ref ref = h->ref;
        forget(l, h);
        hand_back(l, ref, "stopped");
    }
    send_credit(l);
}

void leases_abandon(struct leases *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->held[i]->state != HELD_DROPPED)
            hand_back(l, l->held[i]->ref, "stopped; its thread does not answer");
}
