/* adam.h - the outer optimiser (Kingma and Ba 2015, with bias correction) on a flat float vector.
 * Plain IEEE operations in a fixed order: the same bits on any machine. */
#ifndef DIDACT_WORKER_ADAM_H
#define DIDACT_WORKER_ADAM_H

#include <stdint.h>

struct adam {
    double   beta1, beta2, eps;
    uint64_t step;  /* updates made so far */
    float   *m, *v; /* [n], borrowed: they are saved with the parameters */
};

/* Call once an update, then adam_apply for each part of the vector. */
void adam_next(struct adam *a);
/* p[i] -= lr * m^ / (sqrt(v^) + eps) for i in [first, first + n), with g scaled by g_scale first. */
void adam_apply(struct adam *a, float *p, const float *g, double g_scale, uint64_t first, uint64_t n, double lr);

#endif
