#include "common/search/pareto.h"

#include <math.h>
#include <stdlib.h>

bool pareto_dominates(const double *a, const double *b, int m)
{
    bool better = false;
    for (int k = 0; k < m; k++) {
        if (a[k] > b[k])
            return false;
        better |= a[k] < b[k];
    }
    return better;
}

struct by_objective { const double *v; int m, k; };

static int compare(const void *a, const void *b, void *arg)
{
    const struct by_objective *o = arg;
    int i = *(const int *)a, j = *(const int *)b;
    double x = o->v[i * o->m + o->k], y = o->v[j * o->m + o->k];
    return x != y ? (x > y) - (x < y) : (i > j) - (i < j);
}

static void crowding(const double *v, int m, int *front, int n, double *crowd)
{
    for (int i = 0; i < n; i++)
        crowd[front[i]] = 0;
    for (int k = 0; k < m; k++) {
        struct by_objective o = { v, m, k };
        qsort_r(front, (size_t)n, sizeof *front, compare, &o);
        double extent = v[front[n - 1] * m + k] - v[front[0] * m + k];
        crowd[front[0]] = crowd[front[n - 1]] = INFINITY;
        for (int i = 1; i + 1 < n && extent > 0; i++)
            crowd[front[i]] += (v[front[i + 1] * m + k] - v[front[i - 1] * m + k]) / extent;
    }
}

void pareto_rank(const double *v, int n, int m, int *rank, double *crowd, int *work)
{
    int *dominators = work, *order = work + n, first = 0, last = 0;
    for (int i = 0; i < n; i++) {
        dominators[i] = 0;
        for (int j = 0; j < n; j++)
            dominators[i] += pareto_dominates(v + j * m, v + i * m, m);
        if (dominators[i] == 0)
            order[last++] = i;
    }
    for (int r = 0; first < last; r++) { /* order[first … last) is the front of rank r */
        int end = last;
        for (int i = first; i < end; i++) {
            rank[order[i]] = r;
            for (int j = 0; j < n; j++)
                if (pareto_dominates(v + order[i] * m, v + j * m, m) && --dominators[j] == 0)
                    order[last++] = j;
        }
        crowding(v, m, order + first, end - first, crowd);
        first = end;
    }
}

#define UNKNOWN_MS 1e12 /* finite, for distances within a front */

void pareto_values(const struct job_spec *s, double score, uint64_t params, uint64_t macs, double latency_ms, double *v)
{
    const double value[METRIC_COUNT] = { [METRIC_SCORE] = score, [METRIC_PARAMS] = (double)params, [METRIC_MACS] = (double)macs,
                                         [METRIC_LATENCY] = latency_ms > 0 ? latency_ms : UNKNOWN_MS };
    for (int k = 0; k < s->n_objectives; k++)
        v[k] = s->objective[k].max ? -value[s->objective[k].metric] : value[s->objective[k].metric];
}
