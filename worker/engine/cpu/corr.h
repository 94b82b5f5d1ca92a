/* corr.h - how threads share a gradient with respect to weights: gw = sum over units (images, or chunks of cut.h) of their parts.
 *
 * The sum is p0, then + p1, then + p2 …, each part summed by itself first. Threads may divide the weights: each goes through all
 * units, and reads what the others have in their caches. Or they divide the units, if all parts of a few weights have room:
 * every part lies by itself and the parts are added in order afterwards, to the same bits. */
#ifndef DIDACT_ENGINE_CORR_H
#define DIDACT_ENGINE_CORR_H

#include "worker/engine/cpu/geom.h"

#define PARTS_BYTES (128u << 10)

/* d (+)= the part of one unit, of the weights from … to - 1 in whatever the op counts (whole rows, taps, vectors) */
typedef void corr_fn(const void *q, int unit, int from, int to, int thread, real *d, bool add);
struct corr_job {
    corr_fn    *fn;
    const void *q;
    int         units, whole;  /* images or chunks; all weights as fn counts them */
    real       *gw;
    size_t      elems;         /* of gw */
    bool        more;          /* gw goes on: units went before */
    real       *parts;         /* [room][elems] */
    int         room;          /* corr_parts of the whole batch */
    int         first;         /* unit of the parts at hand */
    int         threads;
};

/* Parts that have room at a time, of a batch of so many images; 0 where it is not worth it. */
static inline int corr_parts(size_t elems, int images)
{
    const size_t room = PARTS_BYTES / (elems * sizeof(real)), n = room < (size_t)images ? room : (size_t)images;
    return n < 4 ? 0 : n > 64 ? 64 : (int)n;
}

static void corr_by_weights(void *arg, int task, int thread)
{
    const struct corr_job *j = arg;
    const int from = (int)((int64_t)j->whole * task / j->threads), to = (int)((int64_t)j->whole * (task + 1) / j->threads);
    for (int u = 0; u < j->units && from < to; u++)
        j->fn(j->q, u, from, to, thread, j->gw, j->more || u > 0);
}

static void corr_by_units(void *arg, int i, int thread)
{
    const struct corr_job *j = arg;
    j->fn(j->q, j->first + i, 0, j->whole, thread, j->parts + (size_t)i * j->elems, false);
}

static inline void corr_run(struct eng_pool *pool, struct corr_job j)
{
    const int threads = eng_pool_threads(pool);
    j.threads = threads < KERNEL_THREADS ? threads : KERNEL_THREADS;
    if (j.threads == 1 || j.room == 0 || j.units == 1) {
        eng_pool_for(pool, j.threads, corr_by_weights, &j);
        return;
    }
    for (; j.first < j.units; j.first += j.room) {
        const int n = j.units - j.first < j.room ? j.units - j.first : j.room;
        eng_pool_for(pool, n, corr_by_units, &j);
        for (int i = 0; i < n; i++) {
            const real *restrict part = j.parts + (size_t)i * j.elems;
            real *restrict gw = j.gw;
            if (!j.more && j.first + i == 0)
                memcpy(gw, part, j.elems * sizeof *gw);
            else
                for (size_t e = 0; e < j.elems; e++)
                    gw[e] += part[e];
        }
    }
}

#endif
