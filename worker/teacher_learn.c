/* teacher_learn.c - the learners of a meta-step: drawn, trained and pulled back, and the mean of what they say.
 *
 * learners networks are drawn, and inits learners made of each; every learner has its own initial weights and real batches, named by its
 * number k. On the CPU they run side by side, the largest first, so that the last to finish is small.
 * A learner that diverges is left out of the mean. Gradients are scaled to unit length before they are summed, in order of k,
 * so that each learner has one vote. Their lengths span six orders of magnitude over the architectures of `chain`, the longest from
 * deep, chaotic ones that have learned nothing yet: with the plain mean, or with every learner clipped at twice a running
 * mean, the meta-loss had not moved from chance after 60 meta-steps (T = 10, B = 64, K = 4); with one vote each it
 * had fallen from 2.33 to 2.15. */
#include "worker/teacher_int.h"

#include "worker/mem.h"
#include "worker/par.h"
#include "worker/teacher_device.h"

#include <math.h>

static struct unroll_cfg unroll_of(const struct teacher *t, const struct learner_run *r)
{
    return (struct unroll_cfg){ .learner = &r->net, .budget_bytes = r->budget, .dtype = ENG_F32, .T = t->cfg.steps, .B = t->cfg.batch, .meta_batch = t->cfg.meta_batch,
                                .want_dx = t->kind->learns_images, .want_dy = t->cfg.learn_labels, .inner = t->cfg.inner };
}

/* Memory beside that of the learners at work. */
static uint64_t fixed_bytes(const struct teacher *t)
{
    const uint64_t own_x = t->dev ? 0 : (uint64_t)t->n_learners, own = (t->n_theta * 4 + t->n_x * (2 + own_x) + t->n_y * 2) * sizeof(float);
    return own + (t->gen ? generator_bytes(t->gen) : 0);
}

