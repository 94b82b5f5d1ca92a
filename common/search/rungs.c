#include "common/search/rungs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int rungs_init(struct rungs *r, const struct job_spec *spec, struct errbuf *e)
{
    *r = (struct rungs){ .n_halving = spec->halving.n_steps, .reduction = spec->halving.reduction, .racing = spec->racing };
    r->n = r->n_halving + r->racing.n_inits;
    for (int k = 0; k < r->racing.n_inits; k++)
        r->inits[k] = k ? r->racing.inits[k - 1] : spec->fidelity.inits;
    r->rung = r->n ? calloc((size_t)r->n, sizeof *r->rung) : NULL;
    if (r->n && !r->rung) {
        *r = (struct rungs){ .n = 0 };
        return err_set(e, ERR_NOMEM, "search");
    }
    return 0;
}

void rungs_fini(struct rungs *r)
{
    for (int k = 0; k < r->n; k++) {
        for (size_t i = 0; i < r->rung[k].n_heap; i++)
            free(r->rung[k].heap[i].arch);
        free(r->rung[k].heap);
        free(r->rung[k].promoted);
    }
    free(r->rung);
    *r = (struct rungs){ 0 };
}

/* Room for one more; the new capacity is kept in *cap. */
static bool room(void **v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? 2 * *cap : 64;
    void *bigger = realloc(*v, more * size);
    if (bigger) {
        *v = bigger;
        *cap = more;
    }
    return bigger != NULL;
}

static bool better(const struct rung_entry *a, const struct rung_entry *b)
{
    return a->score != b->score ? a->score > b->score : a->idx < b->idx;
}

static void swap(struct rung_entry *a, struct rung_entry *b)
{
    struct rung_entry t = *a;
    *a = *b;
    *b = t;
}

/* What a race must know of a rung's scores. */
static void take_into_account(struct rung *g, const struct search_result *res, int among)
{
    const int cap = among + 1;
    if (g->n_top < cap || res->score > g->top[cap - 1]) {
        int i = g->n_top < cap ? g->n_top++ : cap - 1;
        for (; i > 0 && g->top[i - 1] < res->score; i--)
            g->top[i] = g->top[i - 1];
        g->top[i] = res->score;
    }
    if (res->n_inits > 1) {
        g->squares += res->score_se * res->score_se * res->n_inits * (res->n_inits - 1);
        g->df += (uint64_t)res->n_inits - 1;
    }
}

int rungs_observe(struct rungs *r, int rung, const struct search_result *res, struct errbuf *e)
{
    if (rung >= r->n)
        return 0; /* the top: nothing to be promoted to */
    struct rung *g = &r->rung[rung];
    g->n++;
    if (!isfinite(res->score))
        return 0;
    if (rung >= r->n_halving)
        take_into_account(g, res, r->racing.among);
    struct rung_entry new = { res->score, res->idx, strdup(res->arch) };
    if (!new.arch || !room((void **)&g->heap, g->n_heap, &g->cap_heap, sizeof *g->heap)) {
        free(new.arch);
        return err_set(e, ERR_NOMEM, "search");
    }
    size_t i = g->n_heap++;
    g->heap[i] = new;
    for (; i > 0 && better(&g->heap[i], &g->heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&g->heap[i], &g->heap[(i - 1) / 2]);
    return 0;
}

/* How many promoted scores are at least `score`: all others of the rung that are better than the best of the heap. */
static size_t ahead(const struct rung *g, double score)
{
    size_t low = 0, high = g->n_promoted; /* promoted[low - 1] < score <= promoted[high] */
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (g->promoted[mid] < score)
            low = mid + 1;
        else
            high = mid;
    }
    return g->n_promoted - low;
}

/* Whether the best that was not promoted takes part in the round that goes on from rung n_halving + k. */
static bool races(const struct rungs *r, int k)
{
    const struct racing_cfg *c = &r->racing;
    const struct rung *g = &r->rung[r->n_halving + k];
    bool complete = k > 0 && g->n == r->rung[r->n_halving + k - 1].n_promoted;
    if (g->n_heap == 0 || g->n_top <= c->among || g->df == 0 || (k > 0 && !complete))
        return false;
    if (k == 0 && (g->n < (uint64_t)c->after || (double)(g->n_promoted + 1) > c->share * (double)g->n))
        return false;
    double last = g->top[c->among - 1], noise = c->z * sqrt(g->squares / (double)g->df * 2 / r->inits[k]);
    return last - g->top[c->among] <= noise && last - g->heap[0].score <= noise;
}

const struct rung_entry *rungs_next(const struct rungs *r, int *rung)
{
    for (int k = 0; k < r->racing.n_inits; k++)
        if (races(r, k)) {
            *rung = r->n_halving + k + 1;
            return &r->rung[*rung - 1].heap[0];
        }
    for (int k = r->n_halving - 1; k >= 0; k--) {
        const struct rung *g = &r->rung[k];
        if (g->n_heap && ahead(g, g->heap[0].score) < g->n / (uint64_t)r->reduction) {
            *rung = k + 1;
            return &g->heap[0];
        }
    }
    return NULL;
}

static void pop(struct rung *g)
{
    free(g->heap[0].arch);
    g->heap[0] = g->heap[--g->n_heap];
    for (size_t i = 0, best; ; i = best) {
        best = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < g->n_heap; child++)
            if (better(&g->heap[child], &g->heap[best]))
                best = child;
        if (best == i)
            return;
        swap(&g->heap[i], &g->heap[best]);
    }
}

int rungs_promote(struct rungs *r, int rung, uint64_t idx, struct errbuf *e)
{
    int expected = -1;
    const struct rung_entry *next = rungs_next(r, &expected);
    if (!next || expected != rung || next->idx != idx)
        return err_set(e, ERR_CORRUPT, "trial %llu is not what rung %d takes next", (unsigned long long)idx, rung);
    struct rung *g = &r->rung[rung - 1];
    if (!room((void **)&g->promoted, g->n_promoted, &g->cap_promoted, sizeof *g->promoted))
        return err_set(e, ERR_NOMEM, "search");
    size_t at = g->n_promoted - ahead(g, next->score);
    memmove(g->promoted + at + 1, g->promoted + at, (g->n_promoted - at) * sizeof *g->promoted);
    g->promoted[at] = next->score;
    g->n_promoted++;
    pop(g);
    return 0;
}
