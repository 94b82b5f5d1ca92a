#include "common/search/simulate.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 64

struct shared {
    const struct sim_cfg *cfg;
    int       n_points;
    uint64_t  point[SIM_MAX_POINTS];
    double   *regret;   /* [n_points][n_seeds] */
    double   *reached;  /* [n_seeds]; INFINITY: never */
    pthread_mutex_t lock;
    int       next;     /* seed; under the lock, as rc and e */
    int       rc;
    struct errbuf e;
};

/* 1 2 3 5 7 10 15 20 30 50 70 100 … and the last. */
static int choose_points(uint64_t n, uint64_t *point)
{
    static const int steps[] = { 10, 15, 20, 30, 50, 70 };
    int k = 0;
    uint64_t last = 0;
    for (uint64_t scale = 1; scale <= n && k < SIM_MAX_POINTS - 1; scale *= 10)
        for (int i = 0; i < 6 && k < SIM_MAX_POINTS - 1; i++) {
            uint64_t at = scale * (uint64_t)steps[i] / 10;
            if (at < n && at > last)
                last = point[k++] = at;
        }
    point[k++] = n;
    return k;
}

static int admits(void *arg, const char *arch, uint64_t *params, uint64_t *macs)
{
    const struct sim_cfg *cfg = arg;
    const struct constraints *c = &cfg->spec->constraints;
    const struct record *r = records_find(cfg->records, arch);
    if (!r)
        return 0;
    *params = r->params;
    *macs = r->macs;
    return search_within(c, r->params, r->macs);
}

static double cheap(void *arg, const char *arch)
{
    const struct sim_cfg *cfg = arg;
    return records_find(cfg->records, arch)->cheap; /* only what is admitted is ranked */
}

/* What is shown of a network on this rung. */
static struct search_result shown(const struct record *r, const struct job_spec *spec, const struct proposal *p)
{
    struct search_result out = { p->idx, r->score, p->rung, r->params, r->macs, p->arch, 0, 0, 0 };
    double squares = 0;
    if (spec->racing.n_inits == 0)
        return out;
    const struct fidelity f = job_fidelity(spec, p->rung);
    out.n_inits = f.first_init + f.inits;
    out.score = 0;
    for (int i = 0; i < out.n_inits; i++)
        out.score += r->init[i];
    out.score /= out.n_inits;
    for (int i = 0; i < out.n_inits; i++)
        squares += (r->init[i] - out.score) * (r->init[i] - out.score);
    out.score_se = sqrt(squares / (out.n_inits - 1) / out.n_inits);
    return out;
}

static int check_racing(const struct sim_cfg *cfg, struct errbuf *e)
{
    const struct racing_cfg *c = &cfg->spec->racing;
    size_t few = 0;
    for (size_t i = 0; c->n_inits && i < cfg->records->n; i++)
        few += cfg->records->v[i].n_inits < c->inits[c->n_inits - 1];
    if (few)
        return err_set(e, ERR_INPUT, "racing.inits: %zu of %zu recorded networks have fewer than %d initialisations (column init_scores)", few,
                       cfg->records->n, c->inits[c->n_inits - 1]);
    return 0;
}

/* Whom the coordinator asks its workers about, the records answer. */
static int warm_up(struct search *s, const struct sim_cfg *cfg, struct errbuf *e)
{
    int n = search_warmup(s, e), rc = n < 0 ? n : 0;
    for (int i = 0; i < n && rc == 0; i++) {
        rc = search_warmup_tell(s, i, &records_find(cfg->records, search_warmup_at(s, i).arch)->zero_cost, e);
    }
    return rc;
}

static int check_vote(const struct sim_cfg *cfg, struct errbuf *e)
{
    const uint32_t voted = cfg->cheap ? 0 : job_warmup_zero_cost(cfg->spec);
    for (int k = 0; k < ZC_COUNT; k++) {
        size_t n = 0;
        for (size_t i = 0; i < cfg->records->n; i++)
            n += cfg->records->v[i].zero_cost.known >> k & 1;
        if (voted >> k & 1 && n == 0)
            return err_set(e, ERR_INPUT, "warmup.vote: no recorded network has %s (column %s)", zero_cost_table[k].name, zero_cost_table[k].name);
        if (voted >> k & 1 && 2 * n < cfg->records->n) /* the others rank last: then the vote says who is listed with it */
            return err_set(e, ERR_INPUT, "warmup.vote: of %zu recorded networks %zu have %s (column %s); half of them should", cfg->records->n, n, zero_cost_table[k].name,
                           zero_cost_table[k].name);
    }
    return 0;
}

