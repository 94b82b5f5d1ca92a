/* audit_doc.c - jobs/ID/audit: how far the scores of a search rank as real training does, measured on every network of it that was trained
 * for real, against everything else that is known of these networks. Trainings are comparable within one regime (epochs, batch, …),
 * so each regime is a sample of its own. Runs in libuv's pool: the bootstraps take a second or more. */
#include "coordinator/audit_sample.h"
#include "coordinator/docs_int.h"
#include "coordinator/rank.h"

#include "common/predictors.h"
#include "common/safetensors.h"
#include "common/stats.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SAMPLES 8 /* regimes beyond these are left out, the newest jobs first */
#define PAGE_JOBS   200
#define CONTROL     "control"

struct audit {
    struct coord  *c;
    struct reader *reader;
    const struct job_row *row;
    struct job_spec *spec;       /* of the search */
    struct audit_sample s[MAX_SAMPLES];
    int      n;
    uint64_t seed, scored, timed, controls;
    double   seconds, control_s; /* of all its scored trials, of its controls */
    uint64_t shared;             /* candidates that all searches here scored on its curriculum */
    double   teacher_s;          /* NaN: not known here */
    uint64_t teacher_job;
    struct errbuf *e;
    int      rc;
};

/* ---- collecting ---- */
static struct audit_sample *sample_of(struct audit *a, const struct audit_regime *r)
{
    for (int i = 0; i < a->n; i++)
        if (audit_regime_same(&a->s[i].regime, r))
            return &a->s[i];
    if (a->n == MAX_SAMPLES)
        return NULL;
    a->s[a->n].regime = *r;
    return &a->s[a->n++];
}

static bool on_training(void *arg, const struct trial_row *t)
{
    struct audit_sample *s = arg;
    if (t->group != GROUP_CONTROL)
        audit_sample_train(s, t, t->r.score);
    return !s->nomem;
}

/* `of` is a number since verify jobs record one; older ones hold a name, which is taken for its newest bearer. */
static bool verifies(struct audit *a, const char *of)
{
    char *end;
    unsigned long long id = strtoull(of, &end, 10);
    uint64_t named;
    if (isdigit((unsigned char)*of) && !*end)
        return id == a->row->id;
    return *of && reader_job_named(a->reader, of, &named, 1) == 1 && named == a->row->id;
}

static void take_verify(struct audit *a, const struct job_row *row, const struct job_spec *spec)
{
    const struct verify_cfg *v = &spec->verify;
    struct audit_regime r = { .epochs = v->epochs, .lr = v->lr, .momentum = v->momentum, .weight_decay = v->weight_decay,
                              .batch = v->batch, .shift = v->shift, .flip = v->flip };
    memcpy(r.dataset, spec->dataset_hash, sizeof r.dataset);
    struct audit_sample *s = verifies(a, v->of) ? sample_of(a, &r) : NULL;
    if (!s)
        return;
    if (s->n_jobs < AUDIT_MAX_JOBS)
        s->job[s->n_jobs++] = row->id;
    if (reader_trials(a->reader, row->id, -1, SORT_INDEX, 0, 0, on_training, s) < 0)
        a->rc = err_set(a->e, ERR_IO, "cannot read the trials of job %llu", (unsigned long long)row->id);
    if (s->nomem)
        a->rc = err_set(a->e, ERR_NOMEM, "audit");
}

static void take_teacher(struct audit *a, const struct job_row *row)
{
    struct trial_row *t = malloc(sizeof *t);
    if (t && reader_trial(a->reader, row->id, 0, t) == 1 && t->state == TRIAL_SCORED &&
        strcmp(t->r.artifact, a->spec->curriculum_hash) == 0 && isfinite(t->r.seconds)) {
        a->teacher_s = t->r.seconds;
        a->teacher_job = row->id;
    }
    free(t);
}

