/* evolution.c - regularised (ageing) evolution: Real, Aggarwal, Huang, Le, AAAI 2019, algorithm 1.
 * The first `population` proposals are random. Each later one draws `sample` of the living, with replacement as in the paper,
 * and mutates the best of them. The living are the `population` newest results that the window lets this proposal see;
 * the oldest dies as a new one comes, however good it is. Ties go to the younger. A failed trial lives with score -inf:
 * chosen only by a tournament in which nothing else stood. While nothing is visible yet (window larger than the
 * population) proposals stay random. */
#include "common/search/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct member {
    uint64_t idx;
    double   score;
    char     arch[ARCH_TEXT_MAX];
};

struct evolution {
    const struct space *space;
    struct search      *search; /* borrowed, as space */
    uint32_t population, sample;
    uint64_t n;            /* observed so far */
    struct member ring[];  /* [population]: observation k at k % population */
};

static int check(const struct searcher_cfg *cfg, struct errbuf *e)
{
    if (cfg->population < 2 || cfg->population > 100000)
        return err_set(e, ERR_INPUT, "searcher.population is %d; it must be 2 … 100000", cfg->population);
    if (cfg->sample < 1 || cfg->sample > cfg->population)
        return err_set(e, ERR_INPUT, "searcher.sample is %d; it must be 1 … population (%d)", cfg->sample, cfg->population);
    return 0;
}

static void *state_open(const struct job_spec *spec, const struct space *space, struct search *search)
{
    size_t n = (size_t)spec->searcher.population;
    struct evolution *ev = calloc(1, sizeof *ev + n * sizeof ev->ring[0]);
    if (ev) {
        ev->space = space;
        ev->search = search;
        ev->population = (uint32_t)n;
        ev->sample = (uint32_t)spec->searcher.sample;
    }
    return ev;
}

static void observe(void *st, const struct search_result *r)
{
    struct evolution *ev = st;
    struct member *m = &ev->ring[ev->n++ % ev->population];
    m->idx = r->idx;
    m->score = r->score;
    strncpy(m->arch, r->arch, sizeof m->arch - 1);
    m->arch[sizeof m->arch - 1] = 0;
}

static void draw(void *st, struct rng *rng, uint64_t i, char *text, int64_t *parent)
{
    struct evolution *ev = st;
    uint32_t living = ev->n < ev->population ? (uint32_t)ev->n : ev->population;
    *parent = -1;
    if (i < ev->population || living == 0) {
        search_start(ev->search, rng, text);
        return;
    }
    const struct member *best = NULL;
    for (uint32_t k = 0; k < ev->sample; k++) {
        const struct member *m = &ev->ring[rng_below(rng, living)];
        if (!best || m->score > best->score || (m->score == best->score && m->idx > best->idx))
            best = m;
    }
    *parent = (int64_t)best->idx;
    ev->space->mutate(ev->space, rng, best->arch, text);
}

const struct searcher searcher_evolution = { "evolution", check, state_open, free, observe, draw, NULL };
