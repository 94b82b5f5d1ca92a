#include "worker/engine/slab.h"
#include "worker/engine/device_pass.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Everything lies in one block of the device: of each kind K rows, `row` (parameters) or `arena` bytes apart. Weights and states of
 * every step are kept where there is a way back, of two steps otherwise. */
struct parts { uint64_t arena, w, s, g, ge, a, b, u, hu, xu, yu, x, y, smooth, meta, lr, scalars, failed, snap, dx, dy, optim, squares, weight, tensor, ticket, row; };

struct slab {
    struct slab_cfg      cfg;       /* learner NULL after slab_new */
    const struct device *d;
    struct eng_plan     *step, *real;
    struct optim_tensor *tensor;
    int                  n_tensors, n_states;
    uint64_t             P, row, arena, bytes;
    bool                 any_unread;
    struct parts         at;        /* where each begins */
    char                *mem;
    void                *queue;
    struct device_pass   pass;
    struct device_work   work;
    bool                 at_work;   /* started, not waited for */
    double              *host;      /* [scalars]: what a run gave */
};

static uint64_t up(uint64_t n) { return device_up(n); }

static bool back(const struct slab *s) { return s->cfg.meta_batch > 0; }
static uint64_t image_bytes(const struct eng_plan *p) { return p->tensor[p->input].elems * sizeof(float); }
static uint64_t label_elems(const struct eng_plan *p) { return p->tensor[p->output].elems; }
static int      classes(const struct eng_plan *p) { return (int)(label_elems(p) / (uint64_t)p->batch); }
static uint64_t owners(const struct slab *s) { return s->cfg.own_meta ? (uint64_t)s->cfg.K : 1; } /* of a real batch */
static uint64_t meta_x(const struct slab *s) { return up(owners(s) * image_bytes(s->real)); }
static uint64_t meta_y(const struct slab *s) { return up(owners(s) * label_elems(s->real) * sizeof(float)); }

/* Doubles a run gives back, in one block: inner_loss [K][T], J [K], dlr, dmu [K][T], |dx|^2, |dy|^2, prod_bar [K]. */
static uint64_t scalars(const struct slab *s) { return (uint64_t)s->cfg.K * (3 * (uint64_t)s->cfg.T + 4); }

/* One learner's dx and dy: of every step where they stay apart, of the one at hand otherwise; a lone learner's are the sum. */
static bool lone(const struct slab *s) { return s->cfg.K == 1 && !s->cfg.apart; }
static uint64_t own_steps(const struct slab *s) { return s->cfg.apart ? (uint64_t)s->cfg.T : 1; }
static uint64_t own_x(const struct slab *s) { return up(own_steps(s) * image_bytes(s->step)); }
static uint64_t own_y(const struct slab *s) { return up(own_steps(s) * label_elems(s->step) * sizeof(float)); }

/* Lays everything out; at counts from 0. */
static void lay_out(struct slab *s)
{
    const struct slab_cfg *c = &s->cfg;
    const uint64_t K = (uint64_t)c->K, T = (uint64_t)c->T, rows = K * s->row, kept = back(s) ? T + 1 : 2, n_states = (uint64_t)s->n_states;
    const uint64_t x = image_bytes(s->step), y = label_elems(s->step) * sizeof(float);
    const bool keep_g = back(s);
    s->arena = s->step->bytes;
    if (s->real && s->real->bytes > s->arena)
        s->arena = s->real->bytes;
    s->arena = up(s->arena);
    const struct { uint64_t *at, bytes; } part[] = {
        { &s->at.arena, K * s->arena }, { &s->at.w, kept * rows }, { &s->at.s, kept * n_states * rows }, { &s->at.g, (keep_g ? T : 1) * rows }, { &s->at.ge, rows },
        { &s->at.a, back(s) ? rows : 0 }, { &s->at.b, back(s) ? n_states * rows : 0 }, { &s->at.u, back(s) ? rows : 0 }, { &s->at.hu, back(s) ? rows : 0 },
        { &s->at.xu, c->want_dx && !lone(s) ? K * own_x(s) : 0 }, { &s->at.yu, c->want_dy && !lone(s) ? K * own_y(s) : 0 },
        { &s->at.x, T * x }, { &s->at.y, T * y }, { &s->at.smooth, c->inner.label_smoothing > 0 ? y : 0 },
        { &s->at.meta, back(s) ? (uint64_t)c->n_meta * (meta_x(s) + meta_y(s)) : 0 }, { &s->at.lr, 2 * T * sizeof(double) },
        { &s->at.scalars, scalars(s) * sizeof(double) }, { &s->at.failed, K * sizeof(int) }, { &s->at.snap, (uint64_t)c->n_snaps * rows },
        { &s->at.dx, c->want_dx && !c->apart ? T * x : 0 }, { &s->at.dy, c->want_dy && !c->apart ? T * y : 0 },
        { &s->at.optim, s->d->optim_scratch(c->K, s->n_tensors) },
        { &s->at.squares, c->apart ? s->d->squares_scratch(c->K) : 0 }, { &s->at.weight, c->apart ? K * sizeof(double) : 0 },
        { &s->at.tensor, (uint64_t)s->n_tensors * sizeof *s->tensor }, { &s->at.ticket, device_tickets(s->step, c->K) },
        { &s->at.row, back(s) ? (uint64_t)c->n_meta * owners(s) * (uint64_t)c->meta_batch * sizeof(int) : 0 },
    };
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; total += up(part[i++].bytes))
        *part[i].at = total;
    s->bytes = total;
}

