#include "common/search/search.h"

#include "common/net.h"
#include "common/rng.h"
#include "common/search/rungs.h"
#include "common/search/warmup.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct searcher *const table[] = { &searcher_random, &searcher_evolution, &searcher_local, &searcher_nsga2,
                                              &searcher_external };

const struct searcher *searcher_at(int i)
{
    return i >= 0 && (size_t)i < sizeof table / sizeof *table ? table[i] : NULL;
}

const struct searcher *searcher_find(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

struct early { /* a result that may not be seen yet */
    bool   done;
    struct search_result r; /* r.arch is `arch` */
    char  *arch;            /* owned */
};

struct seen { uint64_t *key; size_t cap, n; }; /* open addressing; 0 marks an empty place */

struct search {
    struct job_spec        spec;
    struct image_shape     img;            /* search_open's world */
    struct search_world    world;
    const struct space    *space;
    const struct searcher *ops;
    void                  *st;
    uint64_t               next, observed; /* trials [0, observed) were told to the searcher */
    uint64_t               told;           /* trials [0, told) have ended: observed <= told <= next */
    uint64_t               window;
    struct early          *ring;           /* [window]: trial i at i % window, observed <= i < next */
    struct seen            seen;
    struct warmup          warmup;
    struct rungs           rungs;
    bool                   nomem;          /* a result could not be taken in: nothing may follow from less */
};

static uint64_t hash_key(const char *hex)
{
    uint64_t v = 0;
    for (int i = 0; i < 16 && hex[i]; i++) {
        int c = hex[i];
        v = v << 4 | (uint64_t)(c >= 'a' ? c - 'a' + 10 : c >= 'A' ? c - 'A' + 10 : c - '0');
    }
    return v;
}

static bool seen_has(const struct seen *s, uint64_t key)
{
    key = key ? key : 1;
    for (size_t i = s->cap ? key & (s->cap - 1) : 0; s->cap && s->key[i]; i = (i + 1) & (s->cap - 1))
        if (s->key[i] == key)
            return true;
    return false;
}

static void seen_place(struct seen *s, uint64_t key)
{
    size_t i = key & (s->cap - 1);
    while (s->key[i] && s->key[i] != key)
        i = (i + 1) & (s->cap - 1);
    s->n += s->key[i] == 0;
    s->key[i] = key;
}

static int seen_add(struct seen *s, uint64_t key, struct errbuf *e)
{
    key = key ? key : 1;
    if (2 * (s->n + 1) > s->cap) {
        struct seen bigger = { .cap = s->cap ? 2 * s->cap : 256 };
        bigger.key = calloc(bigger.cap, sizeof *bigger.key);
        if (!bigger.key)
            return err_set(e, ERR_NOMEM, "search");
        for (size_t i = 0; i < s->cap; i++)
            if (s->key[i])
                seen_place(&bigger, s->key[i]);
        free(s->key);
        *s = bigger;
    }
    seen_place(s, key);
    return 0;
}

bool search_within(const struct constraints *c, uint64_t params, uint64_t macs)
{
    return !(c->min_params && params < c->min_params) && !(c->max_params && params > c->max_params) &&
           !(c->min_macs && macs < c->min_macs) && !(c->max_macs && macs > c->max_macs);
}

int search_fits(const struct space *sp, const char *text, const struct image_shape *img, const struct proxy *proxy,
                const struct constraints *c, uint64_t *params, uint64_t *macs, struct errbuf *e)
{
    struct net n = { 0 };
    int rc = space_build(sp, text, img->c, img->h, img->w, img->n_classes, proxy, &n, e);
    if (rc < 0)
        return rc;
    uint64_t p = n.param_count, m = net_macs(&n);
    net_fini(&n);
    if (params)
        *params = p;
    if (macs)
        *macs = m;
    return search_within(c, p, m);
}

/* The world of search_open: what cannot be built on these images breaks a constraint, too. */
static int admits(void *arg, const char *arch, uint64_t *params, uint64_t *macs)
{
    struct search *s = arg;
    return search_fits(s->space, arch, &s->img, &s->spec.fidelity.proxy, &s->spec.constraints, params, macs, NULL);
}

int search_open(struct search **out, const struct job_spec *spec, const struct image_shape *img, struct errbuf *e)
{
    int rc = search_open_in(out, spec, &(struct search_world){ .admits = admits }, e);
    if (rc == 0) {
        (*out)->img = *img;
        (*out)->world.arg = *out;
    }
    return rc;
}

int search_open_in(struct search **out, const struct job_spec *spec, const struct search_world *world, struct errbuf *e)
{
    *out = NULL;
    const struct space *sp = space_find(spec->space);
    const struct searcher *ops = searcher_find(spec->searcher.name);
    if (!sp)
        return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"", spec->space);
    if (!ops)
        return err_set(e, ERR_NOTFOUND, "there is no searcher \"%s\"", spec->searcher.name);
    int rc = ops->check(&spec->searcher, e);
    if (rc < 0)
        return rc;
    if (spec->warmup.candidates > 0 && spec->warmup.n_vote == 0 && !cheap_find(spec->warmup.score))
        return err_set(e, ERR_NOTFOUND, "there is no cheap score \"%s\"", spec->warmup.score);
    struct search *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "search");
    s->spec = *spec;
    s->world = *world;
    rc = rungs_init(&s->rungs, spec, e);
    s->space = sp;
    s->ops = ops;
    s->window = spec->window > 0 ? (uint64_t)spec->window : 1;
    s->ring = calloc(s->window, sizeof *s->ring);
    s->st = ops->open(&s->spec, sp, s);
    if (rc < 0 || !s->ring || !s->st) {
        search_close(s);
        return err_set(e, ERR_NOMEM, "search");
    }
    *out = s;
    return 0;
}

