/* space_file_build.c - the network of one architecture of a space from a file. Each live slot is `depth` blocks: the operation
 * (a convolution is followed by the norm), the connection, the activation. The first block strides; a stride that would leave fewer than 2x2
 * places is left out, as in the space chain. */
#include "common/space_file_int.h"

#include <stdio.h>

struct builder {
    struct net    *n;
    struct errbuf *e;
    int            norm, act;
    char           prefix[32];
};

static const char *sub(const struct builder *b, char *buf, size_t cap, const char *what)
{
    snprintf(buf, cap, "%s.%s", b->prefix, what);
    return buf;
}

/* A convolution and its norm; groups 0: depthwise. */
static int add_conv(struct builder *b, int x, int out, int k, int stride, int groups, bool norm, const char *what)
{
    char path[56], name[20];
    if (x < 0)
        return x;
    int in = b->n->node[x].shape.c;
    struct net_attr at = { .out = groups ? out : in, .k = k, .stride = stride, .pad = k / 2, .groups = groups ? groups : in,
                           .wn = b->norm == SFNORM_WN, .bias = b->norm == SFNORM_NONE };
    x = net_add(b->n, NET_CONV, &x, 1, &at, sub(b, path, sizeof path, what), b->e);
    if (!norm || b->norm == SFNORM_NONE)
        return x;
    snprintf(name, sizeof name, "%s_bn", what);
    return net_bn(b->n, x, b->norm != SFNORM_BN, sub(b, path, sizeof path, name), b->e);
}

static int add_act(struct builder *b, int x, const char *what)
{
    char path[56];
    sub(b, path, sizeof path, what);
    return b->act == SFACT_TANH ? net_unary(b->n, NET_TANH, x, path, b->e) : net_lrelu(b->n, x, b->act == SFACT_LRELU ? 0.1 : 0, path, b->e);
}

static int add_op(struct builder *b, int x, int op, int width, int k, int stride)
{
    char path[56];
    int  mid = width / 4 > 4 ? width / 4 : 4;
    switch (op) {
    case SFOP_CONV: return add_conv(b, x, width, k, stride, 1, true, "conv");
    case SFOP_SEP:  return add_conv(b, add_conv(b, x, 0, k, stride, 0, false, "dw"), width, 1, 1, 1, true, "pw");
    case SFOP_DW:   return add_conv(b, x, 0, k, stride, 0, true, "dw");
    case SFOP_NECK:
        x = add_act(b, add_conv(b, x, mid, 1, 1, 1, true, "reduce"), "act1");
        x = add_act(b, add_conv(b, x, mid, k, stride, 1, true, "conv"), "act2");
        return add_conv(b, x, width, 1, 1, 1, true, "expand");
    default:
        return net_pool(b->n, op == SFOP_MAX ? NET_MAXPOOL : NET_AVGPOOL, x, k, stride, k / 2, sub(b, path, sizeof path, "pool"), b->e);
    }
}

/* Join the block's input: where shapes differ it first goes through a 1x1 convolution with the same stride. */
static int connect(struct builder *b, int in, int x, int how, int stride)
{
    char path[56];
    if (x < 0 || how == SFCON_NONE)
        return x;
    int c = b->n->node[x].shape.c;
    if (stride > 1 || (how == SFCON_ADD && b->n->node[in].shape.c != c))
        in = add_conv(b, in, how == SFCON_ADD ? c : b->n->node[in].shape.c, 1, stride, 1, true, "shortcut");
    if (in < 0)
        return in;
    if (how == SFCON_ADD)
        return net_add2(b->n, in, x, sub(b, path, sizeof path, "add"), b->e);
    int both[2] = { in, x };
    return net_add(b->n, NET_CONCAT, both, 2, &(struct net_attr){ 0 }, sub(b, path, sizeof path, "concat"), b->e);
}

static int add_slot(struct builder *b, int x, const struct sf *f, const struct sf_arch *a, int slot)
{
    const struct sf_slot *s = &f->slot[slot];
    int v[SF_KEY_COUNT];
    for (int k = 0; k < SF_KEY_COUNT; k++)
        v[k] = sf_get(f, a, s->var[k]);
    for (int i = 0; i < v[SF_DEPTH] && x >= 0 && v[SF_OP] != SFOP_NONE; i++) {
        const struct net_shape *in = &b->n->node[x].shape;
        int stride = i == 0 && in->h >= 2 * v[SF_STRIDE] && in->w >= 2 * v[SF_STRIDE] ? v[SF_STRIDE] : 1;
        bool pool = v[SF_OP] == SFOP_MAX || v[SF_OP] == SFOP_AVG;
        snprintf(b->prefix, sizeof b->prefix, "%s%d", s->name, i + 1);
        x = connect(b, x, add_op(b, x, v[SF_OP], v[SF_WIDTH], v[SF_KERNEL], stride), v[SF_CONNECT], stride);
        if (!pool)
            x = add_act(b, x, "act");
    }
    return x;
}

int sf_build(const struct sf *f, const struct sf_arch *a, const struct arch_frame *frame, struct net *out, struct errbuf *e)
{
    struct builder b = { out, e, sf_get(f, a, f->top[SF_NORM]), sf_get(f, a, f->top[SF_ACT]), "" };
    int x = space_input(out, frame, e);
    for (int i = 0; i < f->n_slots && x >= 0; i++)
        if (sf_slot_live(f, a, i) && (x = add_slot(&b, x, f, a, i)) < 0)
            err_wrap(e, x, "slot %s", f->slot[i].name);
    bool gap = sf_get(f, a, f->top[SF_HEAD]) == SFHEAD_GAP;
    x = net_unary(out, gap ? NET_GAP : NET_FLATTEN, x, gap ? "head.gap" : "head.flatten", e);
    x = net_linear(out, x, frame->n_classes, "head.linear", e);
    if (x < 0)
        net_fini(out);
    return x < 0 ? x : 0;
}
