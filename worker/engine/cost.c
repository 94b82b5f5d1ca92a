/* cost.c - what a plan computes. Products alone count: with y = x w, a forward is one product of F operations; a backward one
 * for each wanted adjoint; a tangent costs one more for each factor that has one. */
#include "worker/engine/plan.h"

uint64_t plan_flops(const struct eng_plan *p, int node, int rule, bool kept)
{
    enum { FORWARD, BACKWARD, DUAL_FORWARD, DUAL_BACKWARD }; /* the order of struct op_rules */
    const struct node *n = &p->node[node];
    if (n->op != OP_CONV && n->op != OP_DWCONV && n->op != OP_UPCONV)
        return 0;
    const struct tensor *x = &p->tensor[p->tensor[n->in[0]].root], *w = &p->tensor[n->in[1]];
    const bool image = p->tensor[n->in[0]].root == p->input;
    uint64_t products = 0;
    switch (rule) {
    case FORWARD: products = 1; break;
    case BACKWARD: products = (uint64_t)(x->needs_adj && !image) + w->needs_adj; break;
    case DUAL_FORWARD: products = (uint64_t)!kept + x->has_dot + w->has_dot; break;
    case DUAL_BACKWARD: /* again, unless kept: the adjoints that others read; those of parameters are not asked for */
        products = kept ? 0 : (uint64_t)(x->needs_adj && !image) + !w->param;
        products += (x->needs_adj ? 1u + w->has_dot : 0u) + 1u + x->has_dot;
    }
    const uint64_t macs = net_node_macs(&p->net, n->net_node);
    return 2 * products * (uint64_t)p->batch * (n->op == OP_UPCONV ? macs / 9 * 4 : macs); /* op/fold.c: 16 places of 36 */
}

uint64_t plan_pass_flops(const struct eng_plan *p, int rule, bool kept)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->n_nodes; i++)
        sum += plan_flops(p, i, rule, kept);
    for (int i = 0; i < p->n_redo && rule % 2; i++)
        sum += plan_flops(p, p->redo[i].node, rule - 1, kept);
    return sum;
}
