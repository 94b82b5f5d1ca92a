#include "worker/engine/device_pass.h"

/* A normalised weight, say: all of K have the same one where they share the parameters. */
static bool made_once(const struct device_pass *s, const struct eng_plan *p, int tensor)
{
    return s->param == 0 && !p->tensor[p->tensor[tensor].root].batched;
}

static int64_t step_of(const struct device_pass *s, const struct eng_plan *p, int tensor, bool adjoint)
{
    const int root = p->tensor[tensor].root;
    if (p->tensor[root].param)
        return adjoint ? s->grad : s->param;
    if (root == p->input)
        return adjoint ? s->gx : s->x;
    return made_once(s, p, tensor) && !adjoint ? 0 : s->arena;
}

/* In place of the CPU's rule (plan_probe): the device's, for all K. */
static void on_device(void *arg, const struct eng_plan *p, int node, int rule, op_rule fn, const struct op_call *c)
{
    (void)fn;
    const struct device_pass *s = arg;
    const struct node *n = &p->node[node];
    const bool once = made_once(s, p, n->out);
    struct dev_call d = { .c = *c, .K = once && rule == DEV_FORWARD ? 1 : s->K, .aux = once ? 0 : s->arena, .scratch = s->arena, .ticket = s->ticket, .queue = s->queue,
                          .out_val = step_of(s, p, n->out, false), .out_adj = step_of(s, p, n->out, true) };
    for (int i = 0; i < n->n_in; i++) {
        d.in_val[i] = step_of(s, p, n->in[i], false);
        d.in_adj[i] = step_of(s, p, n->in[i], true);
    }
    s->device->rule[n->op][rule](&d);
}

uint64_t device_tickets(const struct eng_plan *p, int K)
{
    int most = 1;
    for (int i = 0; i < p->n_tensors; i++)
        most = p->tensor[i].s.c > most ? p->tensor[i].s.c : most;
    return (uint64_t)K * DEVICE_TICKETS((uint64_t)most) * sizeof(unsigned);
}

/* A launch's last block reaches up to LINE (cuda/common.cuh) numbers past the end. */
#define MAX_ELEMS (INT32_MAX - 4096ull) /* pixels are counted in int */

int device_pass_check(const struct eng_plan *p, struct errbuf *e)
{
    for (int i = 0; i < p->n_tensors; i++)
        if (p->tensor[i].elems > MAX_ELEMS)
            return err_set(e, ERR_SHAPE, "a tensor of %llu numbers, of a batch of %d: a device takes %llu at most", (unsigned long long)p->tensor[i].elems, p->batch,
                           (unsigned long long)MAX_ELEMS);
    return 0;
}

void device_pass_attach(struct device_pass *pass, struct eng_plan *p, void *arena)
{
    plan_attach(p, arena);
    p->probe = on_device;
    p->probe_arg = pass;
}

struct dev_rows device_rows(void *at, int64_t step) { return (struct dev_rows){ at, step }; }

struct dev_rows device_pass_output(const struct device_pass *pass, const struct eng_plan *p, bool adjoint)
{
    const struct op_view out = plan_output(p);
    return device_rows(adjoint ? out.adj : out.val, pass->arena);
}

int device_work_run(struct device_work *k, const struct device *d, void *queue, void (*work)(void *arg), void *arg, struct errbuf *e)
{
    if (k->ran && !k->recorded && d->begin(queue)) {
        work(arg);
        if (!(k->recorded = d->end(queue)))
            return err_set(e, ERR_UNAVAILABLE, "%s: the work could not be recorded", d->name());
    }
    if (k->recorded)
        d->play(queue, k->recorded);
    else
        work(arg);
    k->ran = true;
    return 0;
}

void device_work_fini(struct device_work *k, const struct device *d)
{
    if (k->recorded)
        d->forget(k->recorded);
    *k = (struct device_work){ 0 };
}
