/* lease.c - who works on what, until when: the moves of a trial between its phases (sched.h has the table).
 * Deadlines: every lease lasts equally long and is renewed to the end of the queue, so the queue is sorted and the next to
 * expire is its head; nothing scans. Completions find their trial by (job, index), never by pointer: the job may be gone. */
#include "coordinator/cost.h"

#include "common/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

static void unbind(struct trial *t)
{
    if (t->worker)
        t->worker->n_leases--;
    list_remove(&t->of_worker);
    t->worker = NULL;
}

static void bind_to(struct trial *t, struct worker *w)
{
    if (t->worker == w)
        return;
    unbind(t);
    t->worker = w;
    w->n_leases++;
    list_append(&w->leases, &t->of_worker);
}

static void set_running(struct sched *s, struct trial *t, int64_t ms)
{
    t->phase = PHASE_RUNNING;
    t->deadline_ms = sched_now(s) + ms;
    list_remove(&t->running);
    struct link *at = &s->running; /* from the end: nearly always the end itself */
    while (at->prev != &s->running && list_entry(at->prev, struct trial, running)->deadline_ms > t->deadline_ms)
        at = at->prev;
    list_insert(at, &t->running);
}

static struct trial *trial_of(struct sched *s, const struct trial_row *row)
{
    struct job *j = sched_job(s, row->job);
    return j ? job_trial(j, row->idx) : NULL;
}

/* ---- refusing ---- */
static void on_refusal_acked(void *arg, struct lease_ref ref, int rc, enum ack_outcome outcome, const struct errbuf *e)
{
    (void)arg;
    (void)outcome;
    (void)e;
    if (rc == 0)
        log_warn("trial_too_large", "job=%llu trial=%llu next=\"recorded as failed(oom)\"", (ull)ref.job, (ull)ref.trial);
}

static void record_refusal(struct sched *s, struct trial *t)
{
    struct trial_result *r = calloc(1, sizeof *r);
    if (!r)
        return; /* its deadline passes, and it is looked at again */
    r->state = TRIAL_FAILED;
    r->reason = FAIL_OOM;
    r->params = t->row.r.params;
    r->macs = t->row.r.macs;
    r->mem_bytes = t->need_bytes;
    /* rounded up and down: the two never look equal */
    snprintf(r->detail, sizeof r->detail, "needs %llu MiB, the largest worker has %llu MiB", (ull)((t->need_bytes + 1048575) >> 20),
             (ull)(t->refused_by >> 20));
    sched_result(s, NULL, (struct lease_ref){ t->row.job, t->row.idx, t->row.attempt }, r, on_refusal_acked, NULL);
    free(r);
}

/* ---- granting ---- */

static int make_task(struct sched *s, const struct trial *t, struct task *k, struct errbuf *e)
{
    const struct job_spec *sp = &t->job->spec;
    memset(k, 0, sizeof *k);
    k->job = t->row.job;
    k->trial = t->row.idx;
    k->attempt = t->row.attempt;
    k->timeout_s = sp->trial_timeout_s;
    if (sp->kind == JOB_VERIFY || t->row.group == GROUP_AUDIT) {
        k->kind = TASK_TRAIN;
        k->timeout_s = t->row.group == GROUP_AUDIT ? sp->audit.timeout_s : k->timeout_s;
        job_training(sp, &k->train);
        memcpy(k->train.arch, t->row.arch, sizeof k->train.arch);
        k->train.seed = t->row.seed;
    } else if (sp->kind == JOB_SEARCH) {
        k->kind = TASK_SCORE;
        memcpy(k->score.space, sp->space, sizeof k->score.space);
        memcpy(k->score.space_hash, sp->space_hash, sizeof k->score.space_hash);
        memcpy(k->score.arch, t->row.arch, sizeof k->score.arch);
        memcpy(k->score.dataset, sp->dataset_hash, sizeof k->score.dataset);
        memcpy(k->score.curriculum, t->row.group == GROUP_CONTROL ? sp->audit.control_curriculum_hash : sp->curriculum_hash,
               sizeof k->score.curriculum);
        k->score.seed = t->row.seed;
        if (t->row.group == GROUP_WARMUP) {
            k->score.zero_cost = job_warmup_zero_cost(sp);
            k->score.untrained = true;
        } else if (t->row.group != GROUP_CONTROL) {
            k->score.zero_cost = race_zero_cost(sp, &t->row);
            k->score.latency_batch = race_latency_batch(sp, &t->row);
        }
        return race_fidelity(s, sp, &t->row, &k->score.fidelity, e);
    } else {
        k->kind = TASK_TEACH;
        memcpy(k->teach.dataset, sp->dataset_hash, sizeof k->teach.dataset);
        memcpy(k->teach.resume, t->row.checkpoint, sizeof k->teach.resume);
        k->teach.cfg = sp->teach;
        k->teach.seed = t->row.seed;
    }
    return 0;
}

