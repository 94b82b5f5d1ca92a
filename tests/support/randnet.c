#include "tests/support/randnet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

const struct randnet_size randnet_small = { 4, 11, 6, { 1, 2, 2, 3, 4, 6 }, 5, 400, 9000, 2, 5 };
const struct randnet_size randnet_wide = { 4, 12, 12, { 1, 2, 3, 5, 8, 16, 17, 24, 33, 48, 64, 65 }, 6, 60000, 1500000, 2, 40 };

struct draw {
    struct rng r;
    struct net *n;
    const struct randnet_size *size;
};

static int  below(struct draw *d, int n) { return (int)rng_below(&d->r, (uint32_t)n); }
static bool chance(struct draw *d, int percent) { return below(d, 100) < percent; }
static struct net_shape shape(const struct draw *d, int x) { return d->n->node[x].shape; }
static int  width(struct draw *d) { return d->size->channels[below(d, d->size->n_channels)]; }

static int unary(struct draw *d, enum net_op op, int x, struct net_attr at)
{
    return net_add(d->n, op, &x, 1, &at, NULL, NULL);
}

/* A number of groups that divides both. */
static int groups(struct draw *d, int in, int out)
{
    int g = 1 + below(d, in);
    while (in % g || out % g)
        g--;
    return g;
}

static int conv(struct draw *d, int x)
{
    const int C = shape(d, x).c, k = 1 + 2 * below(d, 3);
    struct net_attr at = { .out = width(d), .k = k, .stride = chance(d, 60) ? 1 : 2 + below(d, 2), .pad = below(d, k + 1),
                           .dilation = chance(d, 75) ? 1 : 2, .bias = chance(d, 40), .wn = chance(d, 25) };
    at.groups = chance(d, 60) ? 1 : groups(d, C, at.out);
    if (chance(d, 15)) { /* as many groups as channels, two filters each */
        at.out = 2 * C;
        at.groups = C;
    }
    return unary(d, NET_CONV, x, at);
}

static int depthwise(struct draw *d, int x)
{
    const int C = shape(d, x).c, k = 1 + 2 * below(d, 3);
    return unary(d, NET_CONV, x, (struct net_attr){ .out = C, .groups = C, .k = k, .stride = 1 + below(d, 3), .pad = below(d, k + 1),
                                                    .dilation = chance(d, 70) ? 1 : 2, .bias = chance(d, 40), .wn = chance(d, 25) });
}

static int activation(struct draw *d, int x)
{
    if (chance(d, 30))
        return unary(d, NET_TANH, x, (struct net_attr){ 0 });
    return unary(d, NET_LRELU, x, (struct net_attr){ .slope = chance(d, 50) ? 0 : 0.05 * (1 + below(d, 6)) });
}

static int norm(struct draw *d, int x) { return unary(d, NET_BN, x, (struct net_attr){ .mean_only = chance(d, 40) }); }

static int pool(struct draw *d, int x)
{
    const int k = 1 + below(d, 3) + chance(d, 70);
    return unary(d, chance(d, 50) ? NET_MAXPOOL : NET_AVGPOOL, x,
                 (struct net_attr){ .k = k, .stride = 1 + below(d, k + 1), .pad = below(d, k) });
}

/* Same places, `out` channels: what may be added to or stand beside x. */
static int same(struct draw *d, int x, int out)
{
    const int C = shape(d, x).c, k = 1 + 2 * below(d, 2), dil = 1 + below(d, 2);
    return unary(d, NET_CONV, x, (struct net_attr){ .out = out, .k = k, .dilation = dil, .pad = dil * (k - 1) / 2, .stride = 1,
                                                    .groups = chance(d, 70) ? 1 : groups(d, C, out), .wn = chance(d, 20), .bias = chance(d, 20) });
}

