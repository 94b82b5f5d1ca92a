/* teacher.c - what a teacher is made of, and one meta-step.
 *
 * A step: images and schedule from theta; learners drawn, trained and pulled back, and their gradients' mean (teacher_learn.c); the
 * generator's backward; clip; Adam. The gradient of theta is clipped at a multiple of its norm's running mean. */
#include "worker/teacher_int.h"

#include "worker/mem.h"
#include "worker/teacher_device.h"

#include <math.h>

#define DRAWS_MAX      2000
#define SKIPS_MAX      50    /* meta-steps in a row without a usable learner */
#define NORM_KEEP      0.9   /* running means of norms */
#define LABEL_RATE     0.3   /* of the outer rate: labels live in [0, 1], images in [-1, 1] */
#define LOG_LR_MAX     4.6   /* step sizes stay below 100 */
#define LOG_LR_MIN    (-14.0)
#define LOGIT_MU_MAX   7.0   /* momenta stay below 0.9991 */

static void lay_out(struct teacher *t, uint64_t generator)
{
    const struct teach_cfg *c = &t->cfg;
    uint64_t TB = (uint64_t)c->steps * (uint64_t)c->batch;
    const struct { uint64_t n; double rate; } row[PART_COUNT] = {
        [PART_GENERATOR] = { generator, 1 },
        [PART_Z]         = { t->gen && t->kind->order != ORDER_NONE ? TB * (uint64_t)c->z_dim : 0, 1 },
        [PART_IMAGES]    = { t->kind->learns_images && !t->gen ? t->n_x : 0, 1 },
        [PART_LABELS]    = { c->learn_labels ? t->n_y : 0, LABEL_RATE },
        [PART_LR]        = { (uint64_t)c->steps, c->outer_schedule },
        [PART_MU]        = { (uint64_t)c->steps, c->outer_schedule },
    };
    for (int p = 0; p < PART_COUNT; p++) {
        t->part[p].first = t->n_theta;
        t->part[p].n = row[p].n;
        t->part[p].rate = row[p].rate;
        t->n_theta += row[p].n;
    }
}

static void start_values(struct teacher *t)
{
    const struct teach_cfg *c = &t->cfg;
    size_t TB = (size_t)c->steps * (size_t)c->batch, K = (size_t)t->data->d.n_classes;
    float *theta = t->theta;
    double mu = fmin(fmax(c->mu, 1e-3), 0.999); /* a logit has no 0 */
    for (size_t i = 0; i < TB; i++)
        t->label[i] = (int)(i % K); /* evenly spread */
    if (t->gen) {
        struct rng r;
        rng_init(&r, t->seed, RNG_TEACHER, 1);
        eng_params_init(generator_get_net(t->gen), ENG_F32, rng_derive(t->seed, RNG_TEACHER, 0), theta);
        for (uint64_t i = 0; i < t->part[PART_Z].n; i++)
            theta[t->part[PART_Z].first + i] = (float)rng_normal(&r);
    }
    for (uint64_t i = 0; i < t->part[PART_LABELS].n; i++)
        theta[t->part[PART_LABELS].first + i] = (int)(i % K) == t->label[i / K];
    for (uint64_t i = 0; i < (uint64_t)c->steps; i++) {
        theta[t->part[PART_LR].first + i] = (float)log(c->lr);
        theta[t->part[PART_MU].first + i] = (float)log(mu / (1 - mu));
    }
}

static int check_cfg(const struct teach_cfg *c, const struct dataset *d, struct errbuf *e)
{
    if (c->steps < 1 || c->steps > 4096 || c->batch < 2 || c->batch > 65536 || c->learners < 1 || c->inits < 1 ||
        c->learners > TEACH_MAX_LEARNERS / c->inits || c->meta_batch < 2 || c->meta_batch > 65536)
        return err_set(e, ERR_INPUT, "teach: steps, batch, learners, inits or meta_batch out of range");
    if (!(c->lr > 0) || !(c->lr <= 100) || !(c->mu >= 0 && c->mu < 1))
        return err_set(e, ERR_INPUT, "teach: lr must be in (0, 100] and mu in [0, 1)");
    if (c->meta_steps < 1 && !(c->seconds > 0))
        return err_set(e, ERR_INPUT, "teach: meta_steps or seconds must say when to end");
    for (int i = 0; i < c->n_meta_at; i++)
        if (c->meta_at[i] < 1 || c->meta_at[i] >= c->steps)
            return err_set(e, ERR_INPUT, "teach.meta_at: %d is not from 1 to %d", c->meta_at[i], c->steps - 1);
    for (int i = 0; i < c->n_mix; i++)
        if (!space_find(c->mix_space[i]) || !(c->mix_weight[i] >= 0))
            return err_set(e, ERR_INPUT, "teach.mix: %s: no such space, or a negative weight", c->mix_space[i]);
    if (c->n_mix < 1)
        return err_set(e, ERR_INPUT, "teach.mix: names no space");
    if (c->warm_start < 0)
        return err_set(e, ERR_INPUT, "teach.warm_start: %d is negative", c->warm_start);
    if (d->n[SPLIT_TRAIN] < 1 || d->n[SPLIT_VALID] < 1)
        return err_set(e, ERR_INPUT, "dataset %s has no training or no validation images", d->hash);
    return 0;
}

