/* net.c - shape rules, parameter lists and costs. One rule a family of ops; net_add is the only way in, checks
 * everything before it changes the net, and bounds every size (NET_MAX_*), so that products further on fit 64 bits:
 * a weight tensor has at most 2^30 elements and an image 2^30 places, hence a layer at most 2^60 multiply-adds. */
#include "common/net.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NET_NAME(e, s) [e] = s,
static const char *const op_names[NET_OP_COUNT] = { NET_OPS(NET_NAME) };
#undef NET_NAME

const char *net_op_name(enum net_op op)
{
    return (unsigned)op < NET_OP_COUNT ? op_names[op] : "?";
}

/* Where a message is about: the node being added. */
struct ctx {
    const char    *path;
    enum net_op    op;
    struct errbuf *e;
};

#define REFUSE(c, code, fmt, ...) err_set((c)->e, code, "%s: %s: " fmt, (c)->path, net_op_name((c)->op), ##__VA_ARGS__)

static const char *shape_text(const struct net_shape *s, char *buf, size_t cap)
{
    if (s->flat)
        snprintf(buf, cap, "[%d]", s->c);
    else
        snprintf(buf, cap, "[%d,%d,%d]", s->c, s->h, s->w);
    return buf;
}

static uint64_t shape_elems(const struct net_shape *s)
{
    return (uint64_t)s->c * (uint64_t)s->h * (uint64_t)s->w; /* each at most 2^16 */
}

static int check_range(const struct ctx *c, const char *what, int v, int least)
{
    if (v >= least && v <= NET_MAX_DIM)
        return 0;
    return REFUSE(c, v < least ? ERR_INPUT : ERR_SHAPE, "%s must be %d to %d, not %d", what, least, NET_MAX_DIM, v);
}

static int check_shape(const struct ctx *c, const struct net_shape *s)
{
    char buf[64];
    if (s->c < 1 || s->h < 1 || s->w < 1)
        return REFUSE(c, ERR_SHAPE, "the output would be empty: %s", shape_text(s, buf, sizeof buf));
    if (s->c > NET_MAX_DIM || s->h > NET_MAX_DIM || s->w > NET_MAX_DIM || shape_elems(s) > NET_MAX_ELEMS)
        return REFUSE(c, ERR_SHAPE, "the output %s is too large (at most %d a side, %u in all)", shape_text(s, buf, sizeof buf),
                      NET_MAX_DIM, NET_MAX_ELEMS);
    return 0;
}

static int need_image(const struct ctx *c, const struct net_shape *s)
{
    return s->flat ? REFUSE(c, ERR_SHAPE, "needs an image, the input is a flat vector of %d", s->c) : 0;
}

/* Places along one side of a window op. */
static int window(const struct ctx *c, int size, const struct net_attr *at, int *out)
{
    int64_t padded = (int64_t)size + 2 * (int64_t)at->pad, reach = (int64_t)at->dilation * (at->k - 1) + 1;
    if (reach > padded)
        return REFUSE(c, ERR_SHAPE, "the kernel reaches over %lld places, the padded input has %lld", (long long)reach,
                      (long long)padded);
    *out = (int)((padded - reach) / at->stride + 1);
    return 0;
}

static int window_shape(const struct ctx *c, const struct net_shape *in, const struct net_attr *at, struct net_shape *out)
{
    int rc;
    if ((rc = check_range(c, "k", at->k, 1)) < 0 || (rc = check_range(c, "stride", at->stride, 1)) < 0 ||
        (rc = check_range(c, "pad", at->pad, 0)) < 0 || (rc = check_range(c, "dilation", at->dilation, 1)) < 0 ||
        (rc = need_image(c, in)) < 0 || (rc = window(c, in->h, at, &out->h)) < 0)
        return rc;
    return window(c, in->w, at, &out->w);
}

static int conv_rule(const struct ctx *c, const struct net_shape *in, struct net_attr *at, struct net_shape *out)
{
    at->stride = at->stride ? at->stride : 1;
    at->dilation = at->dilation ? at->dilation : 1;
    at->groups = at->groups ? at->groups : 1;
    at->weight_name = at->weight_name ? at->weight_name : "weight";
    int rc = window_shape(c, in, at, out);
    if (rc < 0 || (rc = check_range(c, "out", at->out, 1)) < 0 || (rc = check_range(c, "groups", at->groups, 1)) < 0)
        return rc;
    if (in->c % at->groups || at->out % at->groups)
        return REFUSE(c, ERR_SHAPE, "%d groups do not divide %d input and %d output channels", at->groups, in->c, at->out);
    out->c = at->out;
    return 0;
}

