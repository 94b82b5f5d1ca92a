/* rank.c - ranking a search's trials; and the document jobs/ID/results?by=COLUMN, which is made in libuv's pool with a reader of its own. */
#include "coordinator/rank.h"

#include "coordinator/docs_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int rank_by_name(const struct job_spec *s, const char *name, struct rank_by *out, struct errbuf *e)
{
    const int column = score_column_from(name);
    memset(out, 0, sizeof *out);
    if (strcmp(name, FUSED_NAME) == 0) {
        out->fused = true;
        out->n = s->scores.n_fuse;
        memcpy(out->column, s->scores.fuse, sizeof out->column);
        return out->n ? 0 : err_set(e, ERR_INPUT, "job \"%s\" has no fused score: its file has no scores.fuse", s->name);
    }
    if (column < 0)
        return err_set(e, ERR_INPUT, "by: \"%.30s\" is no column; there are score, loss_sum, params, macs, latency, fused and the zero-cost scores", name);
    if (column >= COLUMN_ZERO_COST && !(job_zero_cost(s) >> (column - COLUMN_ZERO_COST) & 1))
        return err_set(e, ERR_INPUT, "job \"%s\" did not compute %s: its scores.zero_cost does not name it", s->name, name);
    if (column == COLUMN_LATENCY && !job_latency_batch(s))
        return err_set(e, ERR_INPUT, "job \"%s\" did not measure latency: its file has no latency.measure", s->name);
    out->n = 1;
    out->column[0] = column;
    return 0;
}

struct rows { const struct rank_by *by; struct ranked *v; double *value; size_t n, cap; bool nomem; };

static bool grow(struct rows *k)
{
    size_t cap = k->cap ? 2 * k->cap : 256;
    struct ranked *v = realloc(k->v, cap * sizeof *v);
    double *value;
    if (v)
        k->v = v;
    if (!v || !(value = realloc(k->value, cap * SCORE_COLUMNS * sizeof *value)))
        return false;
    k->value = value;
    k->cap = cap;
    return true;
}

static bool on_row(void *arg, const struct trial_row *t)
{
    struct rows *k = arg;
    if (k->n == k->cap && !grow(k)) {
        k->nomem = true;
        return false;
    }
    k->v[k->n].idx = t->idx;
    k->v[k->n].rung = t->rung;
    memcpy(k->v[k->n].hash, t->arch_hash, sizeof k->v[k->n].hash);
    for (int c = 0; c < k->by->n; c++)
        k->value[k->n * SCORE_COLUMNS + (size_t)c] = score_column_value(k->by->column[c], &t->r);
    k->n++;
    return true;
}

/* Ranks are among the trials of one rung: what was scored with other steps does not compare. */
static int fuse(struct rows *k, struct errbuf *e)
{
    double *columns = malloc((k->n * (size_t)k->by->n + 1) * sizeof *columns), *fused = malloc((k->n + 1) * sizeof *fused);
    bool higher[SCORE_COLUMNS];
    size_t *of = malloc((k->n + 1) * sizeof *of), n;
    int rc = columns && fused && of ? 0 : err_set(e, ERR_NOMEM, "ranking %zu trials", k->n);
    for (int c = 0; c < k->by->n; c++)
        higher[c] = score_columns[k->by->column[c]].higher;
    for (int rung = 0; rc == 0 && rung <= 2 * MAX_RUNGS; rung++) { /* halving's and racing's */
        n = 0;
        for (size_t i = 0; i < k->n; i++)
            if (k->v[i].rung == rung)
                of[n++] = i;
        for (size_t i = 0; i < n; i++)
            for (int c = 0; c < k->by->n; c++)
                columns[(size_t)c * n + i] = k->value[of[i] * SCORE_COLUMNS + (size_t)c];
        rc = score_fuse(higher, k->by->n, n, columns, fused, e);
        for (size_t i = 0; rc == 0 && i < n; i++)
            k->v[of[i]].value = fused[i];
    }
    free(columns);
    free(fused);
    free(of);
    return rc;
}

static int by_rising(const void *a, const void *b) /* the worst value first; unknown ones before all */
{
    const struct ranked *x = a, *y = b;
    if (x->rung != y->rung)
        return x->rung - y->rung;
    const double u = isnan(x->value) ? -INFINITY : x->value, v = isnan(y->value) ? -INFINITY : y->value;
    return u != v ? (u > v) - (u < v) : (x->idx < y->idx) - (x->idx > y->idx);
}

int rank_scored(struct reader *r, uint64_t job, const struct rank_by *by, struct ranked **out, size_t *n, struct errbuf *e)
{
    struct rows k = { .by = by };
    const double sign = by->fused || score_columns[by->column[0]].higher ? 1 : -1;
    int rc = reader_trials(r, job, TRIAL_SCORED, SORT_INDEX, 0, 0, on_row, &k);
    *out = NULL;
    *n = 0;
    rc = k.nomem ? err_set(e, ERR_NOMEM, "ranking %zu trials", k.n)
       : rc < 0 ? err_set(e, rc == -ERR_NOMEM ? ERR_NOMEM : ERR_IO, "cannot read the trials of job %llu", (unsigned long long)job) : 0;
    if (rc == 0 && by->fused)
        rc = fuse(&k, e);
    for (size_t i = 0; rc == 0 && !by->fused && i < k.n; i++)
        k.v[i].value = sign * k.value[i * SCORE_COLUMNS];
    free(k.value);
    if (rc < 0) {
        free(k.v);
        return rc;
    }
    qsort(k.v, k.n, sizeof *k.v, by_rising);
    for (size_t i = 0, j = k.n; i + 1 < j; i++) { /* best first */
        struct ranked t = k.v[i];
        k.v[i] = k.v[--j];
        k.v[j] = t;
    }
    for (size_t i = 0; i < k.n; i++)
        k.v[i].value *= sign;
    *out = k.v;
    *n = k.n;
    return 0;
}

