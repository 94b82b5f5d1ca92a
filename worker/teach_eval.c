/* teach_eval.c - the curriculum a teacher stands for at the moment, and what learners make of it.
 * Everything is measured on the quantised curriculum: what is reported is what is shipped. */
#include "worker/teacher_int.h"

#include "worker/engine/device.h"
#include "worker/evaluate.h"
#include "worker/heldout.h"
#include "worker/mem.h"
#include "worker/par.h"
#include "worker/teacher_device.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#define EVAL_FRESH  4               /* learners of the mix */
#define EVAL_IMAGES 1000            /* validation images */
#define EVAL_STEP   (1ull << 62)    /* names the evaluation's random streams: no meta-step has this number */
#define EVAL_MAX    64

int teacher_lessons(struct teacher *t, struct lessons *l, struct errbuf *e)
{
    const struct dataset *d = &t->data->d;
    struct curriculum *c = &l->c;
    memset(l, 0, sizeof *l);
    c->T = t->cfg.steps;
    c->B = t->cfg.batch;
    c->c = d->c;
    c->h = d->h;
    c->w = d->w;
    c->K = d->n_classes;
    c->inner = t->cfg.inner;
    c->images = mem_array(t->n_x, 1);
    c->labels = mem_array(t->n_y, sizeof *c->labels);
    c->lr = mem_array((uint64_t)c->T, sizeof *c->lr);
    c->mu = mem_array((uint64_t)c->T, sizeof *c->mu);
    int rc = c->images && c->labels && c->lr && c->mu ? t->kind->images_u8(t, c->images, c->labels, e) :
                                                        err_set(e, ERR_NOMEM, "a curriculum");
    for (int i = 0; rc == 0 && i < c->T; i++) {
        c->lr[i] = (float)exp((double)t->theta[t->part[PART_LR].first + (uint64_t)i]);
        c->mu[i] = (float)(1 / (1 + exp(-(double)t->theta[t->part[PART_MU].first + (uint64_t)i])));
    }
    if (rc == 0)
        rc = lessons_convert(l, e);
    if (rc < 0)
        lessons_fini(l);
    return rc;
}

struct exam {
    struct teacher       *t;
    const struct lessons *l;
    int                   n;
    double                accuracy[EVAL_MAX];
    int                   rc[EVAL_MAX];
    struct errbuf         err[EVAL_MAX];
};

static int build(const struct teacher *t, int i, struct net *n, struct errbuf *e)
{
    const struct dataset *d = &t->data->d;
    char arch[ARCH_TEXT_MAX];
    return i < EVAL_FRESH ? teacher_draw(t, EVAL_STEP, (uint64_t)i, n, arch, e) :
                            heldout_build(i - EVAL_FRESH, d->c, d->h, d->w, d->n_classes, n, e);
}

static void begin(const struct teacher *t, int i, const struct net *n, float *w)
{
    eng_params_init(n, ENG_F32, rng_derive(rng_derive(t->seed, RNG_WEIGHTS, EVAL_STEP), RNG_WEIGHTS, (uint64_t)i), w);
}

/* One learner through the whole curriculum. One that diverges guesses. */
static void examine_there(struct exam *x, int i)
{
    struct net n = { 0 };
    int batch, n_batches, right = 0, rc = build(x->t, i, &n, &x->err[i]);
    float *w = rc == 0 ? mem_array(n.param_count, sizeof *w) : NULL;
    eval_batches(x->t->data, EVAL_IMAGES, &batch, &n_batches);
    if (rc == 0 && !w)
        rc = err_set(&x->err[i], ERR_NOMEM, "%llu weights", (unsigned long long)n.param_count);
    if (rc == 0) {
        begin(x->t, i, &n, w);
        rc = teacher_device_exam(x->t, &n, x->l, w, batch, n_batches, &right, &x->err[i]);
    }
    x->accuracy[i] = right < 0 ? 1.0 / x->l->c.K : (double)right / ((double)batch * n_batches);
    x->rc[i] = rc;
    free(w);
    net_fini(&n);
}

static void examine(void *arg, int i, int thread)
{
    struct exam *x = arg;
    const struct curriculum *c = &x->l->c;
    struct net n = { 0 };
    struct unroll *u = NULL;
    struct evaluator v = { 0 };
    float *w = NULL;
    int failed, rc = build(x->t, i, &n, &x->err[i]);
    (void)thread;
    if (rc == 0) {
        struct unroll_cfg cfg = { .learner = &n, .dtype = ENG_F32, .T = c->T, .B = c->B, .inner = c->inner };
        rc = unroll_new(&cfg, &u, &x->err[i]);
    }
    if (rc == 0 && (rc = evaluator_init(&v, &n, x->t->data, EVAL_IMAGES, NULL, &x->err[i])) == 0 &&
        !(w = mem_array(2 * n.param_count, sizeof *w)))
        rc = err_set(&x->err[i], ERR_NOMEM, "%llu weights", (unsigned long long)n.param_count);
    if (rc == 0) {
        struct unroll_in in = { .w0 = w, .x = x->l->x, .y = c->labels, .lr = x->l->lr, .mu = x->l->mu };
        begin(x->t, i, &n, w);
        rc = unroll_train(u, &in, NULL, w + n.param_count, NULL, NULL, &failed, &x->err[i]);
        if (rc == 0)
            x->accuracy[i] = evaluator_accuracy(&v, w + n.param_count);
        else if (rc == -ERR_DIVERGED) {
            x->accuracy[i] = 1.0 / c->K;
            rc = 0;
        }
    }
    x->rc[i] = rc;
    free(w);
    evaluator_fini(&v);
    unroll_free(u);
    net_fini(&n);
}

