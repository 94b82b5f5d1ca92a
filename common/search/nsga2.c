/* nsga2.c - NSGA-II (Deb et al., IEEE TEC 6(2), 2002) over the job's objectives, by mutation alone.
 * A generation is `population` scored results in proposal order, as the window shows them. It joins the parents; sorted by
 * front, and within a front by crowding, the first `population` are the next parents. A proposal mutates the winner of a
 * tournament of two. Until the first generation is whole, proposals are random. Failed trials belong to no generation.
 * With a window the children of one generation still have grandparents as parents; nothing waits.
 * Cost: O(m n²) once a generation of n, so O(m n) a trial. */
#include "common/search/search.h"
#include "common/search/pareto.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_POPULATION 2000

struct member {
    int64_t idx;
    double  v[MAX_OBJECTIVES];
    int     rank;
    double  crowd;
    char    arch[ARCH_TEXT_MAX];
};

struct nsga2 {
    const struct space    *space;
    struct search         *search; /* borrowed, as space */
    const struct job_spec *spec;   /* borrowed from the search */
    int      n, n_parents, n_both; /* population; member [0, n_parents) are parents, up to n_both children */
    double  *v, *crowd;            /* owned; [2n][m], [2n] */
    int     *rank, *work;           /* owned; [2n], [4n] */
    struct member **member;        /* [2n], each owned */
};

static int check(const struct searcher_cfg *cfg, struct errbuf *e)
{
    if (cfg->population < 2 || cfg->population > MAX_POPULATION)
        return err_set(e, ERR_INPUT, "searcher.population is %d; nsga2 needs 2 … %d", cfg->population, MAX_POPULATION);
    return 0;
}

static void state_close(void *st)
{
    struct nsga2 *g = st;
    for (int i = 0; g->member && i < 2 * g->n; i++)
        free(g->member[i]);
    free(g->member);
    free(g->v);
    free(g->crowd);
    free(g->rank);
    free(g->work);
    free(g);
}

static void *state_open(const struct job_spec *spec, const struct space *space, struct search *search)
{
    struct nsga2 *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    size_t both = 2 * (size_t)spec->searcher.population;
    g->space = space;
    g->search = search;
    g->spec = spec;
    g->n = spec->searcher.population;
    g->v = calloc(both * MAX_OBJECTIVES, sizeof *g->v);
    g->crowd = calloc(both, sizeof *g->crowd);
    g->rank = calloc(both, sizeof *g->rank);
    g->work = calloc(2 * both, sizeof *g->work);
    g->member = calloc(both, sizeof *g->member);
    bool whole = g->v && g->crowd && g->rank && g->work && g->member;
    for (size_t i = 0; whole && i < both; i++)
        whole = (g->member[i] = calloc(1, sizeof **g->member)) != NULL;
    if (whole)
        return g;
    state_close(g);
    return NULL;
}

static int fitter(const struct member *a, const struct member *b) /* as qsort wants it; never 0: indices differ */
{
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->crowd != b->crowd)
        return a->crowd > b->crowd ? -1 : 1;
    return a->idx < b->idx ? -1 : 1;
}

static int by_fitness(const void *a, const void *b)
{
    return fitter(*(struct member *const *)a, *(struct member *const *)b);
}

static void next_generation(struct nsga2 *g)
{
    int m = g->spec->n_objectives;
    for (int i = 0; i < g->n_both; i++)
        memcpy(g->v + i * m, g->member[i]->v, (size_t)m * sizeof *g->v);
    pareto_rank(g->v, g->n_both, m, g->rank, g->crowd, g->work);
    for (int i = 0; i < g->n_both; i++) {
        g->member[i]->rank = g->rank[i];
        g->member[i]->crowd = g->crowd[i];
    }
    qsort(g->member, (size_t)g->n_both, sizeof *g->member, by_fitness);
    g->n_parents = g->n_both = g->n;
}

static void observe(void *st, const struct search_result *r)
{
    struct nsga2 *g = st;
    if (!isfinite(r->score))
        return;
    struct member *m = g->member[g->n_both++];
    m->idx = (int64_t)r->idx;
    pareto_values(g->spec, r->score, r->params, r->macs, r->latency_ms, m->v);
    strncpy(m->arch, r->arch, sizeof m->arch - 1);
    if (g->n_both == g->n_parents + g->n)
        next_generation(g);
}

static void draw(void *st, struct rng *rng, uint64_t i, char *text, int64_t *parent)
{
    struct nsga2 *g = st;
    (void)i;
    *parent = -1;
    if (g->n_parents == 0) {
        search_start(g->search, rng, text);
        return;
    }
    const struct member *a = g->member[rng_below(rng, (uint32_t)g->n)], *b = g->member[rng_below(rng, (uint32_t)g->n)];
    const struct member *best = a != b && fitter(b, a) < 0 ? b : a;
    *parent = best->idx;
    g->space->mutate(g->space, rng, best->arch, text);
}

const struct searcher searcher_nsga2 = { "nsga2", check, state_open, state_close, observe, draw, NULL };
