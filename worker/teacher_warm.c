/* teacher_warm.c - where learned images start: at real ones.
 *
 * Slot i of the curriculum is given one training image r_i of its class. Kind `distilled` begins with these. A generator
 * with a warm start is fitted to them before the first meta-step: theta = (generator, z) goes down
 *   (1/2) sum_i |G(z_i, y_i) - r_i|^2
 * by Adam, all slots a pass (generative latent optimisation; Bojanowski et al. 2018, arXiv 1707.05776). Meta-training then
 * begins where real batches teach, not at noise that teaches nothing. The moments of Adam are forgotten afterwards. */
#include "worker/teacher_int.h"

#include "worker/mem.h"

#define WARM_RATE 0.02 /* of the first pass, falling in a straight line */

/* Those of its class in an order drawn by the seed, again from the start where they do not suffice. */
int teacher_real_images(const struct teacher *t, float *x, struct errbuf *e)
{
    const struct dataset *d = &t->data->d;
    const size_t slots = (size_t)t->cfg.steps * (size_t)t->cfg.batch, K = (size_t)d->n_classes;
    uint32_t have = d->n[SPLIT_TRAIN], *order = mem_array(have, sizeof *order), *index = mem_array(slots, sizeof *index);
    uint32_t *next = mem_array(K, sizeof *next);
    struct rng r;
    int rc = order && index && next ? 0 : err_set(e, ERR_NOMEM, "%zu real images", slots);
    if (rc == 0) {
        rng_init(&r, t->seed, RNG_TEACHER, 2);
        rng_permute(&r, order, have);
    }
    for (size_t i = 0; rc == 0 && i < slots; i++) {
        uint32_t *at = &next[t->label[i]], seen = 0;
        while (dataset_label(d, SPLIT_TRAIN, order[*at % have]) != t->label[i] && seen++ < have)
            ++*at;
        if (seen > have)
            rc = err_set(e, ERR_INPUT, "class %d has no training image", t->label[i]);
        index[i] = order[(*at)++ % have];
    }
    if (rc == 0)
        data_batch(d, SPLIT_TRAIN, index, (int)slots, x, NULL);
    free(order);
    free(index);
    free(next);
    return rc;
}

/* One pass; *mse: the mean square error of the images that it began with. */
static int pass(struct teacher *t, const float *target, double rate, double *mse, struct errbuf *e)
{
    float *g = t->grad;
    int rc = generator_forward(t->gen, t->theta, t->theta + t->part[PART_Z].first, t->label, t->x, e);
    if (rc < 0)
        return rc;
    memcpy(t->dx, t->x, t->n_x * sizeof *t->dx);
    eng_axpy(ENG_F32, t->n_x, -1, target, t->dx);
    *mse = eng_dot(ENG_F32, t->n_x, t->dx, t->dx) / (double)t->n_x;
    if ((rc = generator_backward(t->gen, t->theta, t->theta + t->part[PART_Z].first, t->label, t->dx, g, g + t->part[PART_Z].first, e)) < 0)
        return rc;
    adam_next(&t->adam);
    for (int p = PART_GENERATOR; p <= PART_Z; p++)
        adam_apply(&t->adam, t->theta, g, 1, t->part[p].first, t->part[p].n, rate);
    return 0;
}

int teacher_warm(struct teacher *t, bool (*go_on)(void *arg), void *arg, struct errbuf *e)
{
    const int n = t->cfg.warm_start;
    float *target = mem_array(t->n_x, sizeof *target);
    int rc = target ? teacher_real_images(t, target, e) : err_set(e, ERR_NOMEM, "a warm start");
    for (int i = 0; rc == 0 && i < n; i++) {
        rc = pass(t, target, WARM_RATE * (1 - (double)i / n), &t->warm_mse, e);
        if (rc == 0 && !go_on(arg))
            rc = err_set(e, ERR_CANCELLED, "stopped before the first meta-step");
    }
    memset(t->adam.m, 0, t->n_theta * sizeof *t->adam.m);
    memset(t->adam.v, 0, t->n_theta * sizeof *t->adam.v);
    t->adam.step = 0;
    free(target);
    return rc;
}