static int check(const struct slab_cfg *c, struct errbuf *e)
{
    if (c->K < 1 || c->K > SLAB_MAX_LEARNERS || c->T < 1 || c->B < 1 || c->meta_batch < 0)
        return err_set(e, ERR_SHAPE, "a slab of %d learners (at most %d), %d steps of %d images", c->K, SLAB_MAX_LEARNERS, c->T, c->B);
    if (c->inner.type < 0 || c->inner.type >= INNER_TYPE_COUNT)
        return err_set(e, ERR_INPUT, "inner optimiser %d is not known", (int)c->inner.type);
    if (c->n_meta < 0 || c->n_meta > SLAB_MAX_META || c->n_snaps < 0 || c->n_snaps > SLAB_MAX_SNAPS)
        return err_set(e, ERR_INPUT, "a slab takes at most %d real batches and %d snapshots", SLAB_MAX_META, SLAB_MAX_SNAPS);
    if ((c->apart || c->own_meta || c->want_dx || c->want_dy) && c->meta_batch < 1)
        return err_set(e, ERR_INPUT, "a slab without real batches has no way back");
    for (int i = 0; i < c->n_meta; i++)
        if (c->meta[i].step < 1 || c->meta[i].step > c->T)
            return err_set(e, ERR_INPUT, "a real loss after step %d of %d", c->meta[i].step, c->T);
    for (int i = 0; i < c->n_snaps; i++)
        if (c->snap[i] < 1 || c->snap[i] > c->T)
            return err_set(e, ERR_INPUT, "weights wanted after step %d of %d", c->snap[i], c->T);
    return 0;
}

static void release(struct slab *s)
{
    eng_plan_free(s->step);
    eng_plan_free(s->real);
    free(s->tensor);
    free(s->host);
}

static int compile(const struct slab_cfg *c, struct slab *s, struct errbuf *e)
{
    const struct net *n = c->learner;
    const struct plan_wish wish = { .at_most = UINT64_MAX, .scratch = c->device->scratch };
    *s = (struct slab){ .cfg = *c, .d = c->device, .P = n->param_count, .row = up(n->param_count * sizeof(float)), .n_tensors = n->n_params };
    int rc = check(c, e);
    if (rc < 0)
        return rc;
    s->n_states = eng_kernels(ENG_F32)->optim[c->inner.type].n_states;
    const unsigned need = ENG_WHOLE | ENG_GRAD | (back(s) ? ENG_TANGENT : 0u) | (back(s) && c->want_dx ? ENG_INPUT_GRAD : 0u);
    rc = plan_compile(n, c->B, ENG_F32, need, &wish, &s->step, e);
    if (rc == 0 && back(s))
        rc = plan_compile(n, c->meta_batch, ENG_F32, ENG_WHOLE | ENG_GRAD, &wish, &s->real, e);
    if (rc < 0 || (rc = device_pass_check(s->step, e)) < 0 || (s->real && (rc = device_pass_check(s->real, e)) < 0))
        return rc;
    if (!(s->tensor = calloc((size_t)n->n_params + 1, sizeof *s->tensor)))
        return err_set(e, ERR_NOMEM, "no memory for %d tensors", n->n_params);
    for (int i = 0; i < n->n_params; i++) {
        s->tensor[i] = (struct optim_tensor){ n->param[i].offset, n->param[i].size, n->param[i].ndim };
        s->any_unread |= s->step->unread[i];
    }
    s->cfg.learner = NULL;
    lay_out(s);
    return 0;
}

