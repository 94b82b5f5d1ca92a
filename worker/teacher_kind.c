/* teacher_kind.c - the table of teachers.
 * gtn: a generator shows learned inputs in a learned order; gtn-batches, gtn-shuffled and gtn-noise take the order away step by step
 * (teacher_order.c). distilled: the images themselves are learned, from real ones on
 * (dataset distillation; Wang et al. 2018, arXiv 1811.10959). real: batches of the train split, fresh ones every meta-step;
 * only the schedule is learned. The last is the control: whatever it reaches, the images are not the reason. */
#include "worker/teacher_int.h"

#include "worker/mem.h"

#include <math.h>

#define SHOWN_BATCH UINT64_MAX /* stream of the batches that `real` shows; learners' streams are small numbers */

/* ---- gtn, distilled ---- */

static int gtn_images(struct teacher *t, uint64_t step, bool here, struct errbuf *e)
{
    (void)step;
    return generator_forward(t->gen, t->theta, t->shown, t->label, here || !t->dev ? t->x : NULL, e);
}

static int distilled_images(struct teacher *t, uint64_t step, bool here, struct errbuf *e)
{
    (void)step;
    (void)here;
    (void)e;
    memcpy(t->x, t->theta + t->part[PART_IMAGES].first, t->n_x * sizeof *t->x);
    return 0;
}

/* What theta shows now, as pixels. */
static int learned_images_u8(struct teacher *t, uint8_t *out, float *labels, struct errbuf *e)
{
    const struct dataset *d = &t->data->d;
    float *x = mem_array(t->n_x, sizeof *x);
    if (!x)
        return err_set(e, ERR_NOMEM, "the curriculum's images");
    int rc = teacher_unfold(t, t->meta_step, true, e);
    if (rc < 0) {
        free(x);
        return rc;
    }
    eng_images_export(ENG_F32, (size_t)t->cfg.steps * (size_t)t->cfg.batch, d->c, d->h, d->w, t->x, x);
    for (size_t i = 0; i < t->n_x; i++) {
        float p = roundf((x[i] + 1) * 127.5f);
        out[i] = p > 0 ? p < 255 ? (uint8_t)p : 255 : 0; /* NaN becomes 0 */
    }
    memcpy(labels, t->y, t->n_y * sizeof *labels);
    free(x);
    return 0;
}

/* ---- real ---- */

static int real_images(struct teacher *t, uint64_t step, bool here, struct errbuf *e)
{
    struct rng r;
    (void)here;
    (void)e;
    rng_init(&r, rng_derive(t->seed, RNG_BATCH, step), RNG_BATCH, SHOWN_BATCH);
    data_draw(&t->data->d, SPLIT_TRAIN, &r, t->cfg.steps * t->cfg.batch, t->x, t->y);
    return 0;
}

/* T fixed batches of distinct images (as far as there are so many), drawn by the seed. */
static int real_images_u8(struct teacher *t, uint8_t *out, float *labels, struct errbuf *e)
{
    const struct dataset *d = &t->data->d;
    size_t n = (size_t)t->cfg.steps * (size_t)t->cfg.batch, K = (size_t)d->n_classes;
    uint32_t have = d->n[SPLIT_TRAIN], *order = mem_array(have, sizeof *order);
    struct rng r;
    if (!order)
        return err_set(e, ERR_NOMEM, "the curriculum's images");
    rng_init(&r, t->seed, RNG_BATCH, SHOWN_BATCH);
    for (size_t i = 0; i < n; i++) {
        if (i % have == 0)
            rng_permute(&r, order, have);
        uint32_t row = order[i % have];
        memcpy(out + i * t->image, dataset_image(d, SPLIT_TRAIN, row), t->image);
        for (size_t k = 0; k < K; k++)
            labels[i * K + k] = (int)k == dataset_label(d, SPLIT_TRAIN, row);
    }
    free(order);
    return 0;
}

static const struct teacher_kind kinds[] = {
    { "gtn", ORDER_LEARNED, true, true, gtn_images, learned_images_u8 },
    { "gtn-batches", ORDER_BATCHES, true, true, gtn_images, learned_images_u8 },
    { "gtn-shuffled", ORDER_ALL, true, true, gtn_images, learned_images_u8 },
    { "gtn-noise", ORDER_NONE, true, true, gtn_images, learned_images_u8 },
    { "distilled", ORDER_LEARNED, false, true, distilled_images, learned_images_u8 },
    { "real", ORDER_LEARNED, false, false, real_images, real_images_u8 },
};

const struct teacher_kind *teacher_kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}
