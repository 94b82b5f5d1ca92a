#include "common/score_column.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROW(e, name, cost, about) { name, about, true },
const struct score_column score_columns[SCORE_COLUMNS] = {
    [COLUMN_SCORE] = { "score", "accuracy on held-out real images after the curriculum", true },
    [COLUMN_LOSS_SUM] = { "loss_sum", "summed loss along the curriculum", false },
    [COLUMN_PARAMS] = { "params", "parameters", true },
    [COLUMN_MACS] = { "macs", "multiply-adds an image", true },
    [COLUMN_LATENCY] = { "latency", "milliseconds of a forward pass, measured", false },
    ZERO_COST_LIST(ROW)
};
#undef ROW

int score_column_from(const char *name)
{
    for (int i = 0; i < SCORE_COLUMNS; i++)
        if (strcmp(name, score_columns[i].name) == 0)
            return i;
    return -1;
}

double score_column_value(int column, const struct trial_result *r)
{
    const int zc = column - COLUMN_ZERO_COST;
    switch (column) {
    case COLUMN_SCORE:    return r->score;
    case COLUMN_LOSS_SUM: return r->loss_sum;
    case COLUMN_PARAMS:   return (double)r->params;
    case COLUMN_MACS:     return (double)r->macs;
    case COLUMN_LATENCY:  return r->latency_ms > 0 ? r->latency_ms : NAN;
    default:              return r->zero_cost.known >> zc & 1 ? r->zero_cost.value[zc] : NAN;
    }
}

struct ranked { double v; size_t i; };

static int by_value(const void *a, const void *b) /* unknown ones are -infinity here */
{
    const struct ranked *x = a, *y = b;
    return x->v != y->v ? (x->v > y->v) - (x->v < y->v) : (x->i > y->i) - (x->i < y->i);
}

/* Adds log(rank / n) of each to its place in out. */
static void add_log_ranks(struct ranked *r, size_t n, double *out)
{
    qsort(r, n, sizeof *r, by_value);
    for (size_t a = 0, b; a < n; a = b) {
        for (b = a + 1; b < n && r[b].v == r[a].v; b++)
            ;
        const double rank = ((double)(a + 1) + (double)b) / 2;
        for (size_t i = a; i < b; i++)
            out[r[i].i] += log(rank / (double)n);
    }
}

int score_fuse(const bool *higher, int n_columns, size_t n, const double *value, double *out, struct errbuf *e)
{
    struct ranked *r = malloc((n ? n : 1) * sizeof *r);
    if (!r)
        return err_set(e, ERR_NOMEM, "no memory to rank %zu trials", n);
    memset(out, 0, n * sizeof *out);
    for (int c = 0; c < n_columns; c++, value += n) {
        for (size_t i = 0; i < n; i++)
            r[i] = (struct ranked){ isnan(value[i]) ? -INFINITY : higher[c] ? value[i] : -value[i], i };
        add_log_ranks(r, n, out);
    }
    free(r);
    return 0;
}