static int remember(struct teacher *t, const struct teach_eval *row, struct errbuf *e)
{
    struct teach_eval *h = realloc(t->history, (size_t)(t->n_history + 1) * sizeof *h);
    if (!h)
        return err_set(e, ERR_NOMEM, "the history");
    t->history = h;
    h[t->n_history++] = *row;
    return 0;
}

int teacher_evaluate(struct teacher *t, const struct lessons *l, struct teach_eval *out, struct errbuf *e)
{
    struct exam *x = mem_array(1, sizeof *x);
    if (!x)
        return err_set(e, ERR_NOMEM, "an evaluation");
    int held = heldout_count(), rc = 0;
    *x = (struct exam){ .t = t, .l = l, .n = EVAL_FRESH + held };
    for (int i = 0; t->dev && i < x->n; i++)
        examine_there(x, i);
    if (!t->dev)
        par_run(t->threads, x->n, examine, x);
    *out = (struct teach_eval){ .meta_step = (double)t->meta_step, .seconds = t->seconds, .meta_loss = t->meta_loss };
    for (int i = 0; i < x->n && rc == 0; i++) {
        if (x->rc[i] < 0)
            rc = err_set(e, (enum err)-x->rc[i], "evaluation: %s", err_message(&x->err[i], x->rc[i]));
        if (i < EVAL_FRESH)
            out->accuracy += x->accuracy[i] / EVAL_FRESH;
        else
            out->held_out += x->accuracy[i] / held;
    }
    free(x);
    return rc < 0 ? rc : remember(t, out, e);
}

/* ---- where it comes from ---- */

static json_t *config_json(const struct teach_cfg *c)
{
    json_t *mix = json_object(), *at = json_array();
    for (int i = 0; i < c->n_mix; i++)
        json_object_set_new(mix, c->mix_space[i], json_real(c->mix_weight[i]));
    for (int i = 0; i < c->n_meta_at; i++)
        json_array_append_new(at, json_pack("[i,f]", c->meta_at[i], c->meta_weight[i]));
    json_t *j = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:o, s:f, s:f, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:i, s:i, s:i, s:b, s:o, s:I, s:I}",
                     "kind", c->kind, "steps", c->steps, "batch", c->batch, "meta_steps", c->meta_steps, "learners", c->learners,
                     "meta_batch", c->meta_batch, "meta_at", at, "lr", c->lr, "mu", c->mu, "inner", inner_to_json(&c->inner),
                     "outer_lr", c->outer_lr, "outer_beta1", c->outer_beta1, "outer_beta2", c->outer_beta2, "outer_eps", c->outer_eps,
                     "outer_lr_end", c->outer_lr_end, "outer_schedule", c->outer_schedule, "clip", c->clip, "z_dim", c->z_dim, "g_hidden", c->g_hidden, "g_channels1",
                     c->g_channels1, "g_channels2", c->g_channels2, "warm_start", c->warm_start, "learn_labels", c->learn_labels, "mix", mix, "max_macs",
                     (json_int_t)c->max_macs, "max_params", (json_int_t)c->max_params);
    if (c->inits != 1) /* a curriculum made without the key keeps its bytes, hence its name */
        json_object_set_new(j, "inits", json_integer(c->inits));
    return j;
}

static double digits(double v) { return isfinite(v) ? round(v * 1e4) / 1e4 : 0; }

/* `rows` of the history, evenly spread, the last one always. */
static json_t *history_json(const struct teacher *t, int rows)
{
    json_t *list = json_array();
    int n = t->n_history < rows ? t->n_history : rows;
    for (int i = 0; i < n; i++) {
        const struct teach_eval *h = &t->history[n == 1 ? t->n_history - 1 : (int)((int64_t)i * (t->n_history - 1) / (n - 1))];
        json_array_append_new(list, json_pack("[I,f,f,f]", (json_int_t)h->meta_step, digits(h->meta_loss), digits(h->accuracy),
                                              digits(h->held_out)));
    }
    return list;
}

void teacher_provenance(const struct teacher *t, char *out, size_t cap)
{
    for (int rows = 40; rows >= 0; rows -= 4) {
        char     seed[24];
        name_str engine;
        snprintf(seed, sizeof seed, "%llu", (unsigned long long)t->seed);
        engine_name(t->device ? (enum device_class)device_class_from(t->device->kind) : DEVICE_CPU, engine);
        json_t *j = json_pack("{s:s, s:i, s:s, s:s, s:b, s:i, s:i, s:o, s:o}", "seed", seed, "meta_steps", (int)t->meta_step, "dataset_hash",
                              t->data->d.hash, "engine", engine, "repeatable",
                              !(t->cfg.seconds > 0), "left_out", (int)t->left_out, "skipped", (int)t->skipped, "config",
                              config_json(&t->cfg), "history", history_json(t, rows));
        if (t->device)
            json_object_set_new(j, "device", json_string(t->device->name()));
        char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(6));
        json_decref(j);
        bool fits = text && strlen(text) < cap;
        snprintf(out, cap, "%s", fits ? text : "{}");
        free(text);
        if (fits)
            return;
    }
}
