/* random.c - independent uniform draws: the control that every other searcher has to beat. */
#include "coordinator/search/search.h"

#include <stdlib.h>

struct random_state { const struct space *space; };

static int check(const struct searcher_cfg *cfg, struct errbuf *e)
{
    (void)cfg;
    (void)e;
    return 0;
}

static void *state_open(const struct job_spec *spec, const struct space *space)
{
    struct random_state *s = calloc(1, sizeof *s);
    (void)spec;
    if (s)
        s->space = space;
    return s;
}

static void observe(void *st, const struct search_result *r)
{
    (void)st;
    (void)r;
}

static void draw(void *st, struct rng *rng, uint64_t i, char *text, int64_t *parent)
{
    struct random_state *s = st;
    (void)i;
    *parent = -1;
    s->space->random(s->space, rng, text);
}

const struct searcher searcher_random = { "random", check, state_open, free, observe, draw };
