/* docs.c - the JSON documents of docs/api.md, one builder for HTTP and for Query over ZeroMQ.
 * Jobs that live are described from memory, ended ones from the store; every list is cut at a limit. */
#include "coordinator/coord.h"
#include "coordinator/docs_int.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *doc_real(double v)        { return isfinite(v) ? json_real(v) : json_null(); }
json_t *doc_ms(int64_t v)         { return v > 0 ? json_integer(v) : json_null(); }
json_t *doc_text(const char *s)   { return s && *s ? json_string(s) : json_null(); }
json_t *doc_int(uint64_t v)       { return json_integer((json_int_t)v); }

/* A seed is 64 unsigned bits; JSON integers here are signed: beyond 2^63 - 1 it is written as text. */
json_t *doc_seed(uint64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    return v <= INT64_MAX ? json_integer((json_int_t)v) : json_string(text);
}

static json_t *progress_doc(const struct trial *t)
{
    const struct task_progress *p = &t->progress;
    if (!t->has_progress)
        return json_null();
    bool teach = t->job->spec.kind == JOB_TEACH; /* 0 there means: not evaluated yet */
    return json_pack("{s:f,s:f,s:o,s:o,s:o,s:o,s:I}", "done", p->done, "total", p->total, "loss", doc_real(p->loss),
                     "accuracy", teach && p->accuracy <= 0 ? json_null() : doc_real(p->accuracy),
                     "held_out", p->held_out <= 0 ? json_null() : doc_real(p->held_out), "rate", doc_real(p->rate), "updated_ms",
                     (json_int_t)t->progress_ms);
}

static json_t *reals(const double *v, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(a, doc_real(v[i]));
    return a;
}

static json_t *checkpoints(const struct trial_result *r)
{
    json_t *a = json_array();
    for (int i = 0; i < r->n_checkpoints; i++)
        json_array_append_new(a, json_pack("{s:i,s:o}", "step", r->checkpoint[i], "score", doc_real(r->checkpoint_score[i])));
    return a;
}

static bool ended(const struct trial_row *t)
{
    return t->state == TRIAL_SCORED || t->state == TRIAL_FAILED || t->state == TRIAL_PRUNED;
}

/* The deterministic fields: what replay and the kill tests compare byte for byte. */
json_t *doc_history(const struct trial_row *t)
{
    const struct trial_result *r = &t->r;
    const bool done = ended(t), scored = t->state == TRIAL_SCORED && t->group != GROUP_WARMUP; /* that one has zero-cost scores alone */
    const bool taught = scored && r->loss_sum > 0; /* on a curriculum, whose losses are summed; else trained for real */
    json_t *d = json_object();
    json_object_set_new(d, "trial", doc_int(t->idx));
    json_object_set_new(d, "arch", doc_text(t->arch));
    json_object_set_new(d, "arch_hash", doc_text(t->arch_hash));
    json_object_set_new(d, "parent", t->parent >= 0 ? json_integer(t->parent) : json_null());
    json_object_set_new(d, "rung", json_integer(t->rung));
    json_object_set_new(d, "seed", doc_seed(t->seed));
    json_object_set_new(d, "state", json_string(trial_state_name(t->state)));
    json_object_set_new(d, "reason", done && r->reason != FAIL_NONE ? json_string(fail_reason_name(r->reason)) : json_null());
    json_object_set_new(d, "told_failed", json_boolean(t->told_failed));
    json_object_set_new(d, "score", scored ? doc_real(r->score) : json_null());
    json_object_set_new(d, "score_se", taught && r->n_inits > 1 ? doc_real(r->score_se) : json_null());
    json_object_set_new(d, "init_scores", reals(r->init_score, r->n_inits));
    json_object_set_new(d, "checkpoints", checkpoints(r));
    json_object_set_new(d, "loss_sum", taught ? doc_real(r->loss_sum) : json_null());
    json_object_set_new(d, "lr_scale", taught ? doc_real(r->lr_scale) : json_null());
    json_object_set_new(d, "valid_score", scored && !taught ? doc_real(r->valid_score) : json_null());
    json_object_set_new(d, "params", done ? doc_int(r->params) : json_null());
    json_object_set_new(d, "macs", done ? doc_int(r->macs) : json_null());
    json_object_set_new(d, "artifact", doc_text(r->artifact));
    json_object_set_new(d, "zero_cost", r->zero_cost.known ? zero_cost_json(&r->zero_cost) : json_null());
    return d;
}