static int allocate(struct teacher *t, struct errbuf *e)
{
    const struct teach_cfg *c = &t->cfg;
    uint64_t T = (uint64_t)c->steps, n = t->n_theta, dx = t->kind->learns_images ? t->n_x : 0, dy = t->part[PART_LABELS].n;
    bool ok = (t->theta = mem_array(n, 4)) && (t->grad = mem_array(n, 4)) && (t->adam.m = mem_array(n, 4)) &&
              (t->adam.v = mem_array(n, 4)) && (t->label = mem_array(T * (uint64_t)c->batch, sizeof *t->label)) &&
              (t->x = mem_array(t->n_x, 4)) && (t->y = mem_array(t->n_y, 4)) && (t->dx = mem_array(dx, 4)) &&
              (t->dy = mem_array(dy, 4)) && (t->lr = mem_array(T, 8)) && (t->mu = mem_array(T, 8)) && (t->dlr = mem_array(T, 8)) &&
              (t->dmu = mem_array(T, 8)) && (t->run = mem_array((uint64_t)t->n_learners, sizeof *t->run));
    for (int k = 0; ok && k < t->n_learners; k++) {
        struct learner_run *r = &t->run[k];
        ok = (t->dev || ((r->dx = mem_array(dx, 4)) && (r->dy = mem_array(dy, 4)))) && (r->dlr = mem_array(T, 8)) && (r->dmu = mem_array(T, 8));
    }
    return ok ? 0 : err_set(e, ERR_NOMEM, "a teacher of %llu parameters", (unsigned long long)n);
}

