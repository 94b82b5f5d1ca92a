/* trainer.c - verify: train one architecture on real images, as its user would.
 *
 * SGD with momentum, weight decay on tensors of two or more dimensions, linear warm-up over the first twentieth of the
 * steps and a cosine to zero after it; random flips and shifts. The train split is permuted every epoch and its last
 * partial batch left out. Batch norms keep running statistics, which evaluation uses. The test split is read here,
 * once, after the last step, and nowhere else in Didact; not even here for an audit, whose result may end a search. */
#include "worker/clock.h"
#include "worker/datacache.h"
#include "worker/mem.h"
#include "worker/spaces.h"
#include "worker/task.h"

#include "common/safetensors.h"
#include "worker/engine/demand.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#define WARM_UP 20 /* one step in so many */

struct trainer {
    const struct train_task *task;
    const struct task_env   *env;
    const struct real_data  *data;
    struct net       net;
    struct eng_pool *pool;
    struct eng_plan *plan;
    size_t    image;
    float    *w, *v, *g, *x, *y, *logits;
    bool     *decays;       /* [n_params] */
    int      *label;        /* [B] */
    uint32_t *order;        /* [n train]: this epoch's permutation */
    uint64_t  per_epoch, steps;
    struct timespec begin;
};

static bool stop(const struct trainer *s) { return s->env->cancelled && s->env->cancelled(s->env->arg); }

static int allocate(struct trainer *s, struct trial_result *r, struct errbuf *e)
{
    const struct train_task *t = s->task;
    const struct dataset *d = &s->data->d;
    uint64_t B = (uint64_t)t->batch, P = s->net.param_count;
    struct demand need;
    int rc = demand_train(&s->net, t->batch, d->n[SPLIT_TRAIN], d->n_classes, &need, e);
    if (rc < 0)
        return rc;
    r->mem_bytes = need.mem_bytes;
    if (s->env->mem_bytes && r->mem_bytes > s->env->mem_bytes)
        return err_set(e, ERR_NOMEM, "needs %llu MiB, the budget is %llu MiB", (unsigned long long)(r->mem_bytes >> 20),
                       (unsigned long long)(s->env->mem_bytes >> 20));
    if ((rc = eng_pool_new(s->env->threads > 1 ? s->env->threads : 1, &s->pool, e)) < 0 ||
        (rc = eng_plan_new(&s->net, t->batch, ENG_F32, ENG_GRAD | ENG_RUNNING | ENG_BLAS, &s->plan, e)) < 0)
        return rc;
    eng_plan_set_pool(s->plan, s->pool);
    bool ok = (s->w = mem_array(P, sizeof *s->w)) && (s->v = mem_array(P, sizeof *s->v)) && (s->g = mem_array(P, sizeof *s->g)) &&
              (s->x = mem_array(B * s->image, sizeof *s->x)) && (s->y = mem_array(B * (uint64_t)d->n_classes, sizeof *s->y)) &&
              (s->logits = mem_array(B * (uint64_t)d->n_classes, sizeof *s->logits)) &&
              (s->label = mem_array(B, sizeof *s->label)) && (s->order = mem_array(d->n[SPLIT_TRAIN], sizeof *s->order)) &&
              (s->decays = mem_array((uint64_t)s->net.n_params, sizeof *s->decays));
    for (int i = 0; ok && i < s->net.n_params; i++)
        s->decays[i] = s->net.param[i].ndim >= 2;
    return ok ? 0 : err_set(e, ERR_NOMEM, "%llu weights", (unsigned long long)P);
}

/* One image into `to` [H,W,C], shifted by (dy, dx) with black where nothing comes in, mirrored or not. */
static void augment(const struct dataset *d, const uint8_t *from, int dy, int dx, bool mirror, float *to)
{
    for (int y = 0; y < d->h; y++)
        for (int x = 0; x < d->w; x++) {
            int sy = y + dy, sx = (mirror ? d->w - 1 - x : x) + dx;
            bool in = sy >= 0 && sy < d->h && sx >= 0 && sx < d->w;
            for (int c = 0; c < d->c; c++)
                *to++ = in ? (float)from[((size_t)c * (size_t)d->h + (size_t)sy) * (size_t)d->w + (size_t)sx] / 127.5f - 1.0f : -1.0f;
        }
}