static void send_lease(struct sched *s, struct trial *t)
{
    struct worker *w = t->worker;
    struct errbuf e = { 0 };
    if (w && !fit_has_device(t, w)) { /* another process under its name, without the device that it was granted for */
        lease_lose(s, t, false);
        return;
    }
    struct task *k = w && w->online && w->peer ? malloc(sizeof *k) : NULL;
    if (!k)
        return;
    int rc = make_task(s, t, k, &e);
    k->device = fit_device(t, w);
    if (rc == 0)
        s->cfg.send_lease(s->cfg.arg, w, k);
    else /* its deadline passes, and it is tried again */
        log_error("no_task", "job=%llu trial=%llu error=\"%s\"", (ull)t->row.job, (ull)t->row.idx, err_message(&e, rc));
    free(k);
}

void lease_undelivered(struct trial *t, struct worker *w)
{
    bind_to(t, w);
    t->undelivered = true;
}

bool lease_deliver_again(struct sched *s, struct trial *t)
{
    if (!t->undelivered || t->phase != PHASE_RUNNING)
        return false;
    log_info("lease_sent_again", "job=%llu trial=%llu attempt=%u worker=%s", (ull)t->row.job, (ull)t->row.idx, t->row.attempt, t->row.worker);
    t->undelivered = false;
    set_running(s, t, s->cfg.lease_ms);
    send_lease(s, t);
    return true;
}

static void back_to_waiting(struct trial *t)
{
    struct job *j = t->job;
    unbind(t);
    list_remove(&t->running);
    j->n_running--;
    t->row.state = TRIAL_WAITING;
    t->has_progress = t->undelivered = false;
    job_wait(j, t);
}

static void on_granted(struct store_op *op)
{
    struct sched *s = op->arg;
    struct trial *t = trial_of(s, &op->trial);
    bool ok = sched_saved(s, op);
    if (!t || t->phase != PHASE_LEASING || t->row.attempt != op->trial.attempt)
        return; /* the job has ended meanwhile */
    struct worker *w = t->worker;
    if (!ok) {
        bool refused = op->rc == -ERR_STATE || op->rc == -ERR_INTERNAL; /* memory and store disagree: a bug; do not spin */
        t->row.attempt--;
        back_to_waiting(t);
        if (refused && !t->job->ending) {
            log_error("grant_refused", "job=%llu trial=%llu error=\"%s\"", (ull)t->row.job, (ull)t->row.idx, op->err.text);
            job_end(s, t->job, JOB_FAILED, op->err.text, NULL, NULL);
        }
        if (w && w->online) {
            w->credit++;
            if (list_empty(&w->hungry))
                list_append(&s->hungry, &w->hungry);
        }
        return;
    }
    set_running(s, t, s->cfg.lease_ms);
    if (t->refused_by) {
        record_refusal(s, t);
        return;
    }
    s->count.leases++;
    send_lease(s, t);
    log_debug("lease", "job=%llu trial=%llu attempt=%u worker=%s", (ull)t->row.job, (ull)t->row.idx, t->row.attempt, t->row.worker);
}

