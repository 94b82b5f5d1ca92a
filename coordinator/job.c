/* job.c - the life of a job: loading, proposing, counting, pausing, ending. */
#include "coordinator/sched.h"

#include "common/log.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATE_TAU_S 60.0

/* Of `again`, the first place whose index is not below idx. */
static size_t again_at(const struct job *j, uint64_t idx)
{
    size_t lo = 0, hi = j->n_again;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (j->again[mid].idx < idx)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct trial *job_trial(const struct job *j, uint64_t idx)
{
    struct trial **slot = job_slot(j, idx);
    if (slot && *slot && (*slot)->row.idx == idx)
        return *slot;
    size_t at = again_at(j, idx);
    return at < j->n_again && j->again[at].idx == idx ? j->again[at].t : NULL;
}

static bool again_put(struct job *j, struct trial *t)
{
    size_t at = again_at(j, t->row.idx);
    if (at < j->n_again && j->again[at].idx == t->row.idx) {
        assert(!j->again[at].t);
        j->again[at].t = t;
        return true;
    }
    if (j->n_again == j->cap_again) {
        size_t cap = j->cap_again ? 2 * j->cap_again : 16;
        struct again *bigger = realloc(j->again, cap * sizeof *bigger);
        if (!bigger)
            return false;
        j->again = bigger;
        j->cap_again = cap;
    }
    memmove(&j->again[at + 1], &j->again[at], (j->n_again - at) * sizeof *j->again);
    j->again[at] = (struct again){ t->row.idx, t };
    j->n_again++;
    return true;
}

struct trial **job_slot(const struct job *j, uint64_t idx)
{
    if (idx < TRIAL_AUDIT || j->spec.kind != JOB_SEARCH)
        return &j->slot[idx % j->n_slots];
    if (idx >= TRIAL_WARMUP)
        return idx - TRIAL_WARMUP < (uint64_t)j->n_warm ? &j->warm_slot[idx - TRIAL_WARMUP] : NULL;
    int i = j->audit ? audit_find(j->audit, idx) : -1;
    return i >= 0 ? &j->audit_slot[2 * i + (idx >= TRIAL_CONTROL)] : NULL;
}

struct job *job_new(struct sched *s, struct job_row *row, const struct job_spec *spec, struct errbuf *e)
{
    struct job *j = calloc(1, sizeof *j);
    if (!j) {
        err_set(e, ERR_NOMEM, "job");
        return NULL;
    }
    j->row = *row;
    row->spec_json = NULL;
    j->spec = *spec;
    memset(&j->row.n, 0, sizeof j->row.n);
    j->row.best_trial = -1;
    list_init(&j->waiting);
    list_init(&j->asks);
    j->total = spec->kind == JOB_SEARCH ? (uint64_t)(spec->trials > 0 ? spec->trials : 0) : row->total;
    j->n_slots = spec->kind == JOB_SEARCH ? (uint64_t)(spec->window > 0 ? spec->window : 1) : row->total > 0 ? row->total : 1;
    j->slot = calloc(j->n_slots, sizeof *j->slot);
    j->audit_slot = spec->audit.share > 0 ? calloc(2 * (size_t)spec->audit.max + 1, sizeof *j->audit_slot) : NULL;
    if (!j->slot || (spec->audit.share > 0 && !j->audit_slot)) {
        err_set(e, ERR_NOMEM, "job");
        free(j->slot);
        free(j->audit_slot);
        job_row_fini(&j->row);
        free(j);
        return NULL;
    }
    j->since_ms = j->decayed_ms = sched_now(s);
    list_append(&s->jobs, &j->all);
    s->n_jobs++;
    return j;
}

void trial_free(struct trial *t)
{
    if (t->worker)
        t->worker->n_leases--;
    list_remove(&t->of_worker);
    list_remove(&t->running);
    list_remove(&t->wait);
    free(t);
}

void job_free(struct sched *s, struct job *j)
{
    ask_drop_all(j);
    for (uint64_t i = 0; i < j->n_slots; i++)
        if (j->slot[i])
            trial_free(j->slot[i]);
    for (size_t i = 0; i < j->n_again; i++)
        if (j->again[i].t)
            trial_free(j->again[i].t);
    for (int i = 0; j->audit_slot && i < 2 * j->spec.audit.max; i++)
        if (j->audit_slot[i])
            trial_free(j->audit_slot[i]);
    for (int i = 0; i < j->n_warm; i++)
        if (j->warm_slot[i])
            trial_free(j->warm_slot[i]);
    list_remove(&j->all);
    s->n_jobs--;
    search_close(j->search);
    audit_close(j->audit);
    job_row_fini(&j->row);
    free(j->slot);
    free(j->again);
    free(j->audit_slot);
    free(j->warm_slot);
    free(j);
}

struct trial *job_add_trial(struct job *j, const struct trial_row *row)
{
    struct trial *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    bool again = j->search && row->told_failed;
    struct trial **slot = again ? NULL : job_slot(j, row->idx);
    assert(again || (slot && !*slot)); /* the window, the list, or the audit has one place for each open trial */
    t->job = j;
    t->row = *row;
    t->point_at = -1;
    list_init(&t->wait);
    list_init(&t->running);
    list_init(&t->of_worker);
    if (!again)
        *slot = t;
    if (again && !again_put(j, t)) {
        free(t);
        return NULL;
    }
    j->n_open++;
    return t;
}

void job_drop_trial(struct job *j, struct trial *t)
{
    struct trial **slot = job_slot(j, t->row.idx);
    size_t at = again_at(j, t->row.idx);
    if (slot && *slot == t)
        *slot = NULL;
    else if (at < j->n_again && j->again[at].t == t)
        j->again[at].t = NULL;
    j->n_open--;
    trial_free(t);
}

void job_wait(struct job *j, struct trial *t)
{
    struct link *at = j->waiting.next; /* those given again are the oldest: near the head */
    if (!list_empty(&j->waiting) && list_entry(j->waiting.prev, struct trial, wait)->row.idx < t->row.idx)
        at = &j->waiting; /* a list that is loaded comes in order */
    while (at != &j->waiting && list_entry(at, struct trial, wait)->row.idx < t->row.idx)
        at = at->next;
    t->phase = PHASE_WAITING;
    t->worker = NULL;
    list_insert(at, &t->wait);
    j->n_waiting++;
}

/* What the best of a job is the best in. Of real trainings one is chosen on the validation images, so that its accuracy on the test images, which
 * is the score, stays a fair one. */
static double merit(const struct job *j, const struct trial_row *row) { return j->spec.kind == JOB_VERIFY ? row->r.valid_score : row->r.score; }

static void better(struct job *j, const struct trial_row *row)
{
    const double was = j->have_best ? merit(j, &j->best) : 0, now = merit(j, row);
    if (j->have_best && (j->best.rung > row->rung))
        return; /* scores of different rungs do not compare: the higher one has been tried harder */
    if (j->have_best && j->best.rung == row->rung && (was > now || (was == now && j->best.idx < row->idx)))
        return;
    j->best = *row;
    j->have_best = true;
    j->row.best_trial = (int64_t)row->idx;
}

struct search_result job_told(const struct trial_row *row)
{
    if (row->r.state != TRIAL_SCORED || row->told_failed)
        return (struct search_result){ .idx = row->idx, .score = -INFINITY, .rung = row->rung, .arch = row->arch };
    return (struct search_result){ row->idx, row->r.score, row->rung, row->r.params, row->r.macs, row->arch, row->r.n_inits, row->r.score_se,
                                   row->r.latency_ms };
}

int job_tell(struct sched *s, struct job *j, const struct trial_row *row, bool live, struct errbuf *e)
{
    struct search_result told = job_told(row);
    if (row->idx >= TRIAL_WARMUP) {
        job_warmup_tell(s, j, row);
        return 0;
    }
    int rc = row->idx < TRIAL_AUDIT ? search_finish(j->search, &told, e) : 0;
    if (rc == 0 && j->audit)
        job_audit_tell(s, j, row, live);
    return rc;
}

/* Proposals that the job will have made in the end. */
uint64_t job_last_total(const struct job *j)
{
    uint64_t stop = j->audit ? audit_stop_at(j->audit) : UINT64_MAX;
    return stop < j->total ? stop : j->total;
}

void job_count(struct sched *s, struct job *j, const struct trial_row *row, bool live)
{
    if (row->r.state == TRIAL_SCORED) {
        j->row.n.scored++;
        better(j, row);
    } else {
        j->row.n.failed++;
        j->row.n.reason[row->r.reason]++;
    }
    if (!live)
        return;
    int64_t now = sched_now(s), second = now / 1000;
    j->decayed = j->decayed * exp(-(double)(now - j->decayed_ms) / 1000 / RATE_TAU_S) + 1;
    j->decayed_ms = now;
    for (; s->second < second; s->second++) {
        if (second - s->second > RATE_RING)
            s->second = second - RATE_RING;
        s->per_second[(s->second + 1) % RATE_RING] = 0;
    }
    s->per_second[second % RATE_RING]++;
}

double job_rate(const struct sched *s, const struct job *j)
{
    double now = (double)sched_now(s), t = (now - (double)j->since_ms) / 1000;
    double seen = RATE_TAU_S * (1 - exp(-t / RATE_TAU_S)); /* the seconds that the decaying count stands for so far */
    return seen > 0.05 ? j->decayed * exp(-(now - (double)j->decayed_ms) / 1000 / RATE_TAU_S) / seen : 0;
}

/* ---- loading ---- */
struct rows { struct sched *s; struct job *j; struct errbuf *e; int rc; };

static int propose(struct sched *s, struct job *j, struct trial **out, struct errbuf *e)
{
    struct proposal p;
    int rc = search_propose(j->search, &p, e);
    if (rc < 0)
        return rc;
    struct trial_row *row = calloc(1, sizeof *row);
    if (!row)
        return err_set(e, ERR_NOMEM, "trial");
    row->job = j->row.id;
    row->idx = p.idx;
    memcpy(row->arch, p.arch, sizeof row->arch);
    memcpy(row->arch_hash, p.hash, sizeof row->arch_hash);
    row->parent = p.parent;
    row->rung = p.rung;
    row->seed = p.seed;
    row->proxy = NAN;
    row->r.params = p.params;
    row->r.macs = p.macs;
    row->created_ms = sched_now(s);
    *out = job_add_trial(j, row);
    free(row);
    s->count.proposals++;
    return *out ? 0 : err_set(e, ERR_NOMEM, "trial");
}

static int recall(struct sched *s, struct job *j, const struct trial_row *row, struct errbuf *e)
{
    while (search_next_index(j->search) < row->idx) { /* a grant that never reached the disk: it comes out the same again */
        struct trial *t;
        int rc = propose(s, j, &t, e);
        if (rc < 0)
            return rc;
        job_wait(j, t);
    }
    struct proposal p = { .idx = row->idx, .parent = row->parent, .rung = row->rung };
    memcpy(p.hash, row->arch_hash, sizeof p.hash);
    return search_recall(j->search, &p, e);
}

static bool on_trial_row(void *arg, const struct trial_row *row)
{
    struct rows *rs = arg;
    struct job *j = rs->j;
    bool had = j->search && search_had(j->search, row->arch_hash);
    if (j->search && row->idx < TRIAL_AUDIT)
        rs->rc = recall(rs->s, j, row, rs->e);
    else if (j->search && !job_slot(j, row->idx))
        rs->rc = err_set(rs->e, ERR_CORRUPT, "trial %llu audits what its audit would not choose", (unsigned long long)row->idx);
    else if (!j->search && row->idx >= j->n_slots)
        rs->rc = err_set(rs->e, ERR_CORRUPT, "trial %llu is beyond its list", (unsigned long long)row->idx);
    if (rs->rc < 0)
        return false;
    bool ended = row->state == TRIAL_SCORED || row->state == TRIAL_FAILED || row->state == TRIAL_PRUNED;
    if (j->search && (ended || row->told_failed))
        rs->rc = job_tell(rs->s, j, row, false, rs->e);
    if (ended && row->idx < TRIAL_AUDIT)
        job_count(rs->s, j, row, false);
    if (ended || rs->rc < 0)
        return rs->rc == 0;
    struct trial *t = job_add_trial(j, row);
    if (!t)
        rs->rc = err_set(rs->e, ERR_NOMEM, "trial");
    else if (row->state == TRIAL_RUNNING)
        lease_resume(rs->s, t);
    else
        job_wait(j, t);
    if (t && j->search && search_is_external(j->search))
        ask_look(t, had);
    return rs->rc == 0;
}

int job_load(struct sched *s, struct job *j, struct errbuf *e)
{
    int rc = s->cfg.spaces ? s->cfg.spaces(s->cfg.arg, &j->spec, e) : 0;
    if (rc < 0)
        return rc;
    if (j->spec.kind == JOB_SEARCH) {
        rc = s->cfg.image_shape(s->cfg.arg, j->spec.dataset_hash, &j->img, e);
        if (rc == 0)
            rc = search_open(&j->search, &j->spec, &j->img, e);
        if (rc == 0)
            rc = audit_open(&j->audit, &j->spec, e);
        if (rc == 0)
            rc = job_warmup_load(s, j, e);
        if (rc < 0)
            return rc;
    }
    j->book_likely = book_may_have(s, j);
    if (s->cfg.job_data && j->spec.kind != JOB_TEACH) {
        struct errbuf why = { 0 };
        j->have_data = s->cfg.job_data(s->cfg.arg, &j->spec, &j->data, &why) == 0;
        if (!j->have_data)
            log_warn("no_demand", "job=%llu error=\"%s\" next=\"its trials go to any worker\"", (unsigned long long)j->row.id, why.text);
    }
    struct rows rs = { s, j, e, 0 };
    rc = reader_trials(s->cfg.reader, j->row.id, -1, SORT_INDEX, 0, 0, on_trial_row, &rs);
    if (j->audit && rc >= 0 && rs.rc == 0)
        rc = reader_trials(s->cfg.reader, j->row.id, -1, SORT_AUDIT, 0, 0, on_trial_row, &rs);
    if (j->audit && rc >= 0 && rs.rc == 0)
        rc = job_audit_open(s, j);
    return rs.rc < 0 ? rs.rc : rc < 0 ? err_set(e, (enum err)-rc, "cannot read its trials") : 0;
}

/* ---- giving out ---- */
bool job_gives(const struct job *j)
{
    return (j->row.state == JOB_QUEUED || j->row.state == JOB_RUNNING) && !j->ending &&
           (j->spec.parallel <= 0 || j->n_running < (uint64_t)j->spec.parallel);
}

static bool may_propose(const struct job *j)
{
    return j->search && !search_is_external(j->search) && !j->no_more && search_next_index(j->search) < job_last_total(j) && search_ready(j->search) &&
           (!j->audit || audit_lets(j->audit, search_next_index(j->search)));
}

static struct trial *first_that_fits(struct sched *s, const struct job *j, const struct worker *w)
{
    list_each(l, &j->waiting) {
        struct trial *t = list_entry(l, struct trial, wait);
        if (t->look)
            continue; /* the book has not been asked yet */
        if (w && !fit_has_device(t, w))
            continue; /* of its memory nobody asks here: it must not use up FIT_AT_ONCE */
        if (w && !t->need_known && fit_device(t, w) == DEVICE_CPU && s->n_sized++ >= FIT_AT_ONCE)
            return NULL;
        if (!w || fit_worker(t, w))
            return t;
    }
    return NULL;
}

bool job_has_work(struct sched *s, const struct job *j, const struct worker *w)
{
    return job_gives(j) && (first_that_fits(s, j, w) || ((!w || fit_spec(&j->spec, w)) && may_propose(j)));
}

/* The next proposal, or NULL where there is none: then the job ends once what runs has ended. */
static struct trial *next_proposal(struct sched *s, struct job *j)
{
    struct trial *t = NULL;
    struct errbuf e = { 0 };
    int rc = propose(s, j, &t, &e);
    if (rc == 0)
        return t;
    j->no_more = true; /* what runs may end; then the job fails */
    snprintf(j->fail_text, sizeof j->fail_text, "%.250s", err_message(&e, rc));
    log_error("no_proposal", "job=%llu error=\"%s\"", (unsigned long long)j->row.id, j->fail_text);
    job_maybe_end(s, j);
    return NULL;
}

void job_started(struct sched *s, struct job *j)
{
    if (j->row.state != JOB_QUEUED)
        return;
    j->row.state = JOB_RUNNING;
    if (!j->row.started_ms)
        j->row.started_ms = sched_now(s);
    j->since_ms = j->decayed_ms = sched_now(s);
    log_info("job_started", "job=%llu name=\"%s\" kind=%s", (unsigned long long)j->row.id, j->row.name, job_kind_name(j->row.kind));
    job_save_state(s, j);
}

struct trial *job_take(struct sched *s, struct job *j, const struct worker *w)
{
    struct trial *t = first_that_fits(s, j, w);
    if (t) {
        list_remove(&t->wait);
        j->n_waiting--;
    } else if (!(t = next_proposal(s, j))) {
        return NULL;
    } else if (book_serve(s, t)) {
        t = NULL; /* nothing to give out; the job may have more */
    }
    job_started(s, j);
    return t;
}

/* Waiting trials are in order, and those of an audit come after all candidates. */
static bool candidate_waits(const struct job *j)
{
    return !list_empty(&j->waiting) && list_entry(j->waiting.next, struct trial, wait)->row.idx < TRIAL_AUDIT;
}

void job_serve_book(struct sched *s, struct job *j)
{
    while (j->book_likely && !candidate_waits(j) && job_gives(j) && may_propose(j)) {
        struct trial *t = next_proposal(s, j);
        if (!t)
            return;
        if (!book_serve(s, t)) {
            job_wait(j, t);
            return;
        }
        job_started(s, j);
    }
}

/* ---- states ---- */
struct change { struct sched *s; uint64_t job; enum job_state to; sched_done done; void *arg; };

static struct store_op *state_op(struct sched *s, struct job *j, enum store_kind kind, enum job_state state)
{
    struct store_op *op = store_op_new(kind);
    if (!op)
        return NULL;
    op->job.row = j->row;
    op->job.row.spec_json = NULL;
    op->job.row.state = state;
    op->arg = s;
    op->tag = j->row.id;
    return op;
}

static void on_state_saved(struct store_op *op)
{
    struct sched *s = op->arg;
    struct job *j = sched_job(s, op->tag);
    if (!sched_saved(s, op) && j)
        j->state_dirty = true; /* the tick tries again */
}

void job_save_state(struct sched *s, struct job *j)
{
    struct store_op *op = state_op(s, j, OP_JOB_STATE, j->row.state);
    j->state_dirty = op == NULL;
    if (op) {
        op->done = on_state_saved;
        sched_put(s, op);
    }
}

static const char *commonest(const struct job *j, uint64_t *n)
{
    int best = FAIL_NONE;
    for (int r = 1; r < FAIL_REASON_COUNT; r++)
        if (j->row.n.reason[r] > (best ? j->row.n.reason[best] : 0))
            best = r;
    *n = j->row.n.reason[best];
    return fail_reason_name((enum fail_reason)best);
}

static void on_ended(struct store_op *op)
{
    struct sched *s = op->arg;
    struct change *c = op->arg2;
    struct job *j = sched_job(s, op->tag);
    bool ok = sched_saved(s, op);
    if (ok && j) {
        log_info("job_ended", "job=%llu name=\"%s\" state=%s scored=%llu failed=%llu reason=\"%s\"", (unsigned long long)j->row.id,
                 j->row.name, job_state_name(j->end_state), (unsigned long long)j->row.n.scored,
                 (unsigned long long)j->row.n.failed, op->job.row.reason);
        job_free(s, j);
    }
    if (c && c->done)
        c->done(c->arg, op->rc, op->tag, &op->err);
    if (!ok && j && !c) {
        j->state_dirty = true; /* stays `ending`: the tick tries again */
    } else if (!ok && j) {
        j->ending = false;     /* a refused cancel: the job goes on, and whoever asked knows */
    }
    free(c);
    if (ok)
        sched_dispatch(s);
}

void job_end(struct sched *s, struct job *j, enum job_state state, const char *reason, sched_done done, void *arg)
{
    struct store_op *op = state_op(s, j, OP_JOB_END, state);
    struct change *c = done ? calloc(1, sizeof *c) : NULL;
    if (!op || (done && !c)) {
        free(op);
        free(c);
        struct errbuf e;
        if (done)
            done(arg, err_set(&e, ERR_NOMEM, "job"), j->row.id, &e);
        else
            j->state_dirty = true;
        return;
    }
    j->ending = true;
    j->end_state = state;
    j->state_dirty = false;
    if (reason != j->fail_text)
        snprintf(j->fail_text, sizeof j->fail_text, "%s", reason);
    snprintf(op->job.row.reason, sizeof op->job.row.reason, "%s", reason);
    op->job.row.ended_ms = sched_now(s);
    op->job.row.best_trial = j->row.best_trial;
    op->done = on_ended;
    if (c)
        *c = (struct change){ s, j->row.id, state, done, arg };
    op->arg2 = c;
    sched_put(s, op);
}

static void end_by_counts(struct sched *s, struct job *j, const char *why)
{
    char text[256];
    uint64_t n;
    const char *reason = commonest(j, &n);
    if (j->row.n.scored > 0) {
        snprintf(text, sizeof text, "%s", why);
        job_end(s, j, JOB_SUCCEEDED, text, NULL, NULL);
        return;
    }
    if (j->row.n.failed > 0)
        snprintf(text, sizeof text, "no trial was scored: %llu of %llu failed with %s", (unsigned long long)n,
                 (unsigned long long)j->row.n.failed, reason);
    else
        snprintf(text, sizeof text, "no trial was scored%s%s", *why ? ": " : "", why);
    job_end(s, j, JOB_FAILED, text, NULL, NULL);
}

/* Whether the job is over, looked at whenever a trial has ended or nothing more is proposed. */
void job_maybe_end(struct sched *s, struct job *j)
{
    uint64_t finished = j->row.n.scored + j->row.n.failed, n;
    if (j->ending || j->changing || j->row.state == JOB_PAUSED)
        return;
    if (j->spec.max_failed > 0 && j->row.n.failed >= (uint64_t)j->spec.max_failed) {
        char text[256];
        const char *reason = commonest(j, &n);
        snprintf(text, sizeof text, "%llu trial%s failed and max_failed is %d; the commonest reason: %s (%llu)",
                 (unsigned long long)j->row.n.failed, j->row.n.failed == 1 ? "" : "s", j->spec.max_failed, reason, (unsigned long long)n);
        job_end(s, j, JOB_FAILED, text, NULL, NULL);
    } else if (j->no_more && j->n_open == 0) {
        job_end(s, j, JOB_FAILED, j->fail_text, NULL, NULL);
    } else if (finished >= job_last_total(j) && (!j->audit || audit_complete(j->audit))) { /* its trainings are part of the result */
        if (j->audit && audit_stop_at(j->audit) != UINT64_MAX) {
            char text[256];
            audit_stop_text(j->audit, text, sizeof text);
            job_end(s, j, JOB_FAILED, text, NULL, NULL);
        } else {
            end_by_counts(s, j, "");
        }
    } else if (j->row.state == JOB_STOPPING && j->n_running == 0) {
        char text[256];
        snprintf(text, sizeof text, "its %g seconds were over after %llu of %llu trial%s", j->spec.seconds,
                 (unsigned long long)finished, (unsigned long long)j->total, j->total == 1 ? "" : "s");
        end_by_counts(s, j, text);
    }
}

void job_tick(struct sched *s, struct job *j)
{
    if (j->state_dirty && !s->store_down) {
        if (j->ending)
            job_end(s, j, j->end_state, j->fail_text, NULL, NULL);
        else
            job_save_state(s, j);
        return;
    }
    if (!j->ending && j->row.state == JOB_RUNNING && j->spec.seconds > 0 && j->row.started_ms > 0 &&
        job_seconds(s, &j->row) > j->spec.seconds) {
        j->row.state = JOB_STOPPING;
        log_info("job_stopping", "job=%llu why=\"its %g seconds are over\"", (unsigned long long)j->row.id, j->spec.seconds);
        job_save_state(s, j);
        job_maybe_end(s, j);
    }
}

/* ---- actions of people ---- */
static const struct action { const char *name; enum job_state from, to; } actions[] = {
    { "pause", JOB_QUEUED, JOB_PAUSED },     { "pause", JOB_RUNNING, JOB_PAUSED },     { "pause", JOB_PAUSED, JOB_PAUSED },
    { "resume", JOB_PAUSED, JOB_QUEUED },    { "resume", JOB_QUEUED, JOB_QUEUED },     { "resume", JOB_RUNNING, JOB_RUNNING },
    { "cancel", JOB_QUEUED, JOB_CANCELLED }, { "cancel", JOB_RUNNING, JOB_CANCELLED }, { "cancel", JOB_PAUSED, JOB_CANCELLED },
    { "cancel", JOB_STOPPING, JOB_CANCELLED },
};

static void on_changed(struct store_op *op)
{
    struct sched *s = op->arg;
    struct change *c = op->arg2;
    struct job *j = sched_job(s, op->tag);
    bool ok = sched_saved(s, op);
    if (j) {
        j->changing = false;
        if (ok) {
            j->row.state = c->to;
            log_info("job_changed", "job=%llu state=%s", (unsigned long long)j->row.id, job_state_name(c->to));
        }
        job_maybe_end(s, j); /* it was held back */
    }
    c->done(c->arg, op->rc, op->tag, &op->err);
    free(c);
    sched_dispatch(s);
}

static void change_state(struct sched *s, struct job *j, enum job_state to, sched_done done, void *arg)
{
    struct store_op *op = state_op(s, j, OP_JOB_STATE, to);
    struct change *c = calloc(1, sizeof *c);
    if (!op || !c) {
        struct errbuf e;
        free(op);
        free(c);
        done(arg, err_set(&e, ERR_NOMEM, "job"), j->row.id, &e);
        return;
    }
    j->changing = true;
    *c = (struct change){ s, j->row.id, to, done, arg };
    op->arg2 = c;
    op->done = on_changed;
    sched_put(s, op);
}

static int ended_error(struct sched *s, uint64_t id, const char *action, struct errbuf *e)
{
    struct job_row row;
    if (reader_job(s->cfg.reader, id, &row) != 1)
        return err_set(e, ERR_NOTFOUND, "there is no job %llu", (unsigned long long)id);
    job_row_fini(&row);
    return err_set(e, ERR_STATE, "job %llu is %s: %s is not possible", (unsigned long long)id, job_state_name(row.state), action);
}

void sched_action(struct sched *s, uint64_t id, const char *action, sched_done done, void *arg)
{
    struct errbuf e = { 0 };
    struct job *j = sched_job(s, id);
    const struct action *a = NULL;
    bool known = false;
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        known |= strcmp(actions[i].name, action) == 0;
        if (j && strcmp(actions[i].name, action) == 0 && actions[i].from == j->row.state)
            a = &actions[i];
    }
    int rc = 0;
    if (!known)
        rc = err_set(&e, ERR_INPUT, "\"%s\" is no action; there are pause, resume, cancel, set, extend, retry and finish", action);
    else if (!j)
        rc = ended_error(s, id, action, &e);
    else if (j->ending || j->changing)
        rc = err_set(&e, ERR_BUSY, "job %llu: another change is being saved", (unsigned long long)id);
    else if (!a)
        rc = err_set(&e, ERR_STATE, "job %llu is %s: %s is not possible", (unsigned long long)id, job_state_name(j->row.state), action);
    if (rc < 0) {
        done(arg, rc, id, &e);
    } else if (a->to == JOB_CANCELLED) {
        job_end(s, j, JOB_CANCELLED, "cancelled on request", done, arg);
    } else if (a->to == a->from) {
        done(arg, 0, id, &e); /* so already */
    } else {
        change_state(s, j, a->to == JOB_QUEUED && j->row.started_ms ? JOB_RUNNING : a->to, done, arg);
    }
}

