/* scorer.c - the score of an architecture: accuracy on real validation images after `steps` inner steps on a curriculum.
 *
 * A score is a pure function of (architecture, curriculum, dataset, fidelity, seed, engine version). For each multiple of
 * the learned step size and each initialisation a learner is trained; the multiple with the best mean is the
 * score (the first of equal ones).
 * The zero-cost scores that the task asks for are taken at the first initialisation's weights. A latency that it asks for is a measurement,
 * and no part of the score.
 * A learner that diverges counts as guessing from there on: accuracy 1/K at later checkpoints and at the end, loss
 * log K for the steps that are missing. When all diverge, the trial has failed(nan); not so where they are further initialisations of one that
 * has had others: then they are scores like these. */
#include "worker/clock.h"
#include "worker/datacache.h"
#include "worker/device_score.h"
#include "worker/evaluate.h"
#include "worker/latency.h"
#include "worker/mem.h"
#include "worker/spaces.h"
#include "worker/task.h"
#include "worker/zerocost.h"

#include <math.h>
#include <stdio.h>

struct scorer {
    const struct score_task *task;
    const struct task_env   *env;
    const struct real_data  *data;
    const struct lessons    *lessons;
    struct net       net;
    struct eng_pool *pool;
    struct unroll   *u;
    struct evaluator eval;
    float           *w0;
    double          *lr, *inner_loss;
    int              steps;
    double           acc[MAX_CHECKPOINTS + 1]; /* of the learner at work: at each checkpoint, last at the end */
    int              runs_done;
    struct timespec  begin;
};

struct scale_sum { /* what one multiple of the step size gave */
    int    diverged;
    double init[MAX_INITS], checkpoint[MAX_CHECKPOINTS], loss;
};

static int check(struct scorer *s, struct errbuf *e)
{
    const struct fidelity *f = &s->task->fidelity;
    const struct curriculum *c = &s->lessons->c;
    const struct dataset *d = &s->data->d;
    if (c->c != d->c || c->h != d->h || c->w != d->w || c->K != d->n_classes)
        return err_set(e, ERR_INPUT, "the curriculum is for %dx%dx%d images of %d classes, dataset %s has %dx%dx%d of %d", c->c, c->h,
                       c->w, c->K, d->hash, d->c, d->h, d->w, d->n_classes);
    s->steps = f->steps ? f->steps : c->T;
    if (s->steps < 1 || s->steps > c->T)
        return err_set(e, ERR_INPUT, "fidelity.steps is %d, the curriculum has %d", f->steps, c->T);
    if (f->first_init < 0 || f->first_init >= MAX_INITS || f->inits < 1 || f->inits > MAX_INITS - f->first_init || f->n_lr_scales < 0 || f->n_lr_scales > MAX_SCALES || f->n_checkpoints < 0 ||
        f->n_checkpoints > MAX_CHECKPOINTS || f->valid_images < 1)
        return err_set(e, ERR_INPUT, "fidelity is out of range");
    for (int i = 0; i < f->n_checkpoints; i++)
        if (f->checkpoint[i] < 1 || f->checkpoint[i] > s->steps)
            return err_set(e, ERR_INPUT, "fidelity.checkpoints: %d is not from 1 to %d", f->checkpoint[i], s->steps);
    return 0;
}