/* w NULL: to nobody, so that a result can be recorded under an attempt of its own. */
static void grant(struct sched *s, struct trial *t, struct worker *w)
{
    struct store_op *op = store_op_new(OP_TRIAL_LEASE);
    struct job *j = t->job;
    if (!op) {
        job_wait(j, t);
        s->store_down = true;
        return;
    }
    j->n_running++;
    if (w) {
        w->credit--;
        bind_to(t, w);
    }
    t->phase = PHASE_LEASING;
    t->row.attempt++;
    t->row.state = TRIAL_RUNNING;
    t->row.worker_pid = w ? w->pid : 0;
    memset(t->row.worker, 0, sizeof t->row.worker);
    if (w)
        memcpy(t->row.worker, w->id, sizeof t->row.worker);
    op->trial = t->row;
    op->arg = s;
    op->done = on_granted;
    sched_put(s, op);
}

void lease_grant(struct sched *s, struct trial *t, struct worker *w)
{
    t->refused_by = 0;
    grant(s, t, w);
}

void lease_refuse(struct sched *s, struct trial *t, uint64_t largest)
{
    t->refused_by = largest;
    grant(s, t, NULL);
}

void lease_resume(struct sched *s, struct trial *t)
{
    t->job->n_running++;
    set_running(s, t, s->cfg.lease_ms); /* the worker may need all of it to find us again */
}

bool lease_renew(struct sched *s, struct worker *w, struct lease_ref ref)
{
    struct job *j = sched_job(s, ref.job);
    struct trial *t = j ? job_trial(j, ref.trial) : NULL;
    if (!t || t->row.attempt != ref.attempt || (t->worker && t->worker != w) || strcmp(t->row.worker, w->id) != 0)
        return false;
    if (j->ending && j->end_state != JOB_SUCCEEDED)
        return false;
    if (t->phase == PHASE_SAVING || t->phase == PHASE_LEASING)
        return true;
    if (t->phase != PHASE_RUNNING)
        return false;
    if (!t->worker)
        log_info("lease_resumed", "job=%llu trial=%llu attempt=%u worker=%s", (ull)ref.job, (ull)ref.trial, ref.attempt, w->id);
    bind_to(t, w);
    t->undelivered = false;
    set_running(s, t, s->cfg.lease_ms);
    return true;
}

/* ---- results ---- */
struct arrival { struct sched *s; sched_acked acked; void *arg; name_str worker; };

/* The store has it: count, tell the searcher, forget. */
void lease_finish(struct sched *s, struct trial *t, const struct trial_row *row)
{
    struct job *j = t->job;
    struct trial_row *done = &t->row; /* a result's own row may lack what the trial is */
    struct errbuf e = { 0 };
    if (t->worker)
        row->r.state == TRIAL_SCORED ? t->worker->done++ : t->worker->failed++;
    cost_measured(s, t, &row->r, t->worker);
    done->state = row->r.state;
    done->r = row->r;
    done->from_book = row->from_book;
    done->ended_ms = row->ended_ms;
    if (t->phase != PHASE_WAITING)
        j->n_running--;
    if (done->idx < TRIAL_AUDIT)
        job_count(s, j, done, true);
    if (j->search && !done->told_failed && job_tell(s, j, done, true, &e) < 0)
        log_error("searcher", "job=%llu trial=%llu error=\"%s\"", (ull)row->job, (ull)row->idx, e.text);
    job_drop_trial(j, t);
    job_maybe_end(s, j);
}

static void on_result_saved(struct store_op *op)
{
    struct arrival *a = op->arg;
    struct sched *s = a->s;
    struct trial *t = trial_of(s, &op->trial);
    bool ok = sched_saved(s, op);
    if (t && t->phase == PHASE_SAVING && t->row.attempt == op->trial.attempt) {
        if (ok && op->outcome != ACK_STALE)
            lease_finish(s, t, &op->trial);
        else
            set_running(s, t, s->cfg.lease_ms); /* not saved: the worker keeps its result and sends it again */
    }
    if (ok && op->conflict)
        log_error("book_conflict", "job=%llu trial=%llu worker=%s why=\"the score book has other numbers for this trial: one of two machines is wrong\""
                  " next=\"the book keeps its own\"", (ull)op->trial.job, (ull)op->trial.idx, op->trial.worker);
    if (ok) {
        uint64_t *n[] = { [ACK_RECORDED] = &s->count.recorded, [ACK_DUPLICATE] = &s->count.duplicate, [ACK_STALE] = &s->count.stale };
        (*n[op->outcome])++;
    }
    if (a->acked)
        a->acked(a->arg, (struct lease_ref){ op->trial.job, op->trial.idx, op->trial.attempt }, op->rc, op->outcome, &op->err);
    free(a);
    sched_dispatch(s);
}