static int pool_rule(const struct ctx *c, const struct net_shape *in, struct net_attr *at, struct net_shape *out)
{
    at->stride = at->stride ? at->stride : at->k;
    at->dilation = 1;
    int rc = window_shape(c, in, at, out);
    if (rc < 0)
        return rc;
    if (at->pad >= at->k)
        return REFUSE(c, ERR_SHAPE, "pad %d must be smaller than k %d: a window would see no image", at->pad, at->k);
    out->c = in->c;
    return 0;
}

static int linear_rule(const struct ctx *c, const struct net_shape *in, struct net_attr *at, struct net_shape *out)
{
    if (!in->flat)
        return REFUSE(c, ERR_SHAPE, "needs a flat vector, the input is an image [%d,%d,%d] (flatten or gap first)", in->c, in->h,
                      in->w);
    at->weight_name = at->weight_name ? at->weight_name : "weight";
    *out = (struct net_shape){ at->out, 1, 1, true };
    return check_range(c, "out", at->out, 1);
}

static int bn_rule(const struct ctx *c, const struct net_shape *in, struct net_attr *at, struct net_shape *out)
{
    if (at->eps == 0)
        at->eps = 1e-5;
    if (!(at->eps > 0) || !isfinite(at->eps))
        return REFUSE(c, ERR_INPUT, "eps must be positive, not %g", at->eps);
    *out = *in;
    return 0;
}

static int flatten_rule(const struct ctx *c, const struct net_shape *in, struct net_shape *out)
{
    uint64_t n = shape_elems(in);
    if (n > NET_MAX_DIM)
        return REFUSE(c, ERR_SHAPE, "%llu features are too many (at most %d)", (unsigned long long)n, NET_MAX_DIM);
    *out = (struct net_shape){ (int)n, 1, 1, true };
    return 0;
}

static int reshape_rule(const struct ctx *c, const struct net_shape *in, const struct net_attr *at, struct net_shape *out)
{
    int rc;
    if ((rc = check_range(c, "c", at->c, 1)) < 0 || (rc = check_range(c, "h", at->h, 1)) < 0 ||
        (rc = check_range(c, "w", at->w, 1)) < 0)
        return rc;
    *out = (struct net_shape){ at->c, at->h, at->w, false };
    if (!in->flat || shape_elems(in) != shape_elems(out)) {
        char a[64], b[64];
        return REFUSE(c, ERR_SHAPE, "%s does not become %s (needs a flat vector of as many features)",
                      shape_text(in, a, sizeof a), shape_text(out, b, sizeof b));
    }
    return 0;
}

static int reflect_rule(const struct ctx *c, const struct net_shape *in, const struct net_attr *at, struct net_shape *out)
{
    int rc;
    if ((rc = need_image(c, in)) < 0 || (rc = check_range(c, "pad", at->pad, 0)) < 0)
        return rc;
    if (at->pad >= in->h || at->pad >= in->w)
        return REFUSE(c, ERR_SHAPE, "pad %d must be smaller than both sides of the %dx%d input", at->pad, in->h, in->w);
    *out = (struct net_shape){ in->c, in->h + 2 * at->pad, in->w + 2 * at->pad, false };
    return 0;
}

/* add and concat: every input against the first. */
static int merge_rule(const struct ctx *c, const struct net *n, const int *in, int n_in, struct net_shape *out)
{
    *out = n->node[in[0]].shape;
    int64_t channels = out->c;
    for (int i = 1; i < n_in; i++) {
        const struct net_shape *s = &n->node[in[i]].shape;
        if (s->h != out->h || s->w != out->w || s->flat != out->flat || (c->op == NET_ADD && s->c != out->c)) {
            char a[64], b[64];
            return REFUSE(c, ERR_SHAPE, "inputs %s and %s do not agree", shape_text(out, a, sizeof a), shape_text(s, b, sizeof b));
        }
        channels += s->c;
    }
    if (c->op == NET_CONCAT) {
        if (channels > NET_MAX_DIM)
            return REFUSE(c, ERR_SHAPE, "%lld channels are too many (at most %d)", (long long)channels, NET_MAX_DIM);
        out->c = (int)channels;
    }
    return 0;
}