/* Batch number `step`: its own stream for every image, so that nothing depends on who fills it. */
static void fill_batch(struct trainer *s, uint64_t step)
{
    const struct train_task *t = s->task;
    const struct dataset *d = &s->data->d;
    uint64_t at = step % s->per_epoch;
    if (at == 0) {
        struct rng r;
        rng_init(&r, t->seed, RNG_BATCH, step / s->per_epoch);
        rng_permute(&r, s->order, d->n[SPLIT_TRAIN]);
    }
    for (int i = 0; i < t->batch; i++) {
        uint32_t row = s->order[at * (uint64_t)t->batch + (uint64_t)i];
        struct rng r;
        rng_init(&r, t->seed, RNG_AUGMENT, step * (uint64_t)t->batch + (uint64_t)i);
        bool mirror = (rng_u32(&r) & 1) && t->flip;
        uint32_t span = 2 * (uint32_t)t->shift + 1;
        int dy = (int)rng_below(&r, span) - t->shift, dx = (int)rng_below(&r, span) - t->shift;
        int label = dataset_label(d, SPLIT_TRAIN, row);
        augment(d, dataset_image(d, SPLIT_TRAIN, row), dy, dx, mirror, s->x + (size_t)i * s->image);
        for (int k = 0; k < d->n_classes; k++)
            s->y[(size_t)i * (size_t)d->n_classes + (size_t)k] = k == label;
    }
}

static double rate_at(const struct trainer *s, uint64_t step)
{
    uint64_t warm = s->steps / WARM_UP;
    if (step < warm)
        return s->task->lr * (double)(step + 1) / (double)(warm + 1);
    return 0.5 * s->task->lr * (1 + cos(M_PI * (double)(step - warm) / (double)(s->steps - warm)));
}

static void update(struct trainer *s, double lr)
{
    float mu = (float)s->task->momentum, rate = (float)lr;
    for (int i = 0; i < s->net.n_params; i++) {
        const struct net_param *p = &s->net.param[i];
        float decay = s->decays[i] ? (float)s->task->weight_decay : 0;
        float *w = s->w + p->offset, *v = s->v + p->offset;
        const float *g = s->g + p->offset;
        for (uint64_t k = 0; k < p->size; k++) {
            v[k] = mu * v[k] + (g[k] + decay * w[k]);
            w[k] -= rate * v[k];
        }
    }
}

/* Evaluation mode makes images independent: the last batch is filled up with the first images and not counted there.
 * Returns -1 when cancelled. */
static double accuracy(struct trainer *s, enum split split)
{
    const struct dataset *d = &s->data->d;
    uint32_t n = d->n[split];
    int B = s->task->batch, good = 0;
    eng_set_evaluation(s->plan, true);
    for (uint32_t first = 0; first < n; first += (uint32_t)B) {
        int count = n - first < (uint32_t)B ? (int)(n - first) : B;
        if (stop(s))
            break;
        for (int i = 0; i < B; i++) {
            uint32_t row = (first + (uint32_t)i) % n;
            data_batch(d, split, &row, 1, s->x + (size_t)i * s->image, NULL);
            s->label[i] = dataset_label(d, split, row);
        }
        eng_forward(s->plan, s->w, s->x, s->logits);
        good += eng_count_correct(ENG_F32, s->logits, count, d->n_classes, s->label);
    }
    eng_set_evaluation(s->plan, false);
    return stop(s) ? -1 : n ? (double)good / n : 0;
}

static void tell(struct trainer *s, uint64_t step, double loss, double valid)
{
    double t = seconds_since(&s->begin), epochs = (double)step / (double)s->per_epoch;
    struct task_progress p = { .done = epochs, .total = s->task->epochs, .loss = loss, .accuracy = valid, .rate = t > 0 ? epochs / t : 0 };
    if (s->env->progress)
        s->env->progress(s->env->arg, &p);
}

