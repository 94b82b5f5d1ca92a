/* zerocost.c - the table of scores, and what they share: weights, batches, gradients, codes. Each is computed once, for
 * whichever of the wanted scores read it. */
#include "worker/zerocost_int.h"

#include "common/rng.h"
#include "worker/mem.h"

#include <stdlib.h>
#include <string.h>

enum { NEEDS_CODES = 1, NEEDS_INPUT_GRAD = 2, NEEDS_GRAD = 4, NEEDS_BOTH = 8, NEEDS_NORMLESS = 16 };

static const struct { unsigned needs; zc_fn fn; } rows[ZC_COUNT] = {
    [ZC_SYNFLOW] = { NEEDS_NORMLESS, zc_synflow },
    [ZC_NASWOT] = { NEEDS_CODES, zc_naswot },
    [ZC_JACOB_COV] = { NEEDS_INPUT_GRAD, zc_jacob_cov },
    [ZC_ZICO] = { NEEDS_GRAD | NEEDS_BOTH, zc_zico },
    [ZC_SNIP] = { NEEDS_GRAD, zc_snip },
    [ZC_GRAD_NORM] = { NEEDS_GRAD, zc_grad_norm },
};

static unsigned needs_of(uint32_t wanted)
{
    unsigned needs = 0;
    for (int i = 0; i < ZC_COUNT; i++)
        if (wanted >> i & 1)
            needs |= rows[i].needs;
    return needs;
}

static unsigned plan_needs(unsigned needs)
{
    return (needs & NEEDS_INPUT_GRAD ? ENG_INPUT_GRAD : 0u) | (needs & NEEDS_GRAD ? ENG_GRAD : 0u) | (needs & NEEDS_CODES ? ENG_WHOLE : 0u);
}

/* ---- what the scores read ---- */

static uint64_t outputs(const struct net *n)
{
    const struct net_shape *s = &n->node[n->out].shape;
    return (uint64_t)s->c * (uint64_t)s->h * (uint64_t)s->w;
}

/* All outputs of all images summed, pulled back to the images: one backward with ones. */
static int input_gradient(struct zc_work *k, struct eng_plan *plan, struct errbuf *e)
{
    const uint64_t n = outputs(k->in->net) * (uint64_t)k->in->batch;
    float *ones = mem_array(n, sizeof *ones), *g = mem_array(k->in->net->param_count, sizeof *g);
    k->gx = mem_array(k->image * (uint64_t)k->in->batch, sizeof *k->gx);
    int rc = ones && g && k->gx ? 0 : err_set(e, ERR_NOMEM, "the input gradients of %d images", k->in->batch);
    for (uint64_t i = 0; rc == 0 && i < n; i++)
        ones[i] = 1;
    if (rc == 0)
        eng_backward(plan, k->in->w, k->in->x[0], ones, g, k->gx);
    free(ones);
    free(g);
    return rc;
}

static int gradients(struct zc_work *k, struct eng_plan *plan, int batches, struct errbuf *e)
{
    for (int b = 0; b < batches; b++) {
        k->g[b] = mem_array(k->in->net->param_count, sizeof *k->g[b]);
        if (!k->g[b])
            return err_set(e, ERR_NOMEM, "%llu gradients", (unsigned long long)k->in->net->param_count);
        eng_grad(plan, k->in->w, k->in->x[b], k->in->y[b], k->g[b], NULL);
    }
    return 0;
}

static int passes(struct zc_work *k, unsigned needs, struct errbuf *e)
{
    const size_t n = (size_t)k->in->batch;
    struct zc_codes codes = { 0 };
    struct eng_plan *plan = NULL;
    int rc = eng_plan_new(k->in->net, k->in->batch, ENG_F32, plan_needs(needs), &plan, e);
    if (rc < 0)
        return rc;
    eng_plan_set_pool(plan, k->in->pool);
    if (needs & NEEDS_CODES) {
        k->differ = codes.differ = mem_array(n * n, sizeof *k->differ);
        if (!k->differ)
            rc = err_set(e, ERR_NOMEM, "the codes of %zu images", n);
        else
            eng_plan_watch(plan, zc_watch_codes, &codes);
    }
    if (rc == 0 && (needs & (NEEDS_CODES | NEEDS_INPUT_GRAD)))
        eng_forward(plan, k->in->w, k->in->x[0], NULL);
    eng_plan_watch(plan, NULL, NULL);
    k->units = codes.units;
    if (rc == 0 && codes.failed)
        rc = err_set(e, ERR_NOMEM, "the codes of %zu images", n);
    if (rc == 0 && (needs & NEEDS_INPUT_GRAD))
        rc = input_gradient(k, plan, e);
    if (rc == 0 && (needs & NEEDS_GRAD))
        rc = gradients(k, plan, needs & NEEDS_BOTH ? ZC_BATCHES : 1, e);
    eng_plan_free(plan);
    return rc;
}

