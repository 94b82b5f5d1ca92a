#include "common/rng.h"

#include <math.h>

static void philox(const uint32_t ctr[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3], k0 = key[0], k1 = key[1];
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The key is the seed; the counter starts at (block 0, purpose, index). 2^32 blocks of four words a stream. */
void rng_init(struct rng *r, uint64_t seed, enum rng_use use, uint64_t index)
{
    *r = (struct rng){ .key = { (uint32_t)seed, (uint32_t)(seed >> 32) },
                       .ctr = { 0, (uint32_t)use, (uint32_t)index, (uint32_t)(index >> 32) } };
}

uint32_t rng_u32(struct rng *r)
{
    if (r->left == 0) {
        philox(r->ctr, r->key, r->out);
        r->ctr[0]++;
        r->left = 4;
    }
    return r->out[4 - r->left--];
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t hi = rng_u32(r);
    return hi << 32 | rng_u32(r);
}

uint32_t rng_below(struct rng *r, uint32_t n) /* Lemire 2019: multiply, reject the short slice */
{
    uint64_t m = (uint64_t)rng_u32(r) * n;
    if ((uint32_t)m < n) {
        uint32_t floor = (uint32_t)(-n) % n;
        while ((uint32_t)m < floor)
            m = (uint64_t)rng_u32(r) * n;
    }
    return (uint32_t)(m >> 32);
}

double rng_uniform(struct rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

double rng_normal(struct rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void rng_permute(struct rng *r, uint32_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = rng_below(r, i), t = p[i - 1];
        p[i - 1] = p[j];
        p[j] = t;
    }
}

uint64_t rng_derive(uint64_t seed, enum rng_use use, uint64_t index)
{
    struct rng r;
    rng_init(&r, seed, use, index);
    r.ctr[0] = 0xFFFFFFFFu; /* the last block: no stream of this name reaches it */
    return rng_u64(&r);
}
