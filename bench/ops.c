/* ops.c - a probe in the engine's plans that adds up time, products and bytes for each op and rule.
 *
 * gflop: the multiply-adds (2 each) that the rule has to do for the buffers it is given. With y = x w, a forward is one product;
 * a backward one for each wanted adjoint; a tangent costs one more for each factor that has one.
 * mib: every buffer that the rule reads or writes, once: what a perfect cache would have to move. Where a batch norm gathers
 * apart from applying, what it gathers from counts twice.
 * calls: over the whole batch; the blocks of images that make one are added up. */
#include "bench/ops.h"

#include "worker/engine/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_ROWS = 4096 };
static const char *const rules[] = { "forward", "backward", "dual forward", "dual backward" };

struct row {
    const struct eng_plan *plan;
    int    node, rule;
    long   calls;
    double ns, flop, bytes;
};
struct ops_profile {
    const struct eng_plan *generator;
    int        n;
    struct row row[MOST_ROWS];
};

static uint64_t elems(const struct op_call *c, const struct op_view *v, bool batched)
{
    return (uint64_t)v->s.c * (uint64_t)v->s.h * (uint64_t)v->s.w * (batched ? (uint64_t)c->batch : 1);
}

static double view_bytes(const struct op_view *v, double size, int rule)
{
    const int tangents = rule >= 2, back = rule % 2;
    int buffers = (v->val != NULL) + (tangents && v->dot) + (back && v->adj) + (back && tangents && v->adj_dot);
    return size * buffers;
}

static double bytes_of(const struct eng_plan *p, int node, int rule, const struct op_call *c)
{
    const struct node *n = &p->node[node];
    const double real = (double)eng_dtype_size(p->dtype);
    const bool gathers = c->part == OP_GATHER, last = c->first + c->batch == c->total;
    struct op_view out = c->out;
    if (gathers || (rule % 2 && !plan_keeps_out(n)))
        out.val = out.dot = NULL;
    double sum = view_bytes(&out, real * (double)elems(c, &out, p->tensor[n->out].batched), rule);
    for (int k = 0; k < c->n_in; k++) {
        struct op_view in = c->in[k];
        if (rule % 2 && !plan_keeps_in(n))
            in.val = in.dot = NULL;
        if (gathers)
            in.adj = in.adj_dot = NULL;
        sum += view_bytes(&in, real * (double)elems(c, &in, p->tensor[n->in[k]].batched), rule);
    }
    return sum + (c->aux && last ? (double)n->aux_bytes : 0);
}

static double flop_of(const struct eng_plan *p, int node, int rule, const struct op_call *c)
{
    const struct node *n = &p->node[node];
    if (n->op != OP_CONV && n->op != OP_DWCONV && n->op != OP_UPCONV)
        return 0;
    const struct op_view *x = &c->in[0], *w = &c->in[1];
    int products = 0;
    if (rule % 2 == 0)
        products = 1 + (rule == 2 ? (x->dot != NULL) + (w->dot != NULL) : 0);
    else
        products = (x->adj != NULL) + (w->adj != NULL) + (rule == 3 && x->adj_dot ? 1 + (w->dot != NULL) : 0) + (rule == 3 && w->adj_dot ? 1 + (x->dot != NULL) : 0);
    const double macs = (double)net_node_macs(&p->net, n->net_node);
    return 2 * products * c->batch * (n->op == OP_UPCONV ? macs * 4 / 9 : macs);
}

static struct row *row_of(struct ops_profile *o, const struct eng_plan *p, int node, int rule)
{
    for (int i = 0; i < o->n; i++)
        if (o->row[i].plan == p && o->row[i].node == node && o->row[i].rule == rule)
            return &o->row[i];
    if (o->n == MOST_ROWS)
        abort();
    o->row[o->n] = (struct row){ .plan = p, .node = node, .rule = rule };
    return &o->row[o->n++];
}

static void on_op(void *arg, const struct eng_plan *p, int node, int rule, op_rule fn, const struct op_call *c)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    fn(c);
    clock_gettime(CLOCK_MONOTONIC, &b);
    struct row *r = row_of(arg, p, node, rule);
    r->calls += c->part != OP_GATHER && c->first + c->batch == c->total;
    r->ns += 1e9 * (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec);
    r->flop += flop_of(p, node, rule, c);
    r->bytes += bytes_of(p, node, rule, c);
}

struct ops_profile *ops_start(struct unroll *u, struct eng_plan *generator)
{
    struct ops_profile *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    unroll_set_probe(u, on_op, o);
    if (generator) {
        generator->probe = on_op;
        generator->probe_arg = o;
        o->generator = generator;
    }
    return o;
}

static void print_shape(const char *key, int batch, bool batched, struct net_shape s)
{
    printf(",\"%s\":[%d,%d,%d,%d]", key, batched ? batch : 1, s.h, s.w, s.c);
}

void ops_print(const struct ops_profile *o, const char *w, const char *what, int threads, double seconds)
{
    printf("{\"w\":\"%s\",\"what\":\"%s\",\"threads\":%d,\"isa\":\"%s\",\"seconds\":%.6f,\"ops\":[", w, what, threads, eng_isa(), seconds);
    for (int i = 0; i < o->n; i++) {
        const struct row *r = &o->row[i];
        const struct eng_plan *p = r->plan;
        const struct node *n = &p->node[r->node];
        const struct tensor *x = &p->tensor[n->in[0]], *y = &p->tensor[n->out];
        printf("%s{\"net\":\"%s\",\"op\":\"%s\",\"layer\":\"%s\",\"rule\":\"%s\"", i ? ",\n" : "", p == o->generator ? "generator" : "learner",
               op_traits[n->op].name, p->net.node[n->net_node].path, rules[r->rule]);
        print_shape("in", p->batch, x->batched, x->s);
        print_shape("out", p->batch, y->batched, y->s);
        printf(",\"k\":%d,\"calls\":%ld,\"ms\":%.4f,\"gflop\":%.4f,\"mib\":%.3f}", n->op == OP_CONV || n->op == OP_DWCONV || n->op == OP_UPCONV ? n->at.k : 0, r->calls, r->ns * 1e-6,
               r->flop * 1e-9, r->bytes / 1048576);
    }
    puts("]}");
}