/* Normalise the attributes (only what the op uses is kept) and infer the output's shape. */
static int infer(const struct ctx *c, const struct net *n, const int *in, int n_in, const struct net_attr *given,
                 struct net_attr *at, struct net_shape *out)
{
    const struct net_shape *s = &n->node[in[0]].shape;
    *at = (struct net_attr){ 0 };
    int rc = 0;
    switch (c->op) {
    case NET_CONV:
        *at = *given;
        at->eps = at->slope = 0;
        at->mean_only = false;
        at->c = at->h = at->w = 0;
        rc = conv_rule(c, s, at, out);
        break;
    case NET_LINEAR:
        *at = (struct net_attr){ .out = given->out, .bias = given->bias, .wn = given->wn, .weight_name = given->weight_name };
        rc = linear_rule(c, s, at, out);
        break;
    case NET_BN:
        *at = (struct net_attr){ .eps = given->eps, .mean_only = given->mean_only };
        rc = bn_rule(c, s, at, out);
        break;
    case NET_LRELU:
        at->slope = given->slope;
        *out = *s;
        if (!isfinite(at->slope))
            rc = REFUSE(c, ERR_INPUT, "slope must be finite");
        break;
    case NET_MAXPOOL:
    case NET_AVGPOOL:
        *at = (struct net_attr){ .k = given->k, .stride = given->stride, .pad = given->pad };
        rc = pool_rule(c, s, at, out);
        break;
    case NET_GAP:
        *out = (struct net_shape){ s->c, 1, 1, true };
        rc = need_image(c, s);
        break;
    case NET_FLATTEN:
        rc = flatten_rule(c, s, out);
        break;
    case NET_RESHAPE:
        *at = (struct net_attr){ .c = given->c, .h = given->h, .w = given->w };
        rc = reshape_rule(c, s, at, out);
        break;
    case NET_UP2:
        *out = (struct net_shape){ s->c, 2 * s->h, 2 * s->w, false };
        rc = need_image(c, s);
        break;
    case NET_REFLECTPAD:
        at->pad = given->pad;
        rc = reflect_rule(c, s, at, out);
        break;
    case NET_TANH:
        *out = *s;
        break;
    case NET_ADD:
    case NET_CONCAT:
        rc = merge_rule(c, n, in, n_in, out);
        break;
    default:
        return REFUSE(c, ERR_INPUT, "cannot be added");
    }
    return rc < 0 ? rc : check_shape(c, out);
}

/* ---- parameters ---- */

struct param_list {
    int              n;
    struct net_param p[3];
};

/* Append PATH.KIND with its role; sizes are checked here and nowhere else. */
static int param_put(const struct ctx *c, struct param_list *l, const char *kind, const char *suffix, enum net_role role, int ndim,
                     const int *dim, uint64_t fan_in)
{
    assert(l->n < 3);
    struct net_param *p = &l->p[l->n];
    *p = (struct net_param){ .role = role, .ndim = ndim, .size = 1, .fan_in = fan_in };
    int len = snprintf(p->name, sizeof p->name, "%s.%s%s", c->path, kind, suffix);
    if (len < 0 || (size_t)len >= sizeof p->name)
        return REFUSE(c, ERR_INPUT, "the parameter name %s.%s%s is too long", c->path, kind, suffix);
    for (int i = 0; i < ndim; i++) {
        p->dim[i] = dim[i];
        if (__builtin_mul_overflow(p->size, (uint64_t)dim[i], &p->size) || p->size > NET_MAX_ELEMS)
            return REFUSE(c, ERR_SHAPE, "%s%s has more than %u elements", kind, suffix, NET_MAX_ELEMS);
    }
    l->n++;
    return 0;
}