/* ---- submission ---- */
struct intake { struct sched *s; struct job_spec spec; sched_done done; void *arg; };

static void on_inserted(struct store_op *op)
{
    struct intake *in = op->arg;
    struct sched *s = in->s;
    struct job_row row = op->job.row;
    struct errbuf e = op->err;
    int rc = op->rc;
    if (sched_saved(s, op)) {
        struct job *j = (row.spec_json = strdup(row.spec_json)) ? job_new(s, &row, &in->spec, &e) : NULL;
        rc = j ? job_load(s, j, &e) : -ERR_NOMEM;
        if (!j)
            free(row.spec_json);
        if (j && rc < 0)
            job_end(s, j, JOB_FAILED, err_message(&e, rc), NULL, NULL);
        else if (j)
            log_info("job_submitted", "job=%llu name=\"%s\" kind=%s trials=%llu", (unsigned long long)row.id, j->row.name,
                     job_kind_name(j->row.kind), (unsigned long long)j->total);
        rc = rc == -ERR_NOMEM ? rc : 0; /* it is saved: what went wrong after that is the job's reason, not a refusal */
    }
    in->done(in->arg, rc, op->job.row.id, &e);
    free(in);
    sched_dispatch(s);
}

char *job_spec_text(const struct job_spec *spec)
{
    json_t *doc = job_to_json(spec);
    char *text = doc ? json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(doc);
    return text;
}

