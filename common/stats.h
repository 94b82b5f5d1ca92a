/* stats.h - how well one column ranks like another: correlations of ranks with bootstrap intervals, and what a pick by one
 * column loses in the other. Pure; the same numbers on any machine (resamples come from common/rng.h).
 * Source: tau-b and its tie terms, Kendall 1945; percentile bootstrap over pairs, Efron 1979; intervals on Fisher's scale for rho, Bonett and
 * Wright 2000, and for tau, Fieller, Hartley and Pearson 1957. */
#ifndef DIDACT_STATS_H
#define DIDACT_STATS_H

#include <stdint.h>

#define STATS_RESAMPLES 2000

enum rank_stat { RANK_SPEARMAN, RANK_KENDALL, RANK_STAT_COUNT };
const char *rank_stat_name(enum rank_stat k); /* "spearman" "kendall" */

/* Spearman's rho is Pearson's correlation of the ranks, ties sharing their mean rank; Kendall's tau-b is
 * (concordant - discordant) / sqrt((pairs not tied in x) (pairs not tied in y)). x, y [n], all finite.
 * NaN for n < 2, where one side is constant, or when memory is out. O(n log n). */
double rank_corr(enum rank_stat k, const double *x, const double *y, int n);

struct estimate { double value, low, high; }; /* low, high: 2.5 % and 97.5 %; NaN: none */

/* The same with an interval: a percentile bootstrap of STATS_RESAMPLES resamples of the pairs from the stream (seed, RNG_BOOTSTRAP, 0), each
 * O(n) for Spearman and O(n log n) for Kendall. It does not depend on the order in which the pairs stand.
 * Fewer than STATS_SMALL pairs have too few resamples (those of a sample in perfect order are all in perfect order): there the interval
 * is the hull of this one and of the one on Fisher's scale, where |value| is taken half a step below 1 at most. Fewer pairs
 * than that scale is good for (4, Kendall 5) say nothing: -1 to 1.
 * No interval for fewer than 3 pairs, or where hardly any resample has a correlation. Returns 0 or -ERR_NOMEM. */
#define STATS_SMALL 20
int rank_interval(enum rank_stat k, const double *x, const double *y, int n, uint64_t seed, struct estimate *out);
/* The same for rank_corr(k, x1, y) - rank_corr(k, x2, y), both of each resample: what two columns have in common (which networks were drawn)
 * drops out, so an interval above 0 shows what two intervals that overlap cannot. The bootstrap alone, and no interval for fewer
 * than STATS_LEAST_DIFFERENCE pairs. */
#define STATS_LEAST_DIFFERENCE 8
int rank_difference(enum rank_stat k, const double *x1, const double *x2, const double *y, int n, uint64_t seed, struct estimate *out);

/* The pairs in the better half by y: the ceil(n / 2) largest, and with them all that tie with the smallest of these.
 * tx, ty have room for n. Returns how many; -ERR_NOMEM. */
int stats_top_half(const double *x, const double *y, int n, double *tx, double *ty);

/* How much worse than the best y is the best y among the k largest x. Where ties in x leave open which are among the k, the mean over
 * all choices, exactly. NaN for n < 1; k is cut to n. NaN when memory is out. */
double stats_regret(const double *x, const double *y, int n, int k);

#endif
