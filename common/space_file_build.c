/* space_file_build.c - the network of one architecture of a space from a file. A slot that is there is `depth` blocks: the operation
 * (a convolution with its norm), the connection, the activation; or, in order pre, norm and activation before each convolution. The first
 * block strides; a stride that would leave fewer than 2x2 places is left out, as in the space chain. What `from` names joins the slot's
 * input, made to its size by a 1x1 convolution, or by doubling. */
#include "common/space_file_int.h"

#include <stdio.h>
#include <string.h>

#define MAX_FIT_STRIDE 256

struct builder {
    struct net      *n;
    struct errbuf   *e;
    const struct sf *f;
    const struct sf_arch *a;
    int  head;
    int  v[SF_KEY_COUNT];    /* of the slot at work; norm and act are those that hold */
    int  out[SF_MAX_SLOTS];  /* node after a slot, of its last repeat so far */
    int  input;
    char prefix[2 * SF_NAME_LEN + 12];
};

static const char *sub(const struct builder *b, char *buf, const char *what)
{
    snprintf(buf, 56, "%.34s.%.19s", b->prefix, what); /* the longest: "stage8.slot8.shortcut_bn", names of 15 */
    return buf;
}

static const struct net_shape *shape(const struct builder *b, int x)
{
    return &b->n->node[x].shape;
}

static int add_norm(struct builder *b, int x, const char *what)
{
    char path[56], name[20];
    if (b->v[SF_OWN_NORM] == SFNORM_NONE)
        return x;
    snprintf(name, sizeof name, "%s_bn", what);
    return net_bn(b->n, x, b->v[SF_OWN_NORM] != SFNORM_BN, sub(b, path, name), b->e);
}

static int add_act(struct builder *b, int x, const char *what)
{
    char path[56];
    int  act = b->v[SF_OWN_ACT];
    if (act == SFACT_NONE)
        return x;
    sub(b, path, what);
    return act == SFACT_TANH ? net_unary(b->n, NET_TANH, x, path, b->e) : net_lrelu(b->n, x, act == SFACT_LRELU ? 0.1 : 0, path, b->e);
}

static int common_divisor(int a, int b)
{
    while (b) {
        int t = a % b;
        a = b;
        b = t;
    }
    return a;
}

/* A convolution; out 0: depthwise. Groups are cut to what divides both sides. */
static int add_conv(struct builder *b, int x, int out, int k, int stride, int groups, const char *what)
{
    char path[56], name[20];
    if (x < 0)
        return x;
    int in = shape(b, x)->c, dilation = k > 1 ? b->v[SF_DILATION] : 1, pad = dilation * (k / 2);
    if (pad > 0 && b->v[SF_PAD] == SFPAD_REFLECT && pad < shape(b, x)->h && pad < shape(b, x)->w) {
        snprintf(name, sizeof name, "%s_pad", what);
        x = net_add(b->n, NET_REFLECTPAD, &x, 1, &(struct net_attr){ .pad = pad }, sub(b, path, name), b->e);
        pad = 0;
    }
    struct net_attr at = { .out = out ? out : in, .k = k, .stride = stride, .pad = pad, .dilation = dilation,
                           .groups = out ? common_divisor(common_divisor(groups, in), out) : in,
                           .wn = b->v[SF_OWN_NORM] == SFNORM_WN, .bias = b->v[SF_OWN_NORM] == SFNORM_NONE };
    return net_add(b->n, NET_CONV, &x, 1, &at, sub(b, path, what), b->e);
}

/* With its norm behind it; in order pre, norm and activation before. */
static int add_unit(struct builder *b, int x, int out, int k, int stride, int groups, const char *what, const char *act)
{
    if (b->v[SF_ORDER] == SFORDER_PRE)
        return add_conv(b, add_act(b, add_norm(b, x, what), act), out, k, stride, groups, what);
    return add_norm(b, add_conv(b, x, out, k, stride, groups, what), what);
}

static int add_sep(struct builder *b, int x, int width, int k, int stride)
{
    if (b->v[SF_ORDER] == SFORDER_PRE)
        x = add_act(b, add_norm(b, x, "dw"), "act1");
    x = add_conv(b, add_conv(b, x, 0, k, stride, 1, "dw"), width, 1, 1, 1, "pw");
    return b->v[SF_ORDER] == SFORDER_PRE ? x : add_norm(b, x, "pw");
}

static int add_neck(struct builder *b, int x, int width, int k, int stride)
{
    int  mid = width / 4 > 4 ? width / 4 : 4;
    bool post = b->v[SF_ORDER] == SFORDER_POST;
    x = add_unit(b, x, mid, 1, 1, 1, "reduce", "act1");
    x = add_unit(b, post ? add_act(b, x, "act1") : x, mid, k, stride, b->v[SF_GROUPS], "conv", "act2");
    return add_unit(b, post ? add_act(b, x, "act2") : x, width, 1, 1, 1, "expand", "act3");
}

