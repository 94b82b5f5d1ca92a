/* external.c - the searcher that is somebody else's program: it proposes through the coordinator (coordinator/ask.c) and is told the results
 * in the order of proposals. What replay can prove of it: that every proposal was canonical, within the constraints, and made when the results
 * of trials up to i - window were in. Whether the program would make the same ones again is its own affair. */
#include "common/search/search.h"

#include <stdlib.h>

static int check(const struct searcher_cfg *cfg, struct errbuf *e)
{
    (void)cfg;
    (void)e;
    return 0;
}

static void *state_open(const struct job_spec *spec, const struct space *space, struct search *search)
{
    (void)spec;
    (void)space;
    (void)search;
    return calloc(1, 1); /* there is none; NULL would mean no memory */
}

static void observe(void *st, const struct search_result *r)
{
    (void)st;
    (void)r;
}

const struct searcher searcher_external = { "external", check, state_open, free, observe, NULL, NULL };