/* What a learner takes; one that would not fit beside the others computes more again, where that is enough. */
static int size_learner(const struct teacher *t, struct learner_run *r, struct errbuf *e)
{
    const uint64_t beside = r->net.param_count * sizeof(float) +
                            (uint64_t)(t->cfg.n_meta_at + 1) * (uint64_t)t->cfg.meta_batch * (t->image + (uint64_t)t->data->d.n_classes) * 4;
    const uint64_t fixed = fixed_bytes(t), room = t->mem_bytes > fixed ? (t->mem_bytes - fixed) / (uint64_t)t->n_crew : 0;
    r->budget = 0;
    r->bytes = beside;
    if (t->dev)
        return 0; /* the rest lies there */
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

static int check_memory(struct teacher *t, struct errbuf *e)
{
    uint64_t top = 0;
    for (int k = 0; k < t->n_learners; k++)
        if (t->run[k].bytes > top)
            top = t->run[k].bytes;
    uint64_t need = fixed_bytes(t) + top * (uint64_t)(t->dev ? t->n_learners : t->n_crew);
    if (need > t->peak_bytes)
        t->peak_bytes = need;
    if (t->mem_bytes && need > t->mem_bytes)
        return err_set(e, ERR_NOMEM, "teach: needs %llu MiB, the budget is %llu MiB: lower learners, batch, steps or max_params",
                       (unsigned long long)(need >> 20), (unsigned long long)(t->mem_bytes >> 20));
    return 0;
}

/* Learner k; those of one draw have the same network. */
static int draw(struct teacher *t, int k, struct errbuf *e)
{
    struct learner_run *r = &t->run[k], *first = &t->run[k - k % t->cfg.inits];
    net_fini(&r->net);
    memset(&r->net, 0, sizeof r->net);
    if (r != first) {
        memcpy(r->arch, first->arch, sizeof r->arch);
        r->macs = first->macs;
        r->bytes = first->bytes;
        r->budget = first->budget;
        return net_copy(&r->net, &first->net, e);
    }
    int rc = teacher_draw(t, t->meta_step, (uint64_t)(k / t->cfg.inits), &r->net, r->arch, e);
    if (rc < 0)
        return rc;
    r->macs = net_macs(&r->net);
    return size_learner(t, r, e);
}

int learners_draw(struct teacher *t, struct errbuf *e)
{
    int rc = 0;
    for (int k = 0; rc == 0 && k < t->n_learners; k++)
        rc = draw(t, k, e);
    return rc < 0 ? rc : check_memory(t, e);
}

void learner_begin(const struct teacher *t, int k, float *w0)
{
    eng_params_init(&t->run[k].net, ENG_F32, rng_derive(rng_derive(t->seed, RNG_WEIGHTS, t->meta_step), RNG_WEIGHTS, (uint64_t)k), w0);
}

static void real_stream(const struct teacher *t, int k, int j, struct rng *g)
{
    rng_init(g, rng_derive(t->seed, RNG_BATCH, t->meta_step), RNG_BATCH, (uint64_t)k * (MAX_CHECKPOINTS + 1) + (uint64_t)j);
}

void learner_rows(const struct teacher *t, int k, int j, int *row)
{
    struct rng g;
    real_stream(t, k, j, &g);
    data_rows(&t->data->d, SPLIT_TRAIN, &g, t->cfg.meta_batch, row);
}

void learner_real(const struct teacher *t, int k, int j, float *x, float *y)
{
    struct rng g;
    real_stream(t, k, j, &g);
    data_draw(&t->data->d, SPLIT_TRAIN, &g, t->cfg.meta_batch, x, y);
}

int    learner_real_step(const struct teacher *t, int j) { return j ? t->cfg.meta_at[j - 1] : t->cfg.steps; }
double learner_real_weight(const struct teacher *t, int j) { return j ? t->cfg.meta_weight[j - 1] : 1; }

static void sort_largest_first(struct teacher *t, int *order)
{
    for (int i = 0; i < t->n_learners; i++) {
        int j = i;
        for (; j > 0 && t->run[order[j - 1]].macs < t->run[i].macs; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
}

static double squares(const struct teacher *t, const struct learner_run *r)
{
    double s = 0;
    if (t->kind->learns_images)
        s += eng_dot(ENG_F32, t->n_x, r->dx, r->dx);
    if (t->cfg.learn_labels)
        s += eng_dot(ENG_F32, t->n_y, r->dy, r->dy);
    return s;
}

bool learner_norm(const struct teacher *t, struct learner_run *r, double s)
{
    for (int i = 0; i < t->cfg.steps; i++) {
        double a = r->dlr[i] * t->lr[i], b = r->dmu[i] * t->mu[i] * (1 - t->mu[i]);
        s += a * a + b * b;
    }
    r->norm = sqrt(s);
    return isfinite(r->norm);
}

struct step_job { struct teacher *t; int order[TEACH_MAX_LEARNERS]; };

static int run_meta(struct teacher *t, int k, struct unroll *u, float *w0, float *x, float *y)
{
    struct learner_run *r = &t->run[k];
    const struct teach_cfg *c = &t->cfg;
    size_t bx = (size_t)c->meta_batch * t->image, by = (size_t)c->meta_batch * (size_t)t->data->d.n_classes;
    struct unroll_meta meta[MAX_CHECKPOINTS + 1];
    for (int j = 0; j <= c->n_meta_at; j++) {
        learner_real(t, k, j, x + (size_t)j * bx, y + (size_t)j * by);
        meta[j] = (struct unroll_meta){ learner_real_step(t, j), learner_real_weight(t, j), x + (size_t)j * bx, y + (size_t)j * by };
    }
    learner_begin(t, k, w0);
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
    if (r->rc == 0 && !(isfinite(r->loss) && learner_norm(t, r, squares(t, r))))
        r->rc = err_set(&r->err, ERR_DIVERGED, "the meta-gradient is not finite");
    unroll_free(u);
    free(w0);
    free(x);
    free(y);
}

int learners_run(struct teacher *t, struct errbuf *e)
{
    struct step_job job = { .t = t };
    if (t->dev)
        return teacher_device_run(t, e);
    sort_largest_first(t, job.order);
    par_run(t->n_crew, t->n_learners, run_learner, &job);
    for (int k = 0; k < t->n_learners; k++)
        if (t->run[k].rc < 0 && t->run[k].rc != -ERR_DIVERGED)
            return err_set(e, (enum err)-t->run[k].rc, "learner %s: %s", t->run[k].arch, err_message(&t->run[k].err, t->run[k].rc));
    return 0;
}

/* The mean over the learners that made it, in order of k. Returns how many. */
int learners_mean(struct teacher *t)
{
    int good = 0;
    double loss = 0;
    for (int k = 0; k < t->n_learners; k++)
        good += t->run[k].rc == 0;
    memset(t->dx, 0, (t->kind->learns_images ? t->n_x : 0) * sizeof(float));
    memset(t->dy, 0, t->part[PART_LABELS].n * sizeof(float));
    memset(t->dlr, 0, (size_t)t->cfg.steps * sizeof(double));
    memset(t->dmu, 0, (size_t)t->cfg.steps * sizeof(double));
    t->left_out += (uint64_t)(t->n_learners - good);
    for (int k = 0; k < t->n_learners; k++) {
        struct learner_run *r = &t->run[k];
        if (r->rc != 0)
            continue;
        double f = r->norm > 0 ? 1 / (r->norm * good) : 0;
        loss += r->loss / good;
        if (t->kind->learns_images && !t->dev)
            eng_axpy(ENG_F32, t->n_x, f, r->dx, t->dx);
        if (t->cfg.learn_labels && !t->dev)
            eng_axpy(ENG_F32, t->n_y, f, r->dy, t->dy);
        for (int i = 0; i < t->cfg.steps; i++) {
            t->dlr[i] += f * r->dlr[i];
            t->dmu[i] += f * r->dmu[i];
        }
    }
    if (good)
        t->meta_loss = loss;
    if (good && t->dev)
        teacher_device_scale(t, 1.0 / good);
    return good;
}
