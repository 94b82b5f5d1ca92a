/* fit.c - which worker a trial fits. A trial's memory is exact before it starts (worker/engine/demand.h: the same function that the
 * worker asks); a worker announces what one slot may take. A trial goes to no worker that is too small. Where none of those
 * that are here is large enough, it is recorded as failed(oom): which workers were there is a fact like any other, and a
 * replay reads it from the record. Teaching draws its learners as it goes, and its memory is the worker's own to judge, and so is a device's:
 * how many learners it takes at a time is chosen there. A trial goes to no worker without its job's device, and waits where none is here. */
#include "coordinator/sched.h"

#include "common/log.h"
#include "common/space.h"

#include <stdio.h>
#include <stdlib.h>

int fit_demand(const struct job_spec *spec, const struct job_data *data, const char *arch, int rung, enum trial_group group, struct demand *out,
               struct errbuf *e)
{
    const struct space *space = space_find(spec->space);
    struct net n = { 0 };
    *out = (struct demand){ 0 };
    if (spec->kind == JOB_TEACH || group == GROUP_WARMUP) /* of zero-cost scores the worker alone knows */
        return 0;
    if (!space)
        return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"", spec->space);
    const struct proxy size = group == GROUP_AUDIT ? job_audit_proxy(spec) : *job_proxy(spec);
    int rc = space_build(space, arch, data->img.c, data->img.h, data->img.w, data->img.n_classes, &size, &n, e), batch, n_batches;
    if (rc == 0 && group == GROUP_AUDIT) {
        rc = demand_train(&n, spec->audit.batch, data->n_train, data->img.n_classes, out, e);
    } else if (rc == 0 && spec->kind == JOB_SEARCH) {
        bool control = group == GROUP_CONTROL;
        const struct fidelity f = job_fidelity(spec, rung);
        demand_eval_cut(f.valid_images, (int)data->n_valid, &batch, &n_batches);
        rc = demand_score(&n, f.steps ? f.steps : data->T, control ? data->control_B : data->B,
                          control ? &data->control_inner : &data->inner, batch, n_batches, out, e);
        const int pass = control || rung > spec->halving.n_steps ? 0 : job_latency_batch(spec); /* a racing round measures nothing */
        uint64_t bytes = 0;
        if (rc == 0 && pass && (rc = demand_latency(&n, pass, &bytes, e)) == 0 && bytes > out->mem_bytes)
            out->mem_bytes = bytes;
    } else if (rc == 0) {
        rc = demand_train(&n, spec->verify.batch, data->n_train, data->img.n_classes, out, e);
    }
    net_fini(&n);
    return rc;
}

bool fit_spec(const struct job_spec *s, const struct worker *w) { return device_class_any_cpu(s->device) || s->device == w->device; }

/* Real training and zero-cost scores are the CPU's, whatever the job's device: every worker has one. */
static bool is_cpus(const struct trial *t)
{
    return t->job->spec.kind == JOB_VERIFY || t->row.group == GROUP_AUDIT || t->row.group == GROUP_WARMUP;
}

enum device_class fit_device(const struct trial *t, const struct worker *w)
{
    return is_cpus(t) || t->job->spec.device == DEVICE_CPU ? DEVICE_CPU : w->device;
}

bool fit_has_device(const struct trial *t, const struct worker *w) { return is_cpus(t) || fit_spec(&t->job->spec, w); }

/* 0: not known, and nobody is kept from it. */
static uint64_t need_of(struct trial *t)
{
    struct demand d;
    struct errbuf e = { 0 };
    if (!t->job->have_data || t->need_known)
        return t->need_bytes;
    t->need_known = true;
    if (fit_demand(&t->job->spec, &t->job->data, t->row.arch, t->row.rung, t->row.group, &d, &e) == 0)
        t->need_bytes = d.mem_bytes;
    else /* the worker will say why, as the trial's own failure */
        log_warn("no_demand", "job=%llu trial=%llu error=\"%s\"", (unsigned long long)t->row.job, (unsigned long long)t->row.idx, e.text);
    return t->need_bytes;
}

bool fit_worker(struct trial *t, const struct worker *w)
{
    return fit_has_device(t, w) && (fit_device(t, w) != DEVICE_CPU || w->mem_bytes == 0 || need_of(t) <= w->mem_bytes);
}

bool fit_nobody(struct sched *s, struct trial *t, uint64_t *largest)
{
    *largest = 0;
    if (sched_now(s) - s->opened_ms < (int64_t)MISSED_BEATS * s->cfg.heartbeat_ms)
        return false; /* after a start, those who were here before may still be on their way */
    list_each(l, &s->workers) {
        const struct worker *w = list_entry(l, struct worker, all);
        if ((!w->online && w->n_leases == 0) || !fit_has_device(t, w))
            continue;
        if (fit_worker(t, w))
            return false;
        if (w->mem_bytes > *largest)
            *largest = w->mem_bytes;
    }
    return *largest > 0; /* where nobody is here, nobody is too small */
}

/* Workers come and go: whom did a trial wait for? Those that no worker has looked at yet are left to the dispatch. */
void fit_sweep(struct sched *s)
{
    list_each(l, &s->jobs) {
        struct job *j = list_entry(l, struct job, all);
        uint64_t largest;
        list_each(k, &j->waiting) {
            struct trial *t = list_entry(k, struct trial, wait);
            if (s->store_down || j->ending)
                break;
            if (!t->need_known || !fit_nobody(s, t, &largest))
                continue;
            list_remove(&t->wait);
            j->n_waiting--;
            lease_refuse(s, t, largest);
        }
    }
}
