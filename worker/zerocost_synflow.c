/* zerocost_synflow.c - synaptic flow (Tanaka et al., NeurIPS 2020, arXiv:2006.05467), as a score of architectures by Abdelfattah et
 * al. (ICLR 2021, arXiv:2101.08134; their code leaves batch norms out and works in double, and so does this):
 *
 *   R(w) = sum of the outputs for one image of ones, with |w| for w        synflow = sum over weights of |w| dR/d|w|
 *
 * Weight normalisation is the identity at initialisation (g = |v|) and is left out with the batch norms. */
#include "worker/zerocost_int.h"

#include "worker/mem.h"

/* The network without its norms. param_of[i]: where parameter i of `out` comes from. */
static int without_norms(const struct net *n, struct net *out, int *param_of, struct errbuf *e)
{
    const struct net_shape *s = &n->node[0].shape;
    int *at = mem_array((uint64_t)n->n_nodes, sizeof *at), rc = at ? net_init(out, s->c, s->flat ? 0 : s->h, s->flat ? 0 : s->w, e) : err_set(e, ERR_NOMEM, "synflow");
    for (int i = 1; rc >= 0 && i < n->n_nodes; i++) {
        const struct net_node *l = &n->node[i];
        struct net_attr attr = l->at;
        int in[NET_MAX_IN];
        if (l->op == NET_BN) {
            at[i] = at[l->in[0]];
            continue;
        }
        for (int k = 0; k < l->n_in; k++)
            in[k] = at[l->in[k]];
        attr.wn = false;
        if ((rc = at[i] = net_add(out, l->op, in, l->n_in, &attr, l->path, e)) < 0)
            break;
        const struct net_node *m = &out->node[rc];
        for (int k = 0; k < m->n_params; k++) /* the weight; then the bias, which a gain may precede */
            param_of[m->param0 + k] = l->param0 + (k ? l->n_params - 1 : 0);
    }
    if (rc >= 0)
        rc = net_set_out(out, at[n->out], e);
    free(at);
    return rc < 0 ? rc : 0;
}

static int flow(const struct zc_work *k, const struct net *n, const int *param_of, double *score, struct errbuf *e)
{
    const struct net_shape *os = &n->node[n->out].shape;
    const uint64_t outputs = (uint64_t)os->c * (uint64_t)os->h * (uint64_t)os->w, ones_n = outputs > k->image ? outputs : k->image;
    struct eng_plan *plan = NULL;
    double *w = mem_array(n->param_count, sizeof *w), *g = mem_array(n->param_count, sizeof *g), *ones = mem_array(ones_n, sizeof *ones);
    int rc = w && g && ones ? eng_plan_new(n, 1, ENG_F64, ENG_GRAD, &plan, e) : err_set(e, ERR_NOMEM, "synflow");
    if (rc == 0) {
        for (int i = 0; i < n->n_params; i++)
            for (uint64_t j = 0; j < n->param[i].size; j++)
                w[n->param[i].offset + j] = fabs((double)k->in->w[k->in->net->param[param_of[i]].offset + j]);
        for (uint64_t i = 0; i < ones_n; i++)
            ones[i] = 1;
        eng_forward(plan, w, ones, NULL);
        eng_backward(plan, w, ones, ones, g, NULL);
        *score = 0;
        for (int i = 0; i < n->n_params; i++)
            for (uint64_t j = n->param[i].offset; zc_counts(&n->param[i]) && j < n->param[i].offset + n->param[i].size; j++)
                *score += fabs(w[j] * g[j]);
    }
    eng_plan_free(plan);
    free(w);
    free(g);
    free(ones);
    return rc;
}

int zc_synflow(const struct zc_work *k, double *score, struct errbuf *e)
{
    struct net n = { 0 };
    int *param_of = mem_array((uint64_t)k->in->net->n_params, sizeof *param_of);
    int rc = param_of ? without_norms(k->in->net, &n, param_of, e) : err_set(e, ERR_NOMEM, "synflow");
    if (rc == 0)
        rc = flow(k, &n, param_of, score, e);
    net_fini(&n);
    free(param_of);
    return rc;
}

int zc_synflow_predict(const struct net *n, uint64_t *bytes, struct errbuf *e)
{
    struct net m = { 0 };
    int *param_of = mem_array((uint64_t)n->n_params, sizeof *param_of);
    int rc = param_of ? without_norms(n, &m, param_of, e) : err_set(e, ERR_NOMEM, "synflow");
    if (rc == 0 && (rc = eng_plan_predict(&m, 1, ENG_F64, ENG_GRAD, bytes, e)) == 0)
        *bytes += 2 * m.param_count * sizeof(double);
    net_fini(&m);
    free(param_of);
    return rc;
}
