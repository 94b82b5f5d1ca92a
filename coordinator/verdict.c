/* verdict.c - what a verify job says of its search, and the history of a teacher. */
#include "coordinator/docs_int.h"
#include "common/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FEW_PAIRS 10

struct pair { char arch[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1]; enum trial_group group; double proxy, sum, valid; int n; };
struct pairs { struct pair *v; int n, cap; bool nomem; };

static bool on_trial(void *arg, const struct trial_row *t) /* by index: the seeds of one architecture follow each other */
{
    struct pairs *p = arg;
    if (p->n == 0 || strcmp(p->v[p->n - 1].hash, t->arch_hash) != 0) {
        if (p->n == p->cap) {
            int cap = p->cap ? 2 * p->cap : 64;
            struct pair *bigger = realloc(p->v, (size_t)cap * sizeof *bigger);
            if (!bigger) {
                p->nomem = true;
                return false;
            }
            p->v = bigger;
            p->cap = cap;
        }
        struct pair *q = &p->v[p->n++];
        memset(q, 0, sizeof *q);
        memcpy(q->arch, t->arch, sizeof q->arch);
        memcpy(q->hash, t->arch_hash, sizeof q->hash);
        q->group = t->group;
        q->proxy = t->proxy;
    }
    struct pair *q = &p->v[p->n - 1];
    q->sum += t->r.score;
    q->valid += t->r.valid_score;
    q->n++;
    return true;
}

static void note(int n, double low, double high, char *out, size_t cap)
{
    out[0] = 0;
    if (n < FEW_PAIRS)
        snprintf(out, cap, "%d pairs: too few to conclude", n);
    else if (low <= 0 && high >= 0)
        snprintf(out, cap, "the interval contains 0: this sample does not show that the score ranks");
}

int doc_verify(struct coord *c, const struct job_row *row, json_t *into, struct errbuf *e)
{
    struct pairs p = { 0 };
    int rc = reader_trials(c->reader, row->id, TRIAL_SCORED, SORT_INDEX, 0, 0, on_trial, &p);
    double *x = calloc((size_t)p.n + 1, sizeof *x), *y = calloc((size_t)p.n + 1, sizeof *y);
    struct estimate rho;
    int n = 0;
    if (rc < 0 || p.nomem || !x || !y) {
        rc = err_set(e, rc < 0 && rc != -ERR_NOMEM ? ERR_IO : ERR_NOMEM, "cannot read the trials of job %llu", (unsigned long long)row->id);
        goto done;
    }
    json_t *list = json_array(), *spec = json_loads(row->spec_json, 0, NULL);
    for (int i = 0; i < p.n; i++) {
        double accuracy = p.v[i].sum / p.v[i].n;
        json_array_append_new(list, json_pack("{s:s,s:o,s:o,s:o,s:i,s:o}", "arch", p.v[i].arch, "proxy", doc_real(p.v[i].proxy), "accuracy",
                              doc_real(accuracy), "valid_accuracy", doc_real(p.v[i].valid / p.v[i].n), "seeds", p.v[i].n, "group",
                              doc_text(trial_group_name(p.v[i].group))));
        if (isfinite(p.v[i].proxy)) {
            x[n] = p.v[i].proxy;
            y[n++] = accuracy;
        }
    }
    char text[160];
    rc = rank_interval(RANK_SPEARMAN, x, y, n, (uint64_t)json_integer_value(json_object_get(spec, "seed")), &rho);
    note(n, rho.low, rho.high, text, sizeof text);
    json_object_set_new(into, "verify", json_pack("{s:i,s:o,s:o,s:o,s:o,s:o}", "n", n, "spearman", doc_real(rho.value), "ci_low",
                        doc_real(rho.low), "ci_high", doc_real(rho.high), "note", doc_text(text), "pairs", list));
    json_decref(spec);
    if (rc < 0)
        err_set(e, ERR_NOMEM, "verify");
done:
    free(p.v);
    free(x);
    free(y);
    return rc < 0 ? rc : 0;
}

static bool on_point(void *arg, const struct teach_point *p)
{
    json_array_append_new(arg, json_pack("{s:f,s:f,s:o,s:o,s:o}", "meta_step", p->meta_step, "seconds", p->seconds, "meta_loss",
                          doc_real(p->meta_loss), "accuracy", p->accuracy > 0 ? doc_real(p->accuracy) : json_null(), "held_out",
                          p->held_out > 0 ? doc_real(p->held_out) : json_null()));
    return true;
}

int doc_teach(struct coord *c, const struct job_row *row, json_t *into, struct errbuf *e)
{
    json_t *list = json_array();
    struct trial_row *t = calloc(1, sizeof *t);
    int rc = reader_teach_points(c->reader, row->id, DOC_MAX_LIMIT, on_point, list);
    if (rc >= 0 && t)
        rc = reader_trial(c->reader, row->id, 0, t);
    if (rc < 0 || !t) {
        json_decref(list);
        free(t);
        return err_set(e, ERR_IO, "cannot read the history of job %llu", (unsigned long long)row->id);
    }
    json_object_set_new(into, "teach", json_pack("{s:o,s:o,s:o}", "curriculum", doc_text(t->r.artifact), "meta_steps",
                        t->r.meta_steps ? json_integer(t->r.meta_steps) : json_null(), "history", list));
    free(t);
    return 0;
}
