/* unroll.c - T inner steps and the adjoint walk back through them (DESIGN: forward-over-reverse).
 *
 *   forward, t = 0 … T-1:  G_t = grad l(w_t; x_t, y_t), clipped and decayed;  (w, s)_{t+1} = optimiser row's step
 *   back,    t = T-1 … 0:  the row's adjoint turns (a, b) = (dJ/dw_{t+1}, dJ/ds_{t+1}) into the direction u, the adjoint
 *                          of G_t; one tangent pass gives H_t u, dJ/dx_t, dJ/dy_t;  a += H_t u (+ real losses at w_t)
 * Kept: w_t and the optimiser's states s_t of every step (and G_t where the way back reads it), with momentum alone
 * 2 T P numbers, and one arena that the
 * step's plan and the real batch's plan share, for they never run at once.
 *
 * A forward of F operations: a training step takes 3F. Its tangent pass takes 8F where it computes the forward and the
 * adjoints again, 6F where the plain pass has left them. How many of the last steps leave them is a matter of cfg.budget_bytes. */
#include "worker/engine/nonfinite.h"
#include "worker/engine/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unroll {
    struct unroll_cfg cfg;      /* learner NULL after unroll_new */
    const struct kernels *k;
    struct eng_plan *step, *real;
    struct eng_plan *keeper;    /* the step's plan that keeps; NULL where no step does */
    int n_kept;                 /* the last so many steps are run by it */
    struct optim_tensor *tensor;
    struct optim_ctx optim;
    uint64_t P, bytes;
    bool keep_g;                /* every step's G is kept for the way back */
    char *arena;
    char *w, *s, *g;            /* [T+1][P], [T+1][states][P], [T or 1][P]; training alone keeps two of the first two */
    char *a, *b, *u, *hu, *ge;  /* [P], b [states][P]; ge: the shaped gradient, on the way back */
    char *y;                    /* [B,K]: smoothed labels */
    char *kept;                 /* [n_kept] of keeper's kept_bytes */
};

/* With at most NET_MAX_PARAMS numbers a row, no size of an unroll overflows. */
#define MAX_STEPS (1 << 20)

struct sizes { uint64_t arena, w, s, g, a, b, u, hu, ge, y, kept, total; };

static uint64_t row_bytes(const struct unroll *u) { return (u->P * eng_dtype_size(u->cfg.dtype) + 63) & ~(uint64_t)63; }
static const struct optim_row *optimiser(const struct unroll *u) { return &u->k->optim[u->cfg.inner.type]; }
static uint64_t labels_elems(const struct unroll *u) { return u->step->tensor[u->step->output].elems; }

static struct sizes sizes_of(const struct unroll *u)
{
    const uint64_t row = row_bytes(u), T = (uint64_t)u->cfg.T, states = (uint64_t)optimiser(u)->n_states;
    const bool back = u->cfg.meta_batch > 0;
    struct sizes s = { .arena = u->n_kept < u->cfg.T ? u->step->bytes : 0, .kept = u->keeper ? u->keeper->kept_bytes * (uint64_t)u->n_kept : 0 };
    if (u->real && u->real->bytes > s.arena)
        s.arena = u->real->bytes;
    if (u->keeper && u->keeper->bytes > s.arena)
        s.arena = u->keeper->bytes;
    s.w = row * (back ? T + 1 : 2);
    s.s = s.w * states;
    s.g = row * (u->keep_g ? T : 1);
    s.a = s.u = s.hu = back ? row : 0;
    s.b = s.a * states;
    s.ge = u->keep_g ? row : 0;
    s.y = u->cfg.inner.label_smoothing > 0 ? (labels_elems(u) * eng_dtype_size(u->cfg.dtype) + 63) & ~(uint64_t)63 : 0;
    s.total = s.arena + s.w + s.s + s.g + s.a + s.b + s.u + s.hu + s.ge + s.y + s.kept;
    return s;
}