int slab_predict(const struct slab_cfg *c, uint64_t *bytes, struct errbuf *e)
{
    struct slab s = { 0 };
    int rc = compile(c, &s, e);
    *bytes = s.bytes;
    release(&s);
    return rc;
}

int slab_fit(const struct slab_cfg *c, uint64_t budget, int n, int *K, uint64_t *bytes, struct errbuf *e)
{
    struct slab_cfg one = *c;
    struct slab s = { 0 };
    one.K = 1;
    *K = 0;
    int rc = n < 1 ? err_set(e, ERR_SHAPE, "%d learners", n) : compile(&one, &s, e), low = 0, high = SLAB_MAX_LEARNERS + 1;
    while (rc == 0 && high - low > 1) { /* bytes rise with K */
        s.cfg.K = low + (high - low) / 2;
        lay_out(&s);
        *(s.bytes <= budget ? &low : &high) = s.cfg.K;
    }
    if (rc == 0) {
        const int slabs = low ? (n + low - 1) / low : 0;
        *K = low ? (n + slabs - 1) / slabs : 0;
        s.cfg.K = *K ? *K : 1;
        lay_out(&s);
        *bytes = s.bytes;
    }
    release(&s);
    return rc;
}

uint64_t slab_bytes(const struct slab *s) { return s->bytes; }

void slab_free(struct slab *s)
{
    if (!s)
        return;
    if (s->queue && s->mem)
        s->d->wait(s->queue);
    device_work_fini(&s->work, s->d);
    if (s->queue)
        s->d->queue_free(s->queue);
    if (s->mem)
        s->d->release(s->mem);
    release(s);
    free(s);
}

/* ---- one pass for all learners ---- */

static struct dev_rows rows(const struct slab *s, uint64_t at, int t) { return (struct dev_rows){ s->mem + at + (uint64_t)t * (uint64_t)s->cfg.K * s->row, (int64_t)s->row }; }
static struct dev_rows states(const struct slab *s, uint64_t at, int t)
{
    return (struct dev_rows){ s->mem + at + (uint64_t)t * (uint64_t)s->cfg.K * s->row * (uint64_t)s->n_states, (int64_t)s->row * s->n_states };
}
static struct dev_rows none(void) { return (struct dev_rows){ 0 }; }
static struct dev_rows in_arena(const struct slab *s, void *p) { return (struct dev_rows){ p, (int64_t)s->arena }; }
static struct dev_rows shared(const void *p) { return (struct dev_rows){ (void *)(uintptr_t)p, 0 }; }
/* From step t on. */
static struct dev_rows own(const struct slab *s, bool wanted, uint64_t own_at, uint64_t sum_at, int t, uint64_t bytes, uint64_t row)
{
    const uint64_t skip = s->cfg.apart || lone(s) ? (uint64_t)t * bytes : 0;
    return wanted ? (struct dev_rows){ s->mem + (lone(s) ? sum_at : own_at) + skip, (int64_t)row } : none();
}
static struct dev_rows own_dx(const struct slab *s, int t) { return own(s, s->cfg.want_dx, s->at.xu, s->at.dx, t, image_bytes(s->step), own_x(s)); }
static struct dev_rows own_dy(const struct slab *s, int t) { return own(s, s->cfg.want_dy, s->at.yu, s->at.dy, t, label_elems(s->step) * sizeof(float), own_y(s)); }

static double *scalar(const struct slab *s, uint64_t i) { return (double *)(void *)(s->mem + s->at.scalars) + i; }
static double *inner_loss(const struct slab *s) { return scalar(s, 0); }
static double *meta_loss(const struct slab *s) { return scalar(s, (uint64_t)s->cfg.K * (uint64_t)s->cfg.T); }
static double *dlr(const struct slab *s) { return meta_loss(s) + s->cfg.K; }
static double *dmu(const struct slab *s) { return dlr(s) + (size_t)s->cfg.K * (size_t)s->cfg.T; }
static double *squares(const struct slab *s) { return dmu(s) + (size_t)s->cfg.K * (size_t)s->cfg.T; }
static double *prod_bar(const struct slab *s) { return squares(s) + 2 * (size_t)s->cfg.K; }
static int    *failed(const struct slab *s) { return (int *)(void *)(s->mem + s->at.failed); }