/* Exact memory is known before anything is allocated. */
static int compile(struct scorer *s, struct trial_result *r, struct errbuf *e)
{
    const struct curriculum *c = &s->lessons->c;
    struct unroll_cfg cfg = { .learner = &s->net, .dtype = ENG_F32, .T = s->steps, .B = c->B, .inner = c->inner };
    struct demand d = { 0 };
    int batch, n_batches, rc;
    eval_batches(s->data, s->task->fidelity.valid_images, &batch, &n_batches);
    if (n_batches == 0)
        return err_set(e, ERR_INPUT, "dataset %s has no validation images", s->data->d.hash);
    if (!s->task->untrained && !s->env->device && (rc = demand_score(&s->net, s->steps, c->B, &c->inner, batch, n_batches, &d, e)) < 0)
        return rc;
    r->mem_bytes = d.mem_bytes;
    if (s->task->zero_cost) { /* before the training, and gone when it starts */
        uint64_t bytes = 0;
        if ((rc = zerocost_predict(&s->net, s->data, s->task->zero_cost, &bytes, e)) < 0)
            return rc;
        r->mem_bytes = bytes > r->mem_bytes ? bytes : r->mem_bytes;
    }
    if (s->task->latency_batch) { /* likewise */
        uint64_t bytes = 0;
        if ((rc = demand_latency(&s->net, s->task->latency_batch, &bytes, e)) < 0)
            return rc;
        r->mem_bytes = bytes > r->mem_bytes ? bytes : r->mem_bytes;
    }
    if (s->env->mem_bytes && r->mem_bytes > s->env->mem_bytes)
        return err_set(e, ERR_NOMEM, "needs %llu MiB, the budget is %llu MiB", (unsigned long long)(r->mem_bytes >> 20),
                       (unsigned long long)(s->env->mem_bytes >> 20));
    if ((rc = eng_pool_new(s->env->threads > 1 ? s->env->threads : 1, &s->pool, e)) < 0)
        return rc;
    if (s->task->zero_cost && (rc = zerocost_scores(&s->net, s->data, rng_derive(s->task->seed, RNG_WEIGHTS, 0), s->pool, s->task->zero_cost,
                                                    &r->zero_cost, e)) < 0)
        return rc;
    if (s->task->latency_batch && (rc = latency_measure(&s->net, s->data, s->task->latency_batch, s->env->cancelled, s->env->arg,
                                                        &r->latency_ms, e)) < 0)
        return rc;
    if (s->task->untrained)
        return 0;
    if (!(s->lr = mem_array((uint64_t)s->steps, sizeof *s->lr)))
        return err_set(e, ERR_NOMEM, "%d steps", s->steps);
    if (s->env->device)
        return 0;
    if ((rc = unroll_new(&cfg, &s->u, e)) < 0)
        return rc;
    unroll_set_pool(s->u, s->pool);
    if ((rc = evaluator_init(&s->eval, &s->net, s->data, s->task->fidelity.valid_images, s->pool, e)) < 0)
        return rc;
    s->w0 = mem_array(s->net.param_count, sizeof *s->w0);
    s->inner_loss = mem_array((uint64_t)s->steps, sizeof *s->inner_loss);
    return s->w0 && s->inner_loss ? 0 : err_set(e, ERR_NOMEM, "%llu weights", (unsigned long long)s->net.param_count);
}

static void tell(struct scorer *s, int step)
{
    const struct fidelity *f = &s->task->fidelity;
    int runs = f->inits * (f->n_lr_scales ? f->n_lr_scales : 1);
    double done = (double)s->runs_done * s->steps + step, t = seconds_since(&s->begin);
    struct task_progress p = { .done = done, .total = (double)runs * s->steps, .rate = t > 0 ? done / s->steps / t : 0 };
    if (s->env->progress)
        s->env->progress(s->env->arg, &p);
}

static bool after_step(void *arg, int t, const void *w, double loss)
{
    struct scorer *s = arg;
    const struct fidelity *f = &s->task->fidelity;
    bool wanted = t == s->steps;
    for (int i = 0; i < f->n_checkpoints; i++)
        wanted |= f->checkpoint[i] == t;
    if (wanted && isfinite(loss)) {
        double a = evaluator_accuracy(&s->eval, w);
        for (int i = 0; i < f->n_checkpoints; i++)
            if (f->checkpoint[i] == t)
                s->acc[i] = a;
        if (t == s->steps)
            s->acc[f->n_checkpoints] = a;
        tell(s, t);
    }
    return !(s->env->cancelled && s->env->cancelled(s->env->arg));
}