static bool on_job(void *arg, struct job_row *row)
{
    struct audit *a = arg;
    json_t *doc = row->spec_json ? json_loads(row->spec_json, 0, NULL) : NULL;
    struct job_spec *spec = malloc(sizeof *spec);
    if (!spec) {
        a->rc = err_set(a->e, ERR_NOMEM, "audit");
    } else if (doc && job_from_json(spec, doc, NULL) == 0) { /* one that cannot be read has nothing to say here */
        if (row->kind == JOB_VERIFY)
            take_verify(a, row, spec);
        else if (row->kind == JOB_TEACH)
            take_teacher(a, row);
        else if (strcmp(spec->curriculum_hash, a->spec->curriculum_hash) == 0)
            a->shared += row->id == a->row->id ? 0 : row->n.scored; /* of a job that runs: 0 */
    }
    free(spec);
    json_decref(doc);
    return a->rc == 0;
}

/* What the search's own audit trained. */
static void take_standing(struct audit *a)
{
    const struct audit_cfg *v = &a->spec->audit;
    struct audit_regime r = { .epochs = v->epochs, .lr = v->lr, .momentum = v->momentum, .weight_decay = v->weight_decay,
                              .batch = v->batch, .shift = v->shift, .flip = v->flip, .standing = true };
    memcpy(r.dataset, a->spec->dataset_hash, sizeof r.dataset);
    struct audit_sample *s = v->share > 0 ? sample_of(a, &r) : NULL;
    if (!s)
        return;
    s->job[s->n_jobs++] = a->row->id;
    if (reader_trials(a->reader, a->row->id, -1, SORT_AUDIT, 0, 0, on_training, s) < 0)
        a->rc = err_set(a->e, ERR_IO, "the store cannot be read");
}

/* The controls of the same: the score on real batches, a column of that sample. */
static bool on_control(void *arg, const struct trial_row *t)
{
    struct audit *a = arg;
    struct audit_pair *p = NULL;
    if (t->group != GROUP_CONTROL || t->state != TRIAL_SCORED)
        return true;
    a->controls++;
    a->control_s += isfinite(t->r.seconds) ? t->r.seconds : 0;
    for (int i = 0; i < a->n && !p; i++)
        if (a->s[i].regime.standing && (p = audit_sample_find(&a->s[i], t->arch_hash)))
            audit_sample_set(&a->s[i], p, CONTROL, t->r.score);
    return true;
}

static bool on_scored(void *arg, const struct trial_row *t)
{
    struct audit *a = arg;
    a->scored++;
    if (isfinite(t->r.seconds)) {
        a->seconds += t->r.seconds;
        a->timed++;
    }
    for (int i = 0; i < a->n; i++)
        audit_sample_join(&a->s[i], t);
    return true;
}

/* What the job's file fuses: a score among all that it scored, not among those that were trained. */
static void take_fused(struct audit *a)
{
    struct rank_by by;
    struct ranked *v = NULL;
    size_t n = 0;
    if (a->rc < 0 || a->spec->scores.n_fuse == 0 || (a->rc = rank_by_name(a->spec, FUSED_NAME, &by, a->e)) < 0 ||
        (a->rc = rank_scored(a->reader, a->row->id, &by, &v, &n, a->e)) < 0)
        return;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < a->n; k++) {
            struct audit_pair *p = audit_sample_find(&a->s[k], v[i].hash);
            if (p && p->trial == (int64_t)v[i].idx)
                audit_sample_set(&a->s[k], p, FUSED_NAME, v[i].value);
        }
    free(v);
}

static int collect(struct audit *a)
{
    int got = PAGE_JOBS;
    take_standing(a);
    for (uint64_t at = 0; got == PAGE_JOBS && a->rc == 0; at += PAGE_JOBS)
        if ((got = reader_jobs(a->reader, -1, at, PAGE_JOBS, on_job, a)) < 0)
            a->rc = err_set(a->e, ERR_IO, "the store cannot be read");
    for (int i = 0; i < a->n; i++)
        audit_sample_join_begin(&a->s[i]);
    if (a->rc == 0 && reader_trials(a->reader, a->row->id, TRIAL_SCORED, SORT_INDEX, 0, 0, on_scored, a) < 0)
        a->rc = err_set(a->e, ERR_IO, "the store cannot be read");
    take_fused(a);
    if (a->rc == 0 && reader_trials(a->reader, a->row->id, -1, SORT_AUDIT, 0, 0, on_control, a) < 0)
        a->rc = err_set(a->e, ERR_IO, "the store cannot be read");
    for (int i = 0; i < a->n; i++)
        audit_sample_join_end(&a->s[i]); /* in the order in which the standing audit counts: its intervals come out the same */
    return a->rc;
}

