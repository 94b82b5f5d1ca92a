#include "worker/engine/nonfinite.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* Their numbers in struct op_rules. */
enum { FORWARD, BACKWARD, DUAL_FORWARD, DUAL_BACKWARD, N_RULES };
static const char *const rule_names[N_RULES] = { "", ", backward", ", dual forward", ", dual backward" };

static bool bad(const struct nonfinite *h, uint64_t n, const void *x) { return !h->what[0] && x && !h->plan->k->finite(n, x); }

void nonfinite_look(struct nonfinite *h, uint64_t n, const void *x, const char *fmt, ...)
{
    if (!bad(h, n, x))
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(h->what, sizeof h->what, fmt, ap);
    va_end(ap);
}

static const char *at(const struct eng_plan *p, const void *flat, uint64_t offset)
{
    return (const char *)flat + offset * eng_dtype_size(p->dtype);
}

void nonfinite_look_params(struct nonfinite *h, const void *flat, const char *words)
{
    const struct net *n = &h->plan->net;
    for (int i = 0; i < n->n_params; i++)
        nonfinite_look(h, n->param[i].size, at(h->plan, flat, n->param[i].offset), "%s %s", words, n->param[i].name);
}

/* A linear layer runs as a convolution of one place; its reader knows it by its own name. */
static const char *op_name(const struct eng_plan *p, const struct node *n)
{
    return n->op == OP_CONV ? net_op_name(p->net.node[n->net_node].op) : op_traits[n->op].name;
}

/* Of the images of one call. */
static uint64_t elems_of(const struct eng_plan *p, int tensor, const struct op_call *c)
{
    const struct tensor *t = &p->tensor[tensor];
    return t->batched ? t->elems / (uint64_t)p->batch * (uint64_t)c->batch : t->elems;
}

/* What a forward rule wrote. */
static void look_ahead(struct nonfinite *h, const struct node *n, int rule, const struct op_call *c)
{
    const struct eng_plan *p = h->plan;
    const char *layer = p->net.node[n->net_node].path, *op = op_name(p, n);
    nonfinite_look(h, elems_of(p, n->out, c), c->out.val, "output of layer %s (%s%s)", layer, op, rule_names[rule]);
    if (rule == DUAL_FORWARD)
        nonfinite_look(h, elems_of(p, n->out, c), c->out.dot, "tangent of the output of layer %s (%s%s)", layer, op, rule_names[rule]);
}

/* What a backward rule wrote: adjoints of its inputs, of which parameters have names. */
static void look_back(struct nonfinite *h, const struct node *n, int rule, const struct op_call *c)
{
    const struct eng_plan *p = h->plan;
    const struct net_node *l = &p->net.node[n->net_node];
    for (int k = 0; k < n->n_in; k++) {
        const struct tensor *t = &p->tensor[n->in[k]];
        const char *of = t->param ? "its parameters" : "its input";
        nonfinite_look(h, elems_of(p, n->in[k], c), c->in[k].adj, "gradient of layer %s by %s (%s%s)", l->path, of, op_name(p, n), rule_names[rule]);
        if (rule == DUAL_BACKWARD)
            nonfinite_look(h, elems_of(p, n->in[k], c), c->in[k].adj_dot, "tangent of the gradient of layer %s by %s (%s%s)", l->path, of,
                           op_name(p, n), rule_names[rule]);
    }
}

static void look(struct nonfinite *h, const struct node *n, int rule, const struct op_call *c)
{
    const struct eng_plan *p = h->plan;
    const bool forward = rule == FORWARD || rule == DUAL_FORWARD;
    if (!forward && p->tensor[n->out].root == p->tensor[p->output].root) { /* what the loss wrote; it is whole, but only read here */
        nonfinite_look(h, elems_of(p, n->out, c), c->out.adj, "gradient of the loss by the logits");
        nonfinite_look(h, elems_of(p, n->out, c), rule == DUAL_BACKWARD ? c->out.adj_dot : NULL, "tangent of the gradient of the loss by the logits");
    }
    if (forward)
        look_ahead(h, n, rule, c);
    else
        look_back(h, n, rule, c);
}

/* A run goes block by block: what a later block shows of an earlier op stands before what the first blocks showed of later ones. */
static void on_op(void *arg, const struct eng_plan *p, int node, int rule, op_rule fn, const struct op_call *c)
{
    struct nonfinite *h = arg, before = *h;
    const bool forward = rule == FORWARD || rule == DUAL_FORWARD;
    const int order = forward ? node : -node;
    fn(c);
    if (c->part == OP_GATHER)
        return; /* it has written nothing yet */
    if (h->what[0] && c->first > 0 && rule == h->rule && order < h->order)
        h->what[0] = 0;
    else if (h->what[0])
        return;
    look(h, &p->node[node], rule, c);
    if (!h->what[0]) {
        *h = before;
        return;
    }
    h->rule = rule;
    h->order = order;
    h->backward = !forward;
}

void nonfinite_begin(struct nonfinite *h, struct eng_plan *p)
{
    *h = (struct nonfinite){ .plan = p, .probe = p->probe, .probe_arg = p->probe_arg, .rule = -1 };
    p->probe = on_op;
    p->probe_arg = h;
}

void nonfinite_end(struct nonfinite *h)
{
    h->plan->probe = h->probe;
    h->plan->probe_arg = h->probe_arg;
}

void nonfinite_step(struct nonfinite *h, const void *w, const void *x, const void *y, void *g)
{
    const struct eng_plan *p = h->plan;
    nonfinite_look_params(h, w, "weight");
    nonfinite_look(h, p->tensor[p->input].elems, x, "the images");
    nonfinite_look(h, p->tensor[p->output].elems, y, "the labels");
    double loss = plan_grad(h->plan, w, x, y, g, NULL, NULL);
    if (!isfinite(loss) && (!h->what[0] || h->backward))
        snprintf(h->what, sizeof h->what, "the loss (softmax cross-entropy)");
}

bool eng_nonfinite(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, char *what, size_t cap)
{
    struct nonfinite h;
    nonfinite_begin(&h, p);
    nonfinite_step(&h, w, x, y, g);
    nonfinite_end(&h);
    snprintf(what, cap, "%s", h.what);
    return h.what[0];
}