/* A plan in place of *p, where it can be had. */
static int plan_anew(const struct unroll *u, int batch, unsigned need, struct plan_wish wish, struct eng_plan **p, struct errbuf *e)
{
    struct eng_plan *n;
    int rc = plan_compile(u->cfg.learner, batch, u->cfg.dtype, need, &wish, &n, e);
    if (rc < 0)
        return rc;
    eng_plan_free(*p);
    *p = n;
    return 0;
}

/* As many of the last steps as fit keep what they found. */
static int keep_steps(struct unroll *u, unsigned need, uint64_t budget, struct errbuf *e)
{
    int rc = plan_anew(u, u->cfg.B, need, (struct plan_wish){ .at_most = UINT64_MAX, .keep = true }, &u->keeper, e);
    if (rc < 0)
        return rc;
    for (u->n_kept = u->cfg.T; u->n_kept > 0 && sizes_of(u).total > budget;)
        u->n_kept--;
    if (u->n_kept == 0) {
        eng_plan_free(u->keeper);
        u->keeper = NULL;
    }
    return 0;
}

/* Plans for what the budget allows. Most is gained by steps that keep; least by a real batch that computes nothing again, for
 * it runs once where a step runs T times: without need it takes no more than an inner step. */
static int plan_within(struct unroll *u, unsigned need, struct errbuf *e)
{
    const uint64_t budget = u->cfg.budget_bytes ? u->cfg.budget_bytes : UINT64_MAX;
    const bool     back = u->cfg.meta_batch > 0;
    int rc = plan_anew(u, u->cfg.B, need, (struct plan_wish){ .at_most = UINT64_MAX }, &u->step, e);
    if (rc < 0)
        return rc;
    const uint64_t rest = sizes_of(u).total - u->step->bytes, room = budget > rest ? budget - rest : 0;
    if (u->step->bytes > room)
        rc = plan_anew(u, u->cfg.B, need, (struct plan_wish){ .at_most = room }, &u->step, e);
    if (rc == 0 && back)
        rc = plan_anew(u, u->cfg.meta_batch, ENG_GRAD, (struct plan_wish){ .at_most = u->step->bytes }, &u->real, e);
    if (rc < 0)
        return rc;
    if (sizes_of(u).total > budget)
        return err_set(e, ERR_NOMEM, "%d steps need %llu MiB at least, the budget is %llu MiB", u->cfg.T,
                       (unsigned long long)(sizes_of(u).total >> 20), (unsigned long long)(budget >> 20));
    if (!back || !u->cfg.budget_bytes)
        return 0;
    if ((rc = keep_steps(u, need, budget, e)) < 0 || u->real->n_redo == 0)
        return rc;
    const struct sizes s = sizes_of(u);
    return plan_anew(u, u->cfg.meta_batch, ENG_GRAD, (struct plan_wish){ .at_most = budget - (s.total - s.arena) }, &u->real, e);
}

static int compile(const struct unroll_cfg *c, struct unroll *u, struct errbuf *e)
{
    *u = (struct unroll){ .cfg = *c, .k = eng_kernels(c->dtype), .P = c->learner->param_count };
    if (c->T < 1 || c->T > MAX_STEPS || c->B < 1 || c->meta_batch < 0)
        return err_set(e, ERR_SHAPE, "an unroll of %d steps of %d images", c->T, c->B);
    if (c->inner.type < 0 || c->inner.type >= INNER_TYPE_COUNT)
        return err_set(e, ERR_INPUT, "inner optimiser %d is not known", (int)c->inner.type);
    u->keep_g = c->meta_batch && (optimiser(u)->needs_g || c->inner.clip > 0);
    int rc = plan_within(u, ENG_GRAD | (c->meta_batch ? ENG_TANGENT : 0u) | (c->meta_batch && c->want_dx ? ENG_INPUT_GRAD : 0u), e);
    u->cfg.learner = NULL;
    return rc;
}

