/* stats.h - rank correlation with an interval. Pure. */
#ifndef DIDACT_STATS_H
#define DIDACT_STATS_H

#include <stdint.h>

#define STATS_RESAMPLES 2000

/* Spearman's rho: Pearson's correlation of the ranks, ties sharing their mean rank. NaN for n < 2 or where one side is constant,
 * or when memory is out. */
double spearman(const double *x, const double *y, int n);
/* Percentile bootstrap over pairs, STATS_RESAMPLES resamples from the stream (seed, RNG_BOOTSTRAP, 0): 2.5 % and 97.5 %.
 * NaN where fewer than 3 pairs, or hardly any resample has a correlation. Returns 0 or -ERR_NOMEM. */
int spearman_interval(const double *x, const double *y, int n, uint64_t seed, double *low, double *high);

#endif
