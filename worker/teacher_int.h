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
    float     *dx, *dy;             /* NULL on a device */
    double    *dlr, *dmu;
    double     loss, norm;
    int        rc;
    struct errbuf err;
};

/* ---- teacher_learn.c ---- */
/* New learners for t->meta_step, with what they will need: -ERR_INPUT, -ERR_NOMEM. */
int  learners_draw(struct teacher *t, struct errbuf *e);
/* All of them on the images, labels and schedule that are unfolded: each one's rc (0 or -ERR_DIVERGED), loss, norm and gradients. */
int  learners_run(struct teacher *t, struct errbuf *e);
/* The mean over those that made it into t->dlr, dmu, meta_loss and, on the CPU, t->dx and dy (else teacher_device.h); how many. */
int  learners_mean(struct teacher *t);
/* What learner k begins with: weights [P]; real batch j of n_meta_at + 1 ([meta_batch,…], labels), the step that it follows, its weight. */
void   learner_begin(const struct teacher *t, int k, float *w0);
void   learner_real(const struct teacher *t, int k, int j, float *x, float *y);
void   learner_rows(const struct teacher *t, int k, int j, int *row); /* the same batch by its rows in the dataset's train part */
int    learner_real_step(const struct teacher *t, int j);
double learner_real_weight(const struct teacher *t, int j);
/* r->norm over what a learner says about images and labels (their sum of squares is given) and, in log and logit form, the schedule; false:
 * not finite. */
bool   learner_norm(const struct teacher *t, struct learner_run *r, double squares);

/* What the generator is shown at meta-step `step`, [T*B,z_dim], and t->label with it; where its gradient goes; and from there to the learned
 * inputs (teacher_order.c). */
int  teacher_order_new(struct teacher *t, struct errbuf *e);
const float *teacher_inputs(struct teacher *t, uint64_t step);
float *teacher_inputs_grad(struct teacher *t);
void   teacher_inputs_back(struct teacher *t);

/* A training image of each slot's class into x [T*B,H,W,C] (teacher_warm.c). */
int  teacher_real_images(const struct teacher *t, float *x, struct errbuf *e);

#endif