json_t *doc_trial(struct coord *c, const struct trial_row *t, const char *space)
{
    json_t *d = doc_history(t);
    const struct trial_result *r = &t->r;
    struct job *j = sched_job(c->sched, t->job);
    struct trial *live = j && !ended(t) ? job_trial(j, t->idx) : NULL;
    json_object_set_new(d, "space", doc_text(space));
    json_object_set_new(d, "detail", ended(t) ? doc_text(r->detail) : json_null());
    json_object_set_new(d, "from_book", json_boolean(t->from_book));
    json_object_set_new(d, "tag", doc_text(t->tag));
    json_object_set_new(d, "attempt", doc_int(t->attempt));
    json_object_set_new(d, "deaths", doc_int(t->deaths));
    json_object_set_new(d, "meta_steps", r->meta_steps ? json_integer(r->meta_steps) : json_null());
    json_object_set_new(d, "checkpoint_blob", doc_text(r->checkpoint_blob[0] ? r->checkpoint_blob : t->checkpoint));
    json_object_set_new(d, "seconds", ended(t) ? doc_real(r->seconds) : json_null());
    json_object_set_new(d, "mem_bytes", ended(t) ? doc_int(r->mem_bytes) : json_null());
    json_object_set_new(d, "latency_ms", ended(t) && r->latency_ms > 0 ? json_real(r->latency_ms) : json_null());
    json_object_set_new(d, "worker", doc_text(t->worker));
    json_object_set_new(d, "created_ms", doc_ms(t->created_ms));
    json_object_set_new(d, "ended_ms", doc_ms(t->ended_ms));
    json_object_set_new(d, "group", doc_text(trial_group_name(t->group)));
    json_object_set_new(d, "proxy", doc_real(t->proxy));
    json_object_set_new(d, "progress", live ? progress_doc(live) : json_null());
    return d;
}

/* ---- JOB ---- */
static json_t *estimate_doc(const struct estimate *e, int n)
{
    return json_pack("{s:i,s:o,s:o,s:o}", "n", n, "value", doc_real(e->value), "low", doc_real(e->low), "high", doc_real(e->high));
}

/* What the standing audit says so far. Of a job that has ended it is made from its trials, where one job is asked for. */
static json_t *standing_doc(struct coord *c, const struct job *j, const struct job_row *r, const json_t *spec_doc, bool one)
{
    struct audit *stored = NULL, *a = j ? j->audit : NULL;
    const json_t *cfg = json_object_get(spec_doc, "audit");
    struct audit_summary s;
    if (json_number_value(json_object_get(cfg, "share")) <= 0 || (!a && !one))
        return json_null();
    struct job_spec *spec = a ? NULL : malloc(sizeof *spec);
    if (spec && job_from_json(spec, spec_doc, NULL) == 0 && audit_from_rows(&stored, spec, c->reader, r->id, NULL) == 0)
        a = stored;
    json_t *d = json_null();
    if (a && audit_summarise(a, &s) == 0)
        d = json_pack("{s:O,s:O,s:O,s:i,s:i,s:i,s:s,s:o,s:o,s:o}", "share", json_object_get(cfg, "share"), "floor", json_object_get(cfg, "floor"),
                      "action", json_object_get(cfg, "action"), "chosen", s.chosen, "trained", s.trained, "failed", s.failed, "state",
                      audit_state_name(s.state), "spearman", estimate_doc(&s.score, s.n), "params", estimate_doc(&s.params, s.n), "control",
                      json_is_true(json_object_get(cfg, "control")) ? estimate_doc(&s.control, s.n_control) : json_null());
    audit_close(stored);
    free(spec);
    return d;
}

static json_t *failures_doc(const struct job_counts *n)
{
    json_t *d = json_object();
    for (int r = FAIL_NONE + 1; r < FAIL_REASON_COUNT; r++)
        json_object_set_new(d, fail_reason_name((enum fail_reason)r), doc_int(n->reason[r]));
    return d;
}

static json_t *best_doc(const struct trial_row *t)
{
    return json_pack("{s:I,s:o,s:o,s:o}", "trial", (json_int_t)t->idx, "score", doc_real(t->r.score), "score_se", doc_real(t->r.score_se),
                     "arch", doc_text(t->arch));
}