/* One learner. Returns 0, 1 when it diverged (e says where), or an error. */
static int run_one(struct scorer *s, int init, double scale, struct errbuf *e)
{
    const struct lessons *l = s->lessons;
    const struct fidelity *f = &s->task->fidelity;
    struct unroll_in in = { .w0 = s->w0, .x = l->x, .y = l->c.labels, .lr = s->lr, .mu = l->mu };
    eng_params_init(&s->net, ENG_F32, rng_derive(s->task->seed, RNG_WEIGHTS, (uint64_t)init), s->w0);
    for (int t = 0; t < s->steps; t++) {
        s->lr[t] = l->lr[t] * scale;
        s->inner_loss[t] = log(l->c.K); /* what stays where training stops early */
    }
    for (int i = 0; i <= f->n_checkpoints; i++)
        s->acc[i] = 1.0 / l->c.K;
    int failed_step = 0, rc = unroll_train(s->u, &in, s->inner_loss, NULL, after_step, s, &failed_step, e);
    if (s->env->cancelled && s->env->cancelled(s->env->arg))
        return err_set(e, ERR_CANCELLED, "cancelled");
    s->runs_done++;
    if (rc == -ERR_DIVERGED) {
        for (int t = 0; t < s->steps; t++)
            if (t >= failed_step) /* the engine counts from 0 */
                s->inner_loss[t] = log(l->c.K);
        s->acc[f->n_checkpoints] = 1.0 / l->c.K;
        return 1;
    }
    return rc;
}

/* All initialisations at once. */
static int run_scale_on_device(struct scorer *s, double scale, struct scale_sum *sum, struct trial_result *r, struct errbuf *e)
{
    const struct fidelity *f = &s->task->fidelity;
    struct device_task t = { s->env->device, &s->net, s->data, s->lessons, f, s->steps, s->task->seed, s->lr, s->env->device_bytes, 0 };
    struct device_learner learner[MAX_INITS];
    memset(sum, 0, sizeof *sum);
    for (int i = 0; i < s->steps; i++)
        s->lr[i] = s->lessons->lr[i] * scale;
    int rc = device_score(&t, learner, e);
    r->mem_bytes = t.bytes > r->mem_bytes ? t.bytes : r->mem_bytes;
    if (s->env->cancelled && s->env->cancelled(s->env->arg))
        return err_set(e, ERR_CANCELLED, "cancelled");
    for (int i = 0; rc == 0 && i < f->inits; i++) {
        const struct device_learner *l = &learner[i];
        if (l->failed_step >= 0 && sum->diverged++ == 0 && !*r->detail)
            snprintf(r->detail, sizeof r->detail, "not finite at inner step %d of %d (initialisation %d, step size times %g)", l->failed_step + 1, s->steps, f->first_init + i, scale);
        sum->init[i] = l->acc[f->n_checkpoints];
        for (int k = 0; k < f->n_checkpoints; k++)
            sum->checkpoint[k] += l->acc[k] / f->inits;
        sum->loss += l->loss / f->inits;
        s->runs_done++;
    }
    tell(s, 0);
    return rc;
}

static int run_scale(struct scorer *s, double scale, struct scale_sum *sum, char *detail, size_t cap, struct errbuf *e)
{
    const struct fidelity *f = &s->task->fidelity;
    memset(sum, 0, sizeof *sum);
    for (int i = 0; i < f->inits; i++) {
        int rc = run_one(s, f->first_init + i, scale, e);
        if (rc < 0)
            return rc;
        if (rc > 0 && sum->diverged++ == 0 && !*detail)
            snprintf(detail, cap, "%.180s (initialisation %d, step size times %g)", err_message(e, -ERR_DIVERGED), f->first_init + i,
                     scale);
        sum->init[i] = s->acc[f->n_checkpoints];
        for (int k = 0; k < f->n_checkpoints; k++)
            sum->checkpoint[k] += s->acc[k] / f->inits;
        for (int t = 0; t < s->steps; t++)
            sum->loss += s->inner_loss[t] / f->inits;
    }
    return 0;
}

