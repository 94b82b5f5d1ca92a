/* local.c - local search with restarts (White, Nolen, Savani, UAI 2021: after 127 evaluations on average at the optimum of
 * NAS-Bench-201, where scores are not noisy). The neighbours of the centre are proposed in random order, none twice; the first
 * visible result that is better becomes the centre. When no new neighbour is left, a random architecture begins another climb.
 *
 * Neighbours are drawn with space.mutate; what this job has proposed before, search.c draws again. FRUITLESS such draws in a row
 * mean that the neighbourhood is spent: of the 24 neighbours of a cell in nasbench201, one that is left is overlooked with a
 * probability of (23/24)^150 = 0.2 %.
 * Window. Until a restart's first result is visible the next proposals are random too, and the best of them is the
 * centre. A late result that is better than the centre that was given up takes the search back to it. */
#include "common/search/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FRUITLESS 150 /* below SEARCH_MAX_REPEATS: a restart must find something new in what is left of these */

struct local {
    const struct space *space;
    struct search      *search; /* borrowed, as space */
    uint64_t i;          /* the proposal being drawn, and how often it was */
    int      draws;
    bool     climbing;   /* there is a centre */
    uint64_t first;      /* trials before this belong to climbs that were given up */
    double   score, given_up; /* of the centre; of the last centre that was given up */
    int64_t  idx;        /* its trial */
    char     arch[ARCH_TEXT_MAX];
};

static int check(const struct searcher_cfg *cfg, struct errbuf *e)
{
    (void)cfg;
    (void)e;
    return 0;
}

static void *state_open(const struct job_spec *spec, const struct space *space, struct search *search)
{
    struct local *l = calloc(1, sizeof *l);
    (void)spec;
    if (l) {
        l->space = space;
        l->search = search;
        l->given_up = INFINITY;
    }
    return l;
}

static void observe(void *st, const struct search_result *r)
{
    struct local *l = st;
    double floor = l->climbing ? l->score : -INFINITY; /* which a failed trial does not exceed */
    if (r->idx < l->first && l->given_up > floor)
        floor = l->given_up;
    if (!(r->score > floor))
        return;
    l->climbing = true;
    l->score = r->score;
    l->idx = (int64_t)r->idx;
    strncpy(l->arch, r->arch, sizeof l->arch - 1);
}

static void draw(void *st, struct rng *rng, uint64_t i, char *text, int64_t *parent)
{
    struct local *l = st;
    if (i != l->i)
        l->draws = 0;
    l->i = i;
    *parent = -1;
    if (l->climbing && l->draws++ < FRUITLESS) {
        *parent = l->idx;
        l->space->mutate(l->space, rng, l->arch, text);
    } else {
        search_start(l->search, rng, text);
    }
}

static void proposed(void *st, uint64_t i, int64_t parent)
{
    struct local *l = st;
    if (parent >= 0 || !l->climbing)
        return;
    l->climbing = false;
    l->given_up = l->score;
    l->first = i;
}

const struct searcher searcher_local = { "local", check, state_open, free, observe, draw, proposed };