/* One that stands for the job: the teacher's, else none. */
static json_t *job_progress(const struct job *j)
{
    struct trial *t = j && j->spec.kind == JOB_TEACH ? job_trial(j, 0) : NULL;
    return t ? progress_doc(t) : json_null();
}

static double slots_online(struct coord *c)
{
    uint64_t n = 0;
    list_each(l, &c->sched->workers) {
        const struct worker *w = list_entry(l, struct worker, all);
        n += w->online ? w->slots : 0;
    }
    return n ? (double)n : 1;
}

#define ETA_MOST_S (365.0 * 86400) /* a job that others keep waiting has a rate that fades: beyond this nothing is known */

static double job_eta(struct coord *c, const struct job *j, double rate)
{
    struct trial *t = j->spec.kind == JOB_TEACH ? job_trial(j, 0) : NULL;
    double finished = (double)(j->row.n.scored + j->row.n.failed);
    double left_s = j->spec.seconds > 0 && j->row.started_ms ? j->spec.seconds - job_seconds(c->sched, &j->row) : INFINITY;
    double eta = INFINITY;
    if (t)
        eta = t->has_progress && t->progress.rate > 0 ? (t->progress.total - t->progress.done) / t->progress.rate : INFINITY;
    else if (finished >= (double)j->total)
        eta = 0;
    else if (rate > 0)
        eta = ((double)j->total - finished) / rate;
    if (j->audit) /* its trainings are no candidates, and may well outlast them */
        eta += audit_seconds_left(j->audit, j->total) / slots_online(c);
    eta = eta < left_s ? eta : left_s;
    return eta < 0 ? 0 : eta > ETA_MOST_S ? INFINITY : eta;
}

static void job_names(json_t *d, const json_t *spec)
{
    static const char *const keys[] = { "dataset", "dataset_hash", "curriculum", "curriculum_hash", "space", "space_hash", "seed", "device" };
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        json_t *v = json_object_get(spec, keys[k]);
        bool none = !v || (json_is_string(v) && !*json_string_value(v));
        json_object_set(d, keys[k], none ? json_null() : v);
    }
    /* A limit in seconds, for the job or its teacher, makes the clock part of the result. */
    json_t *budget = json_object_get(spec, "budget"), *teach = json_object_get(spec, "teach");
    double s = json_number_value(json_object_get(budget, "seconds")) + json_number_value(json_object_get(budget, "time")) +
               json_number_value(json_object_get(teach, "seconds"));
    bool measured = false; /* and so does a latency that the searcher goes by */
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(spec, "objectives"), i, o)
        measured |= metric_from(json_string_value(json_object_get(o, "metric"))) == METRIC_LATENCY;
    const char *device = json_string_value(json_object_get(spec, "device"));
    json_object_set_new(d, "repeatable", json_boolean(s <= 0 && !measured && !(device && strcmp(device, device_class_name(DEVICE_ANY)) == 0)));
}

json_t *doc_job(struct coord *c, const struct job_row *stored, bool with_spec)
{
    struct job *j = sched_job(c->sched, stored->id);
    const struct job_row *r = j ? &j->row : stored;
    double rate = j ? job_rate(c->sched, j) : 0;
    json_t *spec = json_loads(r->spec_json, 0, NULL), *d = json_object();
    uint64_t finished = r->n.scored + r->n.failed;
    json_t *budget = json_object_get(spec, "budget");
    uint64_t total = j ? j->total : stored->total ? stored->total : (uint64_t)json_integer_value(json_object_get(budget, "trials"));
    json_object_set_new(d, "id", doc_int(r->id));
    json_object_set_new(d, "name", json_string(r->name));
    json_object_set_new(d, "kind", json_string(job_kind_name(r->kind)));
    json_object_set_new(d, "state", json_string(job_state_name(r->state)));
    json_object_set_new(d, "created_ms", doc_ms(r->created_ms));
    json_object_set_new(d, "started_ms", doc_ms(r->started_ms));
    json_object_set_new(d, "ended_ms", doc_ms(r->ended_ms));
    json_object_set_new(d, "reason", doc_text(r->reason));
    json_object_set_new(d, "trials", json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "waiting", (json_int_t)(j ? j->n_waiting : 0), "running",
                        (json_int_t)(j ? j->n_running : 0), "scored", (json_int_t)r->n.scored, "failed", (json_int_t)r->n.failed,
                        "cancelled", (json_int_t)r->n.cancelled, "total", (json_int_t)(finished + r->n.cancelled + (j ? j->n_open : 0)),
                        "budget", (json_int_t)total));
    json_object_set_new(d, "failures", failures_doc(&r->n));
    struct trial_row *best = malloc(sizeof *best);
    if (j && j->have_best)
        json_object_set_new(d, "best", best_doc(&j->best));
    else if (!j && best && r->best_trial >= 0 && reader_trial(c->reader, r->id, (uint64_t)r->best_trial, best) == 1)
        json_object_set_new(d, "best", best_doc(best));
    else
        json_object_set_new(d, "best", json_null());
    free(best);
    json_object_set_new(d, "rate", j ? doc_real(rate) : json_null());
    json_object_set_new(d, "eta_s", j && r->state != JOB_PAUSED ? doc_real(job_eta(c, j, rate)) : json_null());
    json_object_set_new(d, "progress", job_progress(j));
    json_object_set_new(d, "audit", standing_doc(c, j, r, spec, with_spec));
    json_object_set_new(d, "warmup", j && j->n_warm ? json_pack("{s:i,s:I}", "candidates", j->n_warm, "done", (json_int_t)j->warm_done) : json_null());
    job_names(d, spec);
    if (with_spec)
        json_object_set(d, "spec", spec);
    json_decref(spec);
    return d;
}

