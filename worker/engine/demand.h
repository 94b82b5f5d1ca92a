/* demand.h - what a task would take, known exactly before it starts: for the worker that refuses it, and for the coordinator that
 * sends it elsewhere. Nothing is computed or allocated here, and the numbers are the same on every machine.
 * Thread: everything here is pure. */
#ifndef DIDACT_ENGINE_DEMAND_H
#define DIDACT_ENGINE_DEMAND_H

#include "worker/engine/engine.h"

#define EVAL_BATCH 500 /* images at most; part of a score's identity */

struct demand {
    uint64_t mem_bytes;
    uint64_t train_flops; /* of all steps of one learner (score), of one step (train); 2 a multiply-add */
    uint64_t eval_flops;  /* of one forward of all images of an evaluation (score); 0 (train) */
};

/* The first `images` of n validation images, in ceil(/500) batches of equal size; n is rounded down to fill them. */
void demand_eval_cut(int images, int n, int *batch, int *n_batches);
/* Score: T steps of B curriculum images, evaluation in those batches. */
int  demand_score(const struct net *n, int T, int B, const struct inner_cfg *inner, int eval_batch, int n_batches, struct demand *d,
                  struct errbuf *e);
/* Real training in batches of B of n_train images and K classes. */
int  demand_train(const struct net *n, int B, uint64_t n_train, int K, struct demand *d, struct errbuf *e);

/* Memory of a forward pass of `batch` images with its weights, as latency is measured. */
int  demand_latency(const struct net *n, int batch, uint64_t *bytes, struct errbuf *e);

#endif
