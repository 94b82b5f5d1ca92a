/* zerocost.h - scores of a network at its initial weights, without training (names: common/zero_cost.h).
 *
 * A score is a pure function of (network, dataset, seed, engine version): the weights are those of the learner's first
 * initialisation, the images two fixed batches of the training split drawn by the dataset's hash. All sums are in double and in a
 * fixed order, logarithms our own: the same bits on every processor and for any number of threads.
 * Batch norms use the batch at hand, as in the published code; so an image's input gradient depends on its batch.
 * Thread: pure; the pool is used as in engine.h. */
#ifndef DIDACT_WORKER_ZEROCOST_H
#define DIDACT_WORKER_ZEROCOST_H

#include "common/zero_cost.h"
#include "worker/datacache.h"
#include "worker/engine/engine.h"

/* What the scores are computed from. */
struct zc_input {
    const struct net *net;
    const float *w;                                /* [P], the engine's layout */
    int          batch;
    const float *x[ZC_BATCHES], *y[ZC_BATCHES];    /* [batch,H,W,C], [batch,K]; no image twice */
    struct eng_pool *pool;                         /* borrowed, may be NULL */
};

/* The scores of the set `wanted` (bits). -ERR_NOMEM, and -ERR_SHAPE where the network has nothing to learn. */
int zerocost_compute(const struct zc_input *in, uint32_t wanted, struct zero_cost_scores *out, struct errbuf *e);
/* The same on the dataset's own batches. -ERR_INPUT where it has fewer than four training images. */
int zerocost_scores(const struct net *n, const struct real_data *data, uint64_t seed, struct eng_pool *pool, uint32_t wanted,
                    struct zero_cost_scores *out, struct errbuf *e);
/* Peak memory of zerocost_scores. */
int zerocost_predict(const struct net *n, const struct real_data *data, uint32_t wanted, uint64_t *bytes, struct errbuf *e);

#endif