static int weight_params(const struct ctx *c, const struct net_attr *at, int ndim, const int *dim, struct param_list *l)
{
    uint64_t fan_in = 1;
    for (int i = 1; i < ndim; i++)
        fan_in *= (uint64_t)dim[i]; /* each at most 2^16, at most three of them */
    int rc;
    if (at->wn) {
        if ((rc = param_put(c, l, at->weight_name, "_v", NET_WEIGHT_V, ndim, dim, fan_in)) < 0 ||
            (rc = param_put(c, l, at->weight_name, "_g", NET_WEIGHT_G, 1, dim, 0)) < 0)
            return rc;
    } else if ((rc = param_put(c, l, at->weight_name, "", NET_WEIGHT, ndim, dim, fan_in)) < 0) {
        return rc;
    }
    return at->bias ? param_put(c, l, "bias", "", NET_BIAS, 1, dim, 0) : 0;
}

static int list_params(const struct ctx *c, const struct net_shape *in, const struct net_attr *at, struct param_list *l)
{
    int rc = 0;
    if (c->op == NET_CONV) {
        rc = weight_params(c, at, 4, (int[]){ at->out, in->c / at->groups, at->k, at->k }, l);
    } else if (c->op == NET_LINEAR) {
        rc = weight_params(c, at, 2, (int[]){ at->out, in->c }, l);
    } else if (c->op == NET_BN) {
        if (!at->mean_only)
            rc = param_put(c, l, "weight", "", NET_BN_GAIN, 1, &in->c, 0);
        if (rc == 0)
            rc = param_put(c, l, "bias", "", NET_BN_BIAS, 1, &in->c, 0);
    }
    return rc;
}

/* ---- building ---- */

/* Room for `more` elements; the capacity doubles. */
static int reserve(void **p, int *cap, int n, int more, size_t size)
{
    if (n + more <= *cap)
        return 0;
    int want = *cap ? *cap : 16;
    while (want < n + more)
        want *= 2; /* n is at most 3 * NET_MAX_NODES */
    void *q = realloc(*p, (size_t)want * size);
    if (!q)
        return -ERR_NOMEM;
    *p = q;
    *cap = want;
    return 0;
}

int net_init(struct net *n, int c, int h, int w, struct errbuf *e)
{
    *n = (struct net){ .out = 0 };
    struct ctx ctx = { "input", NET_INPUT, e };
    struct net_shape s = { c, h, w, false };
    if (h == 0 && w == 0)
        s = (struct net_shape){ c, 1, 1, true };
    int rc = check_shape(&ctx, &s);
    if (rc < 0)
        return rc;
    if (reserve((void **)&n->node, &n->cap_nodes, 0, 1, sizeof *n->node) < 0)
        return err_set(e, ERR_NOMEM, "out of memory for a network");
    n->node[0] = (struct net_node){ .op = NET_INPUT, .shape = s, .path = "input" };
    n->n_nodes = 1;
    return 0;
}

void net_fini(struct net *n)
{
    if (!n)
        return;
    free(n->node);
    free(n->param);
    *n = (struct net){ 0 };
}

int net_copy(struct net *dst, const struct net *src, struct errbuf *e)
{
    *dst = *src;
    dst->cap_nodes = src->n_nodes;
    dst->cap_params = src->n_params;
    dst->node = src->n_nodes ? malloc((size_t)src->n_nodes * sizeof *src->node) : NULL;
    dst->param = src->n_params ? malloc((size_t)src->n_params * sizeof *src->param) : NULL;
    if ((src->n_nodes && !dst->node) || (src->n_params && !dst->param)) {
        net_fini(dst);
        return err_set(e, ERR_NOMEM, "out of memory for a network of %d layers", src->n_nodes);
    }
    if (src->n_nodes)
        memcpy(dst->node, src->node, (size_t)src->n_nodes * sizeof *src->node);
    if (src->n_params)
        memcpy(dst->param, src->param, (size_t)src->n_params * sizeof *src->param);
    return 0;
}

static bool same_shape(const struct net_shape *a, const struct net_shape *b) { return a->c == b->c && a->h == b->h && a->w == b->w && a->flat == b->flat; }

static bool same_attr(const struct net_attr *a, const struct net_attr *b)
{
    return a->out == b->out && a->k == b->k && a->stride == b->stride && a->pad == b->pad && a->dilation == b->dilation && a->groups == b->groups &&
           a->bias == b->bias && a->wn == b->wn && a->mean_only == b->mean_only && a->eps == b->eps && a->slope == b->slope && a->c == b->c && a->h == b->h && a->w == b->w;
}