static double mean_of(const double *v, int n)
{
    double m = 0;
    for (int i = 0; i < n; i++)
        m += v[i];
    return m / n;
}

static int run_all(struct scorer *s, struct trial_result *r, struct errbuf *e)
{
    const struct fidelity *f = &s->task->fidelity;
    int scales = f->n_lr_scales ? f->n_lr_scales : 1;
    bool any = false;
    r->state = TRIAL_FAILED;
    r->reason = FAIL_NAN;
    for (int k = 0; k < scales; k++) {
        double scale = f->n_lr_scales ? f->lr_scale[k] : 1.0;
        struct scale_sum sum;
        int rc = s->env->device ? run_scale_on_device(s, scale, &sum, r, e) : run_scale(s, scale, &sum, r->detail, sizeof r->detail, e);
        if (rc < 0)
            return rc;
        double mean = mean_of(sum.init, f->inits), var = 0;
        if ((sum.diverged == f->inits && f->first_init == 0) || (any && mean <= r->score))
            continue;
        any = true;
        for (int i = 0; i < f->inits; i++)
            var += (sum.init[i] - mean) * (sum.init[i] - mean);
        r->state = TRIAL_SCORED;
        r->reason = FAIL_NONE;
        r->score = mean;
        r->score_se = f->inits > 1 ? sqrt(var / (f->inits - 1) / f->inits) : 0;
        r->n_inits = f->inits;
        memcpy(r->init_score, sum.init, sizeof r->init_score);
        r->n_checkpoints = f->n_checkpoints;
        memcpy(r->checkpoint, f->checkpoint, sizeof r->checkpoint);
        memcpy(r->checkpoint_score, sum.checkpoint, sizeof r->checkpoint_score);
        r->loss_sum = sum.loss;
        r->lr_scale = scale;
    }
    if (any)
        r->detail[0] = 0;
    return 0;
}

static const char *blob(const struct task_env *env, const char *hash)
{
    return env->blob_path(env->arg, hash);
}

int task_score(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    struct scorer s = { .task = &t->score, .env = env };
    const struct space *space = NULL;
    const char *data = blob(env, t->score.dataset), *lessons = blob(env, t->score.curriculum);
    int rc;
    clock_gettime(CLOCK_MONOTONIC, &s.begin);
    eng_thread_init();
    rc = spaces_of_task(env, t->score.space, t->score.space_hash, &space, e);
    if (rc == 0 && (!data || !lessons))
        rc = err_set(e, ERR_INPUT, "the task names no %s", data ? "curriculum" : "dataset");
    if (rc == 0 && (rc = datacache_data(data, &s.data, e)) == 0 && (rc = datacache_lessons(lessons, &s.lessons, e)) == 0 &&
             (rc = check(&s, e)) == 0) {
        const struct dataset *d = &s.data->d;
        rc = space_build(space, t->score.arch, d->c, d->h, d->w, d->n_classes, &t->score.fidelity.proxy, &s.net, e);
        r->params = s.net.param_count;
        r->macs = rc == 0 ? net_macs(&s.net) : 0;
        if (rc == 0 && (rc = compile(&s, r, e)) == 0 && !t->score.untrained)
            rc = run_all(&s, r, e);
        if (rc == 0 && t->score.untrained)
            r->state = TRIAL_SCORED;
    }
    r->seconds = seconds_since(&s.begin);
    evaluator_fini(&s.eval);
    unroll_free(s.u);
    eng_pool_free(s.pool);
    free(s.w0);
    free(s.lr);
    free(s.inner_loss);
    net_fini(&s.net);
    datacache_release(s.data);
    datacache_release(s.lessons);
    return rc;
}