/* Earlier outputs that stand at the same places; x itself is among them. */
static int neighbours(const struct draw *d, int x, bool channels_too, int *out, int cap)
{
    const struct net_shape s = shape(d, x);
    int m = 0;
    for (int i = d->n->n_nodes - 1; i >= 0 && m < cap; i--) {
        const struct net_shape t = shape(d, i);
        if (t.h == s.h && t.w == s.w && t.flat == s.flat && (!channels_too || t.c == s.c))
            out[m++] = i;
    }
    return m;
}

/* Two to four inputs: a branch or two, earlier tensors, the same tensor twice. x is always one of them. */
static int merge(struct draw *d, int x)
{
    const bool add = chance(d, 60);
    int cand[16], in[4] = { x }, n_in = 2 + below(d, 3);
    if (!shape(d, x).flat && chance(d, 70)) {
        int y = same(d, x, add ? shape(d, x).c : width(d));
        if (y >= 0 && chance(d, 60)) y = activation(d, y);
        if (y < 0) return y;
        in[1] = y;
    } else
        in[1] = x;
    int m = neighbours(d, x, add, cand, 16);
    for (int i = 2; i < n_in; i++)
        in[i] = cand[below(d, m)];
    if (chance(d, 30)) {
        int t = in[0];
        in[0] = in[n_in - 1];
        in[n_in - 1] = t;
    }
    return net_add(d->n, add ? NET_ADD : NET_CONCAT, in, n_in, NULL, NULL, NULL);
}

static int linear(struct draw *d, int x, int out)
{
    return unary(d, NET_LINEAR, x, (struct net_attr){ .out = out, .bias = chance(d, 50), .wn = chance(d, 25) });
}

/* To a vector and back to an image. */
static int reshape(struct draw *d, int x)
{
    const struct net_shape to = { 1 + below(d, 3), 2 + below(d, 3), 2 + below(d, 3), false };
    x = unary(d, chance(d, 50) ? NET_GAP : NET_FLATTEN, x, (struct net_attr){ 0 });
    x = linear(d, x, to.c * to.h * to.w);
    return unary(d, NET_RESHAPE, x, (struct net_attr){ .c = to.c, .h = to.h, .w = to.w });
}

static int layer(struct draw *d, int x)
{
    const int p = below(d, 100), side = shape(d, x).h > shape(d, x).w ? shape(d, x).h : shape(d, x).w;
    if (p < 22) return conv(d, x);
    if (p < 32) return depthwise(d, x);
    if (p < 44) return norm(d, x);
    if (p < 56) return activation(d, x);
    if (p < 68) return pool(d, x);
    if (p < 84) return merge(d, x);
    if (p < 89) return reshape(d, x);
    if (p < 94) return side > 6 ? -ERR_SHAPE : unary(d, NET_UP2, x, (struct net_attr){ 0 });
    return side > 10 ? -ERR_SHAPE : unary(d, NET_REFLECTPAD, x, (struct net_attr){ .pad = below(d, side) });
}

static int head(struct draw *d, int x)
{
    x = unary(d, chance(d, 50) ? NET_GAP : NET_FLATTEN, x, (struct net_attr){ 0 });
    if (chance(d, 40)) {
        x = linear(d, x, 2 + below(d, 5));
        if (chance(d, 40)) x = norm(d, x);
        if (x >= 0 && chance(d, 20)) x = merge(d, x);
        if (chance(d, 60)) x = x < 0 ? x : activation(d, x);
    }
    return linear(d, x, d->size->K_min + below(d, d->size->K_max - d->size->K_min + 1));
}

/* A merge that was refused half way leaves a layer behind that nobody reads. */
static bool all_used(const struct net *n)
{
    bool *used = calloc((size_t)n->n_nodes, 1), all = true;
    assert_non_null(used);
    used[n->out] = true;
    for (int i = n->n_nodes - 1; i > 0; i--)
        for (int k = 0; used[i] && k < n->node[i].n_in; k++)
            used[n->node[i].in[k]] = true;
    for (int i = 0; i < n->n_nodes; i++)
        all &= used[i];
    free(used);
    return all;
}

