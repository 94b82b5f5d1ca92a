/* case_int.h - between case_compute.c, which reads tensors and runs the CPU's engine, and case_device.c. */
#ifndef DIDACT_CASE_INT_H
#define DIDACT_CASE_INT_H

#include "worker/case.h"

/* Everything in the engine's layouts and the case's precision; integer labels have become one-hot rows. */
struct case_work {
    uint64_t P, G;              /* parameters of learner and generator */
    size_t   image, n_x, n_y;   /* elements of one image, of x, of y */
    void    *w0, *x, *y, *phi, *z;
    double  *lr, *mu;
    int     *label;             /* [T*B], generator mode */
    int      n_meta;
    struct unroll_meta meta[CASE_MAX_META + 1];
    void    *real_x, *real_y;   /* the meta batches, one after the other */
    struct unroll_out out;
    void    *dphi, *dz, *flat;  /* flat: [B, zdim+K], the generator's input */
    void    *tmp_phi, *tmp_in;
    struct eng_plan *gen, *eval;
    struct eng_pool *pool;
    struct unroll   *u;
};

/* The generator's input of step t, [B, zdim+K]. */
void case_generator_input(const struct gcase *c, const struct case_work *k, int t, void *to);
/* The case's outer step on a device, float32: fills k->out, in generator mode k->x, k->dphi and k->dz, too. Errors as slab.h's, -ERR_DIVERGED as
 * unroll_meta_grad's, -ERR_INPUT where the case is in double or has more real batches than a slab. */
int case_on_device(const struct gcase *c, struct case_work *k, const struct device *d, struct errbuf *e);

#endif