/* ---- lists ---- */
struct listing { struct coord *c; json_t *list; const char *space; };

static bool on_job(void *arg, struct job_row *row)
{
    struct listing *l = arg;
    json_array_append_new(l->list, doc_job(l->c, row, false));
    return true;
}

static bool on_trial(void *arg, const struct trial_row *row)
{
    struct listing *l = arg;
    json_array_append_new(l->list, doc_trial(l->c, row, l->space));
    return true;
}

static bool on_history(void *arg, const struct trial_row *row)
{
    struct listing *l = arg;
    json_array_append_new(l->list, doc_history(row));
    return true;
}

static bool on_blob(void *arg, const struct blob_name *b)
{
    struct listing *l = arg;
    uint64_t bytes = b->bytes;
    if (!bytes)
        blobs_has(l->c, b->hash, &bytes);
    json_array_append_new(l->list, json_pack("{s:s,s:s,s:I,s:I}", "name", b->name, "hash", b->hash, "bytes", (json_int_t)bytes, "added_ms",
                                             (json_int_t)b->added_ms));
    return true;
}

static int read_failed(int rc, struct errbuf *e) { return err_set(e, rc == -ERR_NOMEM ? ERR_NOMEM : ERR_IO, "the store cannot be read"); }

static int jobs_doc(struct coord *c, const struct query *q, json_t **out, struct errbuf *e)
{
    struct listing l = { c, json_array(), NULL };
    uint64_t n[JOB_STATE_COUNT], total = 0;
    struct job_counts sums;
    int state = q->state[0] ? job_state_from(q->state) : -1;
    int rc = q->state[0] && state < 0 ? err_set(e, ERR_INPUT, "state: \"%s\" is no state of a job", q->state) : 0;
    if (rc == 0 && ((rc = reader_job_states(c->reader, n, &sums)) < 0 || (rc = reader_jobs(c->reader, state, q->offset, q->limit, on_job, &l)) < 0))
        rc = read_failed(rc, e);
    if (rc < 0) {
        json_decref(l.list);
        return rc;
    }
    for (int s = 0; s < JOB_STATE_COUNT; s++)
        total += state < 0 || s == state ? n[s] : 0;
    *out = json_pack("{s:I,s:o}", "total", (json_int_t)total, "jobs", l.list);
    return 0;
}

static uint64_t trials_total(struct coord *c, const struct job_row *row, int state)
{
    struct job *j = sched_job(c->sched, row->id);
    const struct job_counts *n = j ? &j->row.n : &row->n;
    uint64_t v[TRIAL_STATE_COUNT] = { [TRIAL_WAITING] = j ? j->n_waiting : 0, [TRIAL_RUNNING] = j ? j->n_running : 0,
                                      [TRIAL_SCORED] = n->scored, [TRIAL_FAILED] = n->failed, [TRIAL_CANCELLED] = n->cancelled };
    uint64_t all = 0;
    for (int s = 0; s < TRIAL_STATE_COUNT; s++)
        all += v[s];
    return state < 0 ? all : v[state];
}

