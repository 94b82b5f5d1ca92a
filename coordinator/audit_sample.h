/* audit_sample.h - the networks of one search that were also trained for real under one regime, and every number that the search
 * recorded of them: the table whose columns an audit compares. */
#ifndef DIDACT_COORDINATOR_AUDIT_SAMPLE_H
#define DIDACT_COORDINATOR_AUDIT_SAMPLE_H

#include "coordinator/store/store.h"

#include "common/predictors.h"

#define AUDIT_MAX_COLS 48 /* columns beyond these are left out */
#define AUDIT_MAX_JOBS 64 /* verify jobs that one sample names */

struct audit_pair {
    char     arch[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1];
    int64_t  trial;                 /* the first scored trial of the search with this network; -1: none */
    enum trial_group group;         /* of the first training */
    double   sum, seconds;          /* real accuracy and device-seconds, added up over `seeds` trainings */
    int      seeds;
    double   value[AUDIT_MAX_COLS]; /* NaN: not recorded */
};

struct audit_regime { /* what makes real trainings comparable */
    double   epochs, lr, momentum, weight_decay;
    int      batch, shift;
    bool     flip;
    hash_str dataset;
    bool     standing;              /* by the search's own audit: accuracy on the validation split, else on the test split */
};

struct audit_sample {
    struct audit_regime regime;
    uint64_t job[AUDIT_MAX_JOBS];
    int      n_jobs;
    struct audit_pair *v;           /* owned; in order of arrival, by hash during the join, by trial after it */
    int      n, cap, failed;
    int      n_cols;
    char     col[AUDIT_MAX_COLS][PREDICTOR_NAME_MAX];
    bool     nomem;
};

void audit_sample_fini(struct audit_sample *s);
bool audit_regime_same(const struct audit_regime *a, const struct audit_regime *b);
/* One real training, scored or failed; `accuracy` is counted where it is scored. Seeds of one network must be told in one run, or before
 * the join: a network seen before is found by its hash. */
void audit_sample_train(struct audit_sample *s, const struct trial_row *t, double accuracy);
void audit_sample_join_begin(struct audit_sample *s);
/* A scored trial of the search: where its network is in the sample and has no trial yet, its numbers fill the row. */
void audit_sample_join(struct audit_sample *s, const struct trial_row *t);
void audit_sample_join_end(struct audit_sample *s); /* sorts by trial: from here on nothing is found by hash */
void audit_sample_set(struct audit_sample *s, struct audit_pair *p, const char *col, double v);
struct audit_pair *audit_sample_find(struct audit_sample *s, const char *hash); /* during the join; NULL: not in it */

#endif
