/* ties.h - which of the best cannot be told apart. Thread: pure. */
#ifndef DIDACT_CLIENT_TIES_H
#define DIDACT_CLIENT_TIES_H

#include <jansson.h>
#include <stddef.h>

#define TIES_ROWS 500 /* so many rows of a list are looked at, however many it has: what is said does not depend on how many are shown */

/* How many of `best` (TRIAL documents, the highest rung first and in it the best) are on the first one's rung. Only these compare with it: what other
 * steps or fewer initialisations gave has another spread and another mean. A rung has one number of initialisations, so theirs do not differ. */
size_t ties_rung(const json_t *best);

/* How many of them are not significantly below the first: the first at least.
 *
 * A trial's score is the mean of n initialisations; an architecture's own draw has nothing in common with another's, so samples are not
 * paired. With n of 2 or 3 each standard error alone says little, so the variance is pooled over the rows of the first one's rung,
 *     s^2 = sum_i sum_k (x_ik - mean_i)^2 / df,   df = sum_i (n_i - 1)
 * and row i is tied with the first while  score_1 - score_i <= t(0.975, df) s sqrt(1/n_1 + 1/n_i)  (two-sided, 95 %). Where no row has two
 * initialisations nothing is known of the spread: *df is 0, and the answer 1. */
size_t ties_with_first(const json_t *best, int *df);
double ties_t975(int df); /* the 97.5 % quantile of Student's t; df >= 1 */

/* How many are on a rung from `lowest` on that is below the first one's, and score above the first; *top is the best of them (NULL: none). */
size_t ties_above(const json_t *best, int lowest, const json_t **top);

#endif
