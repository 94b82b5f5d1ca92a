/* ties.h - which of the best cannot be told apart. Thread: pure. */
#ifndef DIDACT_CLIENT_TIES_H
#define DIDACT_CLIENT_TIES_H

#include <jansson.h>
#include <stddef.h>

/* How many of `best` (TRIAL documents, best first) are not significantly below the first: the first at least.
 *
 * A trial's score is the mean of n initialisations; an architecture's own draw has nothing in common with another's, so samples are not
 * paired. With n of 2 or 3 each standard error alone says little, so the variance is pooled over all rows of the list,
 *     s^2 = sum_i sum_k (x_ik - mean_i)^2 / df,   df = sum_i (n_i - 1)
 * and row i is tied with the first while  score_1 - score_i <= t(0.975, df) s sqrt(1/n_1 + 1/n_i)  (two-sided, 95 %). Where no row has two
 * initialisations nothing is known of the spread: *df is 0, and the answer 1. */
size_t ties_with_first(const json_t *best, int *df);
double ties_t975(int df); /* the 97.5 % quantile of Student's t; df >= 1 */

#endif
