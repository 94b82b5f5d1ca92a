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

/* What a forward rule wrote. */
static void look_ahead(struct nonfinite *h, const struct node *n, int rule, const struct op_call *c)
{
    const struct eng_plan *p = h->plan;
    const char *layer = p->net.node[n->net_node].path, *op = op_name(p, n);
    nonfinite_look(h, p->tensor[n->out].elems, c->out.val, "output of layer %s (%s%s)", layer, op, rule_names[rule]);
    if (rule == DUAL_FORWARD)
        nonfinite_look(h, p->tensor[n->out].elems, c->out.dot, "tangent of the output of layer %s (%s%s)", layer, op, rule_names[rule]);
}

/* What a backward rule wrote: adjoints of its inputs, of which parameters have names. */
static void look_back(struct nonfinite *h, const struct node *n, int rule, const struct op_call *c)
{
    const struct eng_plan *p = h->plan;
    const struct net_node *l = &p->net.node[n->net_node];
    for (int k = 0; k < n->n_in; k++) {
        const struct tensor *t = &p->tensor[n->in[k]];
        const char *of = t->param ? "its parameters" : "its input";
        nonfinite_look(h, t->elems, c->in[k].adj, "gradient of layer %s by %s (%s%s)", l->path, of, op_name(p, n), rule_names[rule]);
        if (rule == DUAL_BACKWARD)
            nonfinite_look(h, t->elems, c->in[k].adj_dot, "tangent of the gradient of layer %s by %s (%s%s)", l->path, of,
                           op_name(p, n), rule_names[rule]);
    }
}

static void on_op(void *arg, const struct eng_plan *p, int node, int rule, op_rule fn, const struct op_call *c)
{
    struct nonfinite *h = arg;
    const struct node *n = &p->node[node];
    const bool forward = rule == FORWARD || rule == DUAL_FORWARD, found = h->what[0];
    if (!forward && p->tensor[n->out].root == p->tensor[p->output].root) { /* what the loss wrote, read first here */
        nonfinite_look(h, p->tensor[n->out].elems, c->out.adj, "gradient of the loss by the logits");
        nonfinite_look(h, p->tensor[n->out].elems, rule == DUAL_BACKWARD ? c->out.adj_dot : NULL, "tangent of the gradient of the loss by the logits");
    }
    fn(c);
    if (c->part == OP_GATHER)
        return; /* it has written nothing yet */
    if (forward)
        look_ahead(h, n, rule, c);
    else
        look_back(h, n, rule, c);
    h->backward |= !found && h->what[0] && !forward;
}

void nonfinite_begin(struct nonfinite *h, struct eng_plan *p)
{
    *h = (struct nonfinite){ .plan = p, .probe = p->probe, .probe_arg = p->probe_arg };
    p->probe = on_op;
    p->probe_arg = h;
    p->op_by_op = true;
}

void nonfinite_end(struct nonfinite *h)
{
    h->plan->probe = h->probe;
    h->plan->probe_arg = h->probe_arg;
    h->plan->op_by_op = false;
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