static const char *batch(const struct slab *s, uint64_t at, int t, bool labels)
{
    return s->mem + at + (uint64_t)t * (labels ? label_elems(s->step) * sizeof(float) : image_bytes(s->step));
}

static const void *labels(const struct slab *s, int t)
{
    const double smooth = s->cfg.inner.label_smoothing;
    const char  *y = batch(s, s->at.y, t, true);
    if (!(smooth > 0))
        return y;
    s->d->affine(s->queue, 1, label_elems(s->step), 1 - smooth, smooth * s->cfg.B / (double)label_elems(s->step), shared(y), shared(s->mem + s->at.smooth));
    return s->mem + s->at.smooth;
}

/* Loss (times weight, added to *to) and gradient g of every learner. watched: the step that is to blame for a loss that is not finite; -1: nobody asks. */
static void gradient(struct slab *s, struct eng_plan *p, struct dev_rows w, struct dev_rows x, struct dev_rows y, struct dev_rows g, double weight, bool add, double *to, int64_t to_step, int watched)
{
    const struct plan_bound b = { .w = w.at, .x = x.at, .g = g.at };
    const struct op_view out = plan_output(p);
    s->pass.x = x.step;
    s->pass.gx = 0;
    if (s->any_unread)
        s->d->zero(s->queue, s->cfg.K, g, s->P * sizeof(float));
    plan_forth(p, &b, false);
    s->d->loss(&(struct dev_loss){ .K = s->cfg.K, .B = p->batch, .classes = classes(p), .logits = in_arena(s, out.val), .y = y, .gs = in_arena(s, out.adj),
                                   .loss = to, .loss_step = to_step, .weight = weight, .add = add, .failed = watched < 0 ? NULL : failed(s), .code = watched, .queue = s->queue });
    plan_back(p, &b, false);
}

static void tangent(struct slab *s, struct dev_rows w, const void *x, const void *y, struct dev_rows u, struct dev_rows hu, struct dev_rows xu, struct dev_rows yu)
{
    struct eng_plan *p = s->step;
    const struct plan_bound b = { .w = w.at, .u = u.at, .x = x, .hu = hu.at, .xu = xu.at };
    const struct op_view out = plan_output(p);
    s->pass.x = 0;
    s->pass.gx = xu.step;
    if (s->any_unread)
        s->d->zero(s->queue, s->cfg.K, hu, s->P * sizeof(float));
    plan_forth(p, &b, true);
    s->d->loss(&(struct dev_loss){ .K = s->cfg.K, .B = p->batch, .classes = classes(p), .logits = in_arena(s, out.val), .dot = in_arena(s, out.dot), .y = shared(y),
                                   .gs = in_arena(s, out.adj), .gs_dot = in_arena(s, out.adj_dot), .yu = yu, .queue = s->queue });
    plan_back(p, &b, true);
}

/* ---- the training and its way back ---- */

static struct dev_optim optim(const struct slab *s, int t)
{
    const double *lr = (const double *)(const void *)(s->mem + s->at.lr);
    return (struct dev_optim){ .cfg = &s->cfg.inner, .tensor = (const struct optim_tensor *)(const void *)(s->mem + s->at.tensor), .n_tensors = s->n_tensors, .K = s->cfg.K, .t = t, .P = s->P,
                               .state = s->row / sizeof(float), .lr = lr, .mu = lr + s->cfg.T, .T = s->cfg.T, .dlr = dlr(s), .dmu = dmu(s), .prod_bar = prod_bar(s), .failed = failed(s),
                               .scratch = s->mem + s->at.optim, .queue = s->queue };
}

static bool shaped(const struct slab *s) { return s->cfg.inner.clip > 0 || s->cfg.inner.weight_decay != 0; }

static void inner_step(struct slab *s, int t)
{
    const int from = back(s) ? t : t & 1, to = back(s) ? t + 1 : from ^ 1;
    struct dev_rows g = rows(s, s->at.g, back(s) ? t : 0), seen = g;
    gradient(s, s->step, rows(s, s->at.w, from), shared(batch(s, s->at.x, t, false)), shared(labels(s, t)), g, 1, false, inner_loss(s) + t, s->cfg.T, t);
    struct dev_optim o = optim(s, t);
    o.w = rows(s, s->at.w, from);
    o.raw = g;
    if (shaped(s)) {
        seen = rows(s, s->at.ge, 0);
        s->d->shape(&o, seen);
    }
    o.g = seen;
    o.s = states(s, s->at.s, from);
    o.w2 = rows(s, s->at.w, to);
    o.s2 = states(s, s->at.s, to);
    s->d->step[s->cfg.inner.type](&o);
    for (int i = 0; i < s->cfg.n_snaps; i++)
        if (s->cfg.snap[i] == t + 1)
            s->d->copy(s->queue, s->cfg.K, rows(s, s->at.snap, i), o.w2, s->P * sizeof(float));
}

