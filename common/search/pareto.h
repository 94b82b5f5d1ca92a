/* pareto.h - non-dominated sorting and crowding (Deb, Pratap, Agarwal, Meyarivan, NSGA-II, IEEE TEC 6(2), 2002).
 * Values are rows v[n][m], smaller is better in each; a dominates b where it is nowhere worse and somewhere better.
 * Thread: pure. */
#ifndef DIDACT_SEARCH_PARETO_H
#define DIDACT_SEARCH_PARETO_H

#include "common/job.h"

#include <stdbool.h>
#include <stdint.h>

bool pareto_dominates(const double *a, const double *b, int m);
/* rank [n]: 0 for the front, 1 for the front of the rest, …; crowd [n]: distance of the neighbours within the front, summed over the
 * objectives, each as a share of the front's extent; INFINITY at its ends. work [2 n]. O(m n²). */
void pareto_rank(const double *v, int n, int m, int *rank, double *crowd, int *work);

/* A trial's values of these objectives, those to be maximised with their sign changed. v [n_objectives]. A latency that is not known (0) is
 * worse than any. */
void pareto_values(const struct job_spec *s, double score, uint64_t params, uint64_t macs, double latency_ms, double *v);

#endif