static void space_of(const struct job_row *row, name_str out)
{
    json_t *spec = json_loads(row->spec_json, 0, NULL);
    const char *s = json_string_value(json_object_get(spec, "space"));
    snprintf(out, sizeof(name_str), "%s", s ? s : "");
    json_decref(spec);
}

static int trials_doc(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e)
{
    name_str space;
    space_of(row, space);
    struct listing l = { c, json_array(), space };
    int state = q->state[0] ? trial_state_from(q->state) : -1;
    enum trial_sort sort = strcmp(q->sort, "score") == 0 ? SORT_SCORE : SORT_INDEX;
    int rc = q->state[0] && state < 0 ? err_set(e, ERR_INPUT, "state: \"%s\" is no state of a trial", q->state)
           : q->sort[0] && strcmp(q->sort, "score") != 0 && strcmp(q->sort, "index") != 0
           ? err_set(e, ERR_INPUT, "sort: \"%s\" is not index or score", q->sort) : 0;
    if (rc == 0 && sort == SORT_SCORE && state >= 0 && state != TRIAL_SCORED)
        rc = err_set(e, ERR_INPUT, "sort=score is for scored trials");
    if (rc == 0 && (rc = reader_trials(c->reader, row->id, state, sort, q->offset, q->limit, on_trial, &l)) < 0)
        rc = read_failed(rc, e);
    if (rc < 0) {
        json_decref(l.list);
        return rc;
    }
    *out = json_pack("{s:I,s:o}", "total", (json_int_t)trials_total(c, row, sort == SORT_SCORE ? TRIAL_SCORED : state), "trials", l.list);
    return 0;
}

static int warmup_doc(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e)
{
    name_str space;
    space_of(row, space);
    struct listing l = { c, json_array(), space };
    int rc = reader_trials(c->reader, row->id, -1, SORT_WARMUP, q->offset, q->limit, on_trial, &l);
    if (rc < 0) {
        json_decref(l.list);
        return read_failed(rc, e);
    }
    *out = json_pack("{s:o}", "trials", l.list);
    return 0;
}

static int history(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e)
{
    struct listing l = { c, json_array(), NULL };
    int rc = reader_trials(c->reader, row->id, -1, SORT_INDEX, q->offset, q->limit_given ? q->limit : DOC_MAX_LIMIT, on_history, &l);
    if (rc < 0) {
        json_decref(l.list);
        return read_failed(rc, e);
    }
    json_t *trials = l.list;
    l.list = json_array();
    if (reader_trials(c->reader, row->id, -1, SORT_AUDIT, 0, 0, on_history, &l) < 0) { /* as many as audit.max, at most twice */
        json_decref(trials);
        json_decref(l.list);
        return read_failed(-ERR_IO, e);
    }
    *out = json_pack("{s:I,s:o,s:o}", "total", (json_int_t)trials_total(c, row, -1), "trials", trials, "audit", l.list);
    return 0;
}

/* Best first. Of a search an architecture stands once, by the highest rung that it climbed; a verify job trains one several times. */
struct best { struct listing l; int top; bool once; };

static bool on_best(void *arg, const struct trial_row *row)
{
    struct best *b = arg;
    size_t i;
    json_t *t;
    if (b->once)
        json_array_foreach(b->l.list, i, t)
            if (strcmp(json_string_value(json_object_get(t, "arch_hash")), row->arch_hash) == 0)
                return true;
    return on_trial(&b->l, row) && json_array_size(b->l.list) < (size_t)b->top;
}

static int results_doc(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e)
{
    name_str space;
    space_of(row, space);
    struct best b = { { c, json_array(), space }, q->top, row->kind == JOB_SEARCH };
    int rc = reader_trials(c->reader, row->id, -1, row->kind == JOB_VERIFY ? SORT_VALID : SORT_SCORE, 0, (int64_t)q->top * (2 * MAX_RUNGS + 1), on_best, &b);
    json_t *d = json_pack("{s:o,s:o}", "job", doc_job(c, row, true), "best", b.l.list);
    if (rc < 0)
        rc = read_failed(rc, e);
    else if (row->kind == JOB_VERIFY)
        rc = doc_verify(c, row, d, e);
    else if (row->kind == JOB_TEACH)
        rc = doc_teach(c, row, d, e);
    else
        rc = doc_front(c, row, d, e);
    if (rc < 0) {
        json_decref(d);
        return rc;
    }
    *out = d;
    return 0;
}

