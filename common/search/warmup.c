#include "common/search/warmup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_STREAM (1ull << 63) /* of RNG_SEARCH: above every proposal's */
#define DRAWS_EACH   20           /* so many draws for each candidate wanted: narrow constraints leave fewer */

static double more_params(uint64_t params, uint64_t macs) { (void)macs; return (double)params; }
static double more_macs(uint64_t params, uint64_t macs)   { (void)params; return (double)macs; }

static const struct cheap_score table[] = { { "params", more_params }, { "macs", more_macs } };

const struct cheap_score *cheap_find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

static int by_hash(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    int c = strcmp(x->hash, y->hash);
    return c ? c : (x->draw > y->draw) - (x->draw < y->draw);
}

static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : (x->draw > y->draw) - (x->draw < y->draw);
}

/* Of equal networks the first drawn stays. */
static void drop_repeats(struct warmup *w)
{
    int kept = 0;
    qsort(w->candidate, (size_t)w->n, sizeof *w->candidate, by_hash);
    for (int i = 0; i < w->n; i++) {
        if (kept && strcmp(w->candidate[kept - 1].hash, w->candidate[i].hash) == 0)
            free(w->candidate[i].arch);
        else
            w->candidate[kept++] = w->candidate[i];
    }
    w->n = kept;
}

static bool draw_one(struct warmup *w, uint64_t k, const struct job_spec *spec, const struct space *space, const struct search_world *world)
{
    char text[ARCH_TEXT_MAX];
    uint64_t params, macs;
    struct rng rng;
    rng_init(&rng, spec->seed, RNG_SEARCH, FIRST_STREAM + k);
    space->random(space, &rng, text);
    if (world->admits(world->arg, text, &params, &macs) != 1)
        return true;
    struct candidate *c = &w->candidate[w->n];
    c->score = world->cheap ? world->cheap(world->arg, text) : cheap_find(spec->warmup.score)->score(params, macs);
    c->draw = k;
    c->arch = isfinite(c->score) ? strdup(text) : NULL;
    arch_hash(space->name, text, c->hash);
    w->n += c->arch != NULL;
    return c->arch || !isfinite(c->score);
}

int warmup_make(struct warmup *w, const struct job_spec *spec, const struct space *space, const struct search_world *world, struct errbuf *e)
{
    int want = spec->warmup.candidates, keep = spec->warmup.keep ? spec->warmup.keep : spec->searcher.population;
    uint64_t k = 0, most = (uint64_t)want * DRAWS_EACH;
    bool whole = (w->candidate = calloc((size_t)want, sizeof *w->candidate)) != NULL;
    while (whole && w->n < want && k < most)
        whole = draw_one(w, k++, spec, space, world);
    if (!whole) {
        warmup_fini(w);
        return err_set(e, ERR_NOMEM, "warm-up");
    }
    drop_repeats(w);
    qsort(w->candidate, (size_t)w->n, sizeof *w->candidate, by_score);
    for (; w->n > keep; w->n--)
        free(w->candidate[w->n - 1].arch);
    w->made = true;
    return 0;
}

void warmup_fini(struct warmup *w)
{
    for (int i = 0; i < w->n; i++)
        free(w->candidate[i].arch);
    free(w->candidate);
    *w = (struct warmup){ 0 };
}

bool warmup_head(const struct warmup *w, const char **arch, const char **hash)
{
    if (w->next >= w->n)
        return false;
    *arch = w->candidate[w->next].arch;
    *hash = w->candidate[w->next].hash;
    return true;
}