/* ---- documents ---- */

/* Device-seconds for one candidate: numbers known without running cost nothing; the others come from the scoring run. */
static json_t *cost_doc(const struct audit *a, const char *col)
{
    if (strcmp(col, "params") == 0 || strcmp(col, "macs") == 0)
        return json_real(0);
    if (strcmp(col, CONTROL) == 0)
        return a->controls ? json_real(a->control_s / (double)a->controls) : json_null();
    return a->timed ? json_real(a->seconds / (double)a->timed) : json_null();
}

static json_t *pairs_doc(const struct audit_sample *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->n && i < DOC_MAX_LIMIT; i++) {
        const struct audit_pair *p = &s->v[i];
        json_t *v = json_object();
        for (int k = 0; k < s->n_cols; k++)
            json_object_set_new(v, s->col[k], doc_real(p->value[k]));
        json_array_append_new(list, json_pack("{s:o,s:s,s:f,s:i,s:o,s:o}", "trial", p->trial >= 0 ? json_integer(p->trial) : json_null(), "arch",
                              p->arch, "accuracy", p->sum / p->seeds, "seeds", p->seeds, "group", doc_text(trial_group_name(p->group)),
                              "values", v));
    }
    return list;
}

static json_t *groups_doc(const struct audit_sample *s)
{
    json_t *d = json_object();
    for (int g = GROUP_NONE + 1; g < GROUP_WARMUP; g++) {
        int n = 0;
        for (int i = 0; i < s->n; i++)
            n += s->v[i].group == (enum trial_group)g;
        json_object_set_new(d, trial_group_name((enum trial_group)g), json_integer(n));
    }
    return d;
}

static json_t *regime_doc(const struct audit_regime *r)
{
    return json_pack("{s:f,s:i,s:f,s:f,s:f,s:b,s:i}", "epochs", r->epochs, "batch", r->batch, "lr", r->lr, "momentum", r->momentum,
                     "weight_decay", r->weight_decay, "flip", r->flip, "shift", r->shift);
}

/* The sample as a table; *room is malloc'ed and holds its columns. */
static int table_of(const struct audit *a, const struct audit_sample *s, struct predictor_table *t, void **room)
{
    const size_t n = (size_t)s->n, cells = n * (size_t)(s->n_cols + 1);
    double *value = malloc(cells * sizeof *value + n * (sizeof(char *) + sizeof(int64_t)) + 1), *truth = value + n * (size_t)s->n_cols;
    const char **arch = (const char **)(truth + n);
    int64_t *trial = (int64_t *)(arch + n);
    if (!value)
        return err_set(a->e, ERR_NOMEM, "audit");
    for (size_t i = 0; i < n; i++) {
        const struct audit_pair *p = &s->v[i];
        for (int k = 0; k < s->n_cols; k++)
            value[(size_t)k * n + i] = p->value[k];
        truth[i] = p->sum / p->seeds;
        arch[i] = p->arch;
        trial[i] = p->trial;
    }
    *t = (struct predictor_table){ s->n, s->n_cols, s->col, value, truth, arch, trial, a->seed };
    *room = value;
    return 0;
}

