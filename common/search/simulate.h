/* simulate.h - a searcher run on recorded scores, over many seeds: what would it have found, after how many evaluations?
 * The searcher, its window, repeats and constraints are search.h's own. Only listed architectures exist: what is not listed is
 * drawn again, and the optimum is the best listed. Results come as late as the window allows.
 * Racing: a trial's score is the mean of the first so many recorded initialisations of its network; the choice is among the highest rung.
 * Regret after n evaluations: the best truth of the list less the truth of the architecture whose score is the best of the
 * n (the first of equals): what a person who trusts the score would take.
 * Seeds run on several threads; the outcome does not depend on how many. */
#ifndef DIDACT_SEARCH_SIMULATE_H
#define DIDACT_SEARCH_SIMULATE_H

#include "common/search/records.h"
#include "common/search/search.h"

#define SIM_MAX_POINTS 48
#define SIM_MAX_SEEDS  100000

struct sim_cfg {
    const struct records  *records; /* borrowed, finished */
    const struct job_spec *spec;    /* borrowed; searcher, window, constraints, trials; seeds are spec->seed, +1, +2, … */
    int    n_seeds, n_threads;
    bool   cheap;                   /* a warm-up ranks by the records' column, not by `warmup.score` */
    double within;                  /* "reached" means a regret of at most this */
};

struct sim_spread { double q25, median, q75; };
struct sim_point {
    uint64_t evaluations;
    double   mean, low, high;       /* of the regret over the seeds; 95 % interval of the mean, normal */
    struct sim_spread spread;       /* of the regret */
};
struct sim_result {
    int      n_points;
    struct sim_point point[SIM_MAX_POINTS];
    int      n_reached;             /* seeds that reached it at all */
    struct sim_spread reached;      /* evaluations until then; INFINITY where too few seeds did */
    double   reached_low, reached_high; /* 95 % interval of the median, by order statistics */
    double   reached_mean;          /* over all seeds; INFINITY where one did not */
    uint64_t evaluations;           /* over all seeds */
};

/* -ERR_INPUT as search_open, when constraints leave nothing that is listed, and for races where a network has too few initialisations. */
int sim_run(const struct sim_cfg *cfg, struct sim_result *out, struct errbuf *e);

#endif