static void real_losses(struct slab *s, int t)
{
    for (int i = 0; i < s->cfg.n_meta; i++) {
        if (s->cfg.meta[i].step != t)
            continue;
        const struct dev_rows x = { s->mem + s->at.meta + (uint64_t)i * (meta_x(s) + meta_y(s)), s->cfg.own_meta ? (int64_t)image_bytes(s->real) : 0 },
                              y = { (char *)x.at + meta_x(s), s->cfg.own_meta ? (int64_t)(label_elems(s->real) * sizeof(float)) : 0 };
        gradient(s, s->real, rows(s, s->at.w, t), x, y, rows(s, s->at.hu, 0), s->cfg.meta[i].weight, true, meta_loss(s), 1, -1);
        s->d->axpy(s->queue, s->cfg.K, s->P, s->cfg.meta[i].weight, rows(s, s->at.hu, 0), rows(s, s->at.a, 0));
    }
}

static void step_back(struct slab *s, int t)
{
    struct dev_optim o = optim(s, t);
    const struct dev_rows hu = rows(s, s->at.hu, 0), u = rows(s, s->at.u, 0), a = rows(s, s->at.a, 0);
    o.w = rows(s, s->at.w, t);
    o.raw = o.g = rows(s, s->at.g, t);
    if (shaped(s)) {
        o.g = rows(s, s->at.ge, 0);
        s->d->shape(&o, o.g);
    }
    o.s = states(s, s->at.s, t);
    o.s2 = states(s, s->at.s, t + 1);
    o.a = a;
    o.b = states(s, s->at.b, 0);
    o.q = u;
    s->d->adjoint[s->cfg.inner.type](&o);
    s->d->unshape(&o);
    const uint64_t xe = image_bytes(s->step) / sizeof(float), ye = label_elems(s->step);
    const struct dev_rows xu = own_dx(s, t), yu = own_dy(s, t);
    tangent(s, o.w, batch(s, s->at.x, t, false), labels(s, t), u, hu, xu, yu);
    s->d->axpy(s->queue, s->cfg.K, s->P, 1, hu, a);
    if (yu.at && s->cfg.inner.label_smoothing > 0)
        s->d->affine(s->queue, s->cfg.K, ye, 1 - s->cfg.inner.label_smoothing, 0, yu, yu);
    if (xu.at && !s->cfg.apart && !lone(s))
        s->d->total(s->queue, s->cfg.K, xe, xu, (float *)(uintptr_t)batch(s, s->at.dx, t, false));
    if (yu.at && !s->cfg.apart && !lone(s))
        s->d->total(s->queue, s->cfg.K, ye, yu, (float *)(uintptr_t)batch(s, s->at.dy, t, true));
    if (t > 0)
        real_losses(s, t);
}

static void square(struct slab *s)
{
    const uint64_t T = (uint64_t)s->cfg.T, xe = T * image_bytes(s->step) / sizeof(float), ye = T * label_elems(s->step);
    if (s->cfg.want_dx)
        s->d->squares(s->queue, s->cfg.K, xe, own_dx(s, 0), squares(s), s->mem + s->at.squares);
    if (s->cfg.want_dy)
        s->d->squares(s->queue, s->cfg.K, ye, own_dy(s, 0), squares(s) + s->cfg.K, s->mem + s->at.squares);
}

static void train(void *arg)
{
    struct slab *s = arg;
    const struct dev_rows doubles = { inner_loss(s), 0 };
    s->d->zero(s->queue, 1, doubles, scalars(s) * sizeof(double));
    s->d->zero(s->queue, s->cfg.K, states(s, s->at.s, 0), s->row * (uint64_t)s->n_states);
    for (int t = 0; t < s->cfg.T; t++)
        inner_step(s, t);
    if (!back(s))
        return;
    s->d->zero(s->queue, s->cfg.K, rows(s, s->at.a, 0), s->row);
    s->d->zero(s->queue, s->cfg.K, states(s, s->at.b, 0), s->row * (uint64_t)s->n_states);
    real_losses(s, s->cfg.T);
    for (int t = s->cfg.T - 1; t >= 0; t--)
        step_back(s, t);
    s->d->watch(s->queue, s->cfg.K, s->P, rows(s, s->at.a, 0), failed(s), s->cfg.T); /* what is added to never becomes finite again */
    if (s->cfg.apart)
        square(s);
}