int zerocost_compute(const struct zc_input *in, uint32_t wanted, struct zero_cost_scores *out, struct errbuf *e)
{
    const unsigned needs = needs_of(wanted);
    const struct net_shape *s = &in->net->node[0].shape;
    struct zc_work k = { .in = in, .image = (uint64_t)s->c * (uint64_t)s->h * (uint64_t)s->w };
    int rc = 0;
    memset(out, 0, sizeof *out);
    if (needs & ~(unsigned)NEEDS_NORMLESS)
        rc = passes(&k, needs, e);
    for (int i = 0; rc == 0 && i < ZC_COUNT; i++) {
        double v;
        if (!(wanted >> i & 1) || (rc = rows[i].fn(&k, &v, e)) < 0 || !isfinite(v))
            continue;
        out->known |= 1u << i;
        out->value[i] = v;
    }
    for (int b = 0; b < ZC_BATCHES; b++)
        free(k.g[b]);
    free(k.gx);
    free(k.differ);
    return rc;
}

/* ---- on a dataset ---- */

static int batch_of(const struct real_data *data)
{
    const uint32_t n = data->d.n[SPLIT_TRAIN] / ZC_BATCHES;
    return n < ZC_BATCH ? (int)n : ZC_BATCH;
}

/* The first entries of a permutation of the training split that the dataset's hash names. */
static int draw(const struct real_data *data, int n, uint32_t *index, struct errbuf *e)
{
    const uint32_t all = data->d.n[SPLIT_TRAIN];
    uint32_t *p = malloc(all * sizeof *p);
    char      hex[17] = "";
    struct rng r;
    if (!p)
        return err_set(e, ERR_NOMEM, "%u training images", all);
    memcpy(hex, data->d.hash, 16);
    rng_init(&r, strtoull(hex, NULL, 16), RNG_BATCH, 0);
    for (uint32_t i = 0; i < all; i++)
        p[i] = i;
    for (uint32_t i = 0; i < (uint32_t)n; i++) {
        uint32_t j = i + rng_below(&r, all - i), t = p[i];
        p[i] = p[j];
        p[j] = t;
        index[i] = p[i];
    }
    free(p);
    return 0;
}

int zerocost_scores(const struct net *n, const struct real_data *data, uint64_t seed, struct eng_pool *pool, uint32_t wanted,
                    struct zero_cost_scores *out, struct errbuf *e)
{
    const struct dataset *d = &data->d;
    const int batch = batch_of(data);
    const size_t image = (size_t)d->c * (size_t)d->h * (size_t)d->w, K = (size_t)d->n_classes, B = (size_t)batch;
    uint32_t index[ZC_BATCHES * ZC_BATCH];
    if (batch < 2)
        return err_set(e, ERR_INPUT, "dataset %s has %u training images, zero-cost scores need four", d->hash, d->n[SPLIT_TRAIN]);
    float *x = mem_array(ZC_BATCHES * B * image, sizeof *x), *y = mem_array(ZC_BATCHES * B * K, sizeof *y);
    float *w = mem_array(n->param_count, sizeof *w);
    int rc = x && y && w ? draw(data, ZC_BATCHES * batch, index, e) : err_set(e, ERR_NOMEM, "%llu weights, %d images", (unsigned long long)n->param_count, ZC_BATCHES * batch);
    if (rc == 0) {
        struct zc_input in = { .net = n, .w = w, .batch = batch, .pool = pool };
        eng_params_init(n, ENG_F32, seed, w);
        data_batch(d, SPLIT_TRAIN, index, ZC_BATCHES * batch, x, y);
        for (int b = 0; b < ZC_BATCHES; b++) {
            in.x[b] = x + (size_t)b * B * image;
            in.y[b] = y + (size_t)b * B * K;
        }
        rc = zerocost_compute(&in, wanted, out, e);
    }
    free(x);
    free(y);
    free(w);
    return rc;
}

int zerocost_predict(const struct net *n, const struct real_data *data, uint32_t wanted, uint64_t *bytes, struct errbuf *e)
{
    const unsigned needs = needs_of(wanted);
    const struct dataset *d = &data->d;
    const uint64_t B = (uint64_t)batch_of(data), image = (uint64_t)d->c * (uint64_t)d->h * (uint64_t)d->w;
    uint64_t plan = 0, synflow = 0;
    int rc = 0;
    if (needs & NEEDS_NORMLESS)
        rc = zc_synflow_predict(n, &synflow, e);
    if (rc == 0 && (needs & ~(unsigned)NEEDS_NORMLESS))
        rc = eng_plan_predict(n, (int)B, ENG_F32, plan_needs(needs), &plan, e);
    plan += (2 + ZC_BATCHES) * n->param_count * sizeof(float) + B * (2 * outputs(n) + image) * sizeof(float) + B * B * sizeof(uint32_t);
    *bytes = (plan > synflow ? plan : synflow) + ZC_BATCHES * B * (image + (uint64_t)d->n_classes) * sizeof(float);
    return rc;
}
