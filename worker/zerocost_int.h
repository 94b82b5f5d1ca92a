/* zerocost_int.h - what the files zerocost*.c share. Not for anybody else. */
#ifndef DIDACT_WORKER_ZEROCOST_INT_H
#define DIDACT_WORKER_ZEROCOST_INT_H

#include "worker/zerocost.h"

#include <math.h>

/* What is at hand when a score is taken; members that no wanted score needs are NULL. */
struct zc_work {
    const struct zc_input *in;
    float    *g[ZC_BATCHES];    /* [P] gradient of the loss, batch by batch */
    float    *gx;               /* [batch, image] gradient of the sum of all outputs of the first batch */
    uint64_t  image;
    uint32_t *differ;           /* [batch, batch] rectified units in which two images' codes differ */
    uint64_t  units;            /* of one image */
};

/* One score each; what is not a finite number is not known. */
typedef int (*zc_fn)(const struct zc_work *k, double *score, struct errbuf *e);
int zc_synflow(const struct zc_work *k, double *score, struct errbuf *e);
int zc_naswot(const struct zc_work *k, double *score, struct errbuf *e);
int zc_jacob_cov(const struct zc_work *k, double *score, struct errbuf *e);
int zc_zico(const struct zc_work *k, double *score, struct errbuf *e);
int zc_snip(const struct zc_work *k, double *score, struct errbuf *e);
int zc_grad_norm(const struct zc_work *k, double *score, struct errbuf *e);

/* Count where the ReLU codes of each pair of images differ: an eng_watch with a struct zc_codes. */
struct zc_codes { uint32_t *differ; uint64_t units; bool failed; };
void zc_watch_codes(void *arg, const struct eng_rectified *r);

int zc_synflow_predict(const struct net *n, uint64_t *bytes, struct errbuf *e);

double zc_log(double x);        /* natural; within 1e-15 of the truth relatively, the same bits everywhere */
/* a [n,n] symmetric becomes L D L^T: D on the diagonal, L below. false: not positive definite to working precision. */
bool   zc_factor(double *a, int n);

/* Weights of convolutions and linear layers: what the published scores look at. */
static inline bool zc_counts(const struct net_param *p) { return p->role == NET_WEIGHT || p->role == NET_WEIGHT_V; }

#endif