static struct device_pass pass_of(const struct slab *s)
{
    return (struct device_pass){ .device = s->d, .queue = s->queue, .K = s->cfg.K, .arena = (int64_t)s->arena, .param = (int64_t)s->row, .grad = (int64_t)s->row,
                                 .ticket = s->mem + s->at.ticket };
}

int slab_new(const struct slab_cfg *c, struct slab **out, struct errbuf *e)
{
    struct slab *s = malloc(sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "no memory for a slab");
    int rc = compile(c, s, e);
    if (rc == 0 && !(s->host = malloc(scalars(s) * sizeof *s->host)))
        rc = err_set(e, ERR_NOMEM, "no memory for a slab");
    if (rc == 0 && (!(s->queue = s->d->queue_new()) || !(s->mem = s->d->alloc(s->bytes))))
        rc = err_set(e, ERR_NOMEM, "%d learners need %llu MiB on the device, which has %llu MiB free", c->K, (unsigned long long)(s->bytes >> 20),
                     (unsigned long long)(s->d->free_bytes() >> 20));
    if (rc < 0) {
        slab_free(s);
        return rc;
    }
    s->d->zero(s->queue, 1, shared(s->mem + s->at.ticket), device_tickets(s->step, c->K));
    s->d->put(s->queue, s->mem + s->at.tensor, s->tensor, (uint64_t)s->n_tensors * sizeof *s->tensor);
    s->pass = pass_of(s);
    device_pass_attach(&s->pass, s->step, s->mem + s->at.arena);
    if (s->real)
        device_pass_attach(&s->pass, s->real, s->mem + s->at.arena);
    *out = s;
    return 0;
}

static void put_rows(struct slab *s, struct dev_rows to, const float *from)
{
    for (int k = 0; k < s->cfg.K; k++)
        s->d->put(s->queue, (char *)to.at + k * to.step, from + (uint64_t)k * s->P, s->P * sizeof(float));
}

static int get_rows(struct slab *s, float *to, struct dev_rows from, struct errbuf *e)
{
    int rc = 0;
    for (int k = 0; to && rc == 0 && k < s->cfg.K; k++)
        rc = s->d->get(s->queue, to + (uint64_t)k * s->P, (char *)from.at + k * from.step, s->P * sizeof(float), e);
    return rc;
}

static int get(struct slab *s, void *to, const void *from, uint64_t bytes, struct errbuf *e)
{
    return to ? s->d->get(s->queue, to, from, bytes, e) : 0;
}

/* From the host, or from where an earlier queue leaves it. */
static void bring_batches(struct slab *s, uint64_t at, const float *from, uint64_t bytes, bool device)
{
    if (device)
        s->d->copy(s->queue, 1, shared(s->mem + at), shared(from), bytes);
    else
        s->d->put(s->queue, s->mem + at, from, bytes);
}

/* From the host, or by their rows from the data on the device. */
static void bring_real(struct slab *s, const struct slab_in *in, int i)
{
    const uint64_t n = owners(s) * (uint64_t)s->cfg.meta_batch, xb = image_bytes(s->real), yb = label_elems(s->real) * sizeof(float);
    char *x = s->mem + s->at.meta + (uint64_t)i * (meta_x(s) + meta_y(s)), *y = x + meta_x(s);
    int  *row = (int *)(void *)(s->mem + s->at.row) + (uint64_t)i * n;
    if (in->real) {
        s->d->put(s->queue, row, in->meta[i].row, n * sizeof *row);
        s->d->draw(s->queue, (int)owners(s), s->cfg.meta_batch, in->real, row, (struct dev_rows){ x, (int64_t)xb }, (struct dev_rows){ y, (int64_t)yb });
    } else {
        s->d->put(s->queue, x, in->meta[i].x, owners(s) * xb);
        s->d->put(s->queue, y, in->meta[i].y, owners(s) * yb);
    }
}

