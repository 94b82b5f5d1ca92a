/* audit_doc.c - jobs/ID/audit: how far the scores of a search rank as real training does, measured on every network of it that was trained
 * for real, against everything else that is known of these networks. Trainings are comparable within one regime (epochs, batch, …),
 * so each regime is a sample of its own. Runs in libuv's pool: the bootstraps take a second or more. */
#include "coordinator/audit_sample.h"
#include "coordinator/docs_int.h"

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
    if (a->rc == 0 && reader_trials(a->reader, a->row->id, -1, SORT_AUDIT, 0, 0, on_control, a) < 0)
        a->rc = err_set(a->e, ERR_IO, "the store cannot be read");
    for (int i = 0; i < a->n; i++)
        audit_sample_join_end(&a->s[i]); /* in the order in which the standing audit counts: its intervals come out the same */
    return a->rc;
}

/* ---- one column against real accuracy ---- */
static json_t *estimate_doc(const struct estimate *e)
{
    return json_pack("{s:o,s:o,s:o}", "value", doc_real(e->value), "low", doc_real(e->low), "high", doc_real(e->high));
}

static int correlations(const struct audit *a, const double *x, const double *y, int n, json_t **out)
{
    int rc = 0;
    *out = json_pack("{s:i}", "n", n);
    for (int k = 0; k < RANK_STAT_COUNT && rc == 0; k++) {
        struct estimate e;
        rc = rank_interval((enum rank_stat)k, x, y, n, a->seed, &e);
        json_object_set_new(*out, rank_stat_name((enum rank_stat)k), estimate_doc(&e));
    }
    return rc;
}

/* The first of the largest x: the network that this column would have chosen. */
static json_t *pick_doc(const struct audit_sample *s, const int *of, const double *x, const double *y, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best] || (x[i] == x[best] && s->v[of[i]].trial < s->v[of[best]].trial))
            best = i;
    const struct audit_pair *p = &s->v[of[best]];
    return json_pack("{s:o,s:s,s:f}", "trial", p->trial >= 0 ? json_integer(p->trial) : json_null(), "arch", p->arch, "accuracy", y[best]);
}

/* Device-seconds for one candidate: numbers known without running cost nothing; the others come from the scoring run. */
static json_t *cost_doc(const struct audit *a, const char *col)
{
    if (strcmp(col, "params") == 0 || strcmp(col, "macs") == 0)
        return json_real(0);
    if (strcmp(col, CONTROL) == 0)
        return a->controls ? json_real(a->control_s / (double)a->controls) : json_null();
    return a->timed ? json_real(a->seconds / (double)a->timed) : json_null();
}

struct room { double *x, *y, *p, *tx, *ty; int *of; };

static int column_of(const struct audit_sample *s, const char *name)
{
    for (int k = 0; k < s->n_cols; k++)
        if (strcmp(s->col[k], name) == 0)
            return k;
    return -1;
}

/* Spearman of m->x less that of the number of parameters, over the networks in m->of that have both, all or the better half of them. */
static int versus_params(const struct audit *a, const struct audit_sample *s, int n, bool top, struct room *m, json_t **out)
{
    struct estimate e = { NAN, NAN, NAN };
    int params = column_of(s, "params"), rc = 0;
    for (int i = 0; i < n && params >= 0; i++)
        m->p[i] = s->v[m->of[i]].value[params];
    for (int i = 0; i < n && params >= 0; i++)
        if (!isfinite(m->p[i]))
            params = -1; /* recorded with the score, or not at all */
    if (params >= 0 && !top)
        rc = rank_difference(RANK_SPEARMAN, m->x, m->p, m->y, n, a->seed, &e);
    if (params >= 0 && top) {
        int half = stats_top_half(m->p, m->y, n, m->tx, m->ty);
        if (half >= 0) {
            memcpy(m->p, m->tx, (size_t)half * sizeof *m->p);
            half = stats_top_half(m->x, m->y, n, m->tx, m->ty);
        }
        rc = half < 0 ? half : rank_difference(RANK_SPEARMAN, m->tx, m->p, m->ty, half, a->seed, &e);
    }
    *out = estimate_doc(&e);
    return rc;
}

static int predictor_doc(const struct audit *a, const struct audit_sample *s, int col, struct room *m, json_t *list)
{
    double sign = strcmp(s->col[col], "loss_sum") == 0 ? -1 : 1; /* less is better: turned, so that positive means right */
    int n = 0;
    json_t *all, *top = NULL;
    for (int i = 0; i < s->n; i++)
        if (isfinite(s->v[i].value[col])) {
            m->of[n] = i;
            m->x[n] = sign * s->v[i].value[col];
            m->y[n++] = s->v[i].sum / s->v[i].seeds;
        }
    if (n == 0)
        return 0;
    int half = stats_top_half(m->x, m->y, n, m->tx, m->ty);
    int rc = correlations(a, m->x, m->y, n, &all);
    rc = half < 0 ? half : rc < 0 ? rc : correlations(a, m->tx, m->ty, half, &top);
    for (int k = 0; k < 2 && rc == 0; k++) {
        json_t *d;
        rc = versus_params(a, s, n, k, m, &d);
        json_object_set_new(k ? top : all, "minus_params", d);
    }
    json_array_append_new(list, json_pack("{s:s,s:i,s:o,s:o*,s:{s:o,s:o},s:o,s:o}", "name", s->col[col], "sign", (int)sign, "all", all, "top_half",
                          top, "regret", "top1", doc_real(stats_regret(m->x, m->y, n, 1)), "top10", doc_real(stats_regret(m->x, m->y, n, 10)),
                          "pick", pick_doc(s, m->of, m->x, m->y, n), "seconds", cost_doc(a, s->col[col])));
    return rc;
}

/* ---- documents ---- */
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

static int sample_doc(struct audit *a, struct audit_sample *s, json_t **out)
{
    size_t n = (size_t)s->n + 1;
    double *buf = calloc(5 * n, sizeof *buf), seconds = 0;
    struct room m = { buf, buf + n, buf + 2 * n, buf + 3 * n, buf + 4 * n, calloc(n, sizeof *m.of) };
    json_t *predictors = json_array(), *jobs = json_array();
    int rc = buf && m.of ? 0 : -ERR_NOMEM, best = 0, seeds = 0;
    for (int k = 0; k < s->n_cols && rc == 0; k++)
        rc = predictor_doc(a, s, k, &m, predictors);
    for (int i = 0; i < s->n; i++) {
        seconds += s->v[i].seconds;
        seeds += s->v[i].seeds;
        if (s->v[i].sum / s->v[i].seeds > s->v[best].sum / s->v[best].seeds)
            best = i;
    }
    for (int i = 0; i < s->n_jobs; i++)
        json_array_append_new(jobs, doc_int(s->job[i]));
    *out = json_pack("{s:s,s:s,s:o,s:o,s:i,s:i,s:o,s:o,s:o,s:o}", "source", s->regime.standing ? "audit" : "verify",
                     "split", s->regime.standing ? "validation" : "test", "jobs", jobs, "training",
                     regime_doc(&s->regime), "n", s->n, "failed", s->failed, "groups", groups_doc(s), "seconds",
                     seeds ? json_real(seconds / seeds) : json_null(), "predictors", predictors, "pairs", pairs_doc(s));
    if (s->n)
        json_object_set_new(*out, "best", json_pack("{s:s,s:f}", "arch", s->v[best].arch, "accuracy", s->v[best].sum / s->v[best].seeds));
    free(buf);
    free(m.of);
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
        return err_set(a->e, ERR_NOMEM, "audit");
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