static void release(struct unroll *u)
{
    eng_plan_free(u->step);
    eng_plan_free(u->real);
    eng_plan_free(u->keeper);
    free(u->tensor);
    free(u->arena);
}

int unroll_predict(const struct unroll_cfg *c, uint64_t *bytes, struct errbuf *e)
{
    struct unroll u;
    int rc = compile(c, &u, e);
    if (rc == 0)
        *bytes = sizes_of(&u).total;
    release(&u);
    return rc;
}

int unroll_plan(const struct unroll_cfg *c, struct unroll **out, struct errbuf *e)
{
    struct unroll *u = malloc(sizeof *u);
    *out = NULL;
    if (!u)
        return err_set(e, ERR_NOMEM, "no memory for an unroll");
    int rc = compile(c, u, e);
    if (rc < 0) {
        unroll_free(u);
        return rc;
    }
    u->bytes = sizes_of(u).total;
    *out = u;
    return 0;
}

struct unroll_view unroll_view(const struct unroll *u)
{
    const struct sizes s = sizes_of(u);
    return (struct unroll_view){ .step = u->step, .keeper = u->keeper, .real = u->real, .n_kept = u->n_kept,
                                 .arena = s.arena, .kept = s.kept, .rows = s.total - s.arena - s.kept, .total = s.total };
}

int unroll_new(const struct unroll_cfg *c, struct unroll **out, struct errbuf *e)
{
    struct unroll *u;
    int rc = unroll_plan(c, &u, e);
    *out = NULL;
    if (rc < 0)
        return rc;
    const struct sizes s = sizes_of(u);
    u->arena = eng_alloc(s.total);
    u->tensor = calloc((size_t)(c->learner->n_params ? c->learner->n_params : 1), sizeof *u->tensor);
    if (!u->arena || !u->tensor) {
        unroll_free(u);
        return err_set(e, ERR_NOMEM, "an unroll of %llu bytes does not fit in memory", (unsigned long long)s.total);
    }
    plan_attach(u->step, u->arena);
    if (u->real)
        plan_attach(u->real, u->arena);
    if (u->keeper)
        plan_attach(u->keeper, u->arena);
    char *at = u->arena + s.arena, **slot[] = { &u->w, &u->s, &u->g, &u->a, &u->b, &u->u, &u->hu, &u->ge, &u->y, &u->kept };
    const uint64_t step[] = { s.w, s.s, s.g, s.a, s.b, s.u, s.hu, s.ge, s.y, s.kept };
    for (size_t i = 0; i < sizeof step / sizeof step[0]; at += step[i++])
        *slot[i] = at;
    for (int i = 0; i < c->learner->n_params; i++)
        u->tensor[i] = (struct optim_tensor){ c->learner->param[i].offset, c->learner->param[i].size, c->learner->param[i].ndim };
    u->optim = (struct optim_ctx){ .cfg = &u->cfg.inner, .tensor = u->tensor, .n_tensors = c->learner->n_params, .P = u->P,
                                   .stride = row_bytes(u) / eng_dtype_size(c->dtype) };
    *out = u;
    return 0;
}

void unroll_free(struct unroll *u)
{
    if (!u)
        return;
    release(u);
    free(u);
}

uint64_t unroll_bytes(const struct unroll *u) { return u->bytes; }

void unroll_set_pool(struct unroll *u, struct eng_pool *pool)
{
    struct eng_plan *all[] = { u->step, u->real, u->keeper };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i])
            eng_plan_set_pool(all[i], pool);
}

void unroll_set_probe(struct unroll *u, plan_probe probe, void *arg)
{
    struct eng_plan *all[] = { u->step, u->real, u->keeper };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i]) {
            all[i]->probe = probe;
            all[i]->probe_arg = arg;
        }
}

/* The plan that runs step t, there and back. */
static struct eng_plan *plan_of(const struct unroll *u, int t)
{
    const int first = u->cfg.T - u->n_kept;
    if (t < first)
        return u->step;
    u->keeper->kept = u->kept + u->keeper->kept_bytes * (uint64_t)(t - first);
    return u->keeper;
}