static int make_crew(struct teacher *t, struct errbuf *e)
{
    t->n_crew = t->threads < t->n_learners ? t->threads : t->n_learners;
    if (t->n_crew == t->threads || t->dev)
        return 0;
    if (!(t->pool = mem_array((uint64_t)t->n_crew, sizeof(struct eng_pool *))))
        return err_set(e, ERR_NOMEM, "the thread pools");
    for (int i = 0; i < t->n_crew; i++) {
        int rc = eng_pool_new(t->threads / t->n_crew, &t->pool[i], e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int teacher_new(const struct teach_cfg *cfg, uint64_t seed, const struct real_data *data, int threads, uint64_t mem_bytes, const struct device *device,
                uint64_t device_bytes, struct teacher **out, struct errbuf *e)
{
    const struct dataset *d = &data->d;
    struct teacher *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return err_set(e, ERR_NOMEM, "a teacher");
    t->cfg = *cfg;
    t->seed = seed;
    t->data = data;
    t->threads = threads < 1 ? 1 : threads;
    t->mem_bytes = mem_bytes;
    t->device = device;
    t->device_bytes = device_bytes;
    t->kind = teacher_kind_find(cfg->kind);
    int rc = t->kind ? check_cfg(cfg, d, e) : err_set(e, ERR_INPUT, "teach.kind: there is no kind %s", cfg->kind);
    if (rc == 0 && cfg->learn_labels && !t->kind->learns_images)
        rc = err_set(e, ERR_INPUT, "teach.learn_labels: kind %s shows real images with their own labels", cfg->kind);
    if (rc == 0 && cfg->learn_labels && t->kind->order != ORDER_LEARNED)
        rc = err_set(e, ERR_INPUT, "teach.learn_labels: kind %s shows images of given classes in another order every time", cfg->kind);
    if (rc == 0 && cfg->warm_start && (!t->kind->has_generator || t->kind->order == ORDER_NONE))
        rc = err_set(e, ERR_INPUT, "teach.warm_start: kind %s has no generator with learned inputs", cfg->kind);
    if (rc == 0) {
        t->n_learners = cfg->learners * cfg->inits;
        t->image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
        t->n_x = (size_t)cfg->steps * (size_t)cfg->batch * t->image;
        t->n_y = (size_t)cfg->steps * (size_t)cfg->batch * (size_t)d->n_classes;
    }
    if (rc == 0 && device)
        rc = teacher_device_new(t, device, &t->dev, e);
    if (rc == 0 && t->kind->has_generator) {
        struct generator_cfg g = { cfg->steps, cfg->batch, cfg->z_dim, d->n_classes, d->c, d->h, d->w, cfg->g_hidden,
                                   cfg->g_channels1, cfg->g_channels2, t->threads, device, t->dev ? teacher_device_room(t) : 0, t->dev ? teacher_device_x(t->dev) : NULL, t->dev ? teacher_device_dx(t->dev) : NULL };
        rc = generator_new(&g, &t->gen, e);
    }
    if (rc == 0) {
        if (t->dev)
            teacher_device_ready(t);
        t->adam = (struct adam){ .beta1 = cfg->outer_beta1, .beta2 = cfg->outer_beta2, .eps = cfg->outer_eps };
        lay_out(t, t->gen ? generator_get_net(t->gen)->param_count : 0);
        if ((rc = allocate(t, e)) == 0 && (rc = teacher_order_new(t, e)) == 0 && (rc = make_crew(t, e)) == 0) {
            start_values(t);
            if (t->part[PART_IMAGES].n)
                rc = teacher_real_images(t, t->theta + t->part[PART_IMAGES].first, e);
        }
    }
    if (rc < 0)
        teacher_free(t);
    else
        *out = t;
    return rc;
}

void teacher_free(struct teacher *t)
{
    if (!t)
        return;
    for (int k = 0; t->run && k < t->n_learners; k++) {
        struct learner_run *r = &t->run[k];
        net_fini(&r->net);
        free(r->dx);
        free(r->dy);
        free(r->dlr);
        free(r->dmu);
    }
    for (int i = 0; t->pool && i < t->n_crew; i++)
        eng_pool_free(t->pool[i]);
    generator_free(t->gen);
    teacher_device_free(t->dev);
    void *const owned[] = { t->theta, t->grad, t->adam.m, t->adam.v, t->label, t->slot, t->z, t->dz, t->x, t->dx, t->y, t->dy, t->lr, t->mu, t->dlr, t->dmu,
                            t->run, t->pool, t->history };
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    free(t);
}

double teacher_fraction(const struct teacher *t)
{
    double steps = t->cfg.meta_steps > 0 ? (double)t->meta_step / t->cfg.meta_steps : 0;
    double time = t->cfg.seconds > 0 ? t->seconds / t->cfg.seconds : 0;
    return fmin(1, fmax(steps, time));
}

int teacher_draw(const struct teacher *t, uint64_t step, uint64_t index, struct net *out, char arch[ARCH_TEXT_MAX], struct errbuf *e)
{
    const struct teach_cfg *c = &t->cfg;
    const struct dataset *d = &t->data->d;
    struct rng r;
    double total = 0;
    rng_init(&r, rng_derive(t->seed, RNG_LEARNER, step), RNG_LEARNER, index);
    for (int i = 0; i < c->n_mix; i++)
        total += c->mix_weight[i];
    for (int n = 0; n < DRAWS_MAX; n++) {
        double u = rng_uniform(&r) * total;
        int i = 0;
        while (i + 1 < c->n_mix && u >= c->mix_weight[i])
            u -= c->mix_weight[i++];
        const struct space *s = space_find(c->mix_space[i]);
        s->random(s, &r, arch);
        if (space_build(s, arch, d->c, d->h, d->w, d->n_classes, NULL, out, e) < 0)
            continue;
        if ((!c->max_macs || net_macs(out) <= c->max_macs) && (!c->max_params || out->param_count <= c->max_params))
            return 0;
        net_fini(out);
    }
    return err_set(e, ERR_INPUT, "teach.mix: none of %d drawn architectures fits this dataset, max_macs and max_params", DRAWS_MAX);
}

int teacher_unfold(struct teacher *t, uint64_t step, bool here, struct errbuf *e)
{
    const float *lr = t->theta + t->part[PART_LR].first, *mu = t->theta + t->part[PART_MU].first;
    size_t K = (size_t)t->data->d.n_classes;
    for (int i = 0; i < t->cfg.steps; i++) {
        t->lr[i] = exp((double)lr[i]);
        t->mu[i] = 1 / (1 + exp(-(double)mu[i]));
    }
    t->shown = teacher_inputs(t, step);
    if (t->cfg.learn_labels)
        memcpy(t->y, t->theta + t->part[PART_LABELS].first, t->n_y * sizeof *t->y);
    else
        for (size_t i = 0; i < t->n_y; i++)
            t->y[i] = (int)(i % K) == t->label[i / K];
    return t->kind->make_images(t, step, here, e);
}

/* ---- a meta-step ---- */

/* From x, y, lr, mu to theta. */
static int pull_back(struct teacher *t, struct errbuf *e)
{
    float *g = t->grad, *images = t->part[PART_IMAGES].n ? g + t->part[PART_IMAGES].first : NULL, *labels = t->part[PART_LABELS].n ? g + t->part[PART_LABELS].first : NULL;
    int rc = 0;
    if (t->gen && t->dev)
        teacher_device_before(t, generator_queue(t->gen));
    if (t->gen)
        rc = generator_backward(t->gen, t->theta, t->shown, t->label, t->dev ? NULL : t->dx, g, teacher_inputs_grad(t), e);
    teacher_inputs_back(t);
    if (rc == 0 && t->dev)
        rc = teacher_device_get(t, images, labels, e);
    if (rc < 0)
        return rc;
    if (images && !t->dev)
        memcpy(images, t->dx, t->part[PART_IMAGES].n * sizeof *g);
    if (labels && !t->dev)
        memcpy(labels, t->dy, t->part[PART_LABELS].n * sizeof *g);
    for (int i = 0; i < t->cfg.steps; i++) {
        g[t->part[PART_LR].first + (uint64_t)i] = (float)(t->dlr[i] * t->lr[i]);
        g[t->part[PART_MU].first + (uint64_t)i] = (float)(t->dmu[i] * t->mu[i] * (1 - t->mu[i]));
    }
    return 0;
}

/* By how much to shrink something of this norm; the running mean follows what was let through. */
static double clip_factor(double norm, double clip, double *mean)
{
    double f = clip > 0 && *mean > 0 && norm > clip * *mean ? clip * *mean / norm : 1;
    *mean = *mean > 0 ? NORM_KEEP * *mean + (1 - NORM_KEEP) * norm * f : norm;
    return f;
}

static void clamp(float *p, uint64_t n, double lo, double hi)
{
    for (uint64_t i = 0; i < n; i++)
        p[i] = p[i] < (float)lo ? (float)lo : p[i] > (float)hi ? (float)hi : p[i];
}

static void update(struct teacher *t)
{
    const struct teach_cfg *c = &t->cfg;
    double scale = clip_factor(t->last_norm, c->clip, &t->norm_mean);
    double rate = c->outer_lr * (c->outer_lr_end + (1 - c->outer_lr_end) * 0.5 * (1 + cos(M_PI * teacher_fraction(t))));
    adam_next(&t->adam);
    for (int p = 0; p < PART_COUNT; p++)
        adam_apply(&t->adam, t->theta, t->grad, scale, t->part[p].first, t->part[p].n, rate * t->part[p].rate);
    clamp(t->theta + t->part[PART_IMAGES].first, t->part[PART_IMAGES].n, -1, 1);
    clamp(t->theta + t->part[PART_LR].first, t->part[PART_LR].n, LOG_LR_MIN, LOG_LR_MAX);
    clamp(t->theta + t->part[PART_MU].first, t->part[PART_MU].n, -LOGIT_MU_MAX, LOGIT_MU_MAX);
}

int teacher_step(struct teacher *t, struct errbuf *e)
{
    int rc = learners_draw(t, e);
    if (rc < 0 || (rc = teacher_unfold(t, t->meta_step, false, e)) < 0 || (rc = learners_run(t, e)) < 0)
        return rc;
    bool useful = learners_mean(t) > 0;
    if (useful) {
        if ((rc = pull_back(t, e)) < 0)
            return rc;
        t->last_norm = sqrt(eng_dot(ENG_F32, t->n_theta, t->grad, t->grad));
        useful = isfinite(t->last_norm);
    }
    t->skipped += !useful;
    t->skipped_in_a_row = useful ? 0 : t->skipped_in_a_row + 1;
    if (useful)
        update(t);
    t->meta_step++;
    if (t->skipped_in_a_row >= SKIPS_MAX)
        return err_set(e, ERR_DIVERGED, "no learner of the last %d meta-steps gave a finite gradient, lower teach.lr (the last one: %.120s)", SKIPS_MAX,
                       t->run[0].rc < 0 ? err_message(&t->run[0].err, t->run[0].rc) : "its gradient by the teacher's parameters");
    return 0;
}