/* Returns 0 with r->state SCORED or FAILED. */
static int train(struct trainer *s, struct trial_result *r, struct errbuf *e)
{
    double sum = 0, valid = 0;
    uint64_t since = 0;
    for (uint64_t step = 0; step < s->steps; step++) {
        if (stop(s))
            return err_set(e, ERR_CANCELLED, "cancelled at step %llu", (unsigned long long)step);
        fill_batch(s, step);
        double loss = eng_grad(s->plan, s->w, s->x, s->y, s->g, NULL);
        if (!isfinite(loss)) {
            r->state = TRIAL_FAILED;
            r->reason = FAIL_NAN;
            char what[192];
            eng_nonfinite(s->plan, s->w, s->x, s->y, s->g, what, sizeof what);
            snprintf(r->detail, sizeof r->detail, "not finite at step %llu of %llu: %s", (unsigned long long)step + 1,
                     (unsigned long long)s->steps, what);
            return 0;
        }
        update(s, rate_at(s, step));
        sum += loss;
        since++;
        bool ends = (step + 1) % s->per_epoch == 0 || step + 1 == s->steps;
        if (ends && (valid = accuracy(s, SPLIT_VALID)) < 0)
            return err_set(e, ERR_CANCELLED, "cancelled at step %llu", (unsigned long long)step);
        if (ends || since % 64 == 0)
            tell(s, step + 1, sum / (double)since, valid);
        if (ends) {
            sum = 0;
            since = 0;
        }
    }
    if (!eng_finite(ENG_F32, s->net.param_count, s->w)) { /* of the last update, which no loss has seen */
        r->state = TRIAL_FAILED;
        r->reason = FAIL_NAN;
        snprintf(r->detail, sizeof r->detail, "a weight is not finite after the last step");
        return 0;
    }
    r->valid_score = valid;
    r->score = s->task->no_test ? valid : accuracy(s, SPLIT_TEST);
    if (r->score < 0)
        return err_set(e, ERR_CANCELLED, "cancelled while testing");
    r->state = TRIAL_SCORED;
    r->n_inits = 1;
    r->init_score[0] = r->score;
    r->lr_scale = 1;
    return 0;
}

static void tensor(struct st_tensor *t, const char *path, const char *kind, int ndim, const int *dim, const float *data)
{
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s%s%s", path, *kind ? "." : "", kind);
    t->dtype = ST_F32;
    t->ndim = ndim;
    t->count = 1;
    for (int i = 0; i < ndim; i++)
        t->count *= t->dim[i] = (uint64_t)dim[i];
    t->bytes = t->count * sizeof(float);
    t->data = data;
}

/* Weights under the names of net.h in the outside layout; PATH.running_mean and PATH.running_var of every batch norm. */
static int save_weights(struct trainer *s, const char *path, struct errbuf *e)
{
    const struct net *n = &s->net;
    size_t count = eng_running_count(n), at = 0;
    int n_t = 0, rc;
    float *w = mem_array(n->param_count, sizeof *w), *stats = mem_array(count, sizeof *stats);
    struct st_tensor *t = mem_array((uint64_t)n->n_params + 2 * (uint64_t)n->n_nodes, sizeof *t);
    if (!w || !stats || !t) {
        rc = err_set(e, ERR_NOMEM, "the weights");
        goto done;
    }
    eng_params_export(n, ENG_F32, s->w, w);
    eng_running_get(s->plan, stats);
    for (int i = 0; i < n->n_params; i++)
        tensor(&t[n_t++], n->param[i].name, "", n->param[i].ndim, n->param[i].dim, w + n->param[i].offset);
    for (int i = 0; i < n->n_nodes; i++) {
        int c = n->node[i].shape.c;
        if (n->node[i].op != NET_BN || at + 2 * (size_t)c > count)
            continue;
        tensor(&t[n_t++], n->node[i].path, "running_mean", 1, &c, stats + at);
        tensor(&t[n_t++], n->node[i].path, "running_var", 1, &c, stats + at + c);
        at += 2 * (size_t)c;
    }
    char channels[16], cells[16];
    snprintf(channels, sizeof channels, "%d", s->task->proxy.channels);
    snprintf(cells, sizeof cells, "%d", s->task->proxy.cells);
    const char *meta[] = { "format", "didact-weights-1", "space", s->task->space, "arch", s->task->arch, "dataset", s->data->d.hash,
                           NULL, NULL, NULL, NULL };
    int n_meta = 4;
    if (s->task->proxy.channels || s->task->proxy.cells) { /* where the skeleton is not the space's own */
        const char *size[] = { "channels", channels, "cells", cells };
        memcpy(&meta[2 * n_meta], size, sizeof size);
        n_meta += 2;
    } else if (*s->task->space_hash) { /* its networks state their own sizes */
        meta[2 * n_meta] = "space_hash";
        meta[2 * n_meta++ + 1] = s->task->space_hash;
    }
    rc = st_write(path, t, n_t, meta, n_meta, e);
done:
    free(w);
    free(stats);
    free(t);
    return rc;
}