static bool attempt(struct draw *d)
{
    const struct randnet_size *z = d->size;
    const int span = z->side_max - z->side_min + 1;
    assert_int_equal(net_init(d->n, 1 + below(d, 3), z->side_min + below(d, span), z->side_min + below(d, span), NULL), 0);
    int x = 0;
    for (int i = 0, n = 1 + below(d, z->layers_max); i < n; i++) {
        int y = layer(d, x);
        if (y >= 0 && net_activation_elems(d->n) < 60000)
            x = y;
    }
    x = head(d, x);
    return x >= 0 && d->n->param_count <= z->params_max && net_macs(d->n) <= z->macs_max && all_used(d->n);
}

void randnet(struct net *n, uint64_t seed, const struct randnet_size *size)
{
    struct draw d = { .n = n, .size = size };
    rng_init(&d.r, seed, RNG_TEST, 0);
    for (int i = 0; i < 1000; i++) {
        if (attempt(&d))
            return;
        net_fini(n);
    }
    fail_msg("no network fits the size (seed %llu)", (unsigned long long)seed);
}

void randnet_print(const struct net *n)
{
    for (int i = 0; i < n->n_nodes; i++) {
        const struct net_node *l = &n->node[i];
        const struct net_attr *a = &l->at;
        fprintf(stderr, "  %2d %-10s [%d,%d,%d]%s out=%d k=%d s=%d p=%d d=%d G=%d%s%s%s slope=%g from", i, net_op_name(l->op), l->shape.c,
                l->shape.h, l->shape.w, l->shape.flat ? " flat" : "", a->out, a->k, a->stride, a->pad, a->dilation, a->groups,
                a->bias ? " bias" : "", a->wn ? " wn" : "", a->mean_only ? " mean_only" : "", a->slope);
        for (int k = 0; k < l->n_in; k++)
            fprintf(stderr, " %d", l->in[k]);
        fprintf(stderr, "\n");
    }
}

/* ---- numbers ---- */