bool net_same(const struct net *a, const struct net *b)
{
    if (a->n_nodes != b->n_nodes || a->n_params != b->n_params || a->out != b->out || a->param_count != b->param_count)
        return false;
    for (int i = 0; i < a->n_nodes; i++) {
        const struct net_node *p = &a->node[i], *q = &b->node[i];
        if (p->op != q->op || p->n_in != q->n_in || memcmp(p->in, q->in, (size_t)p->n_in * sizeof p->in[0]) != 0 || p->param0 != q->param0 ||
            p->n_params != q->n_params || !same_shape(&p->shape, &q->shape) || !same_attr(&p->at, &q->at))
            return false;
    }
    for (int i = 0; i < a->n_params; i++) {
        const struct net_param *p = &a->param[i], *q = &b->param[i];
        if (p->role != q->role || p->node != q->node || p->size != q->size || p->offset != q->offset || p->ndim != q->ndim || p->fan_in != q->fan_in || p->stream != q->stream)
            return false;
    }
    return true;
}

static int check_inputs(const struct ctx *c, const struct net *n, const int *in, int n_in)
{
    for (int i = 0; i < n_in; i++)
        if (in[i] < 0)
            return in[i] > -ERR_COUNT ? in[i] : -ERR_INPUT;
    bool merge = c->op == NET_ADD || c->op == NET_CONCAT;
    int  least = c->op == NET_ADD ? 2 : 1, most = merge ? NET_MAX_IN : 1;
    if (n_in < least || n_in > most)
        return REFUSE(c, ERR_INPUT, "takes %d to %d inputs, not %d", least, most, n_in);
    if (n->n_nodes >= NET_MAX_NODES)
        return REFUSE(c, ERR_INPUT, "a network has at most %d layers", NET_MAX_NODES);
    for (int i = 0; i < n_in; i++)
        if (in[i] >= n->n_nodes)
            return REFUSE(c, ERR_INPUT, "input %d is not an earlier layer (of %d)", in[i], n->n_nodes);
    return 0;
}

int net_add(struct net *n, enum net_op op, const int *in, int n_in, const struct net_attr *at, const char *path,
            struct errbuf *e)
{
    static const struct net_attr none = { 0 };
    struct net_node  node = { .op = op, .n_in = n_in, .param0 = n->n_params };
    struct param_list list = { 0 };
    struct ctx       c = { node.path, op, e };
    int len = path ? snprintf(node.path, sizeof node.path, "%s", path) : snprintf(node.path, sizeof node.path, "node%d", n->n_nodes);
    if (len < 0 || (size_t)len >= sizeof node.path)
        return err_set(e, ERR_INPUT, "the layer path %s is longer than %zu characters", path, sizeof node.path - 1);
    int rc = check_inputs(&c, n, in, n_in);
    uint64_t total = n->param_count;
    if (rc < 0 || (rc = infer(&c, n, in, n_in, at ? at : &none, &node.at, &node.shape)) < 0 ||
        (rc = list_params(&c, &n->node[in[0]].shape, &node.at, &list)) < 0)
        return rc;
    for (int i = 0; i < list.n; i++)
        total += list.p[i].size;
    if (total > NET_MAX_PARAMS)
        return REFUSE(&c, ERR_SHAPE, "the network would have %llu parameters (at most %llu)", (unsigned long long)total,
                      (unsigned long long)NET_MAX_PARAMS);
    if (reserve((void **)&n->node, &n->cap_nodes, n->n_nodes, 1, sizeof *n->node) < 0 ||
        reserve((void **)&n->param, &n->cap_params, n->n_params, list.n, sizeof *n->param) < 0)
        return err_set(e, ERR_NOMEM, "out of memory for layer %s", node.path);
    memcpy(node.in, in, (size_t)n_in * sizeof *in);
    node.n_params = list.n;
    for (int i = 0; i < list.n; i++) {
        list.p[i].node = n->n_nodes;
        list.p[i].offset = n->param_count;
        list.p[i].stream = n->n_params;
        n->param_count += list.p[i].size;
        n->param[n->n_params++] = list.p[i];
    }
    n->node[n->n_nodes] = node;
    n->out = n->n_nodes;
    return n->n_nodes++;
}

