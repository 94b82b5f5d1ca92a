#include "worker/evaluate.h"

#include "worker/mem.h"

void eval_batches(const struct real_data *data, int images, int *batch, int *n_batches)
{
    demand_eval_cut(images, (int)data->d.n[SPLIT_VALID], batch, n_batches);
}

int evaluator_init(struct evaluator *v, const struct net *n, const struct real_data *data, int images, struct eng_pool *pool,
                   struct errbuf *e)
{
    memset(v, 0, sizeof *v);
    v->data = data;
    eval_batches(data, images, &v->batch, &v->n_batches);
    if (v->n_batches == 0)
        return err_set(e, ERR_INPUT, "dataset %s has no validation images", data->d.hash);
    int rc = eng_plan_new(n, v->batch, ENG_F32, ENG_FORWARD, &v->plan, e);
    if (rc < 0)
        return rc;
    eng_plan_set_pool(v->plan, pool);
    v->logits = mem_array((uint64_t)v->batch * (uint64_t)data->d.n_classes, sizeof *v->logits);
    return v->logits ? 0 : err_set(e, ERR_NOMEM, "the logits of %d images", v->batch);
}

void evaluator_fini(struct evaluator *v)
{
    eng_plan_free(v->plan);
    free(v->logits);
    memset(v, 0, sizeof *v);
}

double evaluator_accuracy(struct evaluator *v, const float *w)
{
    const struct dataset *d = &v->data->d;
    size_t image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
    int good = 0;
    for (int b = 0; b < v->n_batches; b++) {
        size_t first = (size_t)b * (size_t)v->batch;
        eng_forward(v->plan, w, v->data->valid_x + first * image, v->logits);
        good += eng_count_correct(ENG_F32, v->logits, v->batch, d->n_classes, v->data->valid_y + first);
    }
    return (double)good / ((double)v->n_batches * v->batch);
}