static int why_doc(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e)
{
    return doc_why(c, row, q->trial, out, e);
}

static int blobs_doc(struct coord *c, const char *kind, const char *key, json_t **out, struct errbuf *e)
{
    struct listing l = { c, json_array(), NULL };
    int rc = reader_blobs(c->reader, kind, DOC_MAX_LIMIT, on_blob, &l);
    if (rc < 0) {
        json_decref(l.list);
        return read_failed(rc, e);
    }
    *out = json_pack("{s:o}", key, l.list);
    return 0;
}

static json_t *worker_doc(const struct worker *w)
{
    json_t *leases = json_array();
    int busy = 0;
    list_each(l, &w->leases) {
        struct trial *t = list_entry(l, struct trial, of_worker);
        busy++;
        json_array_append_new(leases, json_pack("{s:I,s:I,s:I,s:I}", "job", (json_int_t)t->row.job, "trial", (json_int_t)t->row.idx,
                                                "attempt", (json_int_t)t->row.attempt, "deadline_ms", (json_int_t)t->deadline_ms));
    }
    return json_pack("{s:s,s:s,s:s,s:I,s:s,s:s,s:s?,s:I,s:s,s:I,s:i,s:s,s:I,s:o,s:I,s:I}", "id", w->id, "name", w->name, "host", w->host, "pid",
                     (json_int_t)w->pid, "isa", w->isa, "device_class", w->device_class, "device_name",
                     w->device_name[0] ? w->device_name : NULL, "device_bytes", (json_int_t)w->device_bytes, "engine_version", w->engine_version, "slots",
                     (json_int_t)w->slots, "busy", busy, "state", w->online ? "online" : "offline", "last_seen_ms",
                     (json_int_t)w->last_seen_ms, "leases", leases, "done", (json_int_t)w->done, "failed", (json_int_t)w->failed);
}

static json_t *workers_doc(struct coord *c, const struct query *q)
{
    json_t *list = json_array();
    uint64_t at = 0;
    list_each(l, &c->sched->workers) {
        if (at++ < q->offset || json_array_size(list) >= (size_t)q->limit)
            continue;
        json_array_append_new(list, worker_doc(list_entry(l, struct worker, all)));
    }
    return json_pack("{s:i,s:o}", "total", c->sched->n_workers, "workers", list);
}

void docs_totals(struct coord *c, struct totals *t)
{
    memset(t, 0, sizeof *t);
    reader_job_states(c->reader, t->jobs, &t->trials);
    list_each(l, &c->sched->jobs) { /* the store's counts are those of ended jobs */
        struct job *j = list_entry(l, struct job, all);
        t->trials.scored += j->row.n.scored;
        t->trials.failed += j->row.n.failed;
        t->waiting += j->n_waiting;
        t->running += j->n_running;
    }
    list_each(k, &c->sched->workers) {
        struct worker *w = list_entry(k, struct worker, all);
        t->online += w->online;
        t->slots += w->online ? w->slots : 0;
        t->busy += (uint64_t)w->n_leases;
    }
}