static char *row(const struct unroll *u, char *base, int t) { return base + row_bytes(u) * (uint64_t)t; }
static char *states(const struct unroll *u, int t) { return row(u, u->s, t * optimiser(u)->n_states); }
static uint64_t states_bytes(const struct unroll *u) { return row_bytes(u) * (uint64_t)optimiser(u)->n_states; }

static const void *batch(const struct unroll *u, const void *base, int t, bool labels)
{
    const struct tensor *s = &u->step->tensor[labels ? u->step->output : u->step->input];
    return (const char *)base + (uint64_t)t * s->elems * eng_dtype_size(u->cfg.dtype);
}

/* The labels that the learner sees. */
static const void *labels(struct unroll *u, const struct unroll_in *in, int t)
{
    const void *y = batch(u, in->y, t, true);
    const double smooth = u->cfg.inner.label_smoothing;
    if (!(smooth > 0))
        return y;
    u->k->affine(labels_elems(u), 1 - smooth, smooth * u->cfg.B / (double)labels_elems(u), y, u->y);
    return u->y;
}

static double product_before(const struct unroll_in *in, int t)
{
    double prod = 1;
    for (int i = 0; i < t; i++)
        prod *= in->mu[i];
    return prod;
}

/* A second moment may overflow and leave the weights finite; a velocity cannot. */
static bool step_is_finite(const struct unroll *u, double loss, int to)
{
    bool good = isfinite(loss) && u->k->finite(u->P, row(u, u->w, to));
    for (int i = 1; good && i < optimiser(u)->n_states; i++)
        good = u->k->finite(u->P, row(u, states(u, to), i));
    return good;
}

/* Walk step t again and name the op that began. */
static int blame_step(struct unroll *u, const struct unroll_in *in, int t, int from, int to, char *g, int *failed_step, struct errbuf *e)
{
    struct nonfinite h;
    char words[64];
    snprintf(words, sizeof words, "%s update (step size %g) of", inner_name(u->cfg.inner.type), in->lr[t]);
    nonfinite_begin(&h, u->step);
    nonfinite_step(&h, row(u, u->w, from), batch(u, in->x, t, false), labels(u, in, t), g);
    nonfinite_look_params(&h, row(u, u->w, to), words);
    for (int i = 1; i < optimiser(u)->n_states; i++)
        nonfinite_look_params(&h, row(u, states(u, to), i), words);
    nonfinite_end(&h);
    if (failed_step)
        *failed_step = t;
    return err_set(e, ERR_DIVERGED, "not finite at inner step %d of %d: %s", t + 1, u->cfg.T, h.what);
}

/* One inner step from row `from` of w and s to row `to`; G goes to g. */
static int inner_step(struct unroll *u, const struct unroll_in *in, int t, int from, int to, char *g, double *loss, int *failed_step, struct errbuf *e)
{
    const struct optim_at at = { .t = t, .lr = in->lr[t], .mu = in->mu[t], .prod = product_before(in, t) };
    const bool shaped = u->cfg.inner.clip > 0 || u->cfg.inner.weight_decay != 0;
    char *w = row(u, u->w, from), *w2 = row(u, u->w, to), *seen = g;
    *loss = plan_grad(plan_of(u, t), w, batch(u, in->x, t, false), labels(u, in, t), g, NULL, NULL);
    if (shaped) {
        seen = u->keep_g ? u->ge : g;
        u->k->shape_gradient(&u->optim, w, g, seen);
    }
    optimiser(u)->step(&u->optim, &at, w, states(u, from), seen, w2, states(u, to));
    return step_is_finite(u, *loss, to) ? 0 : blame_step(u, in, t, from, to, g, failed_step, e);
}

