/* rungs.h - who is scored again, at a higher rung: successive halving below the job's fidelity, racing above it. A new architecture is scored at
 * rung 0. A promotion is the same architecture and seed at the next rung; a failed trial is never promoted.
 *
 * Halving (asynchronous: ASHA, Li et al., MLSys 2020, arXiv:1810.05934), rungs below n_halving: as soon as one that was not promoted yet is among
 * the best 1/reduction of the visible results of its rung, the next proposal is its promotion; higher rungs first. No rung waits to be full.
 *
 * Racing (successive elimination), rungs from n_halving on: each adds initialisations. The noise of a score is the spread over initialisations,
 * pooled over the rung's results. Where the best `among` of a rung cannot be told from the next one (their difference is within z standard errors),
 * all that cannot be told from the last of them go on, the best first; the others are out. A round begins when nothing that was promoted into its
 * rung is still under way, the first one after so many results, and at most a share of these takes part. So whoever is on a higher rung is as good as
 * all that were left behind, as far as can be told, and the race is over when the best are separated or the rounds are used up.
 *
 * Races go before halving, lower rounds first, and both before new architectures. All of it is a function of visible results and earlier proposals.
 * Cost: O(log n + among) comparisons a result; memory: every result that was not promoted keeps its text. */
#ifndef DIDACT_SEARCH_RUNGS_H
#define DIDACT_SEARCH_RUNGS_H

#include "common/search/search.h"

struct rung_entry { double score; uint64_t idx; char *arch; /* owned */ };
struct rung {
    uint64_t n;                           /* results */
    struct rung_entry *heap;              /* owned; not promoted, the best at 0 */
    double  *promoted;                    /* owned; scores, rising */
    size_t   n_heap, cap_heap, n_promoted, cap_promoted;
    double   top[RACING_MAX_AMONG + 1];   /* racing: the best scores, falling */
    int      n_top;
    double   squares;                     /* racing: sum of squares around the means of their initialisations, */
    uint64_t df;                          /* and its degrees of freedom */
};
struct rungs {
    int n_halving, reduction;             /* rungs below `fidelity`; 0: no halving */
    int n;                                /* and those that a race may go on from; the top rung is n */
    struct racing_cfg racing;
    int inits[MAX_RUNGS];                 /* of a score on rung n_halving + k */
    struct rung *rung;                    /* owned [n] */
};

int  rungs_init(struct rungs *r, const struct job_spec *spec, struct errbuf *e); /* -ERR_NOMEM */
void rungs_fini(struct rungs *r);
int  rungs_observe(struct rungs *r, int rung, const struct search_result *res, struct errbuf *e); /* -ERR_NOMEM */
/* The next promotion: its rung is the one it goes to; NULL: none. */
const struct rung_entry *rungs_next(const struct rungs *r, int *rung);
/* It was proposed, now or in an earlier life. -ERR_CORRUPT where trial `idx` was not the next. */
int  rungs_promote(struct rungs *r, int rung, uint64_t idx, struct errbuf *e);

#endif