static int status_doc(struct coord *c, json_t **out)
{
    struct totals t;
    struct store_stats st;
    docs_totals(c, &t);
    store_stats(c->store, &st);
    json_t *jobs = json_object(), *zmq = json_array();
    for (int s = 0; s < JOB_STATE_COUNT; s++)
        json_object_set_new(jobs, job_state_name((enum job_state)s), doc_int(t.jobs[s]));
    for (int i = 0; i < c->n_endpoints; i++)
        json_array_append_new(zmq, json_string(c->endpoint[i]));
    json_t *d = json_pack("{s:s,s:I,s:I,s:o}", "version", DIDACT_VERSION, "started_ms", (json_int_t)c->started_ms, "now_ms",
                          (json_int_t)clock_ms(), "jobs", jobs);
    json_object_set_new(d, "trials", json_pack("{s:I,s:I,s:I,s:I,s:I}", "waiting", (json_int_t)t.waiting, "running", (json_int_t)t.running,
                        "scored", (json_int_t)t.trials.scored, "failed", (json_int_t)t.trials.failed, "cancelled",
                        (json_int_t)t.trials.cancelled));
    json_object_set_new(d, "workers", json_pack("{s:I,s:I,s:I}", "online", (json_int_t)t.online, "slots", (json_int_t)t.slots, "busy",
                                                (json_int_t)t.busy));
    json_object_set_new(d, "rates", json_pack("{s:f}", "trials_per_s_1m", sched_rate(c->sched)));
    json_object_set_new(d, "store", json_pack("{s:I,s:f,s:I,s:b}", "commits", (json_int_t)st.commits, "rows_per_commit",
                        st.commits ? (double)st.rows / (double)st.commits : 0.0, "db_bytes", (json_int_t)reader_db_bytes(c->reader), "failing",
                        c->sched->store_down));
    json_t *audits = json_array(); /* of the jobs that live */
    list_each(l, &c->sched->jobs) {
        const struct job *j = list_entry(l, struct job, all);
        json_t *spec = j->audit ? json_loads(j->row.spec_json, 0, NULL) : NULL;
        if (spec)
            json_array_append_new(audits, json_pack("{s:I,s:s,s:o}", "job", (json_int_t)j->row.id, "name", j->row.name, "audit",
                                                    standing_doc(c, j, &j->row, spec, false)));
        json_decref(spec);
    }
    json_object_set_new(d, "audits", audits);
    json_object_set_new(d, "endpoints", json_pack("{s:o,s:o}", "zmq", zmq, "http", doc_text(c->http_url)));
    *out = d;
    return 0;
}

/* ---- paths ---- */
static int number(const char *key, const char *v, uint64_t least, uint64_t most, uint64_t *out, struct errbuf *e)
{
    char *end;
    unsigned long long n = strtoull(v, &end, 10);
    if (!isdigit((unsigned char)*v) || *end || n < least || n > most)
        return err_set(e, ERR_INPUT, "%s: \"%.40s\" is not a number from %llu to %llu", key, v, (unsigned long long)least, (unsigned long long)most);
    *out = n;
    return 0;
}

static int parameter(struct query *q, const char *key, const char *v, struct errbuf *e)
{
    uint64_t n = 0;
    int rc = 0;
    if (strcmp(key, "state") == 0) {
        snprintf(q->state, sizeof q->state, "%.20s", v);
    } else if (strcmp(key, "sort") == 0) {
        snprintf(q->sort, sizeof q->sort, "%.20s", v);
    } else if (strcmp(key, "by") == 0) {
        snprintf(q->by, sizeof q->by, "%.20s", v);
    } else if (strcmp(key, "after") == 0) {
        snprintf(q->after, sizeof q->after, "%s", v);
    } else if (strcmp(key, "offset") == 0) {
        rc = number(key, v, 0, INT64_MAX, &q->offset, e);
    } else if (strcmp(key, "limit") == 0) {
        rc = number(key, v, 1, DOC_MAX_LIMIT, &n, e);
        q->limit = (int)n;
        q->limit_given = true;
    } else if (strcmp(key, "top") == 0) {
        rc = number(key, v, 1, DOC_MAX_LIMIT, &n, e);
        q->top = (int)n;
    } else if (strcmp(key, "trial") == 0) {
        rc = number(key, v, 0, INT64_MAX, &n, e);
        q->trial = (int64_t)n;
    } else if (strcmp(key, "wait") == 0) {
        rc = number(key, v, 0, 60, &n, e);
        q->wait_s = (int)n;
    } else if (strcmp(key, "n") == 0) {
        rc = number(key, v, 1, DOC_MAX_LIMIT, &n, e);
        q->n = (int)n;
    } else if (strcmp(key, "seed") == 0) {
        rc = number(key, v, 0, INT64_MAX, &q->seed, e);
    } else if (strcmp(key, "arch") == 0) {
        snprintf(q->arch, sizeof q->arch, "%s", v);
        rc = strlen(v) < sizeof q->arch ? 0 : err_set(e, ERR_INPUT, "arch: longer than %zu bytes", sizeof q->arch - 1);
    } else {
        rc = err_set(e, ERR_INPUT, "there is no parameter \"%.40s\"; there are state, sort, by, after, offset, limit, top, trial, wait, n, seed and "
                     "arch", key);
    }
    return rc;
}

