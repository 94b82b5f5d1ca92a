#include "common/search/warmup.h"
#include "common/score_column.h"

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
    c->score = w->n_vote ? 0 : world->cheap ? world->cheap(world->arg, text) : cheap_find(spec->warmup.score)->score(params, macs);
    c->draw = k;
    c->params = params;
    c->macs = macs;
    c->arch = isfinite(c->score) ? strdup(text) : NULL;
    arch_hash(space->name, text, c->hash);
    w->n += c->arch != NULL;
    return c->arch || !isfinite(c->score);
}

static void rank(struct warmup *w)
{
    qsort(w->candidate, (size_t)w->n, sizeof *w->candidate, by_score);
    while (w->n > w->keep || (w->n && w->candidate[w->n - 1].score == -INFINITY))
        free(w->candidate[--w->n].arch);
    w->made = true;
}

static int count_votes(struct warmup *w, struct errbuf *e)
{
    double *fused = calloc((size_t)w->n + 1, sizeof *fused);
    bool higher[SCORE_COLUMNS];
    for (int k = 0; k < w->n_vote; k++)
        higher[k] = score_columns[w->vote[k]].higher;
    int rc = fused ? score_fuse(higher, w->n_vote, (size_t)w->n, w->value, fused, e) : err_set(e, ERR_NOMEM, "warm-up");
    for (int i = 0; i < w->n && rc == 0; i++)
        w->candidate[i].score = w->candidate[i].score == -INFINITY ? -INFINITY : fused[i];
    free(fused);
    if (rc < 0)
        return rc;
    free(w->value);
    w->value = NULL;
    rank(w);
    return 0;
}

int warmup_tell(struct warmup *w, int i, const struct zero_cost_scores *z, struct errbuf *e)
{
    struct candidate *c = &w->candidate[i];
    const struct trial_result r = { .params = c->params, .macs = c->macs, .zero_cost = z ? *z : (struct zero_cost_scores){ 0 } };
    for (int k = 0; k < w->n_vote; k++)
        w->value[k * w->n + i] = z ? score_column_value(w->vote[k], &r) : NAN;
    c->score = z ? 0 : -INFINITY;
    w->n_told += !c->told;
    c->told = true;
    return w->n_told == w->n ? count_votes(w, e) : 0;
}

/* What votes is known of all, or is waited for. */
static int open_vote(struct warmup *w, bool known, struct errbuf *e)
{
    static const struct zero_cost_scores none;
    int rc = 0;
    w->value = calloc((size_t)w->n * (size_t)w->n_vote + 1, sizeof *w->value);
    if (!w->value)
        return err_set(e, ERR_NOMEM, "warm-up");
    if (w->n == 0)
        w->made = true;
    for (int i = 0; i < w->n && known && rc == 0; i++)
        rc = warmup_tell(w, i, &none, e);
    return rc;
}

int warmup_make(struct warmup *w, const struct job_spec *spec, const struct space *space, const struct search_world *world, struct errbuf *e)
{
    int want = spec->warmup.candidates, rc = 0;
    uint64_t k = 0, most = (uint64_t)want * DRAWS_EACH;
    w->keep = spec->warmup.keep ? spec->warmup.keep : spec->searcher.population;
    w->n_vote = world->cheap ? 0 : spec->warmup.n_vote;
    memcpy(w->vote, spec->warmup.vote, sizeof w->vote);
    bool whole = (w->candidate = calloc((size_t)want, sizeof *w->candidate)) != NULL;
    while (whole && w->n < want && k < most)
        whole = draw_one(w, k++, spec, space, world);
    if (!whole) {
        warmup_fini(w);
        return err_set(e, ERR_NOMEM, "warm-up");
    }
    drop_repeats(w);
    qsort(w->candidate, (size_t)w->n, sizeof *w->candidate, by_score); /* of a vote: by draw */
    w->drawn = true;
    if (w->n_vote)
        rc = open_vote(w, job_warmup_zero_cost(spec) == 0, e);
    else
        rank(w);
    if (rc < 0)
        warmup_fini(w);
    return rc;
}

void warmup_fini(struct warmup *w)
{
    for (int i = 0; i < w->n; i++)
        free(w->candidate[i].arch);
    free(w->candidate);
    free(w->value);
    *w = (struct warmup){ 0 };
}

bool warmup_head(const struct warmup *w, const char **arch, const char **hash)
{
    if (!w->made || w->next >= w->n)
        return false;
    *arch = w->candidate[w->next].arch;
    *hash = w->candidate[w->next].hash;
    return true;
}
