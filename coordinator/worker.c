/* worker.c - the workers that have said hello, and what they tell of their leases. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

#define FORGET_MS   60000 /* sessions are swept every second: none speaks for a worker that has been silent so long */
#define MAX_WORKERS (4 * MAX_IDLE_WORKERS)

static struct worker *find(struct sched *s, const char *id)
{
    list_each(l, &s->workers) {
        struct worker *w = list_entry(l, struct worker, all);
        if (strcmp(w->id, id) == 0)
            return w;
    }
    return NULL;
}

/* Forget the offline worker that was silent longest, once there are too many to remember. */
static void make_room(struct sched *s)
{
    struct worker *oldest = NULL;
    if (s->n_workers < MAX_IDLE_WORKERS)
        return;
    list_each(l, &s->workers) {
        struct worker *w = list_entry(l, struct worker, all);
        if (!w->online && w->n_leases == 0 && sched_now(s) - w->last_seen_ms > FORGET_MS && (!oldest || w->last_seen_ms < oldest->last_seen_ms))
            oldest = w;
    }
    if (oldest) {
        list_remove(&oldest->all);
        s->n_workers--;
        free(oldest);
    }
}

static struct worker *add(struct sched *s, const char *id)
{
    make_room(s);
    struct worker *w = s->n_workers < MAX_WORKERS ? calloc(1, sizeof *w) : NULL;
    if (!w)
        return NULL;
    list_init(&w->hungry);
    list_init(&w->leases);
    memcpy(w->id, id, sizeof w->id);
    list_append(&s->workers, &w->all);
    s->n_workers++;
    return w;
}

static bool listed(const struct trial *t, const struct lease_ref *ref, int n)
{
    for (int i = 0; i < n; i++)
        if (ref[i].job == t->row.job && ref[i].trial == t->row.idx && ref[i].attempt == t->row.attempt)
            return true;
    return false;
}

/* What we think it holds and it does not. Another process under the same name: the first died holding it, there is no point in
 * waiting for the deadline. The same process: the lease was lost on its way, and goes out again when it asks for work: the same
 * attempt, since nobody has begun it. */
static void settle_unlisted(struct sched *s, struct worker *w, uint64_t pid, const struct lease_ref *ref, int n)
{
    list_each(l, &s->running) {
        struct trial *t = list_entry(l, struct trial, running);
        bool his = t->worker ? t->worker == w : strcmp(t->row.worker, w->id) == 0;
        if (!his || t->phase != PHASE_RUNNING || listed(t, ref, n))
            continue;
        if (t->row.worker_pid == pid)
            lease_undelivered(t, w);
        else
            lease_lose(s, t, true);
    }
}

static void renew_all(struct sched *s, struct worker *w, const struct lease_ref *ref, int n, struct lease_ref *drop, int *n_drop)
{
    *n_drop = 0;
    for (int i = 0; i < n; i++)
        if (!lease_renew(s, w, ref[i]))
            drop[(*n_drop)++] = ref[i];
}

struct worker *sched_hello(struct sched *s, const struct wire_msg *m, struct lease_ref *drop, int *n_drop)
{
    struct worker *w = find(s, m->hello.worker_id);
    if (!w && !(w = add(s, m->hello.worker_id)))
        return NULL;
    if (w->online && w->pid != m->hello.pid)
        log_warn("worker_replaced", "worker=%s pid=%llu new_pid=%llu next=\"if both run, give one a folder of its own\"", w->id,
                 (unsigned long long)w->pid, (unsigned long long)m->hello.pid);
    settle_unlisted(s, w, m->hello.pid, m->hello.holding, m->hello.n_holding);
    memcpy(w->name, m->hello.name, sizeof w->name);
    memcpy(w->engine_version, m->hello.engine_version, sizeof w->engine_version);
    memcpy(w->device_class, m->hello.device_class, sizeof w->device_class);
    memcpy(w->device_name, m->hello.device_name, sizeof w->device_name);
    const int known = device_class_from(w->device_class);
    w->device = known > DEVICE_CPU && known < DEVICE_ANY ? (enum device_class)known : DEVICE_CPU; /* of a kind not known here it is the CPU that we use */
    w->device_bytes = m->hello.device_bytes;
    memcpy(w->isa, m->hello.isa, sizeof w->isa);
    memcpy(w->host, m->hello.host, sizeof w->host);
    w->slots = m->hello.slots;
    w->mem_bytes = m->hello.mem_bytes;
    w->pid = m->hello.pid;
    w->online = true;
    w->credit = 0;
    list_remove(&w->hungry);
    w->last_seen_ms = sched_now(s);
    renew_all(s, w, m->hello.holding, m->hello.n_holding, drop, n_drop);
    log_info("worker_online", "worker=%s name=\"%s\" host=%s pid=%llu slots=%u isa=%s holding=%d drop=%d", w->id, w->name, w->host,
             (unsigned long long)w->pid, w->slots, w->isa, m->hello.n_holding, *n_drop);
    sched_dispatch(s);
    return w;
}

void sched_heartbeat(struct sched *s, struct worker *w, const struct wire_msg *m, struct lease_ref *drop, int *n_drop)
{
    w->last_seen_ms = sched_now(s);
    renew_all(s, w, m->heartbeat.holding, m->heartbeat.n_holding, drop, n_drop);
    for (int i = 0; i < m->heartbeat.n_progress; i++)
        lease_progress(s, w, &m->heartbeat.progress[i]);
}

void sched_want(struct sched *s, struct worker *w, uint32_t n)
{
    uint32_t under_way = 0; /* being saved: the worker cannot know of them yet */
    list_each(l, &w->leases)
        under_way += list_entry(l, struct trial, of_worker)->phase == PHASE_LEASING;
    w->last_seen_ms = sched_now(s);
    n = n < WIRE_MAX_LEASES ? n : WIRE_MAX_LEASES;
    w->credit = n > under_way ? n - under_way : 0;
    list_each(k, &w->leases)
        if (w->credit > 0 && lease_deliver_again(s, list_entry(k, struct trial, of_worker)))
            w->credit--;
    if (w->credit > 0 && w->online && list_empty(&w->hungry))
        list_append(&s->hungry, &w->hungry);
    else if (w->credit == 0)
        list_remove(&w->hungry);
    sched_dispatch(s);
}

void sched_hand_back(struct sched *s, struct worker *w, struct lease_ref ref, bool broke)
{
    struct job *j = sched_job(s, ref.job);
    struct trial *t = j ? job_trial(j, ref.trial) : NULL;
    w->last_seen_ms = sched_now(s);
    if (t && t->worker == w && t->row.attempt == ref.attempt && t->phase == PHASE_RUNNING)
        lease_lose(s, t, broke);
}

void sched_offline(struct sched *s, struct worker *w, const char *why)
{
    (void)s;
    if (!w->online)
        return;
    w->online = false;
    w->credit = 0;
    w->peer = NULL;
    list_remove(&w->hungry);
    log_info("worker_offline", "worker=%s name=\"%s\" why=\"%s\" leases=%d", w->id, w->name, why, w->n_leases);
}

void worker_tick(struct sched *s)
{
    int64_t now = sched_now(s), silence = (int64_t)MISSED_BEATS * s->cfg.heartbeat_ms;
    list_each(l, &s->workers) {
        struct worker *w = list_entry(l, struct worker, all);
        if (w->online && now - w->last_seen_ms > silence)
            sched_offline(s, w, "silent for three heartbeats");
    }
}
