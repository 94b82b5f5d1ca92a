/* randnet.h - seeded random networks over the whole vocabulary of common/net.h, and random unrolls of them, for
 * property tests of the engine. The same seed gives the same network on any machine. Everything asserts instead of failing. */
#ifndef DIDACT_TESTS_RANDNET_H
#define DIDACT_TESTS_RANDNET_H

#include "common/net.h"
#include "common/rng.h"
#include "worker/engine/engine.h"

struct randnet_size {
    int      side_min, side_max;   /* of the image */
    int      n_channels, channels[12]; /* widths to choose from */
    int      layers_max;
    uint64_t params_max, macs_max; /* of one image's forward pass */
    int      K_min, K_max;
};
extern const struct randnet_size randnet_small; /* a few hundred parameters: cheap enough for differences in double */
extern const struct randnet_size randnet_wide;  /* 1 to 65 channels: every path of the float kernels */

/* Image in, logits out. Always has a parameter; every layer reaches the output. Caller: net_fini. */
void randnet(struct net *n, uint64_t seed, const struct randnet_size *size);
/* The layers, a line each, to stderr: what a failing seed was. */
void randnet_print(const struct net *n);

/* ---- numbers ---- */
void *rand_normal(struct rng *r, enum eng_dtype t, size_t n, double scale); /* malloc'ed [n] */
void *rand_labels(struct rng *r, enum eng_dtype t, size_t rows, int K, bool soft); /* rows that sum to 1, or nearly (soft) */
/* Weights for which nothing is exactly at a kink: Kaiming-like, biases and gains random. malloc'ed [P] */
void *rand_weights(struct rng *r, enum eng_dtype t, const struct net *n);
/* Copy of [n] numbers in the other precision; malloc'ed. */
void *in_float(const double *x, size_t n);

/* ---- a random unroll ---- */
struct randrun {
    struct net         net;        /* owned, with everything below */
    struct unroll_cfg  cfg;
    struct unroll_in   in;
    struct unroll_meta meta[3];
    size_t             P, image, K; /* elements of one image, of one label */
    double            *w0, *x, *y, *lr, *mu; /* double, whatever cfg.dtype says */
    double            *X[3], *Y[3];
};
/* Double; T 1..5, B 2..6, sgd or lars, with or without weight decay, one to three real losses. */
void randrun_init(struct randrun *r, uint64_t seed, const struct randnet_size *size);
void randrun_fini(struct randrun *r);

#endif