void search_close(struct search *s)
{
    if (!s)
        return;
    for (uint64_t i = 0; s->ring && i < s->window; i++)
        free(s->ring[i].arch);
    if (s->st)
        s->ops->close(s->st);
    free(s->ring);
    free(s->seen.key);
    warmup_fini(&s->warmup);
    rungs_fini(&s->rungs);
    free(s);
}

uint64_t search_next_index(const struct search *s) { return s->next; }
uint64_t search_told(const struct search *s)       { return s->told; }
bool search_is_external(const struct search *s)    { return s->ops->draw == NULL; }

bool search_had(const struct search *s, const char *hash) { return seen_has(&s->seen, hash_key(hash)); }

bool search_ready_for(const struct search *s, uint64_t idx) { return s->told + s->window > idx; }

static bool sees(const struct search *s) /* whether proposal `next` is allowed to see trial `observed` */
{
    return s->observed + s->window <= s->next;
}

/* Its candidates go to workers before the first trial. */
static bool asks_workers(const struct search *s) { return !s->world.cheap && job_warmup_zero_cost(&s->spec); }

int search_warmup(struct search *s, struct errbuf *e)
{
    int rc = asks_workers(s) && !s->warmup.drawn ? warmup_make(&s->warmup, &s->spec, s->space, &s->world, e) : 0;
    return rc < 0 ? rc : asks_workers(s) && !s->warmup.made ? s->warmup.n : 0;
}

struct warmup_candidate search_warmup_at(const struct search *s, int i)
{
    const struct candidate *c = &s->warmup.candidate[i];
    return (struct warmup_candidate){ c->arch, c->hash, trial_seed(s->spec.seed, c->hash), c->params, c->macs, c->told };
}

int search_warmup_tell(struct search *s, int i, const struct zero_cost_scores *z, struct errbuf *e)
{
    return s->warmup.made ? 0 : warmup_tell(&s->warmup, i, z, e);
}

bool search_ready(const struct search *s)
{
    if (asks_workers(s) && !s->warmup.made)
        return false;
    /* Trials 0 … next - W must be in. All below `observed` are; at most one more is needed at a time. */
    return !sees(s) || s->ring[s->observed % s->window].done;
}

/* Tell the searcher what proposal `next` may see, and no more. */
static void observe_due(struct search *s)
{
    while (sees(s) && s->ring[s->observed % s->window].done) {
        struct early *r = &s->ring[s->observed % s->window];
        if (r->r.rung == 0)
            s->ops->observe(s->st, &r->r);
        s->nomem |= rungs_observe(&s->rungs, r->r.rung, &r->r, NULL) < 0;
        free(r->arch);
        *r = (struct early){ 0 };
        s->observed++;
    }
}

void search_start(struct search *s, struct rng *rng, char *text)
{
    const char *arch, *hash;
    while (warmup_head(&s->warmup, &arch, &hash)) {
        if (!seen_has(&s->seen, hash_key(hash))) {
            strcpy(text, arch);
            return;
        }
        s->warmup.next++; /* had; whatever brings it back would be a repeat */
    }
    s->space->random(s->space, rng, text);
}

static int accept(struct search *s, const struct proposal *p, struct errbuf *e)
{
    int rc = s->nomem ? err_set(e, ERR_NOMEM, "search")
           : p->rung > 0 ? rungs_promote(&s->rungs, p->rung, (uint64_t)p->parent, e) : seen_add(&s->seen, hash_key(p->hash), e);
    if (rc < 0)
        return rc;
    if (p->rung == 0 && s->ops->proposed)
        s->ops->proposed(s->st, p->idx, p->parent);
    s->next++;
    return 0;
}

