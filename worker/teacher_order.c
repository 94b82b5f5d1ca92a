/* teacher_order.c - in which order a generator's inputs are shown: the curriculum and its ablation (GTN, arXiv 1912.07768, its ablation of the
 * curriculum). A place is image i of the T * B, a slot a learned input z with its class.
 *
 *   learned   place i shows slot i: a curriculum
 *   batches   the T batches in an order drawn anew for every meta-step: what is in a batch is learned, not when
 *   all       all slots in such an order: images are learned, not which go together
 *   none      z is noise, drawn anew: a generator that makes images of a class, and nothing else
 *
 * The step sizes stay those of the place. A curriculum file is one draw: that of the meta-step it was made at. */
#include "worker/teacher_int.h"

#include "worker/mem.h"

static uint64_t places(const struct teacher *t) { return (uint64_t)t->cfg.steps * (uint64_t)t->cfg.batch; }

int teacher_order_new(struct teacher *t, struct errbuf *e)
{
    const uint64_t n = places(t), z = n * (uint64_t)t->cfg.z_dim;
    if (t->kind->order == ORDER_LEARNED)
        return 0;
    return (t->slot = mem_array(n, sizeof *t->slot)) && (t->z = mem_array(z, sizeof *t->z)) && (t->dz = mem_array(z, sizeof *t->dz))
               ? 0 : err_set(e, ERR_NOMEM, "%llu inputs of the generator", (unsigned long long)n);
}

static void draw_order(struct teacher *t, struct rng *r)
{
    const uint32_t T = (uint32_t)t->cfg.steps, B = (uint32_t)t->cfg.batch;
    if (t->kind->order == ORDER_ALL) {
        rng_permute(r, t->slot, T * B);
    } else if (t->kind->order == ORDER_BATCHES) {
        rng_permute(r, t->slot, T);
        for (uint32_t i = T * B; i-- > 0;) /* from the end: what is read has not been written over */
            t->slot[i] = t->slot[i / B] * B + i % B;
    } else {
        for (uint32_t i = 0; i < T * B; i++)
            t->slot[i] = i;
    }
}

const float *teacher_inputs(struct teacher *t, uint64_t step)
{
    const float *learned = t->theta + t->part[PART_Z].first;
    const size_t width = (size_t)t->cfg.z_dim;
    struct rng r;
    if (t->kind->order == ORDER_LEARNED)
        return learned;
    rng_init(&r, rng_derive(t->seed, RNG_TEACHER, step + 1), RNG_TEACHER, 3);
    draw_order(t, &r);
    for (uint64_t i = 0; i < places(t); i++) {
        t->label[i] = (int)(t->slot[i] % (uint32_t)t->data->d.n_classes);
        if (t->kind->order != ORDER_NONE)
            memcpy(t->z + i * width, learned + t->slot[i] * width, width * sizeof *t->z);
    }
    for (uint64_t i = 0; t->kind->order == ORDER_NONE && i < places(t) * width; i++)
        t->z[i] = (float)rng_normal(&r);
    return t->z;
}

float *teacher_inputs_grad(struct teacher *t) { return t->kind->order == ORDER_LEARNED ? t->grad + t->part[PART_Z].first : t->dz; }

void teacher_inputs_back(struct teacher *t)
{
    float *g = t->grad + t->part[PART_Z].first;
    const size_t width = (size_t)t->cfg.z_dim;
    for (uint64_t i = 0; (t->kind->order == ORDER_BATCHES || t->kind->order == ORDER_ALL) && i < places(t); i++)
        memcpy(g + t->slot[i] * width, t->dz + i * width, width * sizeof *g);
}
