#include "worker/device_score.h"

#include "common/rng.h"
#include "worker/evaluate.h"
#include "worker/mem.h"

#include <math.h>

static uint64_t room_of(const struct device_task *t) { return t->budget ? t->budget : (uint64_t)(DEVICE_SHARE * (double)t->device->free_bytes()); }

struct work {
    struct slab *s;
    float       *w0, *w;             /* [K,P] to begin with; [n_snaps,K,P] as trained */
    double      *loss;               /* [K,T] */
    int          failed[MAX_INITS], right[MAX_INITS];
    int          at_once;            /* learners whose answers fit on the device together */
};

/* Of all K learners at one checkpoint, as many at a time as there is room for. */
static int accuracy(const struct device_task *t, struct work *k, int K, int snap, int which, struct device_learner *l, struct errbuf *e)
{
    const struct fidelity *f = t->fidelity;
    const uint64_t P = t->net->param_count;
    const float *w = k->w + (uint64_t)snap * (uint64_t)K * P;
    int batch, n_batches, rc = 0;
    eval_batches(t->data, f->valid_images, &batch, &n_batches);
    for (int i = 0; rc == 0 && i < K; i += k->at_once)
        rc = slab_accuracy(t->device, t->net, K - i < k->at_once ? K - i : k->at_once, batch, batch * n_batches, w + (uint64_t)i * P, t->data->valid_x, t->data->valid_y, k->right + i, e);
    for (int i = 0; rc == 0 && i < K; i++) {
        const int step = which < f->n_checkpoints ? f->checkpoint[which] : t->steps;
        const bool good = k->failed[i] < 0 || step <= k->failed[i];
        l[i].acc[which] = good ? (double)k->right[i] / ((double)batch * n_batches) : 1.0 / t->lessons->c.K;
    }
    return rc;
}

static int run(const struct device_task *t, struct work *k, int first, int K, struct device_learner *l, struct errbuf *e)
{
    const struct lessons *c = t->lessons;
    const struct slab_in in = { .w0 = k->w0, .x = c->x, .y = c->c.labels, .lr = t->lr, .mu = c->mu };
    const struct slab_out out = { .inner_loss = k->loss, .snap = k->w, .failed = k->failed };
    for (int i = 0; i < K; i++)
        eng_params_init(t->net, ENG_F32, rng_derive(t->seed, RNG_WEIGHTS, (uint64_t)(first + i)), k->w0 + (uint64_t)i * t->net->param_count);
    int rc = slab_run(k->s, &in, &out, e);
    slab_free(k->s); /* its room is what the answers are found in */
    k->s = NULL;
    for (int i = 0; rc == 0 && i < K; i++) {
        l[i].failed_step = k->failed[i];
        l[i].loss = 0;
        for (int s = 0; s < t->steps; s++)
            l[i].loss += k->failed[i] >= 0 && s >= k->failed[i] ? log(c->c.K) : k->loss[(size_t)i * (size_t)t->steps + (size_t)s];
    }
    for (int j = 0; rc == 0 && j <= t->fidelity->n_checkpoints; j++)
        rc = accuracy(t, k, K, j, j, l, e);
    return rc;
}

static int run_some(struct device_task *t, const struct slab_cfg *cfg, int at_once, int first, struct device_learner *l, struct errbuf *e)
{
    struct work *k = calloc(1, sizeof *k);
    const uint64_t K = (uint64_t)cfg->K, P = t->net->param_count;
    int rc = k ? slab_new(cfg, &k->s, e) : err_set(e, ERR_NOMEM, "a slab");
    if (rc == 0) {
        k->at_once = at_once;
        k->w0 = mem_array(K * P, sizeof *k->w0);
        k->w = mem_array((uint64_t)cfg->n_snaps * K * P, sizeof *k->w);
        k->loss = mem_array(K * (uint64_t)t->steps, sizeof *k->loss);
        t->bytes = slab_bytes(k->s) > t->bytes ? slab_bytes(k->s) : t->bytes;
        rc = k->w0 && k->w && k->loss ? run(t, k, first, cfg->K, l, e) : err_set(e, ERR_NOMEM, "%llu weights", (unsigned long long)(K * P));
    }
    if (k) {
        slab_free(k->s);
        free(k->w0);
        free(k->w);
        free(k->loss);
    }
    free(k);
    return rc;
}

int device_score(struct device_task *t, struct device_learner *learner, struct errbuf *e)
{
    const struct fidelity *f = t->fidelity;
    struct slab_cfg cfg = { .learner = t->net, .device = t->device, .T = t->steps, .B = t->lessons->c.B, .inner = t->lessons->c.inner, .n_snaps = f->n_checkpoints + 1 };
    const uint64_t room = room_of(t);
    struct errbuf why = { 0 };
    int most, at_once, batch, n_batches, rc;
    uint64_t bytes;
    t->bytes = 0;
    for (int i = 0; i < f->n_checkpoints; i++)
        cfg.snap[i] = f->checkpoint[i];
    cfg.snap[f->n_checkpoints] = t->steps;
    if ((rc = slab_fit(&cfg, room, f->inits, &most, &bytes, e)) < 0)
        return rc;
    if (most == 0)
        return err_set(e, ERR_NOMEM, "needs %llu MiB on the device, where it may take %llu MiB", (unsigned long long)((bytes + 1048575) >> 20), (unsigned long long)(room >> 20));
    eval_batches(t->data, f->valid_images, &batch, &n_batches);
    if ((rc = slab_accuracy_fit(t->device, t->net, batch, room, most, &at_once, e)) < 0)
        return rc;
    if (at_once == 0)
        return err_set(e, ERR_NOMEM, "its answers to %d images at a time do not fit on the device, where it may take %llu MiB", batch, (unsigned long long)(room >> 20));
    for (int done = 0; rc == 0 && done < f->inits; done += cfg.K) {
        cfg.K = f->inits - done < most ? f->inits - done : most;
        rc = run_some(t, &cfg, at_once, f->first_init + done, learner + done, &why);
    }
    if (rc == -ERR_NOMEM) /* what was planned does not fit: somebody else's doing, and no fact about the candidate */
        return err_set(e, ERR_BUSY, "%s", why.text);
    return rc < 0 ? err_set(e, (enum err)-rc, "%s", err_message(&why, rc)) : 0;
}
