/* score_column.h - the numbers of a scored trial by which trials can be ranked, and the rule that fuses several of them.
 *
 * Fusion (AZ-NAS, Lee and Ham, CVPR 2024, arXiv:2403.19232): with N trials and r_c in 1 … N the rank of a trial in column c (N: the
 * best; equal values share the mean of their ranks), fused = sum over c of log(r_c / N): 0 for one that is best in all columns. A
 * trial whose column is not known has the lowest rank there, shared with the others of its kind.
 * The rank is among the trials that are given: a fused score is a statement about a set, and changes as the set grows.
 * Thread: pure. */
#ifndef DIDACT_SCORE_COLUMN_H
#define DIDACT_SCORE_COLUMN_H

#include "common/err.h"
#include "common/job.h"

#define FUSED_NAME "fused"

struct score_column {
    const char *name, *about;
    bool        higher;            /* is better */
};
extern const struct score_column score_columns[SCORE_COLUMNS]; /* the first few below, then those of zero_cost.h */

int    score_column_from(const char *name);                            /* -1: there is no such column */
double score_column_value(int column, const struct trial_result *r);   /* NaN: not known */

/* value [n_columns][n], not a number where not known; higher [n_columns]: is more of it better? out [n]. O(columns n log n). */
int    score_fuse(const bool *higher, int n_columns, size_t n, const double *value, double *out, struct errbuf *e);

#endif