static int add_linear(struct builder *b, int x, int out, const char *what)
{
    char path[56];
    bool none = b->v[SF_OWN_NORM] == SFNORM_NONE;
    x = net_add(b->n, NET_LINEAR, &x, 1, &(struct net_attr){ .out = out, .bias = none, .wn = b->v[SF_OWN_NORM] == SFNORM_WN }, sub(b, path, what), b->e);
    return add_norm(b, x, what);
}

static int add_op(struct builder *b, int x, int width, int stride)
{
    char path[56];
    int  k = b->v[SF_KERNEL];
    switch (b->v[SF_OP]) {
    case SFOP_CONV:  return add_unit(b, x, width, k, stride, b->v[SF_GROUPS], "conv", "act1");
    case SFOP_SEP:   return add_sep(b, x, width, k, stride);
    case SFOP_DW:    return add_unit(b, x, 0, k, stride, 1, "dw", "act1");
    case SFOP_NECK:  return add_neck(b, x, width, k, stride);
    case SFOP_UP:    return net_unary(b->n, NET_UP2, x, sub(b, path, "up"), b->e);
    case SFOP_DENSE: return add_linear(b, x, width, "linear");
    default:
        return net_pool(b->n, b->v[SF_OP] == SFOP_MAX ? NET_MAXPOOL : NET_AVGPOOL, x, k, stride, k / 2, sub(b, path, "pool"), b->e);
    }
}

/* ---- what joins ---- */

static int merge(struct builder *b, int a, int x, bool concat, const char *what)
{
    char path[56];
    if (a < 0 || x < 0)
        return a < 0 ? a : x;
    int both[2] = { a, x };
    return net_add(b->n, concat ? NET_CONCAT : NET_ADD, both, 2, &(struct net_attr){ 0 }, sub(b, path, what), b->e);
}

static int make_flat(struct builder *b, int x, const char *what)
{
    char path[56];
    return x < 0 || shape(b, x)->flat ? x : net_unary(b->n, NET_GAP, x, sub(b, path, what), b->e);
}

/* The stride that makes both sides those of `to`, 0: none does. */
static int fit_stride(const struct net_shape *from, const struct net_shape *to)
{
    for (int s = 1; s <= MAX_FIT_STRIDE; s++)
        if ((from->h - 1) / s + 1 == to->h && (from->w - 1) / s + 1 == to->w)
            return s;
    return 0;
}

/* `x` in the size of node `to`; with `same`, in its channels, too. */
static int fit(struct builder *b, int x, int to, bool same)
{
    char path[56], name[20];
    if (x < 0 || to < 0)
        return x < 0 ? x : to;
    if (shape(b, to)->flat) {
        x = make_flat(b, x, "fit_gap");
        return x >= 0 && same && shape(b, x)->c != shape(b, to)->c ? add_linear(b, x, shape(b, to)->c, "fit") : x;
    }
    for (int i = 1; x >= 0 && shape(b, x)->h < shape(b, to)->h; i++) {
        snprintf(name, sizeof name, "fit_up%d", i);
        x = net_unary(b->n, NET_UP2, x, sub(b, path, name), b->e);
    }
    if (x < 0)
        return x;
    int stride = fit_stride(shape(b, x), shape(b, to)), c = same ? shape(b, to)->c : shape(b, x)->c;
    if (stride == 0)
        return err_set(b->e, ERR_SHAPE, "%s: %dx%d places cannot be made %dx%d", b->prefix, shape(b, x)->h, shape(b, x)->w, shape(b, to)->h, shape(b, to)->w);
    if (stride == 1 && c == shape(b, x)->c)
        return x;
    return add_norm(b, add_conv(b, x, c, 1, stride, 1, "fit"), "fit");
}

/* The block's input joins its output: where shapes differ it first goes through a 1x1 convolution with the same stride. */
static int connect(struct builder *b, int in, int x, int stride)
{
    int  how = b->v[SF_CONNECT];
    bool add = how == SFCON_ADD;
    if (x < 0 || how == SFCON_NONE)
        return x;
    int c = add ? shape(b, x)->c : shape(b, in)->c;
    if (shape(b, x)->flat)
        in = c != shape(b, in)->c ? add_linear(b, in, c, "shortcut") : in;
    else if (stride > 1 || c != shape(b, in)->c)
        in = add_norm(b, add_conv(b, in, c, 1, stride, 1, "shortcut"), "shortcut");
    return merge(b, in, x, !add, add ? "add" : "concat");
}

/* ---- slots ---- */

/* Where images end: once, before the first hidden layer or at the end. */
static int flatten(struct builder *b, int x)
{
    bool gap = b->head == SFHEAD_GAP;
    if (x < 0 || shape(b, x)->flat)
        return x;
    return net_unary(b->n, gap ? NET_GAP : NET_FLATTEN, x, gap ? "head.gap" : "head.flatten", b->e);
}

