/* sched.c - the scheduler as a whole: opening, the tick, who gets work next, the store's health. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_MS 1000

int64_t sched_now(const struct sched *s) { return s->cfg.now_ms(s->cfg.arg); }

void sched_put(struct sched *s, struct store_op *op) { store_put(s->cfg.store, op); }

bool sched_saved(struct sched *s, struct store_op *op)
{
    bool down = op->rc == -ERR_IO || op->rc == -ERR_NOMEM || op->rc == -ERR_BUSY || op->rc == -ERR_CORRUPT;
    if (down && !s->store_down)
        log_error("store_down", "error=\"%s\" next=\"nothing is acknowledged or given out; tried again every second\"",
                  err_message(&op->err, op->rc));
    if (!down && s->store_down && op->rc == 0)
        log_info("store_up", "next=\"work goes on\"");
    if (down)
        s->store_down = true;
    else if (op->rc == 0)
        s->store_down = false;
    return op->rc == 0;
}

static void on_probed(struct store_op *op)
{
    struct sched *s = op->arg;
    s->probing = false;
    if (sched_saved(s, op))
        sched_dispatch(s);
}

static void probe(struct sched *s)
{
    struct store_op *op = s->probing ? NULL : store_op_new(OP_PROBE);
    if (!op)
        return;
    s->probing = true;
    s->probe_ms = sched_now(s);
    op->tag = (uint64_t)s->probe_ms;
    op->done = on_probed;
    op->arg = s;
    sched_put(s, op);
}

struct job *sched_job(const struct sched *s, uint64_t id)
{
    list_each(l, &s->jobs) {
        struct job *j = list_entry(l, struct job, all);
        if (j->row.id == id)
            return j;
    }
    return NULL;
}

struct load { struct sched *s; struct errbuf *e; int rc; };

static bool on_active_job(void *arg, struct job_row *row)
{
    struct load *ld = arg;
    struct job_spec *spec = malloc(sizeof *spec);
    struct errbuf e = { 0 };
    int rc = spec ? job_spec_from(row->spec_json, spec, &e) : err_set(&e, ERR_NOMEM, "job");
    struct job *j = rc == 0 ? job_new(ld->s, row, spec, &e) : NULL;
    if (j)
        rc = job_load(ld->s, j, &e);
    else
        rc = rc ? rc : -e.code;
    free(spec);
    if (rc == -ERR_NOMEM || (!j && rc < 0)) {
        ld->rc = err_set(ld->e, (enum err)-rc, "job %llu: %s", (unsigned long long)row->id, err_message(&e, rc));
        return false;
    }
    if (rc < 0) { /* this job cannot go on; the others can */
        log_error("job_broken", "job=%llu error=\"%s\"", (unsigned long long)j->row.id, err_message(&e, rc));
        job_end(ld->s, j, JOB_FAILED, err_message(&e, rc), NULL, NULL);
    }
    return true;
}

int sched_open(struct sched **out, const struct sched_cfg *cfg, struct errbuf *e)
{
    *out = NULL;
    struct sched *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "scheduler");
    s->cfg = *cfg;
    list_init(&s->jobs);
    list_init(&s->workers);
    list_init(&s->hungry);
    list_init(&s->running);
    s->second = sched_now(s) / 1000;
    s->opened_ms = sched_now(s);
    s->next_job = reader_last_job(cfg->reader) + 1;
    struct load ld = { .s = s, .e = e };
    int rc = reader_active_jobs(cfg->reader, on_active_job, &ld);
    rc = ld.rc < 0 ? ld.rc : rc < 0 ? err_set(e, (enum err)-rc, "cannot read the jobs") : 0;
    if (rc < 0) {
        sched_close(s);
        return rc;
    }
    list_each(l, &s->jobs)
        job_maybe_end(s, list_entry(l, struct job, all));
    *out = s;
    return 0;
}

void sched_close(struct sched *s)
{
    if (!s)
        return;
    list_each(l, &s->jobs)
        job_free(s, list_entry(l, struct job, all));
    list_each(k, &s->workers)
        free(list_entry(k, struct worker, all));
    free(s);
}

/* Higher priority first; among equals the one that waited longest. */
static struct job *pick_job(struct sched *s, const struct worker *w)
{
    struct job *best = NULL;
    list_each(l, &s->jobs) {
        struct job *j = list_entry(l, struct job, all);
        if (!job_has_work(s, j, w))
            continue;
        if (!best || j->spec.priority > best->spec.priority ||
            (j->spec.priority == best->spec.priority && j->served < best->served))
            best = j;
    }
    return best;
}

/* One trial for a worker; false: there is none for it now. */
static bool serve(struct sched *s, struct worker *w)
{
    struct job *j;
    uint64_t largest;
    while (!s->store_down && (j = pick_job(s, w))) {
        struct trial *t = job_take(s, j, w);
        if (!t)
            continue; /* the job found that it has nothing more; it does not offer itself again */
        if (fit_worker(t, w)) {
            j->served = ++s->served;
            lease_grant(s, t, w);
            return true;
        }
        if (fit_nobody(s, t, &largest))
            lease_refuse(s, t, largest);
        else
            job_wait(j, t); /* for a larger worker */
    }
    return false;
}

void sched_dispatch(struct sched *s)
{
    if (s->store_down || s->dispatching || s->stopped)
        return;
    s->dispatching = true; /* giving out may end a job, which asks for a dispatch */
    s->n_sized = 0;
    list_each(b, &s->jobs)
        ask_serve(s, list_entry(b, struct job, all));
    for (bool any = true; any && pick_job(s, NULL);) {
        any = false;
        list_each(l, &s->hungry) {
            struct worker *w = list_entry(l, struct worker, hungry);
            if (!serve(s, w))
                continue;
            any = true;
            list_remove(&w->hungry);
            if (w->credit > 0)
                list_append(&s->hungry, &w->hungry);
        }
    }
    list_each(l, &s->jobs)
        job_serve_book(s, list_entry(l, struct job, all));
    s->dispatching = false;
}

void sched_stop(struct sched *s) { s->stopped = true; }

void sched_tick(struct sched *s)
{
    int64_t now = sched_now(s);
    lease_expire_due(s);
    worker_tick(s);
    list_each(l, &s->jobs)
        job_tick(s, list_entry(l, struct job, all));
    if (s->store_down && now - s->probe_ms >= PROBE_MS)
        probe(s);
    if (!s->store_down && !s->stopped)
        fit_sweep(s);
    sched_dispatch(s);
}

void sched_slept(struct sched *s, int64_t ms)
{
    list_each(l, &s->running)
        list_entry(l, struct trial, running)->deadline_ms += ms;
    list_each(l, &s->workers)
        list_entry(l, struct worker, all)->last_seen_ms += ms;
    s->probe_ms += ms;
    s->opened_ms += ms;
}

/* Finished trials of the last minute, in whole seconds. */
double sched_rate(const struct sched *s)
{
    int64_t now = sched_now(s) / 1000;
    uint64_t n = 0;
    for (int64_t k = s->second; k > s->second - RATE_RING; k--)
        if (k > now - RATE_RING && k >= 0)
            n += s->per_second[k % RATE_RING];
    return (double)n / RATE_RING;
}
