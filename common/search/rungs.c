#include "common/search/rungs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void rungs_init(struct rungs *r, const struct job_spec *spec)
{
    *r = (struct rungs){ .n = spec->halving.n_steps, .reduction = spec->halving.reduction };
}

void rungs_fini(struct rungs *r)
{
    for (int k = 0; k < MAX_RUNGS; k++) {
        for (size_t i = 0; i < r->rung[k].n_heap; i++)
            free(r->rung[k].heap[i].arch);
        free(r->rung[k].heap);
        free(r->rung[k].promoted);
    }
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

int rungs_observe(struct rungs *r, int rung, const struct search_result *res, struct errbuf *e)
{
    if (rung >= r->n)
        return 0; /* the top: nothing to be promoted to */
    struct rung *g = &r->rung[rung];
    g->n++;
    if (!isfinite(res->score))
        return 0;
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

const struct rung_entry *rungs_next(const struct rungs *r, int *rung)
{
    for (int k = r->n - 1; k >= 0; k--) {
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