static int sample_doc(struct audit *a, const struct audit_sample *s, json_t **out)
{
    double seconds = 0;
    struct predictor_table t;
    void *room = NULL;
    size_t i;
    json_t *predictors = json_array(), *jobs = json_array(), *p;
    int rc = table_of(a, s, &t, &room), best = 0, seeds = 0;
    if (rc == 0)
        rc = predictors_doc(&t, predictors, a->e);
    free(room);
    json_array_foreach(predictors, i, p)
        json_object_set_new(p, "seconds", cost_doc(a, json_string_value(json_object_get(p, "name"))));
    for (int k = 0; k < s->n; k++) {
        seconds += s->v[k].seconds;
        seeds += s->v[k].seeds;
        if (s->v[k].sum / s->v[k].seeds > s->v[best].sum / s->v[best].seeds)
            best = k;
    }
    for (int k = 0; k < s->n_jobs; k++)
        json_array_append_new(jobs, doc_int(s->job[k]));
    *out = json_pack("{s:s,s:s,s:o,s:o,s:i,s:i,s:o,s:o,s:o,s:o}", "source", s->regime.standing ? "audit" : "verify",
                     "split", s->regime.standing ? "validation" : "test", "jobs", jobs, "training",
                     regime_doc(&s->regime), "n", s->n, "failed", s->failed, "groups", groups_doc(s), "seconds",
                     seeds ? json_real(seconds / seeds) : json_null(), "predictors", predictors, "pairs", pairs_doc(s));
    if (s->n)
        json_object_set_new(*out, "best", json_pack("{s:s,s:f}", "arch", s->v[best].arch, "accuracy", s->v[best].sum / s->v[best].seeds));
    return rc;
}

static json_t *teacher_doc(const struct audit *a)
{
    if (!isfinite(a->teacher_s))
        return json_null();
    double n = (double)(a->shared + a->scored);
    return json_pack("{s:I,s:f,s:I,s:o}", "job", (json_int_t)a->teacher_job, "seconds", a->teacher_s, "candidates", (json_int_t)n,
                     "seconds_per_candidate", n > 0 ? json_real(a->teacher_s / n) : json_null());
}

static int whole_doc(struct audit *a, json_t **out)
{
    json_t *samples = json_array();
    int rc = 0;
    for (int i = 0; i < a->n && rc == 0; i++) {
        json_t *d;
        rc = sample_doc(a, &a->s[i], &d);
        json_array_append_new(samples, d);
    }
    if (rc < 0) {
        json_decref(samples);
        return rc;
    }
    *out = json_pack("{s:{s:I,s:s,s:s},s:o,s:i,s:I,s:o,s:o,s:o}", "job", "id", (json_int_t)a->row->id, "name", a->row->name, "state",
                     job_state_name(a->row->state), "seed", doc_seed(a->seed), "resamples", STATS_RESAMPLES, "scored", (json_int_t)a->scored,
                     "seconds_per_candidate", a->timed ? json_real(a->seconds / (double)a->timed) : json_null(), "teacher", teacher_doc(a),
                     "samples", samples);
    return 0;
}

int doc_audit(struct coord *c, struct reader *reader, const struct job_row *row, json_t **out, struct errbuf *e)
{
    struct audit *a = calloc(1, sizeof *a);
    struct job_spec *spec = calloc(1, sizeof *spec);
    json_t *doc = json_loads(row->spec_json, 0, NULL);
    int rc = a && spec ? 0 : err_set(e, ERR_NOMEM, "audit");
    if (rc == 0 && row->kind != JOB_SEARCH)
        rc = err_set(e, ERR_INPUT, "job %llu is a %s; the audit is of a search", (unsigned long long)row->id, job_kind_name(row->kind));
    if (rc == 0)
        rc = doc ? job_from_json(spec, doc, e) : err_set(e, ERR_CORRUPT, "the spec of job %llu is not JSON", (unsigned long long)row->id);
    if (rc == 0) {
        *a = (struct audit){ .c = c, .reader = reader, .row = row, .spec = spec, .seed = spec->seed, .teacher_s = NAN, .e = e };
        rc = collect(a);
    }
    if (rc == 0)
        rc = whole_doc(a, out);
    for (int i = 0; a && i < a->n; i++)
        audit_sample_fini(&a->s[i]);
    json_decref(doc);
    free(spec);
    free(a);
    return rc;
}
