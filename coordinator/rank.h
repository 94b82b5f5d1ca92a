/* rank.h - the scored trials of a search, in order of any of their columns or of the fused score (common/score_column.h).
 * Cost: reads every scored trial, O(n log n); never part of a trial's own path. Thread: the reader's. */
#ifndef DIDACT_COORDINATOR_RANK_H
#define DIDACT_COORDINATOR_RANK_H

#include "common/score_column.h"
#include "coordinator/store/store.h"

struct ranked {
    uint64_t idx;
    int      rung;                        /* of successive halving: a higher one stands before all lower ones */
    double   value;                       /* of the column, or fused; NaN: not known, and last */
    char     hash[ARCH_HASH_LEN + 1];
};

/* A column by name, or the fused score of the job's own columns. -ERR_INPUT where there is no such column, or the job does not have it. */
struct rank_by { int n, column[SCORE_COLUMNS]; bool fused; };
int rank_by_name(const struct job_spec *s, const char *name, struct rank_by *out, struct errbuf *e);

/* The highest rung first and in it the best, equal ones by index; fused scores are of ranks within a rung. *out is malloc'ed. */
int rank_scored(struct reader *r, uint64_t job, const struct rank_by *by, struct ranked **out, size_t *n, struct errbuf *e);

#endif