static int bring(struct slab *s, const struct slab_in *in, struct errbuf *e)
{
    const uint64_t T = (uint64_t)s->cfg.T, K = (uint64_t)s->cfg.K;
    int *clean = malloc(K * sizeof *clean);
    if (!clean)
        return err_set(e, ERR_NOMEM, "no memory for %d learners", s->cfg.K);
    put_rows(s, rows(s, s->at.w, 0), in->w0);
    s->d->put(s->queue, s->mem + s->at.lr, in->lr, T * sizeof(double));
    s->d->put(s->queue, s->mem + s->at.lr + T * sizeof(double), in->mu, T * sizeof(double));
    for (int i = 0; i < s->cfg.n_meta; i++)
        bring_real(s, in, i);
    for (int k = 0; k < s->cfg.K; k++)
        clean[k] = INT_MAX;
    s->d->put(s->queue, failed(s), clean, K * sizeof *clean);
    free(clean);
    if (in->after) /* last: what comes from the host need not stand behind it */
        s->d->after(s->queue, in->after);
    bring_batches(s, s->at.x, in->x, T * image_bytes(s->step), in->after);
    bring_batches(s, s->at.y, in->y, T * label_elems(s->step) * sizeof(float), in->after);
    return 0;
}

int slab_start(struct slab *s, const struct slab_in *in, struct errbuf *e)
{
    int rc = bring(s, in, e);
    s->at_work = true;
    return rc < 0 ? rc : device_work_run(&s->work, s->d, s->queue, train, s, e);
}

/* Scalars of the device, as this run left them on the host. */
static void tell(const struct slab *s, double *to, const double *device, uint64_t n)
{
    if (to)
        memcpy(to, s->host + (device - inner_loss(s)), n * sizeof *to);
}

int slab_wait(struct slab *s, const struct slab_out *out, struct errbuf *e)
{
    const uint64_t K = (uint64_t)s->cfg.K, T = (uint64_t)s->cfg.T;
    int rc = get(s, s->host, inner_loss(s), scalars(s) * sizeof *s->host, e);
    s->at_work = false;
    if (rc < 0)
        return rc;
    tell(s, out->inner_loss, inner_loss(s), K * T);
    tell(s, out->meta_loss, meta_loss(s), K);
    tell(s, out->dlr, dlr(s), K * T);
    tell(s, out->dmu, dmu(s), K * T);
    tell(s, out->dx2, squares(s), K);
    tell(s, out->dy2, squares(s) + K, K);
    rc = get(s, out->failed, failed(s), K * sizeof(int), e);
    for (int k = 0; rc == 0 && out->failed && k < s->cfg.K; k++)
        if (out->failed[k] == INT_MAX)
            out->failed[k] = -1;
    const int last = back(s) ? s->cfg.T : s->cfg.T & 1;
    if (rc == 0) rc = get_rows(s, out->wT, rows(s, s->at.w, last), e);
    if (rc == 0) rc = get_rows(s, out->vT, states(s, s->at.s, last), e);
    for (int i = 0; rc == 0 && out->snap && i < s->cfg.n_snaps; i++)
        rc = get_rows(s, out->snap + (uint64_t)i * K * s->P, rows(s, s->at.snap, i), e);
    if (rc == 0 && back(s)) rc = get_rows(s, out->dw0, rows(s, s->at.a, 0), e);
    if (rc == 0 && s->cfg.want_dx && !s->cfg.apart) rc = get(s, out->dx, s->mem + s->at.dx, T * image_bytes(s->step), e);
    if (rc == 0 && s->cfg.want_dy && !s->cfg.apart) rc = get(s, out->dy, s->mem + s->at.dy, T * label_elems(s->step) * sizeof(float), e);
    return rc;
}

int slab_run(struct slab *s, const struct slab_in *in, const struct slab_out *out, struct errbuf *e)
{
    int rc = slab_start(s, in, e);
    return rc < 0 ? rc : slab_wait(s, out, e);
}

void slab_weigh(struct slab *s, void *queue, const double *weight, float *dx, float *dy)
{
    double *w = (double *)(void *)(s->mem + s->at.weight);
    const uint64_t T = (uint64_t)s->cfg.T;
    s->d->put(queue, w, weight, (uint64_t)s->cfg.K * sizeof *weight);
    if (dx)
        s->d->weigh(queue, s->cfg.K, T * image_bytes(s->step) / sizeof(float), w, own_dx(s, 0), dx);
    if (dy)
        s->d->weigh(queue, s->cfg.K, T * label_elems(s->step), w, own_dy(s, 0), dy);
}

/* ---- accuracy ---- */