static int run_seed(struct shared *sh, struct job_spec *spec, int k, struct errbuf *e)
{
    const struct sim_cfg *cfg = sh->cfg;
    const struct search_world world = { admits, cfg->cheap ? cheap : NULL, (void *)(uintptr_t)cfg };
    const struct record *best = NULL;
    struct search_result best_shown = { .rung = 0 };
    struct search *s;
    struct proposal p;
    spec->seed = cfg->spec->seed + (uint64_t)k;
    int rc = search_open_in(&s, spec, &world, e), at = 0;
    sh->reached[k] = INFINITY;
    if (rc == 0)
        rc = warm_up(s, cfg, e);
    for (uint64_t i = 0; rc == 0 && i < (uint64_t)spec->trials; i++) {
        rc = search_propose(s, &p, e);
        if (rc == -ERR_INPUT)
            err_set(e, ERR_INPUT, "none of %d architectures drawn for evaluation %llu is listed and holds the constraints: the list of %zu"
                    " covers too little of space %s for this searcher", SEARCH_MAX_DRAWS, (unsigned long long)i + 1, cfg->records->n,
                    spec->space);
        if (rc < 0)
            break;
        const struct record *r = records_find(cfg->records, p.arch);
        const struct search_result seen = shown(r, spec, &p);
        if (!best || seen.rung > best_shown.rung || (seen.rung == best_shown.rung && seen.score > best_shown.score)) {
            best = r;
            best_shown = seen;
        }
        double regret = cfg->records->best_truth - best->truth;
        if (regret <= cfg->within && sh->reached[k] == INFINITY)
            sh->reached[k] = (double)i + 1;
        if (i + 1 == sh->point[at])
            sh->regret[(size_t)at++ * (size_t)cfg->n_seeds + (size_t)k] = regret;
        rc = search_finish(s, &seen, e);
    }
    search_close(s);
    return rc;
}

static void *thread_main(void *arg)
{
    struct shared *sh = arg;
    struct job_spec *spec = malloc(sizeof *spec);
    struct errbuf e = { 0 };
    int rc = spec ? 0 : err_set(&e, ERR_NOMEM, "simulation");
    if (spec)
        *spec = *sh->cfg->spec;
    for (;;) {
        pthread_mutex_lock(&sh->lock);
        if (rc < 0 && sh->rc == 0) {
            sh->rc = rc;
            sh->e = e;
        }
        int k = sh->rc == 0 && sh->next < sh->cfg->n_seeds ? sh->next++ : -1;
        pthread_mutex_unlock(&sh->lock);
        if (k < 0)
            break;
        rc = run_seed(sh, spec, k, &e);
    }
    free(spec);
    return NULL;
}

/* ---- over the seeds ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of n sorted numbers, linear between neighbours; infinite ones stay so. */
static double quantile(const double *v, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n && at > i ? isinf(v[i + 1]) ? v[i + 1] : v[i] + (at - i) * (v[i + 1] - v[i]) : v[i];
}

static struct sim_spread spread_of(const double *v, int n)
{
    return (struct sim_spread){ quantile(v, n, 0.25), quantile(v, n, 0.5), quantile(v, n, 0.75) };
}

static void sum_up(struct shared *sh, struct sim_result *out)
{
    int n = sh->cfg->n_seeds;
    for (int k = 0; k < sh->n_points; k++) {
        double *v = sh->regret + (size_t)k * (size_t)n, mean = 0, square = 0;
        for (int i = 0; i < n; i++)
            mean += v[i] / n;
        for (int i = 0; i < n; i++)
            square += (v[i] - mean) * (v[i] - mean);
        double half = n > 1 ? 1.96 * sqrt(square / (n - 1) / n) : NAN;
        qsort(v, (size_t)n, sizeof *v, by_value);
        out->point[k] = (struct sim_point){ sh->point[k], mean, mean - half, mean + half, spread_of(v, n) };
    }
    out->n_points = sh->n_points;
    for (int i = 0; i < n; i++) {
        out->n_reached += isfinite(sh->reached[i]) != 0;
        out->reached_mean += sh->reached[i] / n;
    }
    qsort(sh->reached, (size_t)n, sizeof *sh->reached, by_value);
    out->reached = spread_of(sh->reached, n);
    int half = (int)ceil(0.98 * sqrt(n)); /* ranks of the binomial's 95 %: n/2 ± 1.96 √n / 2 */
    out->reached_low = sh->reached[n / 2 - half > 0 ? n / 2 - half : 0];
    out->reached_high = sh->reached[n / 2 + half < n ? n / 2 + half : n - 1];
    out->evaluations = (uint64_t)n * (uint64_t)sh->cfg->spec->trials;
}

int sim_run(const struct sim_cfg *cfg, struct sim_result *out, struct errbuf *e)
{
    struct shared sh = { .cfg = cfg, .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t thread[MAX_THREADS];
    int started = 0, n = cfg->n_threads < MAX_THREADS ? cfg->n_threads : MAX_THREADS;
    *out = (struct sim_result){ 0 };
    if (cfg->spec->halving.n_steps > 0)
        return err_set(e, ERR_INPUT, "halving: recorded scores are of one fidelity, rungs have one each");
    int rc = check_racing(cfg, e);
    if (rc == 0)
        rc = check_vote(cfg, e);
    if (rc < 0)
        return rc;
    const struct searcher *ops = searcher_find(cfg->spec->searcher.name);
    if (ops && !ops->draw)
        return err_set(e, ERR_INPUT, "searcher.name: %s is a program of yours: it cannot be run here", ops->name);
    sh.n_points = choose_points((uint64_t)cfg->spec->trials, sh.point);
    sh.regret = calloc((size_t)sh.n_points * (size_t)cfg->n_seeds, sizeof *sh.regret);
    sh.reached = calloc((size_t)cfg->n_seeds, sizeof *sh.reached);
    if (!sh.regret || !sh.reached) {
        sh.rc = err_set(&sh.e, ERR_NOMEM, "simulation");
        n = 0;
    }
    while (started < n - 1 && pthread_create(&thread[started], NULL, thread_main, &sh) == 0)
        started++;
    if (sh.regret && sh.reached)
        thread_main(&sh); /* this thread works too: it is all there is where no other starts */
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    if (sh.rc == 0)
        sum_up(&sh, out);
    else if (e)
        *e = sh.e;
    free(sh.regret);
    free(sh.reached);
    return sh.rc;
}