int unroll_train(struct unroll *u, const struct unroll_in *in, double *inner_loss, void *wT,
                 bool (*after_step)(void *arg, int t, const void *w, double loss), void *arg, int *failed_step, struct errbuf *e)
{
    const size_t bytes = (size_t)u->P * eng_dtype_size(u->cfg.dtype);
    char *last = row(u, u->w, 0);
    memcpy(last, in->w0, bytes);
    memset(states(u, 0), 0, states_bytes(u));
    for (int t = 0; t < u->cfg.T; t++) {
        double loss;
        int a = t & 1, b = a ^ 1, rc = inner_step(u, in, t, a, b, u->g, &loss, failed_step, e);
        if (inner_loss)
            inner_loss[t] = loss;
        if (rc < 0)
            return rc;
        last = row(u, u->w, b);
        if (after_step && !after_step(arg, t + 1, last, loss))
            break;
    }
    if (wT)
        memcpy(wT, last, bytes);
    return 0;
}

static int blame_real(struct unroll *u, const struct unroll_meta *m, struct unroll_out *out, struct errbuf *e)
{
    struct nonfinite h;
    nonfinite_begin(&h, u->real);
    nonfinite_step(&h, row(u, u->w, m->step), m->x, m->y, u->hu);
    u->k->affine(u->P, m->weight, 0, u->hu, u->hu);
    nonfinite_look_params(&h, u->hu, "weighted gradient of");
    nonfinite_end(&h);
    out->failed_step = m->step;
    return err_set(e, ERR_DIVERGED, "not finite in the real loss after step %d of %d: %s", m->step, u->cfg.T,
                   h.what[0] ? h.what : "the sum of the adjoints");
}

/* Real losses at w_t: add weight * gradient to a, the loss to J. */
static int real_losses(struct unroll *u, const struct unroll_in *in, int t, struct unroll_out *out, struct errbuf *e)
{
    for (int i = 0; i < in->n_meta; i++) {
        const struct unroll_meta *m = &in->meta[i];
        if (m->step != t)
            continue;
        double loss = plan_grad(u->real, row(u, u->w, t), m->x, m->y, u->hu, NULL, t == u->cfg.T ? out->logits : NULL);
        out->meta_loss += m->weight * loss;
        u->k->axpy(u->P, m->weight, u->hu, u->a);
        if (!isfinite(loss) || !u->k->finite(u->P, u->a))
            return blame_real(u, m, out, e);
    }
    return 0;
}

/* Adjoint of the update at step t: from a and b to the adjoint u of G_t. */
static void update_back(struct unroll *u, const struct unroll_in *in, int t, double *prod_bar, struct unroll_out *out)
{
    struct optim_at at = { .t = t, .lr = in->lr[t], .mu = in->mu[t], .prod = product_before(in, t), .prod_bar = *prod_bar };
    double dlr, dmu;
    char *w = row(u, u->w, t), *g = u->keep_g ? row(u, u->g, t) : NULL;
    if (g)
        u->k->shape_gradient(&u->optim, w, g, u->ge);
    optimiser(u)->adjoint(&u->optim, &at, &(struct optim_back){ .w = w, .s = states(u, t), .s2 = states(u, t + 1), .g = g ? u->ge : NULL,
                                                                .a = u->a, .b = u->b, .q = u->u, .dlr = &dlr, .dmu = &dmu });
    u->k->unshape_gradient(&u->optim, g, u->a, u->u);
    *prod_bar = at.prod_bar;
    if (out->dlr) out->dlr[t] = dlr;
    if (out->dmu) out->dmu[t] = dmu;
}

/* Step t, as far as anybody sees it. */
static bool back_is_finite(const struct unroll *u, const struct unroll_out *out, int t, const void *dx, const void *dy)
{
    return u->k->finite(u->P, u->a) && (!dx || u->k->finite(u->step->tensor[u->step->input].elems, dx)) &&
           (!dy || u->k->finite(labels_elems(u), dy)) && (!out->dlr || isfinite(out->dlr[t])) && (!out->dmu || isfinite(out->dmu[t]));
}