int query_parse(const char *path, struct query *q, struct errbuf *e)
{
    char copy[DOC_MAX_PATH], *save = NULL, *mark;
    memset(q, 0, sizeof *q);
    q->limit = 100;
    q->top = 10;
    q->n = 1;
    q->trial = -1;
    while (*path == '/')
        path++;
    if (strncmp(path, "api/v1/", 7) == 0)
        path += 7;
    if (strlen(path) >= sizeof copy)
        return err_set(e, ERR_INPUT, "the path is longer than %zu bytes", sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", path);
    mark = strchr(copy, '?');
    if (mark)
        *mark++ = 0;
    int rc = 0;
    for (char *p = mark ? strtok_r(mark, "&", &save) : NULL; p && rc == 0; p = strtok_r(NULL, "&", &save)) {
        char *eq = strchr(p, '=');
        if (eq)
            *eq++ = 0;
        rc = parameter(q, p, eq ? eq : "", e);
    }
    for (char *p = rc == 0 ? strtok_r(copy, "/", &save) : NULL; p; p = strtok_r(NULL, "/", &save)) {
        if (q->n_part == 3)
            return err_set(e, ERR_NOTFOUND, "there is no document \"%.80s\"", path);
        snprintf(q->part[q->n_part++], sizeof q->part[0], "%.90s", p);
    }
    return rc;
}

static int job_doc(struct coord *c, const struct query *q, json_t **out, struct errbuf *e)
{
    static const struct { const char *name; int (*fn)(struct coord *, const struct job_row *, const struct query *, json_t **, struct errbuf *); }
    table[] = { { "trials", trials_doc }, { "results", results_doc }, { "history", history }, { "why", why_doc }, { "told", doc_told },
                { "warmup", warmup_doc } };
    uint64_t id;
    struct job_row row;
    int rc = submit_find_job(c, q->part[1], &id, e);
    if (rc < 0)
        return rc;
    if (reader_job(c->reader, id, &row) != 1)
        return read_failed(-ERR_IO, e);
    rc = err_set(NULL, ERR_NOTFOUND, "no such document");
    if (q->n_part == 2) {
        *out = doc_job(c, &row, true);
        rc = 0;
    }
    for (size_t i = 0; q->n_part == 3 && i < sizeof table / sizeof *table; i++)
        if (strcmp(q->part[2], table[i].name) == 0) {
            rc = table[i].fn(c, &row, q, out, e);
            job_row_fini(&row);
            return rc;
        }
    job_row_fini(&row);
    return rc == 0 ? 0 : err_set(e, ERR_NOTFOUND, "there is no document jobs/ID/%s", q->part[2]);
}

void docs_say_namesakes(struct coord *c, const char *path, char *out, size_t cap)
{
    struct query q;
    out[0] = 0;
    if (query_parse(path, &q, NULL) == 0 && q.n_part >= 2 && strcmp(q.part[0], "jobs") == 0)
        submit_say_namesakes(c, q.part[1], out, cap);
}

int docs_get(struct coord *c, const char *path, json_t **out, struct errbuf *e)
{
    struct query q;
    *out = NULL;
    int rc = query_parse(path, &q, e);
    if (rc < 0)
        return rc;
    const char *p = q.part[0];
    if (q.n_part == 1 && strcmp(p, "status") == 0)
        return status_doc(c, out);
    if (q.n_part == 1 && strcmp(p, "jobs") == 0)
        return jobs_doc(c, &q, out, e);
    if (q.n_part >= 2 && strcmp(p, "jobs") == 0)
        return job_doc(c, &q, out, e);
    if (q.n_part == 3 && strcmp(p, "spaces") == 0)
        return doc_space(c, &q, out, e);
    if (q.n_part == 1 && strcmp(p, "workers") == 0) {
        *out = workers_doc(c, &q);
        return 0;
    }
    if (q.n_part == 1 && strcmp(p, "book") == 0)
        return doc_book(c, &q, out, e);
    if (q.n_part == 1 && strcmp(p, "datasets") == 0)
        return blobs_doc(c, "dataset", "datasets", out, e);
    if (q.n_part == 1 && strcmp(p, "curricula") == 0)
        return blobs_doc(c, "curriculum", "curricula", out, e);
    if (q.n_part == 1 && strcmp(p, "spaces") == 0)
        return blobs_doc(c, "space", "spaces", out, e);
    return err_set(e, ERR_NOTFOUND, "there is no document \"%.80s\"; docs/api.md lists them", path);
}
