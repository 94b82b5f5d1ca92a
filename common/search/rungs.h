/* rungs.h - asynchronous successive halving (ASHA: Li et al., MLSys 2020, arXiv:1810.05934). A new architecture is scored at rung 0, the
 * cheapest fidelity (job_fidelity). As soon as one that was not promoted yet is among the best 1/reduction of the visible
 * results of its rung, the next proposal is its promotion: the same architecture and seed at the next rung; higher rungs first.
 * No rung waits to be full. A failed trial counts as the worst of its rung and is never promoted.
 * Cost: O(log n) comparisons a result; memory: every result that was not promoted keeps its text. */
#ifndef DIDACT_SEARCH_RUNGS_H
#define DIDACT_SEARCH_RUNGS_H

#include "common/search/search.h"

struct rung_entry { double score; uint64_t idx; char *arch; /* owned */ };
struct rung {
    uint64_t n;                           /* results */
    struct rung_entry *heap;              /* owned; not promoted, the best at 0 */
    double  *promoted;                    /* owned; scores, rising */
    size_t   n_heap, cap_heap, n_promoted, cap_promoted;
};
struct rungs {
    int n, reduction;                     /* rungs below the top; 0: no halving */
    struct rung rung[MAX_RUNGS];
};

void rungs_init(struct rungs *r, const struct job_spec *spec);
void rungs_fini(struct rungs *r);
int  rungs_observe(struct rungs *r, int rung, const struct search_result *res, struct errbuf *e); /* -ERR_NOMEM */
/* The next promotion: its rung is the one it goes to; NULL: none. */
const struct rung_entry *rungs_next(const struct rungs *r, int *rung);
/* It was proposed, now or in an earlier life. -ERR_CORRUPT where trial `idx` was not the next. */
int  rungs_promote(struct rungs *r, int rung, uint64_t idx, struct errbuf *e);

#endif
