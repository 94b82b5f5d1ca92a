/* front.c - the Pareto front of a search: the scored trials that no other beats in every objective of the job. It is looked for
 * among the FRONT_SCAN trials with the best scores, so that an answer costs the same however large the job; with fewer scored
 * trials, which is usual, it is exact. */
#include "coordinator/docs_int.h"
#include "common/search/pareto.h"

#include <stdlib.h>
#include <string.h>

#define FRONT_SCAN 5000

struct point { double v[MAX_OBJECTIVES]; char hash[ARCH_HASH_LEN + 1]; json_t *doc; /* owned */ };
struct front {
    struct job_spec *spec; /* owned */
    char             (*raced)[ARCH_HASH_LEN + 1]; /* owned; networks of racing rounds: their trials below do not count */
    int              n_raced;
    struct point     at[DOC_MAX_LIMIT];
    int              n;
};

static bool on_trial(void *arg, const struct trial_row *t) /* best score first: what came before stays unless it is dominated */
{
    struct front *f = arg;
    struct point p;
    int m = f->spec->n_objectives, kept = 0;
    if (t->rung < f->spec->halving.n_steps)
        return false; /* scores of lower rungs do not compare; those of the top come first */
    for (int i = 0; i < f->n_raced; i++)
        if (strcmp(f->raced[i], t->arch_hash) == 0)
            return true;
    if (t->rung > f->spec->halving.n_steps && f->n_raced < FRONT_SCAN)
        memcpy(f->raced[f->n_raced++], t->arch_hash, sizeof *f->raced);
    pareto_values(f->spec, t->r.score, t->r.params, t->r.macs, t->r.latency_ms, p.v);
    for (int i = 0; i < f->n; i++)
        if (pareto_dominates(f->at[i].v, p.v, m) || strcmp(f->at[i].hash, t->arch_hash) == 0) /* a repeat is the same point */
            return true;
    for (int i = 0; i < f->n; i++) {
        if (pareto_dominates(p.v, f->at[i].v, m))
            json_decref(f->at[i].doc);
        else
            f->at[kept++] = f->at[i];
    }
    f->n = kept;
    if (f->n == DOC_MAX_LIMIT)
        return false;
    memcpy(p.hash, t->arch_hash, sizeof p.hash);
    p.doc = json_pack("{s:I,s:f,s:o,s:I,s:I,s:o,s:s}", "trial", (json_int_t)t->idx, "score", t->r.score, "score_se", t->r.n_inits > 1 ? doc_real(t->r.score_se) : json_null(),
                      "params", (json_int_t)t->r.params, "macs", (json_int_t)t->r.macs, "latency_ms",
                      t->r.latency_ms > 0 ? json_real(t->r.latency_ms) : json_null(), "arch", t->arch);
    f->at[f->n++] = p;
    return p.doc != NULL;
}

int doc_front(struct coord *c, const struct job_row *row, json_t *into, struct errbuf *e)
{
    struct front *f = calloc(1, sizeof *f);
    json_t *spec = json_loads(row->spec_json, 0, NULL), *list = json_array(), *whole = NULL;
    if (f)
        f->spec = calloc(1, sizeof *f->spec);
    if (f)
        f->raced = malloc(FRONT_SCAN * sizeof *f->raced);
    int rc = f && f->spec && f->raced && spec && list ? job_from_json(f->spec, spec, e) : err_set(e, ERR_NOMEM, "front");
    if (rc == 0 && reader_trials(c->reader, row->id, -1, SORT_SCORE, 0, FRONT_SCAN, on_trial, f) < 0)
        rc = err_set(e, ERR_IO, "the store cannot be read");
    for (int i = 0; f && i < f->n; i++)
        json_array_append_new(list, f->at[i].doc);
    if (rc == 0 && !(whole = job_to_json(f->spec))) /* with the defaults of keys that are younger than the job */
        rc = err_set(e, ERR_NOMEM, "front");
    if (rc == 0) {
        json_object_set(into, "objectives", json_object_get(whole, "objectives"));
        json_object_set(into, "front", list);
    }
    json_decref(whole);
    json_decref(list);
    json_decref(spec);
    if (f) {
        free(f->spec);
        free(f->raced);
    }
    free(f);
    return rc;
}
