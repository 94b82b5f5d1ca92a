#include "worker/engine/lanes.h"
#include "worker/engine/device_pass.h"

#include <stdlib.h>

/* One block of the device: arenas and gradients once a lane, the rest once. */
struct places { uint64_t arena, g, w, dw, x, dx, ones, ticket; };

struct lanes {
    struct lanes_cfg   cfg;      /* net NULL after lanes_new */
    struct eng_plan   *plan;
    struct device_pass pass;
    struct device_work forth, back;
    struct places      at;
    uint64_t           P, row, arena, bytes, x_bytes, y_bytes; /* x, y: of one batch */
    bool               any_unread;
    char              *mem;
};

static bool pulls(const struct lanes *l) { return l->cfg.dout != NULL; }
static bool all_at_once(const struct lanes *l) { return l->cfg.lanes == l->cfg.n; }

static void lay_out(struct lanes *l)
{
    const struct lanes_cfg *c = &l->cfg;
    const uint64_t L = (uint64_t)c->lanes, n = (uint64_t)c->n, back = pulls(l);
    const struct { uint64_t *at, bytes; } part[] = {
        { &l->at.arena, L * l->arena }, { &l->at.g, back * L * l->row }, { &l->at.w, l->row },
        { &l->at.dw, back * l->row }, { &l->at.x, n * l->x_bytes }, { &l->at.dx, back && c->want_dx ? n * l->x_bytes : 0 }, { &l->at.ones, back * L * sizeof(double) },
        { &l->at.ticket, device_tickets(l->plan, c->lanes) },
    };
    l->bytes = 0;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; l->bytes += device_up(part[i++].bytes))
        *part[i].at = l->bytes;
}

static int compile(const struct lanes_cfg *c, struct lanes *l, struct errbuf *e)
{
    const struct plan_wish wish = { .at_most = UINT64_MAX, .scratch = c->device->scratch };
    *l = (struct lanes){ .cfg = *c, .P = c->net->param_count, .row = device_up(c->net->param_count * sizeof(float)) };
    if (c->n < 1 || c->B < 1 || c->lanes < 1 || c->lanes > c->n || c->lanes > DEVICE_MAX_K)
        return err_set(e, ERR_SHAPE, "%d batches of %d images, %d side by side (at most %d)", c->n, c->B, c->lanes, DEVICE_MAX_K);
    const unsigned need = ENG_WHOLE | (c->dout ? ENG_GRAD : 0u) | (c->dout && c->want_dx ? ENG_INPUT_GRAD : 0u);
    int rc = plan_compile(c->net, c->B, ENG_F32, need, &wish, &l->plan, e);
    if (rc < 0 || (rc = device_pass_check(l->plan, e)) < 0)
        return rc;
    for (int i = 0; i < c->net->n_params; i++)
        l->any_unread |= l->plan->unread[i];
    l->arena = device_up(l->plan->bytes);
    l->x_bytes = l->plan->tensor[l->plan->input].elems * sizeof(float);
    l->y_bytes = l->plan->tensor[l->plan->output].elems * sizeof(float);
    l->cfg.net = NULL;
    lay_out(l);
    return 0;
}

int lanes_predict(const struct lanes_cfg *c, uint64_t *bytes, struct errbuf *e)
{
    struct lanes l = { 0 };
    int rc = compile(c, &l, e);
    *bytes = l.bytes;
    eng_plan_free(l.plan);
    return rc;
}

int lanes_fit(const struct lanes_cfg *c, uint64_t budget, int *lanes, struct errbuf *e)
{
    struct lanes_cfg one = *c;
    struct lanes l = { 0 };
    one.lanes = 1;
    int rc = compile(&one, &l, e), low = 0, high = (c->n < DEVICE_MAX_K ? c->n : DEVICE_MAX_K) + 1;
    while (rc == 0 && high - low > 1) { /* bytes rise with the lanes */
        l.cfg.lanes = low + (high - low) / 2;
        lay_out(&l);
        *(l.bytes <= budget ? &low : &high) = l.cfg.lanes;
    }
    eng_plan_free(l.plan);
    *lanes = low;
    return rc;
}

int lanes_new(const struct lanes_cfg *c, struct lanes **out, struct errbuf *e)
{
    const struct device *d = c->device;
    struct lanes *l = malloc(sizeof *l);
    *out = NULL;
    if (!l)
        return err_set(e, ERR_NOMEM, "no memory for a network on a device");
    int rc = compile(c, l, e);
    if (rc == 0 && (!(l->pass.queue = d->queue_new()) || !(l->mem = d->alloc(l->bytes))))
        rc = err_set(e, ERR_NOMEM, "%d batches side by side need %llu MiB on the device, which has %llu MiB free", c->lanes,
                     (unsigned long long)(l->bytes >> 20), (unsigned long long)(d->free_bytes() >> 20));
    if (rc < 0) {
        lanes_free(l);
        return rc;
    }
    double *ones = malloc((size_t)c->lanes * sizeof *ones);
    if (!ones) {
        lanes_free(l);
        return err_set(e, ERR_NOMEM, "no memory for %d batches", c->lanes);
    }
    for (int i = 0; i < c->lanes; i++)
        ones[i] = 1;
    if (pulls(l))
        d->put(l->pass.queue, l->mem + l->at.ones, ones, (uint64_t)c->lanes * sizeof *ones);
    free(ones);
    l->pass = (struct device_pass){ .device = d, .queue = l->pass.queue, .arena = (int64_t)l->arena, .grad = (int64_t)l->row,
                                    .x = (int64_t)l->x_bytes, .gx = (int64_t)l->x_bytes, .ticket = l->mem + l->at.ticket };
    d->zero(l->pass.queue, 1, device_rows(l->pass.ticket, 0), device_tickets(l->plan, c->lanes));
    device_pass_attach(&l->pass, l->plan, l->mem + l->at.arena);
    *out = l;
    return 0;
}