static int blame_back(struct unroll *u, const struct unroll_in *in, int t, void *dx, void *dy, struct unroll_out *out, struct errbuf *e)
{
    struct nonfinite h;
    nonfinite_begin(&h, u->step);
    nonfinite_look_params(&h, u->u, "adjoint of the gradient of");
    eng_tangent(u->step, row(u, u->w, t), batch(u, in->x, t, false), labels(u, in, t), u->u, u->hu, dx, dy, NULL);
    nonfinite_look(&h, dy ? labels_elems(u) : 0, dy, "gradient by the labels");
    nonfinite_end(&h);
    out->failed_step = t;
    return err_set(e, ERR_DIVERGED, "not finite on the way back through step %d of %d: %s", t + 1, u->cfg.T,
                   h.what[0] ? h.what : isfinite(out->dlr ? out->dlr[t] : 0) ? "the sum of the adjoints" : "adjoint of the step size");
}

static int walk_back(struct unroll *u, const struct unroll_in *in, struct unroll_out *out, struct errbuf *e)
{
    double prod_bar = 0;
    memset(u->a, 0, row_bytes(u));
    memset(u->b, 0, states_bytes(u));
    int rc = real_losses(u, in, u->cfg.T, out, e);
    for (int t = u->cfg.T - 1; rc == 0 && t >= 0; t--) {
        update_back(u, in, t, &prod_bar, out);
        void *dx = out->dx ? (void *)(uintptr_t)batch(u, out->dx, t, false) : NULL, *dy = out->dy ? (void *)(uintptr_t)batch(u, out->dy, t, true) : NULL;
        struct eng_plan *p = plan_of(u, t);
        const void *w = row(u, u->w, t), *x = batch(u, in->x, t, false), *y = labels(u, in, t);
        if (p == u->keeper)
            plan_tangent_kept(p, w, x, y, u->u, u->hu, dx, dy);
        else
            eng_tangent(p, w, x, y, u->u, u->hu, dx, dy, NULL);
        if (dy && u->cfg.inner.label_smoothing > 0)
            u->k->affine(labels_elems(u), 1 - u->cfg.inner.label_smoothing, 0, dy, dy);
        u->k->axpy(u->P, 1, u->hu, u->a);
        if (!back_is_finite(u, out, t, dx, dy))
            return blame_back(u, in, t, dx, dy, out, e);
        if (t > 0)
            rc = real_losses(u, in, t, out, e);
    }
    return rc;
}

int unroll_meta_grad(struct unroll *u, const struct unroll_in *in, struct unroll_out *out, struct errbuf *e)
{
    const size_t bytes = (size_t)u->P * eng_dtype_size(u->cfg.dtype);
    if (!u->real)
        return err_set(e, ERR_INTERNAL, "this unroll was made for training alone");
    for (int i = 0; i < in->n_meta; i++)
        if (in->meta[i].step < 1 || in->meta[i].step > u->cfg.T)
            return err_set(e, ERR_INPUT, "a real loss after step %d of %d", in->meta[i].step, u->cfg.T);
    out->meta_loss = 0;
    memcpy(row(u, u->w, 0), in->w0, bytes);
    memset(states(u, 0), 0, states_bytes(u));
    for (int t = 0; t < u->cfg.T; t++) {
        double loss;
        int rc = inner_step(u, in, t, t, t + 1, row(u, u->g, u->keep_g ? t : 0), &loss, &out->failed_step, e);
        if (out->inner_loss)
            out->inner_loss[t] = loss;
        if (rc < 0)
            return rc;
    }
    if (out->wT) memcpy(out->wT, row(u, u->w, u->cfg.T), bytes);
    if (out->vT) memcpy(out->vT, states(u, u->cfg.T), bytes);
    int rc = walk_back(u, in, out, e);
    if (rc == 0 && out->dw0)
        memcpy(out->dw0, u->a, bytes);
    return rc;
}
