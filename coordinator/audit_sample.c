#include "coordinator/audit_sample.h"

#include "coordinator/docs_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void audit_sample_fini(struct audit_sample *s)
{
    free(s->v);
    memset(s, 0, sizeof *s);
}

bool audit_regime_same(const struct audit_regime *a, const struct audit_regime *b)
{
    return a->epochs == b->epochs && a->lr == b->lr && a->momentum == b->momentum && a->weight_decay == b->weight_decay &&
           a->batch == b->batch && a->shift == b->shift && a->flip == b->flip && strcmp(a->dataset, b->dataset) == 0;
}

/* ---- real trainings ---- */
static struct audit_pair *place(struct audit_sample *s, const struct trial_row *t)
{
    for (int i = s->n - 1; i >= 0; i--) /* from the end: the seeds of a network follow each other */
        if (strcmp(s->v[i].hash, t->arch_hash) == 0)
            return &s->v[i];
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 64;
        struct audit_pair *bigger = realloc(s->v, (size_t)cap * sizeof *bigger);
        if (!bigger) {
            s->nomem = true;
            return NULL;
        }
        s->v = bigger;
        s->cap = cap;
    }
    struct audit_pair *p = &s->v[s->n++];
    memset(p, 0, sizeof *p);
    memcpy(p->arch, t->arch, sizeof p->arch);
    memcpy(p->hash, t->arch_hash, sizeof p->hash);
    p->trial = -1;
    p->group = t->group;
    for (int k = 0; k < AUDIT_MAX_COLS; k++)
        p->value[k] = NAN;
    return p;
}

void audit_sample_train(struct audit_sample *s, const struct trial_row *t, double accuracy)
{
    if (t->state != TRIAL_SCORED || !isfinite(accuracy)) {
        s->failed += t->state == TRIAL_FAILED;
        return;
    }
    struct audit_pair *p = place(s, t);
    if (!p)
        return;
    p->sum += accuracy;
    p->seconds += isfinite(t->r.seconds) ? t->r.seconds : 0;
    p->seeds++;
}

/* ---- what the search recorded ---- */
static int by_hash(const void *a, const void *b)
{
    return strcmp(((const struct audit_pair *)a)->hash, ((const struct audit_pair *)b)->hash);
}

void audit_sample_join_begin(struct audit_sample *s)
{
    if (s->n > 0)
        qsort(s->v, (size_t)s->n, sizeof *s->v, by_hash);
}

struct audit_pair *audit_sample_find(struct audit_sample *s, const char *hash)
{
    int low = 0, high = s->n - 1;
    while (low <= high) {
        int mid = (low + high) / 2, d = strcmp(hash, s->v[mid].hash);
        if (d == 0)
            return &s->v[mid];
        if (d < 0)
            high = mid - 1;
        else
            low = mid + 1;
    }
    return NULL;
}

void audit_sample_set(struct audit_sample *s, struct audit_pair *p, const char *col, double v)
{
    int k = 0;
    while (k < s->n_cols && strcmp(s->col[k], col) != 0)
        k++;
    if (k == AUDIT_MAX_COLS)
        return;
    if (k == s->n_cols)
        snprintf(s->col[s->n_cols++], sizeof s->col[0], "%s", col);
    p->value[k] = v;
}

/* Every number of the trial's document is a column, but for those that name the trial or describe the reading of it:
 * {"score": …} gives "score", [{"step": 8, "score": …}] "score@8", {"a": {"b": …}} "a.b". */
static void columns(struct audit_sample *s, struct audit_pair *p, const char *prefix, const json_t *doc)
{
    static const char *const not_predictors[] = { "trial", "rung", "parent", "seed", "score_se", "lr_scale", "valid_score", "step" };
    const char *key;
    json_t *v, *item;
    json_object_foreach((json_t *)(uintptr_t)doc, key, v) {
        char name[48];
        size_t i;
        bool skip = false;
        for (i = 0; i < sizeof not_predictors / sizeof *not_predictors; i++)
            skip |= strcmp(key, not_predictors[i]) == 0;
        if (skip)
            continue;
        snprintf(name, sizeof name, "%.22s%s%.24s", prefix, *prefix ? "." : "", key);
        if (json_is_number(v))
            audit_sample_set(s, p, name, json_number_value(v));
        else if (json_is_object(v) && !*prefix)
            columns(s, p, name, v);
        json_array_foreach(v, i, item) {
            json_t *step = json_object_get(item, "step"), *score = json_object_get(item, "score");
            if (!json_is_integer(step) || !json_is_number(score))
                continue;
            snprintf(name, sizeof name, "score@%lld", (long long)json_integer_value(step));
            audit_sample_set(s, p, name, json_number_value(score));
        }
    }
}

void audit_sample_join(struct audit_sample *s, const struct trial_row *t)
{
    struct audit_pair *p = audit_sample_find(s, t->arch_hash);
    if (!p || p->trial >= 0)
        return;
    p->trial = (int64_t)t->idx;
    json_t *doc = doc_history(t);
    columns(s, p, "", doc);
    json_decref(doc);
}
