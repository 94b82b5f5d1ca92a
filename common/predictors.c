#include "common/predictors.h"

#include "common/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Networks that a column knows, and what they are worth; the buffers hold n each. */
struct room { double *x, *y, *p, *tx, *ty; int *of, n; };

bool predictor_falls(const char *name)
{
    const char *last = strrchr(name, ':'); /* "other-table:loss_sum" */
    return strcmp(last ? last + 1 : name, "loss_sum") == 0;
}

static json_t *real_or_null(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *estimate_doc(const struct estimate *e)
{
    return json_pack("{s:o,s:o,s:o}", "value", real_or_null(e->value), "low", real_or_null(e->low), "high", real_or_null(e->high));
}

static int correlations(const double *x, const double *y, int n, uint64_t seed, json_t **out)
{
    int rc = 0;
    *out = json_pack("{s:i}", "n", n);
    for (int k = 0; k < RANK_STAT_COUNT && rc == 0; k++) {
        struct estimate e;
        rc = rank_interval((enum rank_stat)k, x, y, n, seed, &e);
        json_object_set_new(*out, rank_stat_name((enum rank_stat)k), estimate_doc(&e));
    }
    return rc;
}

/* The first of the largest x: the network that this column would have chosen. */
static json_t *pick_doc(const struct predictor_table *t, const struct room *m)
{
    int best = 0;
    for (int i = 1; i < m->n; i++)
        if (m->x[i] > m->x[best] || (m->x[i] == m->x[best] && t->trial[m->of[i]] < t->trial[m->of[best]]))
            best = i;
    const int at = m->of[best];
    return json_pack("{s:o,s:s,s:f}", "trial", t->trial[at] >= 0 ? json_integer(t->trial[at]) : json_null(), "arch", t->arch[at], "accuracy", m->y[best]);
}

static const double *column_of(const struct predictor_table *t, const char *name)
{
    for (int k = 0; k < t->n_cols; k++)
        if (strcmp(t->col[k], name) == 0)
            return t->value + (size_t)k * (size_t)t->n;
    return NULL;
}

/* Spearman of m->x less that of the number of parameters, over the networks in m->of that have both, all or the better half of them. */
static int versus_params(const struct predictor_table *t, bool top, struct room *m, json_t **out)
{
    struct estimate e = { NAN, NAN, NAN };
    const double *params = column_of(t, "params");
    int rc = 0, half;
    for (int i = 0; i < m->n && params; i++) {
        m->p[i] = params[m->of[i]];
        if (!isfinite(m->p[i]))
            params = NULL; /* recorded with the score, or not at all */
    }
    if (params && !top)
        rc = rank_difference(RANK_SPEARMAN, m->x, m->p, m->y, m->n, t->seed, &e);
    if (params && top) {
        if ((half = stats_top_half(m->p, m->y, m->n, m->tx, m->ty)) >= 0) {
            memcpy(m->p, m->tx, (size_t)half * sizeof *m->p);
            half = stats_top_half(m->x, m->y, m->n, m->tx, m->ty);
        }
        rc = half < 0 ? half : rank_difference(RANK_SPEARMAN, m->tx, m->p, m->ty, half, t->seed, &e);
    }
    *out = estimate_doc(&e);
    return rc;
}

static int predictor_doc(const struct predictor_table *t, int col, struct room *m, json_t *list)
{
    const double sign = predictor_falls(t->col[col]) ? -1 : 1, *value = t->value + (size_t)col * (size_t)t->n;
    json_t *all, *top = NULL;
    m->n = 0;
    for (int i = 0; i < t->n; i++)
        if (isfinite(value[i])) {
            m->of[m->n] = i;
            m->x[m->n] = sign * value[i];
            m->y[m->n++] = t->truth[i];
        }
    if (m->n == 0)
        return 0;
    int half = stats_top_half(m->x, m->y, m->n, m->tx, m->ty);
    int rc = correlations(m->x, m->y, m->n, t->seed, &all);
    rc = half < 0 ? half : rc < 0 ? rc : correlations(m->tx, m->ty, half, t->seed, &top);
    for (int k = 0; k < 2 && rc == 0; k++) {
        json_t *d;
        rc = versus_params(t, k, m, &d);
        json_object_set_new(k ? top : all, "minus_params", d);
    }
    json_array_append_new(list, json_pack("{s:s,s:i,s:o,s:o*,s:{s:o,s:o},s:o}", "name", t->col[col], "sign", (int)sign, "all", all, "top_half",
                          top, "regret", "top1", real_or_null(stats_regret(m->x, m->y, m->n, 1)), "top10",
                          real_or_null(stats_regret(m->x, m->y, m->n, 10)), "pick", pick_doc(t, m)));
    return rc;
}

int predictors_doc(const struct predictor_table *t, json_t *list, struct errbuf *e)
{
    const size_t n = (size_t)t->n + 1;
    double *buf = calloc(5 * n, sizeof *buf);
    struct room m = { buf, buf + n, buf + 2 * n, buf + 3 * n, buf + 4 * n, calloc(n, sizeof *m.of), 0 };
    int rc = buf && m.of ? 0 : -ERR_NOMEM;
    for (int k = 0; k < t->n_cols && rc == 0; k++)
        rc = predictor_doc(t, k, &m, list);
    free(buf);
    free(m.of);
    return rc < 0 ? err_set(e, ERR_NOMEM, "no memory to compare %d columns of %d networks", t->n_cols, t->n) : 0;
}