/* ---- the document ---- */

struct ranking {
    uv_work_t      work;
    struct coord  *c;
    struct query   q;
    uint64_t       id;
    struct rank_by by;
    docs_done      done;
    void          *arg;
    int            rc;
    struct errbuf  e;
    struct ranked *v;
    size_t         n;
};

bool docs_is_ranking(const char *path)
{
    struct query q;
    return query_parse(path, &q, NULL) == 0 && q.n_part == 3 && strcmp(q.part[0], "jobs") == 0 && strcmp(q.part[2], "results") == 0 &&
           q.by[0] && strcmp(q.by, score_columns[COLUMN_SCORE].name) != 0;
}

static void rank_work(uv_work_t *w)
{
    struct ranking *k = w->data;
    struct reader *reader = NULL;
    k->rc = reader_open(&reader, k->c->db_path, &k->e);
    if (k->rc == 0)
        k->rc = rank_scored(reader, k->id, &k->by, &k->v, &k->n, &k->e);
    reader_close(reader);
}

/* Of an architecture that climbed rungs the highest one stands for it, as in results. */
static bool stands_above(const json_t *list, const struct ranked *r)
{
    size_t i;
    json_t *t;
    json_array_foreach((json_t *)list, i, t)
        if (json_integer_value(json_object_get(t, "rung")) > r->rung && strcmp(json_string_value(json_object_get(t, "arch_hash")), r->hash) == 0)
            return true;
    return false;
}

static json_t *ranked_doc(struct ranking *k, const struct job_row *row)
{
    json_t *list = json_array(), *d = json_pack("{s:o,s:o,s:s}", "job", doc_job(k->c, row, true), "best", list, "by", k->q.by);
    json_t *spec = json_loads(row->spec_json, 0, NULL);
    const char *space = json_string_value(json_object_get(spec, "space"));
    struct trial_row *t = malloc(sizeof *t);
    for (size_t i = 0; d && t && i < k->n && json_array_size(list) < (size_t)k->q.top; i++) {
        if (stands_above(list, &k->v[i]) || reader_trial(k->c->reader, k->id, k->v[i].idx, t) != 1)
            continue;
        json_t *trial = doc_trial(k->c, t, space);
        json_object_set_new(trial, "by_value", doc_real(k->v[i].value));
        json_array_append_new(list, trial);
    }
    free(t);
    json_decref(spec);
    return d;
}

static void on_ranked(uv_work_t *w, int status)
{
    struct ranking *k = w->data;
    struct job_row row;
    json_t *d = NULL;
    (void)status;
    if (k->rc == 0 && reader_job(k->c->reader, k->id, &row) == 1) {
        d = ranked_doc(k, &row);
        job_row_fini(&row);
    }
    if (k->rc == 0 && !d)
        k->rc = err_set(&k->e, ERR_NOMEM, "results");
    k->done(k->arg, k->rc, d, &k->e);
    json_decref(d);
    free(k->v);
    free(k);
}

static int job_spec_of(struct coord *c, uint64_t id, struct job_spec *out, struct errbuf *e)
{
    struct job_row row;
    if (reader_job(c->reader, id, &row) != 1)
        return err_set(e, ERR_IO, "cannot read job %llu", (unsigned long long)id);
    json_t *doc = json_loads(row.spec_json, 0, NULL);
    int rc = row.kind != JOB_SEARCH ? err_set(e, ERR_INPUT, "by: job %llu is a %s; only a search has columns to rank by", (unsigned long long)id,
                                              job_kind_name(row.kind))
           : doc ? job_from_json(out, doc, e) : err_set(e, ERR_CORRUPT, "the spec of job %llu is not JSON", (unsigned long long)id);
    json_decref(doc);
    job_row_fini(&row);
    return rc;
}

int docs_ranking(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e)
{
    struct ranking *k = calloc(1, sizeof *k);
    struct job_spec *spec = malloc(sizeof *spec);
    int rc = k && spec ? query_parse(path, &k->q, e) : err_set(e, ERR_NOMEM, "results");
    if (rc == 0 && (rc = submit_find_job(c, k->q.part[1], &k->id, e)) == 0 && (rc = job_spec_of(c, k->id, spec, e)) == 0)
        rc = rank_by_name(spec, k->q.by, &k->by, e);
    if (rc == 0) {
        k->c = c;
        k->done = done;
        k->arg = arg;
        k->work.data = k;
        rc = uv_queue_work(&c->loop, &k->work, rank_work, on_ranked) == 0 ? 0 : err_set(e, ERR_NOMEM, "results");
    }
    free(spec);
    if (rc < 0)
        free(k);
    return rc;
}