int net_set_out(struct net *n, int node, struct errbuf *e)
{
    if (node < 0 || node >= n->n_nodes)
        return err_set(e, ERR_INPUT, "output %d is not a layer (of %d)", node, n->n_nodes);
    n->out = node;
    return 0;
}

void net_prune(struct net *n)
{
    int  number[NET_MAX_NODES]; /* of each layer afterwards */
    bool live[NET_MAX_NODES] = { [0] = true };
    int  n_nodes = 0, n_params = 0;
    live[n->out] = true;
    for (int i = n->n_nodes - 1; i > 0; i--)
        for (int k = 0; live[i] && k < n->node[i].n_in; k++)
            live[n->node[i].in[k]] = true;
    n->param_count = 0;
    for (int i = 0; i < n->n_nodes; i++) {
        struct net_node d = n->node[i];
        if (!live[i])
            continue;
        for (int k = 0; k < d.n_in; k++)
            d.in[k] = number[d.in[k]];
        for (int k = 0; k < d.n_params; k++) {
            struct net_param p = n->param[d.param0 + k];
            p.node = n_nodes;
            p.offset = n->param_count;
            n->param_count += p.size;
            n->param[n_params + k] = p; /* never beyond where it was */
        }
        d.param0 = n_params;
        n_params += d.n_params;
        number[i] = n_nodes;
        n->node[n_nodes++] = d;
    }
    n->out = number[n->out];
    n->n_nodes = n_nodes;
    n->n_params = n_params;
}

/* ---- shorthands ---- */

int net_conv(struct net *n, int src, int out, int k, int stride, int pad, const char *path, struct errbuf *e)
{
    return net_add(n, NET_CONV, &src, 1, &(struct net_attr){ .out = out, .k = k, .stride = stride, .pad = pad }, path, e);
}

int net_dwconv(struct net *n, int src, int k, int stride, int pad, const char *path, struct errbuf *e)
{
    int c = src >= 0 && src < n->n_nodes ? n->node[src].shape.c : 1; /* net_add refuses the others */
    return net_add(n, NET_CONV, &src, 1, &(struct net_attr){ .out = c, .groups = c, .k = k, .stride = stride, .pad = pad }, path, e);
}

int net_linear(struct net *n, int src, int out, const char *path, struct errbuf *e)
{
    return net_add(n, NET_LINEAR, &src, 1, &(struct net_attr){ .out = out, .bias = true }, path, e);
}

int net_bn(struct net *n, int src, bool mean_only, const char *path, struct errbuf *e)
{
    return net_add(n, NET_BN, &src, 1, &(struct net_attr){ .mean_only = mean_only }, path, e);
}

int net_lrelu(struct net *n, int src, double slope, const char *path, struct errbuf *e)
{
    return net_add(n, NET_LRELU, &src, 1, &(struct net_attr){ .slope = slope }, path, e);
}

int net_pool(struct net *n, enum net_op op, int src, int k, int stride, int pad, const char *path, struct errbuf *e)
{
    return net_add(n, op, &src, 1, &(struct net_attr){ .k = k, .stride = stride, .pad = pad }, path, e);
}

int net_unary(struct net *n, enum net_op op, int src, const char *path, struct errbuf *e)
{
    return net_add(n, op, &src, 1, NULL, path, e);
}

int net_add2(struct net *n, int a, int b, const char *path, struct errbuf *e)
{
    return net_add(n, NET_ADD, (int[]){ a, b }, 2, NULL, path, e);
}

/* ---- costs ---- */

uint64_t net_node_macs(const struct net *n, int node)
{
    const struct net_node *d = &n->node[node];
    if (d->op != NET_CONV && d->op != NET_LINEAR)
        return 0;
    /* Every weight is used once at each place of the output. */
    return n->param[d->param0].size * (uint64_t)d->shape.h * (uint64_t)d->shape.w;
}

uint64_t net_macs(const struct net *n)
{
    uint64_t sum = 0;
    for (int i = 0; i < n->n_nodes; i++)
        if (__builtin_add_overflow(sum, net_node_macs(n, i), &sum))
            return UINT64_MAX;
    return sum;
}

uint64_t net_activation_elems(const struct net *n)
{
    uint64_t sum = 0;
    for (int i = 0; i < n->n_nodes; i++)
        sum += shape_elems(&n->node[i].shape);
    return sum;
}
