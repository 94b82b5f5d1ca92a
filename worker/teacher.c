/* teacher.c - what a teacher is made of, and one meta-step.
 *
 * A step: images and schedule from theta; K learners drawn, trained and pulled back side by side (the largest first,
 * so that the last to finish is small); their gradients summed in order of k; the generator's backward; clip; Adam.
 * A learner that diverges is left out of the mean. Learners' gradients are scaled to unit length before they are summed,
 * so that each has one vote. Their lengths span six orders of magnitude over the architectures of `chain`, the longest from
 * deep, chaotic ones that have learned nothing yet: with the plain mean, or with every learner clipped at twice a running
 * mean, the meta-loss had not moved from chance after 60 meta-steps (T = 10, B = 64, K = 4); with one vote each it
 * had fallen from 2.33 to 2.15. The generator's gradient is clipped at a multiple of its running mean. */
#include "worker/teacher_int.h"

#include "worker/mem.h"
#include "worker/par.h"

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
        [PART_Z]         = { t->gen ? TB * (uint64_t)c->z_dim : 0, 1 },
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
    if (c->steps < 1 || c->steps > 4096 || c->batch < 2 || c->batch > 65536 || c->learners < 1 || c->learners > 1024 ||
        c->meta_batch < 2 || c->meta_batch > 65536)
        return err_set(e, ERR_INPUT, "teach: steps, batch, learners or meta_batch out of range");
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
              (t->dmu = mem_array(T, 8)) && (t->run = mem_array((uint64_t)c->learners, sizeof *t->run));
    for (int k = 0; ok && k < c->learners; k++) {
        struct learner_run *r = &t->run[k];
        ok = (r->dx = mem_array(dx, 4)) && (r->dy = mem_array(dy, 4)) && (r->dlr = mem_array(T, 8)) && (r->dmu = mem_array(T, 8));
    }
    return ok ? 0 : err_set(e, ERR_NOMEM, "a teacher of %llu parameters", (unsigned long long)n);
}