static void *room(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

void *in_float(const double *x, size_t n)
{
    float *f = room(n, sizeof *f);
    for (size_t i = 0; i < n; i++)
        f[i] = (float)x[i];
    return f;
}

/* Numbers are drawn as floats, so that both precisions hold the same ones. */
static void *as(enum eng_dtype t, double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (double)(float)x[i];
    if (t == ENG_F64)
        return x;
    void *f = in_float(x, n);
    free(x);
    return f;
}

void *rand_normal(struct rng *r, enum eng_dtype t, size_t n, double scale)
{
    double *x = room(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = scale * rng_normal(r);
    return as(t, x, n);
}

void *rand_labels(struct rng *r, enum eng_dtype t, size_t rows, int K, bool soft)
{
    double *y = room(rows * (size_t)K, sizeof *y);
    for (size_t b = 0; b < rows; b++) {
        double sum = 0;
        for (int k = 0; k < K; k++)
            sum += y[b * (size_t)K + (size_t)k] = soft ? 0.1 + rng_uniform(r) : 0;
        for (int k = 0; k < K && soft; k++)
            y[b * (size_t)K + (size_t)k] *= (0.9 + 0.2 * rng_uniform(r)) / sum; /* labels are free: no need for a sum of 1 */
        if (!soft)
            y[b * (size_t)K + rng_below(r, (uint32_t)K)] = 1;
    }
    return as(t, y, rows * (size_t)K);
}

/* A short v makes g v / |v| so steep that rounding hides everything else: none shorter than 0.5. */
static void lengthen(const struct net_param *p, double *v)
{
    const uint64_t co = (uint64_t)p->dim[0];
    for (uint64_t o = 0; o < co; o++) {
        double s = 0;
        for (uint64_t i = o; i < p->size; i += co)
            s += v[i] * v[i];
        for (uint64_t i = o; i < p->size && s < 0.25; i += co)
            v[i] *= 0.5 / sqrt(s);
    }
}

void *rand_weights(struct rng *r, enum eng_dtype t, const struct net *n)
{
    double *w = room((size_t)n->param_count, sizeof *w);
    for (int k = 0; k < n->n_params; k++) {
        const struct net_param *p = &n->param[k];
        for (uint64_t i = p->offset; i < p->offset + p->size; i++)
            switch (p->role) {
            case NET_WEIGHT:
            case NET_WEIGHT_V: w[i] = rng_normal(r) * sqrt(1.5 / (double)p->fan_in); break;
            case NET_WEIGHT_G: w[i] = 1 + 0.3 * rng_normal(r); break;
            case NET_BN_GAIN: w[i] = 1 + 0.2 * rng_normal(r); break;
            default: w[i] = 0.2 * rng_normal(r);
            }
        if (p->role == NET_WEIGHT_V)
            lengthen(p, w + p->offset);
    }
    return as(t, w, (size_t)n->param_count);
}

/* ---- a random unroll ---- */

void randrun_init(struct randrun *r, uint64_t seed, const struct randnet_size *size)
{
    struct rng g;
    memset(r, 0, sizeof *r);
    randnet(&r->net, seed, size);
    rng_init(&g, seed, RNG_TEST, 1);
    const struct net_shape in = r->net.node[0].shape;
    r->P = (size_t)r->net.param_count;
    r->image = (size_t)in.c * (size_t)in.h * (size_t)in.w;
    r->K = (size_t)r->net.node[r->net.out].shape.c;
    r->cfg = (struct unroll_cfg){ .learner = &r->net, .dtype = ENG_F64, .T = 1 + (int)rng_below(&g, 5), .B = 2 + (int)rng_below(&g, 5),
                                  .meta_batch = 2 + (int)rng_below(&g, 4), .want_dx = true, .want_dy = true, .inner = inner_default() };
    r->cfg.inner = inner_defaults((enum inner_type)rng_below(&g, INNER_TYPE_COUNT));
    r->cfg.inner.eps = 1e-3; /* the third derivative along a gradient near 0 grows with 1/eps: differences need it tame */
    if (rng_below(&g, 2))
        r->cfg.inner.weight_decay = 0.02;
    if (rng_below(&g, 3) == 0)
        r->cfg.inner.clip = 0.3;
    if (rng_below(&g, 3) == 0)
        r->cfg.inner.label_smoothing = 0.1;
    const size_t T = (size_t)r->cfg.T, TB = T * (size_t)r->cfg.B, M = (size_t)r->cfg.meta_batch;
    r->w0 = rand_weights(&g, ENG_F64, &r->net);
    r->x = rand_normal(&g, ENG_F64, TB * r->image, 1);
    r->y = rand_labels(&g, ENG_F64, TB, (int)r->K, rng_below(&g, 3) > 0);
    r->lr = room(T, sizeof *r->lr);
    r->mu = room(T, sizeof *r->mu);
    for (size_t t = 0; t < T; t++) {
        r->lr[t] = 0.02 + 0.1 * rng_uniform(&g);
        r->mu[t] = 0.9 * rng_uniform(&g);
    }
    int n_meta = 1 + (int)rng_below(&g, 3);
    for (int i = 0; i < n_meta; i++) {
        r->X[i] = rand_normal(&g, ENG_F64, M * r->image, 1);
        r->Y[i] = rand_labels(&g, ENG_F64, M, (int)r->K, false);
        r->meta[i] = (struct unroll_meta){ .step = i == 0 ? r->cfg.T : 1 + (int)rng_below(&g, (uint32_t)T), .weight = i == 0 ? 1 : 0.2 + rng_uniform(&g),
                                           .x = r->X[i], .y = r->Y[i] };
    }
    r->in = (struct unroll_in){ r->w0, r->x, r->y, r->lr, r->mu, r->meta, n_meta };
}

void randrun_fini(struct randrun *r)
{
    double *all[] = { r->w0, r->x, r->y, r->lr, r->mu, r->X[0], r->X[1], r->X[2], r->Y[0], r->Y[1], r->Y[2] };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    net_fini(&r->net);
    memset(r, 0, sizeof *r);
}