/* One block: weights, arenas, a batch and its labels, the counts. */
struct exam { uint64_t rows, arena, x, label, right, ticket, bytes; };

static struct exam exam_of(const struct slab *s, int K, int batch)
{
    struct exam p = { .arena = up((uint64_t)K * s->row) };
    p.x = p.arena + (uint64_t)K * s->arena;
    p.label = p.x + up(image_bytes(s->step));
    p.right = p.label + up((uint64_t)batch * sizeof(int));
    p.ticket = p.right + up((uint64_t)K * sizeof(int));
    p.bytes = p.ticket + device_tickets(s->step, K);
    return p;
}

static int exam_compile(const struct device *d, const struct net *net, int batch, struct slab *s, struct errbuf *e)
{
    const struct plan_wish wish = { .at_most = UINT64_MAX, .scratch = d->scratch };
    *s = (struct slab){ .d = d, .P = net->param_count, .row = up(net->param_count * sizeof(float)) };
    int rc = plan_compile(net, batch, ENG_F32, ENG_WHOLE, &wish, &s->step, e);
    if (rc < 0 || (rc = device_pass_check(s->step, e)) < 0) {
        eng_plan_free(s->step);
        return rc;
    }
    s->arena = up(s->step->bytes);
    return 0;
}

int slab_accuracy_fit(const struct device *d, const struct net *net, int batch, uint64_t budget, int n, int *K, struct errbuf *e)
{
    struct slab s;
    int rc = exam_compile(d, net, batch, &s, e), low = 0, high = (n < SLAB_MAX_LEARNERS ? n : SLAB_MAX_LEARNERS) + 1;
    *K = 0;
    if (rc < 0)
        return rc;
    while (high - low > 1) { /* bytes rise with K */
        const int at = low + (high - low) / 2;
        *(exam_of(&s, at, batch).bytes <= budget ? &low : &high) = at;
    }
    *K = low;
    eng_plan_free(s.step);
    return 0;
}

int slab_accuracy(const struct device *d, const struct net *net, int K, int batch_size, int n, const float *w, const float *x, const int *label, int *right, struct errbuf *e)
{
    struct slab s;
    if (K < 1 || K > SLAB_MAX_LEARNERS || batch_size < 1 || n < 1 || n % batch_size)
        return err_set(e, ERR_SHAPE, "%d images do not make whole batches of %d, or %d weight vectors are too many", n, batch_size, K);
    int rc = exam_compile(d, net, batch_size, &s, e);
    if (rc < 0)
        return rc;
    s.cfg.K = K;
    const struct exam p = exam_of(&s, K, batch_size);
    const uint64_t xb = image_bytes(s.step), rows_at = p.rows, arena_at = p.arena, x_at = p.x, label_at = p.label, right_at = p.right;
    s.bytes = p.bytes;
    s.at.ticket = p.ticket;
    if (!(s.queue = d->queue_new()) || !(s.mem = d->alloc(s.bytes)))
        rc = err_set(e, ERR_NOMEM, "%d images need %llu MiB on the device, which has %llu MiB free", batch_size, (unsigned long long)(s.bytes >> 20),
                     (unsigned long long)(d->free_bytes() >> 20));
    else {
        s.pass = pass_of(&s);
        device_pass_attach(&s.pass, s.step, s.mem + arena_at);
        put_rows(&s, rows(&s, rows_at, 0), w);
        d->zero(s.queue, 1, shared(s.mem + s.at.ticket), device_tickets(s.step, K));
        d->zero(s.queue, 1, shared(s.mem + right_at), (uint64_t)K * sizeof(int));
        for (int i = 0; i < n; i += batch_size) {
            d->put(s.queue, s.mem + x_at, (const char *)x + (uint64_t)(i / batch_size) * xb, xb);
            d->put(s.queue, s.mem + label_at, label + i, (uint64_t)batch_size * sizeof(int));
            plan_forth(s.step, &(struct plan_bound){ .w = s.mem + rows_at, .x = s.mem + x_at }, false);
            d->count_correct(s.queue, K, batch_size, classes(s.step), in_arena(&s, plan_output(s.step).val), (int *)(void *)(s.mem + label_at), (int *)(void *)(s.mem + right_at));
        }
        rc = d->get(s.queue, right, s.mem + right_at, (uint64_t)K * sizeof(int), e);
    }
    if (s.mem)
        d->release(s.mem);
    if (s.queue)
        d->queue_free(s.queue);
    eng_plan_free(s.step);
    return rc;
}
