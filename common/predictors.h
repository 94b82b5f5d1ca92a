/* predictors.h - columns of numbers that are known of networks, each judged by how it ranks them beside what they are worth: the body of every
 * audit, of a job (coordinator/audit_doc.c) and of tables (client/audit_table.c).
 * Thread: pure. */
#ifndef DIDACT_PREDICTORS_H
#define DIDACT_PREDICTORS_H

#include "common/err.h"

#include <jansson.h>
#include <stdint.h>

#define PREDICTOR_NAME_MAX 48 /* bytes with the final 0 */

struct predictor_table {
    int           n, n_cols;
    const char  (*col)[PREDICTOR_NAME_MAX];
    const double *value;       /* [n_cols][n]; not finite: not known */
    const double *truth;       /* [n], finite: real accuracy */
    const char *const *arch;   /* [n] */
    const int64_t *trial;      /* [n]; -1: of no job */
    uint64_t      seed;        /* of the resamples */
};

/* Is less of it better? Such a column is turned round, so that a positive correlation means right. */
bool predictor_falls(const char *name);
/* Appends {name, sign, all: {n, spearman, kendall, minus_params}, top_half: likewise, regret: {top1, top10}, pick} for each column that is known of
 * any network. -ERR_NOMEM. O(n log n) for each of STATS_RESAMPLES resamples and column (common/stats.h). */
int  predictors_doc(const struct predictor_table *t, json_t *list, struct errbuf *e);

#endif