/* What the slot's operation does not read is as if it were not written. */
static void look_up(struct builder *b, int slot)
{
    static const int unwritten[SF_KEY_COUNT] = { [SF_KERNEL] = 1, [SF_STRIDE] = 1, [SF_DEPTH] = 1, [SF_GROUPS] = 1, [SF_DILATION] = 1,
                                                 [SF_OWN_NORM] = SF_INHERIT, [SF_OWN_ACT] = SF_INHERIT };
    int op = b->v[SF_OP] = sf_key(b->f, b->a, slot, SF_OP);
    for (int k = SF_OP + 1; k < SF_KEY_COUNT; k++)
        b->v[k] = sf_reads(op) & SF_B(k) ? sf_key(b->f, b->a, slot, (enum sf_key)k) : unwritten[k];
    if (b->v[SF_OWN_NORM] == SF_INHERIT)
        b->v[SF_OWN_NORM] = sf_get(b->f, b->a, b->f->top[SF_NORM]);
    if (b->v[SF_OWN_ACT] == SF_INHERIT)
        b->v[SF_OWN_ACT] = sf_get(b->f, b->a, b->f->top[SF_ACT]);
}

static int join_source(struct builder *b, int x, int slot)
{
    int source = b->a->source[slot], from = source == SFFROM_INPUT ? b->input : source >= SFFROM_SLOT ? b->out[source - SFFROM_SLOT] : x;
    if (x < 0 || from == x) /* none; or, in a stage's first repeat, the slot's input itself */
        return x;
    bool concat = b->v[SF_JOIN] == SFJOIN_CONCAT;
    return merge(b, fit(b, from, x, !concat), x, concat, "join");
}

/* repeat: of its stage, from 0; -1: of none. */
static int add_slot(struct builder *b, int x, int slot, int repeat)
{
    const struct sf_slot *s = &b->f->slot[slot];
    const struct sf_stage *st = repeat >= 0 ? &b->f->stage[s->stage] : NULL;
    char stage[SF_NAME_LEN + 4] = "";
    int  width;
    look_up(b, slot);
    width = b->v[SF_WIDTH];
    for (int i = 0; i < repeat; i++)
        width *= sf_get(b->f, b->a, st->var[SF_WIDEN]); /* at most 2^10 * 4^7 */
    if (st)
        snprintf(stage, sizeof stage, "%s%d.", st->name, repeat + 1);
    snprintf(b->prefix, sizeof b->prefix, "%s%s", stage, s->name);
    if (b->v[SF_OP] == SFOP_DENSE)
        x = flatten(b, x);
    x = join_source(b, x, slot);
    for (int i = 0; i < b->v[SF_DEPTH] && x >= 0; i++) {
        const struct net_shape *in = shape(b, x);
        int op = b->v[SF_OP], stride = i == 0 && in->h >= 2 * b->v[SF_STRIDE] && in->w >= 2 * b->v[SF_STRIDE] ? b->v[SF_STRIDE] : 1;
        snprintf(b->prefix, sizeof b->prefix, "%s%s%d", stage, s->name, i + 1);
        x = connect(b, x, add_op(b, x, width, stride), stride);
        if (b->v[SF_ORDER] == SFORDER_POST && op != SFOP_MAX && op != SFOP_AVG && op != SFOP_UP)
            x = add_act(b, x, "act");
    }
    b->out[slot] = x;
    return x < 0 ? err_wrap(b->e, x, "slot %s", s->name) : x;
}

static int add_stage(struct builder *b, int x, const struct sf_stage *s)
{
    int repeat = sf_get(b->f, b->a, s->var[SF_REPEAT]);
    for (int r = 0; r < repeat && x >= 0; r++)
        for (int i = s->first; i < s->end && x >= 0; i++)
            if (b->a->there[i])
                x = add_slot(b, x, i, r);
    return x;
}

int sf_build(const struct sf *f, const struct sf_arch *a, const struct arch_frame *frame, struct net *out, struct errbuf *e)
{
    struct builder b = { .n = out, .e = e, .f = f, .a = a, .head = sf_get(f, a, f->top[SF_HEAD]) };
    int x = b.input = space_input(out, frame, e);
    for (int i = 0; i < f->n_slots && x >= 0; i = f->slot[i].stage < 0 ? i + 1 : f->stage[f->slot[i].stage].end)
        if (f->slot[i].stage >= 0)
            x = add_stage(&b, x, &f->stage[f->slot[i].stage]);
        else if (a->there[i])
            x = add_slot(&b, x, i, -1);
    x = net_linear(out, flatten(&b, x), frame->n_classes, "head.linear", e);
    if (x == -ERR_INPUT) { /* too many layers: a combination that cannot be, as those whose shapes do not agree */
        x = -ERR_SHAPE;
        if (e)
            e->code = ERR_SHAPE;
    }
    if (x < 0)
        net_fini(out);
    return x < 0 ? x : 0;
}