static int make_crew(struct teacher *t, struct errbuf *e)
{
    t->n_crew = t->threads < t->cfg.learners ? t->threads : t->cfg.learners;
    if (t->n_crew == t->threads)
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

int teacher_new(const struct teach_cfg *cfg, uint64_t seed, const struct real_data *data, int threads, uint64_t mem_bytes,
                struct teacher **out, struct errbuf *e)
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
    t->kind = teacher_kind_find(cfg->kind);
    int rc = t->kind ? check_cfg(cfg, d, e) : err_set(e, ERR_INPUT, "teach.kind: there is no kind %s", cfg->kind);
    if (rc == 0 && cfg->learn_labels && !t->kind->learns_images)
        rc = err_set(e, ERR_INPUT, "teach.learn_labels: kind %s shows real images with their own labels", cfg->kind);
    if (rc == 0 && cfg->warm_start && !t->kind->has_generator)
        rc = err_set(e, ERR_INPUT, "teach.warm_start: kind %s has no generator", cfg->kind);
    if (rc == 0 && t->kind->has_generator) {
        struct generator_cfg g = { cfg->steps, cfg->batch, cfg->z_dim, d->n_classes, d->c, d->h, d->w, cfg->g_hidden,
                                   cfg->g_channels1, cfg->g_channels2, t->threads };
        rc = generator_new(&g, &t->gen, e);
    }
    if (rc == 0) {
        t->image = (size_t)d->c * (size_t)d->h * (size_t)d->w;
        t->n_x = (size_t)cfg->steps * (size_t)cfg->batch * t->image;
        t->n_y = (size_t)cfg->steps * (size_t)cfg->batch * (size_t)d->n_classes;
        t->adam = (struct adam){ .beta1 = cfg->outer_beta1, .beta2 = cfg->outer_beta2, .eps = cfg->outer_eps };
        lay_out(t, t->gen ? generator_get_net(t->gen)->param_count : 0);
        if ((rc = allocate(t, e)) == 0 && (rc = make_crew(t, e)) == 0) {
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
    for (int k = 0; t->run && k < t->cfg.learners; k++) {
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
    void *const owned[] = { t->theta, t->grad, t->adam.m, t->adam.v, t->label, t->x, t->dx, t->y, t->dy, t->lr, t->mu, t->dlr, t->dmu,
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

void teacher_unfold(struct teacher *t, uint64_t step)
{
    const float *lr = t->theta + t->part[PART_LR].first, *mu = t->theta + t->part[PART_MU].first;
    size_t K = (size_t)t->data->d.n_classes;
    for (int i = 0; i < t->cfg.steps; i++) {
        t->lr[i] = exp((double)lr[i]);
        t->mu[i] = 1 / (1 + exp(-(double)mu[i]));
    }
    if (t->cfg.learn_labels)
        memcpy(t->y, t->theta + t->part[PART_LABELS].first, t->n_y * sizeof *t->y);
    else
        for (size_t i = 0; i < t->n_y; i++)
            t->y[i] = (int)(i % K) == t->label[i / K];
    t->kind->make_images(t, step);
}

/* ---- learners ---- */

static struct unroll_cfg unroll_of(const struct teacher *t, const struct learner_run *r)
{
    return (struct unroll_cfg){ .learner = &r->net, .budget_bytes = r->budget, .dtype = ENG_F32, .T = t->cfg.steps, .B = t->cfg.batch, .meta_batch = t->cfg.meta_batch,
                                .want_dx = t->kind->learns_images, .want_dy = t->cfg.learn_labels, .inner = t->cfg.inner };
}

/* Memory beside that of the learners at work. */
static uint64_t fixed_bytes(const struct teacher *t)
{
    uint64_t own = (t->n_theta * 4 + t->n_x * (uint64_t)(2 + t->cfg.learners) + t->n_y * 2) * sizeof(float);
    return own + (t->gen ? generator_bytes(t->gen) : 0);
}

/* What a learner takes; one that would not fit beside the others computes more again, where that is enough. */
static int size_learner(const struct teacher *t, struct learner_run *r, struct errbuf *e)
{
    const uint64_t beside = r->net.param_count * sizeof(float) +
                            (uint64_t)(t->cfg.n_meta_at + 1) * (uint64_t)t->cfg.meta_batch * (t->image + (uint64_t)t->data->d.n_classes) * 4;
    const uint64_t fixed = fixed_bytes(t), room = t->mem_bytes > fixed ? (t->mem_bytes - fixed) / (uint64_t)t->n_crew : 0;
    r->budget = 0;
    struct unroll_cfg cfg = unroll_of(t, r);
    int rc = unroll_predict(&cfg, &r->bytes, e);
    if (rc < 0)
        return rc;
    if (t->mem_bytes && r->bytes + beside > room && room > beside) {
        uint64_t less;
        cfg.budget_bytes = room - beside;
        if (unroll_predict(&cfg, &less, NULL) == 0) {
            r->budget = cfg.budget_bytes;
            r->bytes = less;
        }
    }
    r->bytes += beside;
    return 0;
}

static int draw_learners(struct teacher *t, struct errbuf *e)
{
    for (int k = 0; k < t->cfg.learners; k++) {
        struct learner_run *r = &t->run[k];
        net_fini(&r->net);
        memset(&r->net, 0, sizeof r->net);
        int rc = teacher_draw(t, t->meta_step, (uint64_t)k, &r->net, r->arch, e);
        if (rc < 0)
            return rc;
        r->macs = net_macs(&r->net);
        if ((rc = size_learner(t, r, e)) < 0)
            return rc;
    }
    return 0;
}

static void sort_largest_first(struct teacher *t, int *order)
{
    for (int i = 0; i < t->cfg.learners; i++) {
        int j = i;
        for (; j > 0 && t->run[order[j - 1]].macs < t->run[i].macs; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
}

static int check_memory(struct teacher *t, struct errbuf *e)
{
    uint64_t top = 0;
    for (int k = 0; k < t->cfg.learners; k++)
        if (t->run[k].bytes > top)
            top = t->run[k].bytes;
    uint64_t need = fixed_bytes(t) + top * (uint64_t)t->n_crew;
    if (need > t->peak_bytes)
        t->peak_bytes = need;
    if (t->mem_bytes && need > t->mem_bytes)
        return err_set(e, ERR_NOMEM, "teach: needs %llu MiB, the budget is %llu MiB: lower learners, batch, steps or max_params",
                       (unsigned long long)(need >> 20), (unsigned long long)(t->mem_bytes >> 20));
    return 0;
}

struct step_job { struct teacher *t; int order[1024]; };

static int run_meta(struct teacher *t, int k, struct unroll *u, float *w0, float *x, float *y)
{
    struct learner_run *r = &t->run[k];
    const struct teach_cfg *c = &t->cfg;
    size_t bx = (size_t)c->meta_batch * t->image, by = (size_t)c->meta_batch * (size_t)t->data->d.n_classes;
    uint64_t batches = rng_derive(t->seed, RNG_BATCH, t->meta_step);
    struct unroll_meta meta[MAX_CHECKPOINTS + 1];
    for (int j = 0; j <= c->n_meta_at; j++) {
        struct rng g;
        rng_init(&g, batches, RNG_BATCH, (uint64_t)k * (MAX_CHECKPOINTS + 1) + (uint64_t)j);
        data_draw(&t->data->d, SPLIT_TRAIN, &g, c->meta_batch, x + (size_t)j * bx, y + (size_t)j * by);
        meta[j] = (struct unroll_meta){ j ? c->meta_at[j - 1] : c->steps, j ? c->meta_weight[j - 1] : 1, x + (size_t)j * bx,
                                        y + (size_t)j * by };
    }
    eng_params_init(&r->net, ENG_F32, rng_derive(rng_derive(t->seed, RNG_WEIGHTS, t->meta_step), RNG_WEIGHTS, (uint64_t)k), w0);
    struct unroll_in in = { .w0 = w0, .x = t->x, .y = t->y, .lr = t->lr, .mu = t->mu, .meta = meta, .n_meta = c->n_meta_at + 1 };
    struct unroll_out out = { .dx = t->kind->learns_images ? r->dx : NULL, .dy = c->learn_labels ? r->dy : NULL,
                              .dlr = r->dlr, .dmu = r->dmu };
    int rc = unroll_meta_grad(u, &in, &out, &r->err);
    r->loss = out.meta_loss;
    return rc;
}

static void run_learner(void *arg, int item, int thread)
{
    struct step_job *job = arg;
    struct teacher *t = job->t;
    int k = job->order[item];
    struct learner_run *r = &t->run[k];
    uint64_t rows = (uint64_t)(t->cfg.n_meta_at + 1) * (uint64_t)t->cfg.meta_batch;
    struct unroll_cfg cfg = unroll_of(t, r);
    struct unroll *u = NULL;
    float *w0 = mem_array(r->net.param_count, 4), *x = mem_array(rows * t->image, 4);
    float *y = mem_array(rows * (uint64_t)t->data->d.n_classes, 4);
    r->rc = w0 && x && y ? unroll_new(&cfg, &u, &r->err) : err_set(&r->err, ERR_NOMEM, "learner %s", r->arch);
    if (r->rc == 0) {
        if (t->pool)
            unroll_set_pool(u, t->pool[thread]);
        r->rc = run_meta(t, k, u, w0, x, y);
    }
    if (r->rc == 0 && !(isfinite(r->loss) && learner_norm(t, r)))
        r->rc = err_set(&r->err, ERR_DIVERGED, "the meta-gradient is not finite");
    unroll_free(u);
    free(w0);
    free(x);
    free(y);
}

/* r->norm over what this learner says about images, labels and (in log and logit form) the schedule; false: not finite. */
bool learner_norm(const struct teacher *t, struct learner_run *r)
{
    double s = 0;
    if (t->kind->learns_images)
        s += eng_dot(ENG_F32, t->n_x, r->dx, r->dx);
    if (t->cfg.learn_labels)
        s += eng_dot(ENG_F32, t->n_y, r->dy, r->dy);
    for (int i = 0; i < t->cfg.steps; i++) {
        double a = r->dlr[i] * t->lr[i], b = r->dmu[i] * t->mu[i] * (1 - t->mu[i]);
        s += a * a + b * b;
    }
    r->norm = sqrt(s);
    return isfinite(r->norm);
}

/* By how much to shrink something of this norm; the running mean follows what was let through. */
static double clip_factor(double norm, double clip, double *mean)
{
    double f = clip > 0 && *mean > 0 && norm > clip * *mean ? clip * *mean / norm : 1;
    *mean = *mean > 0 ? NORM_KEEP * *mean + (1 - NORM_KEEP) * norm * f : norm;
    return f;
}

/* The mean over the learners that made it, in order of k. Returns how many. */
static int sum_learners(struct teacher *t)
{
    int good = 0;
    double loss = 0;
    for (int k = 0; k < t->cfg.learners; k++)
        good += t->run[k].rc == 0;
    memset(t->dx, 0, (t->kind->learns_images ? t->n_x : 0) * sizeof(float));
    memset(t->dy, 0, t->part[PART_LABELS].n * sizeof(float));
    memset(t->dlr, 0, (size_t)t->cfg.steps * sizeof(double));
    memset(t->dmu, 0, (size_t)t->cfg.steps * sizeof(double));
    t->left_out += (uint64_t)(t->cfg.learners - good);
    for (int k = 0; k < t->cfg.learners; k++) {
        struct learner_run *r = &t->run[k];
        if (r->rc != 0)
            continue;
        double f = r->norm > 0 ? 1 / (r->norm * good) : 0;
        loss += r->loss / good;
        if (t->kind->learns_images)
            eng_axpy(ENG_F32, t->n_x, f, r->dx, t->dx);
        if (t->cfg.learn_labels)
            eng_axpy(ENG_F32, t->n_y, f, r->dy, t->dy);
        for (int i = 0; i < t->cfg.steps; i++) {
            t->dlr[i] += f * r->dlr[i];
            t->dmu[i] += f * r->dmu[i];
        }
    }
    if (good)
        t->meta_loss = loss;
    return good;
}

/* From x, y, lr, mu to theta. */
static void pull_back(struct teacher *t)
{
    float *g = t->grad;
    if (t->gen)
        generator_backward(t->gen, t->theta, t->theta + t->part[PART_Z].first, t->label, t->dx, g, g + t->part[PART_Z].first);
    memcpy(g + t->part[PART_IMAGES].first, t->dx, t->part[PART_IMAGES].n * sizeof *g);
    memcpy(g + t->part[PART_LABELS].first, t->dy, t->part[PART_LABELS].n * sizeof *g);
    for (int i = 0; i < t->cfg.steps; i++) {
        g[t->part[PART_LR].first + (uint64_t)i] = (float)(t->dlr[i] * t->lr[i]);
        g[t->part[PART_MU].first + (uint64_t)i] = (float)(t->dmu[i] * t->mu[i] * (1 - t->mu[i]));
    }
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
    struct step_job job = { .t = t };
    int rc = draw_learners(t, e);
    if (rc < 0 || (rc = check_memory(t, e)) < 0)
        return rc;
    sort_largest_first(t, job.order);
    teacher_unfold(t, t->meta_step);
    par_run(t->n_crew, t->cfg.learners, run_learner, &job);
    for (int k = 0; k < t->cfg.learners; k++)
        if (t->run[k].rc < 0 && t->run[k].rc != -ERR_DIVERGED)
            return err_set(e, (enum err)-t->run[k].rc, "learner %s: %s", t->run[k].arch, err_message(&t->run[k].err, t->run[k].rc));
    bool useful = sum_learners(t) > 0;
    if (useful) {
        pull_back(t);
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