void lanes_free(struct lanes *l)
{
    if (!l)
        return;
    const struct device *d = l->cfg.device;
    if (l->pass.queue && l->mem)
        d->wait(l->pass.queue);
    device_work_fini(&l->forth, d);
    device_work_fini(&l->back, d);
    if (l->pass.queue)
        d->queue_free(l->pass.queue);
    if (l->mem)
        d->release(l->mem);
    eng_plan_free(l->plan);
    free(l);
}

uint64_t lanes_bytes(const struct lanes *l) { return l->bytes; }
void *lanes_queue(const struct lanes *l) { return l->pass.queue; }

/* ---- the work ---- */

static void *of_batch(void *base, int i, uint64_t bytes) { return (char *)base + (uint64_t)i * bytes; }

/* Batches first … as the lanes that pass.K says take them. */
static struct plan_bound bind(const struct lanes *l, int first)
{
    return (struct plan_bound){ .w = l->mem + l->at.w, .x = of_batch(l->mem + l->at.x, first, l->x_bytes), .g = l->mem + l->at.g,
                                .gx = l->cfg.want_dx ? of_batch(l->mem + l->at.dx, first, l->x_bytes) : NULL };
}

static int take(struct lanes *l, int first)
{
    const int left = l->cfg.n - first;
    return l->pass.K = left < l->cfg.lanes ? left : l->cfg.lanes;
}

static void go_forth(void *arg)
{
    struct lanes *l = arg;
    for (int i = 0; i < l->cfg.n; i += l->cfg.lanes) {
        const int K = take(l, i);
        const struct plan_bound b = bind(l, i);
        plan_forth(l->plan, &b, false);
        l->cfg.device->copy(l->pass.queue, K, device_rows(of_batch(l->cfg.out, i, l->y_bytes), (int64_t)l->y_bytes),
                            device_pass_output(&l->pass, l->plan, false), l->y_bytes);
    }
}

/* dw = sum over batches, in order. */
static void go_back(void *arg)
{
    struct lanes *l = arg;
    const struct device *d = l->cfg.device;
    void *q = l->pass.queue, *dw = l->mem + l->at.dw;
    const double *ones = (const double *)(const void *)(l->mem + l->at.ones);
    const struct dev_rows g = device_rows(l->mem + l->at.g, (int64_t)l->row);
    d->zero(q, 1, device_rows(dw, 0), l->row);
    for (int i = 0; i < l->cfg.n; i += l->cfg.lanes) {
        const int K = take(l, i);
        const struct plan_bound b = bind(l, i);
        if (!all_at_once(l)) /* else the way forth has left everything */
            plan_forth(l->plan, &b, false);
        d->copy(q, K, device_pass_output(&l->pass, l->plan, true), device_rows(of_batch(l->cfg.dout, i, l->y_bytes), (int64_t)l->y_bytes), l->y_bytes);
        if (l->any_unread)
            d->zero(q, K, g, l->P * sizeof(float));
        plan_back(l->plan, &b, false);
        d->weigh(q, K, l->P, ones, g, dw);
    }
}

int lanes_forward(struct lanes *l, const float *w, const float *x, struct errbuf *e)
{
    const struct device *d = l->cfg.device;
    d->put(l->pass.queue, l->mem + l->at.w, w, l->P * sizeof *w);
    d->put(l->pass.queue, l->mem + l->at.x, x, (uint64_t)l->cfg.n * l->x_bytes);
    return device_work_run(&l->forth, d, l->pass.queue, go_forth, l, e);
}

int lanes_backward(struct lanes *l, float *dw, float *dx, struct errbuf *e)
{
    const struct device *d = l->cfg.device;
    int rc = pulls(l) ? device_work_run(&l->back, d, l->pass.queue, go_back, l, e) : err_set(e, ERR_INTERNAL, "made for the way forth alone");
    if (rc == 0)
        rc = d->get(l->pass.queue, dw, l->mem + l->at.dw, l->P * sizeof *dw, e);
    if (rc == 0 && dx)
        rc = d->get(l->pass.queue, dx, l->mem + l->at.dx, (uint64_t)l->cfg.n * l->x_bytes, e);
    return rc;
}