static int upload_weights(struct trainer *s, struct trial_result *r, struct errbuf *e)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/weights.safetensors", s->env->work_dir);
    int rc = save_weights(s, path, e);
    return rc < 0 ? rc : s->env->upload(s->env->arg, path, "weights", r->artifact, e);
}

static int check(struct trainer *s, struct errbuf *e)
{
    const struct train_task *t = s->task;
    const struct dataset *d = &s->data->d;
    if (t->batch < 2 || (uint32_t)t->batch > d->n[SPLIT_TRAIN])
        return err_set(e, ERR_INPUT, "verify.batch must be from 2 to the %u images of dataset %s", d->n[SPLIT_TRAIN], d->hash);
    if (!(t->epochs > 0) || !(t->epochs <= 1e5) || t->shift < 0 || t->shift >= d->h || t->shift >= d->w)
        return err_set(e, ERR_INPUT, "verify: epochs or shift out of range");
    s->image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
    s->per_epoch = d->n[SPLIT_TRAIN] / (uint32_t)t->batch;
    s->steps = (uint64_t)llround(t->epochs * (double)s->per_epoch);
    if (s->steps < 1)
        s->steps = 1;
    return 0;
}

int task_train(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    struct trainer s = { .task = &t->train, .env = env };
    const struct space *space = NULL;
    const char *path = env->blob_path(env->arg, t->train.dataset);
    int rc;
    clock_gettime(CLOCK_MONOTONIC, &s.begin);
    eng_thread_init();
    rc = spaces_of_task(env, t->train.space, t->train.space_hash, &space, e);
    if (rc == 0 && !path)
        rc = err_set(e, ERR_INPUT, "the task names no dataset");
    if (rc == 0 && (rc = datacache_data(path, &s.data, e)) == 0 && (rc = check(&s, e)) == 0) {
        const struct dataset *d = &s.data->d;
        rc = space_build(space, t->train.arch, d->c, d->h, d->w, d->n_classes, &t->train.proxy, &s.net, e);
        r->params = s.net.param_count;
        r->macs = rc == 0 ? net_macs(&s.net) : 0;
        if (rc == 0 && (rc = allocate(&s, r, e)) == 0) {
            eng_params_init(&s.net, ENG_F32, rng_derive(t->train.seed, RNG_WEIGHTS, 0), s.w);
            rc = train(&s, r, e);
        }
        if (rc == 0 && r->state == TRIAL_SCORED && t->train.keep_weights)
            rc = upload_weights(&s, r, e);
    }
    r->seconds = seconds_since(&s.begin);
    eng_plan_free(s.plan);
    eng_pool_free(s.pool);
    void *const owned[] = { s.w, s.v, s.g, s.x, s.y, s.logits, s.decays, s.label, s.order };
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    net_fini(&s.net);
    datacache_release(s.data);
    return rc;
}