static int check_result(const struct trial_result *r, struct errbuf *e)
{
    if (r->state != TRIAL_SCORED && r->state != TRIAL_FAILED)
        return err_set(e, ERR_INPUT, "a result is scored or failed, not %s", trial_state_name(r->state));
    if (r->state == TRIAL_SCORED && !isfinite(r->score))
        return err_set(e, ERR_INPUT, "a scored result needs a finite score");
    if (r->state == TRIAL_FAILED && (r->reason <= FAIL_NONE || r->reason >= FAIL_REASON_COUNT))
        return err_set(e, ERR_INPUT, "a failed result needs a reason");
    return 0;
}

static void name_curriculum(struct sched *s, const struct job *j, const struct trial_result *r)
{
    struct store_op *op = j->spec.kind == JOB_TEACH && r->state == TRIAL_SCORED && r->artifact[0] ? store_op_new(OP_BLOB_NAME) : NULL;
    if (!op)
        return;
    snprintf(op->blob.kind, sizeof op->blob.kind, "curriculum");
    memcpy(op->blob.name, j->row.name, sizeof op->blob.name);
    memcpy(op->blob.hash, r->artifact, sizeof op->blob.hash);
    op->blob.added_ms = sched_now(s);
    sched_put(s, op); /* before the result, in the same group or an earlier one: a result never lacks its name */
}

void sched_result(struct sched *s, struct worker *w, struct lease_ref ref, const struct trial_result *r, sched_acked acked, void *arg)
{
    struct errbuf e = { 0 };
    struct store_op *op = store_op_new(OP_TRIAL_RESULT);
    struct arrival *a = malloc(sizeof *a);
    int rc = check_result(r, &e);
    struct job *j = sched_job(s, ref.job);
    struct trial *t = j ? job_trial(j, ref.trial) : NULL;
    bool current = t && t->phase == PHASE_RUNNING && t->row.attempt == ref.attempt;
    if (w)
        w->last_seen_ms = sched_now(s);
    if (rc == 0 && (!op || !a))
        rc = err_set(&e, ERR_NOMEM, "result");
    if (rc == 0 && current) {
        op->trial = t->row;
        op->trial.r = *r;
        rc = race_result(s, &j->spec, &t->row, &op->trial.r, &e);
    }
    if (rc < 0) {
        free(op);
        free(a);
        s->count.refused++;
        acked(arg, ref, rc, ACK_STALE, &e);
        return;
    }
    *a = (struct arrival){ .s = s, .acked = acked, .arg = arg };
    op->trial.job = ref.job;
    op->trial.idx = ref.trial;
    op->trial.attempt = ref.attempt;
    if (current) {
        op->trial.state = r->state;
        t->phase = PHASE_SAVING;
        list_remove(&t->running);
        name_curriculum(s, j, r);
        op->filed = book_entry(s, t, r);
    } else { /* the store alone can tell a repeat from a stale one; it will not change a thing */
        op->trial.r = *r;
    }
    op->trial.ended_ms = sched_now(s);
    op->arg = a;
    op->done = on_result_saved;
    sched_put(s, op);
}

/* ---- losing ---- */
static void on_crash_acked(void *arg, struct lease_ref ref, int rc, enum ack_outcome outcome, const struct errbuf *e)
{
    (void)arg;
    (void)outcome;
    (void)e;
    if (rc == 0)
        log_warn("trial_poisoned", "job=%llu trial=%llu next=\"recorded as failed(crash)\"", (ull)ref.job, (ull)ref.trial);
}

