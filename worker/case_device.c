/* A case's outer step on a device: one slab of one learner; in generator mode the images come from lanes and their gradients go back
 * there, as a teacher's do. */
#include "worker/case_int.h"
#include "worker/engine/lanes.h"
#include "worker/engine/slab.h"
#include "worker/mem.h"

#include <stdlib.h>
#include <string.h>

struct on_device {
    const struct device *d;
    struct slab  *slab;
    struct lanes *lanes, *eval;
    float        *x, *dx, *y, *logits; /* device */
    float        *in, *din;            /* [T, B, zdim+K] */
};

static int room(const struct device *d, float **p, size_t n, struct errbuf *e)
{
    return (*p = d->alloc(n * sizeof **p)) ? 0 : err_set(e, ERR_NOMEM, "no room on the device for %zu MiB", n * sizeof **p >> 20);
}

static int generate(const struct gcase *c, struct case_work *k, struct on_device *o, struct errbuf *e)
{
    const size_t row = (size_t)c->B * (size_t)(c->zdim + c->K);
    int rc;
    if (!(o->in = mem_array((uint64_t)c->T * row, sizeof *o->in)) || !(o->din = mem_array((uint64_t)c->T * row, sizeof *o->din)))
        return err_set(e, ERR_NOMEM, "the generator's input");
    if ((rc = room(o->d, &o->x, k->n_x, e)) < 0 || (rc = room(o->d, &o->dx, k->n_x, e)) < 0 || (rc = room(o->d, &o->y, k->n_y, e)) < 0)
        return rc;
    struct lanes_cfg cfg = { .net = &c->generator, .device = o->d, .n = c->T, .B = c->B, .lanes = 1, .want_dx = true, .out = o->x, .dout = o->dx };
    if ((rc = lanes_fit(&cfg, o->d->free_bytes() / 2, &cfg.lanes, e)) < 0) /* the rest is the learner's */
        return rc;
    cfg.lanes = cfg.lanes > 0 ? cfg.lanes : 1; /* which says what it lacks */
    if ((rc = lanes_new(&cfg, &o->lanes, e)) < 0)
        return rc;
    for (int t = 0; t < c->T; t++)
        case_generator_input(c, k, t, o->in + (size_t)t * row);
    o->d->put(lanes_queue(o->lanes), o->y, k->y, k->n_y * sizeof *o->y);
    if ((rc = lanes_forward(o->lanes, k->phi, o->in, e)) < 0)
        return rc;
    return o->d->get(lanes_queue(o->lanes), k->x, o->x, k->n_x * sizeof *o->x, e);
}

static int generator_back(const struct gcase *c, struct case_work *k, struct on_device *o, struct errbuf *e)
{
    const size_t zdim = (size_t)c->zdim, row = zdim + (size_t)c->K;
    void *q = lanes_queue(o->lanes);
    o->d->zero(q, 1, (struct dev_rows){ o->dx, 0 }, k->n_x * sizeof *o->dx);
    slab_weigh(o->slab, q, &(double){ 1 }, o->dx, NULL);
    int rc = lanes_backward(o->lanes, k->dphi, o->din, e);
    for (size_t i = 0; rc == 0 && i < (size_t)c->T * (size_t)c->B; i++)
        memcpy((float *)k->dz + i * zdim, o->din + i * row, zdim * sizeof(float));
    return rc;
}

/* Of the learner after the last step, on the real batch. */
static int answer(const struct gcase *c, struct case_work *k, struct on_device *o, struct errbuf *e)
{
    const size_t n = (size_t)c->meta_batch * (size_t)c->K;
    int rc = room(o->d, &o->logits, n, e);
    const struct lanes_cfg cfg = { .net = &c->learner, .device = o->d, .n = 1, .B = c->meta_batch, .lanes = 1, .out = o->logits };
    if (rc < 0 || (rc = lanes_new(&cfg, &o->eval, e)) < 0 || (rc = lanes_forward(o->eval, k->out.wT, k->real_x, e)) < 0)
        return rc;
    return o->d->get(lanes_queue(o->eval), k->out.logits, o->logits, n * sizeof *o->logits, e);
}

static int step(const struct gcase *c, struct case_work *k, struct on_device *o, struct errbuf *e)
{
    struct slab_cfg cfg = { .learner = &c->learner, .device = o->d, .K = 1, .T = c->T, .B = c->B, .meta_batch = c->meta_batch, .n_meta = k->n_meta,
                            .want_dx = true, .want_dy = c->soft_labels, .apart = c->generator_mode, .inner = c->inner };
    struct slab_in in = { .w0 = k->w0, .x = k->x, .y = k->y, .lr = k->lr, .mu = k->mu };
    int failed, rc = c->generator_mode ? generate(c, k, o, e) : 0;
    struct slab_out out = { .meta_loss = &k->out.meta_loss, .inner_loss = k->out.inner_loss, .wT = k->out.wT, .vT = k->out.vT, .dw0 = k->out.dw0,
                            .dx = k->out.dx, .dy = k->out.dy, .dlr = k->out.dlr, .dmu = k->out.dmu, .failed = &failed };
    for (int i = 0; i < k->n_meta; i++) {
        cfg.meta[i].step = k->meta[i].step;
        cfg.meta[i].weight = k->meta[i].weight;
        in.meta[i].x = k->meta[i].x;
        in.meta[i].y = k->meta[i].y;
    }
    if (c->generator_mode) {
        in.x = o->x;
        in.y = o->y;
        in.after = lanes_queue(o->lanes);
    }
    if (rc < 0 || (rc = slab_new(&cfg, &o->slab, e)) < 0 || (rc = slab_run(o->slab, &in, &out, e)) < 0)
        return rc;
    if (failed >= 0)
        return failed < c->T ? err_set(e, ERR_DIVERGED, "not finite at inner step %d of %d", failed + 1, c->T)
                             : err_set(e, ERR_DIVERGED, "not finite on the way back");
    if ((rc = answer(c, k, o, e)) == 0 && c->generator_mode)
        rc = generator_back(c, k, o, e);
    return rc;
}

int case_on_device(const struct gcase *c, struct case_work *k, const struct device *d, struct errbuf *e)
{
    struct on_device o = { .d = d };
    if (c->dtype != ENG_F32)
        return err_set(e, ERR_INPUT, "the tensors are in double: a device computes in float32");
    if (k->n_meta > SLAB_MAX_META)
        return err_set(e, ERR_INPUT, "meta_at: %d real batches; a device takes up to %d", k->n_meta, SLAB_MAX_META);
    int rc = step(c, k, &o, e);
    slab_free(o.slab);
    lanes_free(o.lanes);
    lanes_free(o.eval);
    float *const on[] = { o.x, o.dx, o.y, o.logits };
    for (size_t i = 0; i < sizeof on / sizeof on[0]; i++)
        if (on[i])
            d->release(on[i]);
    free(o.in);
    free(o.din);
    return rc;
}
