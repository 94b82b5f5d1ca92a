/* workload.h - the standard workloads W1, W2, W3 (docs/RESULTS.md), their data, and what every timing program needs. */
#ifndef DIDACT_BENCH_WORKLOAD_H
#define DIDACT_BENCH_WORKLOAD_H

#include "common/net.h"

struct workload {
    const char *name, *learner;
    int c, h, w, T, B;
    double lr, mu;
};
enum { N_WORKLOADS = 3, META = 512, K = 10, Z = 64 }; /* images of the meta-batch, classes, noise */
extern const struct workload workloads[N_WORKLOADS];

double now(void);
void   die(int rc, const struct errbuf *e);   /* where rc < 0 */
void   parse(struct net *n, const char *layers);
void   parse_generator(struct net *n, const struct workload *w);
float *noise(size_t n, uint64_t seed);
float *labels(size_t n);                      /* [n,K], one-hot in turn */
void  *need(size_t n, size_t size);           /* calloc or the end */
int    whole(const char *text, int least, int most); /* -1: not such a number */
int    by_value(const void *a, const void *b); /* doubles, for qsort */

#endif
