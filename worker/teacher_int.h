/* teacher_int.h - shared by the files of the teacher, and by nobody else. */
#ifndef DIDACT_WORKER_TEACHER_INT_H
#define DIDACT_WORKER_TEACHER_INT_H

#include "worker/teacher.h"

#include "worker/engine/engine.h"

#include <stdbool.h>

/* One learner of the current meta-step. */
struct learner_run {
    struct net net;
    char       arch[ARCH_TEXT_MAX];
    uint64_t   macs, bytes, budget; /* budget: of its unroll, where the usual way would not fit; or 0 */
    float     *dx, *dy;
    double    *dlr, *dmu;
    double     loss, norm;
    int        rc;
    struct errbuf err;
};

/* A training image of each slot's class into x [T*B,H,W,C] (teacher_warm.c). */
int  teacher_real_images(const struct teacher *t, float *x, struct errbuf *e);
bool learner_norm(const struct teacher *t, struct learner_run *r);

#endif
