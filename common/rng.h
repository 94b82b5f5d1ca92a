/* rng.h - counter-based random numbers (Philox4x32-10; Salmon et al., SC 2011).
 * A stream is named by (seed, purpose, index): the same name gives the same numbers on any
 * machine, in any order of use, whoever asks. No global state; a stream is owned by one thread. */
#ifndef DIDACT_RNG_H
#define DIDACT_RNG_H

#include <stddef.h>
#include <stdint.h>

enum rng_use { /* purposes keep streams of one seed apart; numbers are forever (they are in recorded results) */
    RNG_WEIGHTS = 1, /* initial weights of a learner */
    RNG_SEARCH = 2,  /* proposals of a searcher */
    RNG_BATCH = 3,   /* which images enter a batch */
    RNG_AUGMENT = 4, /* flips and shifts */
    RNG_SPLIT = 5,   /* train / validation split */
    RNG_TEACHER = 6, /* the generator's initial parameters and inputs */
    RNG_LEARNER = 7, /* which architectures a meta-step draws */
    RNG_BOOTSTRAP = 8,
    RNG_BACKOFF = 9,
    RNG_SAMPLE = 10, /* random choice of trials (verify, audit) */
    RNG_TEST = 99
};

struct rng {
    uint32_t key[2], ctr[4], out[4];
    int      left; /* words of `out` not handed out yet */
};

void     rng_init(struct rng *r, uint64_t seed, enum rng_use use, uint64_t index);
uint32_t rng_u32(struct rng *r);
uint64_t rng_u64(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n); /* uniform in [0, n), n >= 1, no modulo bias */
double   rng_uniform(struct rng *r);           /* [0, 1), 53 bits */
double   rng_normal(struct rng *r);            /* mean 0, variance 1 (Box-Muller, libm) */
/* A permutation of 0..n-1 into p (Fisher-Yates). */
void     rng_permute(struct rng *r, uint32_t *p, uint32_t n);
/* One 64-bit seed out of (seed, use, index): to name child streams. */
uint64_t rng_derive(uint64_t seed, enum rng_use use, uint64_t index);

#endif
