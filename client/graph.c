#include "client/graph.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const char *shape_text(char out[40], const struct net_shape *s)
{
    if (s->flat)
        snprintf(out, 40, "%d", s->c);
    else
        snprintf(out, 40, "%d×%d×%d", s->c, s->h, s->w);
    return out;
}

static void window_text(char *out, size_t cap, const char *name, const struct net_attr *a)
{
    size_t n = (size_t)snprintf(out, cap, "%s %d×%d", name, a->k, a->k);
    if (a->stride > 1 && n < cap)
        n += (size_t)snprintf(out + n, cap - n, "/%d", a->stride);
    if (a->dilation > 1 && n < cap)
        snprintf(out + n, cap - n, " dilated %d", a->dilation);
}

static void op_text(char *out, size_t cap, const struct net *net, const struct net_node *d)
{
    const struct net_shape *in = d->n_in ? &net->node[d->in[0]].shape : NULL;
    char window[64], groups[32] = "";
    bool depthwise = d->op == NET_CONV && d->at.groups > 1 && d->at.groups == in->c;
    switch (d->op) {
    case NET_CONV:
        window_text(window, sizeof window, depthwise ? "dwconv" : "conv", &d->at);
        if (d->at.groups > 1 && !depthwise)
            snprintf(groups, sizeof groups, " in %d groups", d->at.groups);
        snprintf(out, cap, "%s, %d%s%s", window, d->at.out, groups, d->at.wn ? " wn" : "");
        break;
    case NET_LINEAR:  snprintf(out, cap, "linear %d%s", d->at.out, d->at.wn ? " wn" : ""); break;
    case NET_BN:      snprintf(out, cap, "%s", d->at.mean_only ? "mean-only bn" : "bn"); break;
    case NET_LRELU:
        if (d->at.slope == 0)
            snprintf(out, cap, "relu");
        else
            snprintf(out, cap, "lrelu %g", d->at.slope);
        break;
    case NET_MAXPOOL:
    case NET_AVGPOOL: window_text(out, cap, net_op_name(d->op), &d->at); break;
    default:          snprintf(out, cap, "%s", net_op_name(d->op)); break;
    }
}

/* What neither computes much nor changes where the data flows. */
static bool light(enum net_op op)
{
    return op == NET_BN || op == NET_LRELU || op == NET_TANH || op == NET_GAP || op == NET_FLATTEN || op == NET_RESHAPE;
}

struct folding {
    const struct net *net;
    bool *live;
    int  *readers, *box; /* [n_nodes] */
    bool *open;          /* [n_nodes] of boxes: nothing but light layers so far */
};

/* Whether node i goes into the box of its only input. */
static bool joins(const struct folding *f, int i)
{
    const struct net_node *d = &f->net->node[i];
    if (d->n_in != 1 || f->readers[d->in[0]] != 1)
        return false;
    const struct net_node *p = &f->net->node[d->in[0]];
    bool weighs = d->op == NET_CONV || d->op == NET_LINEAR;
    bool separable = d->op == NET_CONV && d->at.k == 1 && p->op == NET_CONV && p->at.groups > 1;
    if (d->op == NET_FLATTEN || d->op == NET_GAP || d->op == NET_RESHAPE)
        return false; /* what follows joins them */
    return (light(d->op) && p->op != NET_INPUT) || separable || (weighs && f->open[f->box[d->in[0]]]);
}

static void mark_live(const struct net *net, bool *live)
{
    live[net->out] = live[0] = true;
    for (int i = net->n_nodes - 1; i >= 0; i--)
        for (int k = 0; live[i] && k < net->node[i].n_in; k++)
            live[net->node[i].in[k]] = true;
}

static void put_in_box(struct graph *g, const struct folding *f, int i, int b)
{
    const struct net_node *d = &f->net->node[i];
    struct box *x = &g->box[b];
    size_t n = strlen(x->label);
    char text[100];
    op_text(text, sizeof text, f->net, d);
    snprintf(x->label + n, sizeof x->label - n, "%s%s", n ? " · " : "", text);
    x->shape = d->shape;
    x->macs += net_node_macs(f->net, i);
    for (int p = 0; p < d->n_params; p++)
        x->params += f->net->param[d->param0 + p].size;
}

static void fold(struct graph *g, struct folding *f)
{
    for (int i = 0; i < f->net->n_nodes; i++) {
        const struct net_node *d = &f->net->node[i];
        if (!f->live[i])
            continue;
        bool join = joins(f, i);
        int b = join ? f->box[d->in[0]] : g->n++;
        f->box[i] = b;
        f->open[b] = (!join || f->open[b]) && light(d->op);
        struct box *x = &g->box[b];
        for (int k = 0; !join && k < d->n_in; k++) {
            const struct box *from = &g->box[f->box[d->in[k]]];
            x->in[x->n_in++] = f->box[d->in[k]];
            x->level = from->level >= x->level ? from->level + 1 : x->level;
        }
        put_in_box(g, f, i, b);
    }
}

int graph_from_net(struct graph *g, const struct net *net, struct errbuf *e)
{
    size_t n = (size_t)net->n_nodes;
    struct folding f = { net, calloc(n, sizeof(bool)), calloc(n, sizeof(int)), calloc(n, sizeof(int)), calloc(n, sizeof(bool)) };
    *g = (struct graph){ .box = calloc(n, sizeof *g->box) };
    int rc = f.live && f.readers && f.box && f.open && g->box ? 0 : err_set(e, ERR_NOMEM, "out of memory for a drawing");
    if (rc == 0) {
        mark_live(net, f.live);
        for (int i = 0; i < net->n_nodes; i++)
            for (int k = 0; f.live[i] && k < net->node[i].n_in; k++)
                f.readers[net->node[i].in[k]]++;
        fold(g, &f);
        for (int b = 0; b < g->n; b++) {
            g->box[b].last_use = b + 1 == g->n ? g->n : b;
            for (int k = 0; k < g->box[b].n_in; k++)
                g->box[g->box[b].in[k]].last_use = b;
        }
    } else {
        graph_fini(g);
    }
    free(f.live);
    free(f.readers);
    free(f.box);
    free(f.open);
    return rc;
}

void graph_fini(struct graph *g)
{
    free(g->box);
    *g = (struct graph){ 0 };
}