static void on_lost(struct store_op *op)
{
    struct sched *s = op->arg;
    struct trial *t = trial_of(s, &op->trial);
    bool ok = sched_saved(s, op);
    if (!t || t->phase != PHASE_LOSING || t->row.attempt != op->trial.attempt)
        return;
    if (!ok) { /* tried again when this short deadline passes */
        set_running(s, t, 1000);
        return;
    }
    t->row.deaths = op->trial.deaths;
    back_to_waiting(t);
    job_maybe_end(s, t->job);
    sched_dispatch(s);
}

void lease_lose(struct sched *s, struct trial *t, bool death)
{
    log_info("lease_lost", "job=%llu trial=%llu attempt=%u worker=%s death=%d deaths=%u", (ull)t->row.job, (ull)t->row.idx,
             t->row.attempt, t->row.worker, death, t->row.deaths + death);
    s->count.deaths += death;
    unbind(t);
    if (t->row.deaths + death >= LEASE_MAX_DEATHS) {
        struct trial_result *r = calloc(1, sizeof *r);
        if (r) {
            r->state = TRIAL_FAILED;
            r->reason = FAIL_CRASH;
            r->params = t->row.r.params;
            r->macs = t->row.r.macs;
            t->row.deaths += death;
            snprintf(r->detail, sizeof r->detail, "%u workers, or their devices, were lost while they held this trial", t->row.deaths);
            sched_result(s, NULL, (struct lease_ref){ t->row.job, t->row.idx, t->row.attempt }, r, on_crash_acked, NULL);
            free(r);
        } else {
            set_running(s, t, 1000);
        }
        return;
    }
    struct store_op *op = store_op_new(OP_TRIAL_REWAIT);
    list_remove(&t->running);
    if (!op) {
        set_running(s, t, 1000);
        return;
    }
    t->phase = PHASE_LOSING;
    op->trial = t->row;
    op->trial.deaths += death;
    op->arg = s;
    op->done = on_lost;
    sched_put(s, op);
}

void lease_expire_due(struct sched *s)
{
    int64_t now = sched_now(s);
    while (!s->store_down && !list_empty(&s->running)) {
        struct trial *t = list_entry(s->running.next, struct trial, running);
        if (t->deadline_ms > now)
            break;
        s->count.expired++;
        lease_lose(s, t, !t->undelivered);
    }
}

/* ---- progress ---- */
static void save_point(struct sched *s, struct trial *t)
{
    struct store_op *op = store_op_new(OP_TEACH_POINT);
    const struct task_progress *p = &t->progress;
    if (!op)
        return;
    op->point = (struct teach_point){ .job = t->row.job, .meta_step = p->done,
                                      .seconds = job_seconds(s, &t->job->row),
                                      .meta_loss = p->loss, .accuracy = p->accuracy, .held_out = p->held_out };
    t->point_at = p->done;
    sched_put(s, op);
}

static void save_checkpoint(struct sched *s, struct trial *t)
{
    struct store_op *op = store_op_new(OP_TRIAL_CHECKPOINT);
    if (!op)
        return;
    memcpy(t->row.checkpoint, t->progress.checkpoint_blob, sizeof t->row.checkpoint);
    op->trial = t->row;
    sched_put(s, op);
}

void lease_progress(struct sched *s, struct worker *w, const struct task_progress *p)
{
    struct job *j = sched_job(s, p->job);
    struct trial *t = j ? job_trial(j, p->trial) : NULL;
    if (!t || t->worker != w || t->row.attempt != p->attempt || t->phase != PHASE_RUNNING)
        return;
    t->progress = *p;
    t->progress_ms = sched_now(s);
    t->has_progress = true;
    if (j->spec.kind != JOB_TEACH || s->store_down)
        return;
    /* At most some hundreds of rows a teacher: one each 1/400 of the way, or at each heartbeat where that is unknown. */
    double step = p->total > 0 ? p->total / 400 : 1;
    if (p->done > 0 && (t->point_at < 0 || p->done >= t->point_at + step || p->done < t->point_at))
        save_point(s, t);
    if (p->checkpoint_blob[0] && strcmp(p->checkpoint_blob, t->row.checkpoint) != 0)
        save_checkpoint(s, t);
}