int job_spec_from(const char *text, struct job_spec *out, struct errbuf *e)
{
    json_t *doc = json_loads(text, 0, NULL);
    int rc = doc ? job_from_json(out, doc, e) : err_set(e, ERR_CORRUPT, "its stored spec is not JSON");
    json_decref(doc);
    return rc;
}

double job_seconds(const struct sched *s, const struct job_row *r)
{
    return r->started_ms ? (double)((r->ended_ms ? r->ended_ms : sched_now(s)) - r->started_ms - r->idle_ms) / 1000 : 0;
}

void sched_submit(struct sched *s, const struct job_spec *spec, struct trial_row *trials, size_t n, sched_done done, void *arg)
{
    struct errbuf e = { 0 };
    struct store_op *op = store_op_new(OP_JOB_INSERT);
    struct intake *in = malloc(sizeof *in);
    char *text = NULL;
    if (op && in) {
        *in = (struct intake){ s, *spec, done, arg };
        if (!in->spec.name[0])
            snprintf(in->spec.name, sizeof in->spec.name, "%s-%llu", job_kind_name(spec->kind), (unsigned long long)s->next_job);
        text = job_spec_text(&in->spec);
    }
    if (!text) {
        free(op);
        free(in);
        free(trials);
        done(arg, err_set(&e, ERR_NOMEM, "job"), 0, &e);
        return;
    }
    struct job_row *row = &op->job.row;
    row->id = s->next_job++;
    memcpy(row->name, in->spec.name, sizeof row->name);
    row->kind = spec->kind;
    row->state = JOB_QUEUED;
    row->created_ms = sched_now(s);
    row->best_trial = -1;
    row->total = n;
    row->spec_json = text;
    for (size_t i = 0; i < n; i++) {
        trials[i].job = row->id;
        trials[i].created_ms = row->created_ms;
    }
    op->job.trials = trials;
    op->job.n_trials = n;
    op->arg = in;
    op->done = on_inserted;
    sched_put(s, op);
}
