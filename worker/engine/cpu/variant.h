/* variant.h - the functions that one kernel variant is made of; variant.c gathers them into its table. */
#ifndef DIDACT_ENGINE_VARIANT_H
#define DIDACT_ENGINE_VARIANT_H

#include "worker/engine/cpu/simd.h"
#include "worker/engine/op.h"

#define OP_DECLARE(e, n)                                                                                            \
    void KN(n##_forward)(const struct op_call *c);                                                                  \
    void KN(n##_backward)(const struct op_call *c);                                                                 \
    void KN(n##_dual_forward)(const struct op_call *c);                                                             \
    void KN(n##_dual_backward)(const struct op_call *c);
OP_LIST(OP_DECLARE)
#undef OP_DECLARE

/* aux and scratch sizes of the ops that have any */
size_t KN(conv_scratch)(const struct op_call *c);
size_t KN(upconv_scratch)(const struct op_call *c);
size_t KN(dwconv_scratch)(const struct op_call *c);
size_t KN(bias_scratch)(const struct op_call *c);
size_t KN(wnorm_scratch)(const struct op_call *c);
size_t KN(bn_aux)(const struct op_call *c);
size_t KN(bn_scratch)(const struct op_call *c);
size_t KN(maxpool_aux)(const struct op_call *c);
const char *KN(conv_way)(const struct op_call *c, bool transposed);

double KN(loss)(int B, int K, const void *logits, const void *y, void *gs);
double KN(dual_loss)(int B, int K, const void *logits, const void *sdot, const void *y, void *gs, void *gs_dot, void *yu);
int    KN(count_correct)(const void *logits, int n, int K, const int *label);

void   KN(shape_gradient)(const struct optim_ctx *c, const void *w, const void *g, void *out);
void   KN(unshape_gradient)(const struct optim_ctx *c, const void *g, void *a, void *q);
void   KN(affine)(uint64_t n, double a, double b, const void *x, void *y);
void   KN(axpy)(uint64_t n, double a, const void *x, void *y);
double KN(dot)(uint64_t n, const void *x, const void *y);
bool   KN(finite)(uint64_t n, const void *x);
extern const struct optim_row KN(optim_rows)[INNER_TYPE_COUNT];

#endif
