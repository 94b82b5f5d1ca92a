/* evaluate.h - accuracy of a learner on real validation images, with batch normalisation on the batch at hand.
 * The batches are fixed, so that a score is a fact: the first n validation images in order, cut into
 * ceil(n / 500) batches of equal size (n is rounded down to fill them).
 * Thread: an evaluator is used by one thread. */
#ifndef DIDACT_WORKER_EVALUATE_H
#define DIDACT_WORKER_EVALUATE_H

#include "worker/datacache.h"
#include "worker/engine/demand.h"

struct evaluator {
    struct eng_plan *plan;          /* owned */
    float           *logits;        /* owned [batch,K] */
    const struct real_data *data;   /* borrowed */
    int              batch, n_batches;
};

/* How many images to a batch and how many batches, out of `images` wanted (at most the split's). */
void   eval_batches(const struct real_data *data, int images, int *batch, int *n_batches);
int    evaluator_init(struct evaluator *v, const struct net *n, const struct real_data *data, int images, struct eng_pool *pool,
                      struct errbuf *e);
void   evaluator_fini(struct evaluator *v);
double evaluator_accuracy(struct evaluator *v, const float *w); /* w [P], the engine's layout */

#endif