/* The same architecture at the next rung: its seed too, so that its first steps are those it has had. */
static int propose_promotion(struct search *s, const struct rung_entry *from, struct proposal *out, struct errbuf *e)
{
    strcpy(out->arch, from->arch);
    out->parent = (int64_t)from->idx;
    arch_hash(s->space->name, out->arch, out->hash);
    out->seed = trial_seed(s->spec.seed, out->hash);
    if (s->world.admits(s->world.arg, out->arch, &out->params, &out->macs) != 1)
        return err_set(e, ERR_CORRUPT, "trial %llu may not be proposed any more", (unsigned long long)from->idx);
    return accept(s, out, e);
}

int search_propose(struct search *s, struct proposal *out, struct errbuf *e)
{
    if (!search_ready(s))
        return err_set(e, ERR_STATE, "proposal %llu waits for trial %llu", (unsigned long long)s->next,
                       (unsigned long long)s->observed);
    if (search_is_external(s))
        return err_set(e, ERR_STATE, "its proposals come from outside");
    observe_due(s);
    int rc = s->spec.warmup.candidates > 0 && !s->warmup.made ? warmup_make(&s->warmup, &s->spec, s->space, &s->world, e) : 0;
    if (rc < 0)
        return rc;
    struct rng rng;
    rng_init(&rng, s->spec.seed, RNG_SEARCH, s->next);
    memset(out, 0, sizeof *out);
    out->idx = s->next;
    const struct rung_entry *from = rungs_next(&s->rungs, &out->rung);
    if (from)
        return propose_promotion(s, from, out, e);
    for (int draw = 0, repeats = 0; draw < SEARCH_MAX_DRAWS; draw++) {
        s->ops->draw(s->st, &rng, s->next, out->arch, &out->parent);
        arch_hash(s->space->name, out->arch, out->hash);
        if (repeats < SEARCH_MAX_REPEATS && seen_has(&s->seen, hash_key(out->hash))) {
            repeats++;
            continue;
        }
        if (s->world.admits(s->world.arg, out->arch, &out->params, &out->macs) != 1)
            continue;
        out->seed = trial_seed(s->spec.seed, out->hash);
        return accept(s, out, e);
    }
    return err_set(e, ERR_INPUT, "constraints leave nothing to propose: none of %d architectures drawn for trial %llu holds them",
                   SEARCH_MAX_DRAWS, (unsigned long long)s->next);
}

/* Which constraint does not hold, in words. */
static int outside(const struct constraints *c, uint64_t params, uint64_t macs, struct errbuf *e)
{
    const struct { const char *key; uint64_t limit, value; bool least; } row[] = {
        { "min_params", c->min_params, params, true }, { "max_params", c->max_params, params, false },
        { "min_macs", c->min_macs, macs, true },       { "max_macs", c->max_macs, macs, false },
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (row[i].limit && (row[i].least ? row[i].value < row[i].limit : row[i].value > row[i].limit))
            return err_set(e, ERR_INPUT, "it has %llu %s, and constraints.%s is %llu", (unsigned long long)row[i].value,
                           i < 2 ? "parameters" : "multiply-adds", row[i].key, (unsigned long long)row[i].limit);
    return 0;
}

int search_offer(const struct search *s, uint64_t idx, const char *text, struct proposal *out, struct errbuf *e)
{
    memset(out, 0, sizeof *out);
    out->idx = idx;
    out->parent = -1;
    int rc = s->space->canon(s->space, text, out->arch, e);
    if (rc < 0)
        return rc;
    rc = search_fits(s->space, out->arch, &s->img, &s->spec.fidelity.proxy, &s->spec.constraints, &out->params, &out->macs, e);
    if (rc < 0)
        return rc;
    arch_hash(s->space->name, out->arch, out->hash);
    out->seed = trial_seed(s->spec.seed, out->hash);
    return rc == 1 ? 0 : outside(&s->spec.constraints, out->params, out->macs, e);
}

int search_recall(struct search *s, const struct proposal *p, struct errbuf *e)
{
    if (p->idx != s->next || !search_ready(s))
        return err_set(e, ERR_CORRUPT, "trial %llu does not follow from the trials before it", (unsigned long long)p->idx);
    observe_due(s);
    return accept(s, p, e);
}

int search_finish(struct search *s, const struct search_result *r, struct errbuf *e)
{
    if (r->idx < s->observed || r->idx >= s->next)
        return err_set(e, ERR_STATE, "trial %llu is not under way", (unsigned long long)r->idx);
    struct early *to = &s->ring[r->idx % s->window];
    if (to->done)
        return err_set(e, ERR_STATE, "trial %llu has ended before", (unsigned long long)r->idx);
    char *copy = strdup(r->arch);
    if (!copy)
        return err_set(e, ERR_NOMEM, "search");
    *to = (struct early){ .done = true, .r = *r, .arch = copy };
    to->r.arch = copy;
    if (!isfinite(r->score))
        to->r.score = -INFINITY;
    while (s->told < s->next && s->ring[s->told % s->window].done)
        s->told++;
    return 0;
}
