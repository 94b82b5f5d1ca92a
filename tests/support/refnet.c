#include "tests/support/refnet.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct map { int N, C, H, W; double *p; };

static size_t elems(const struct map *m) { return (size_t)m->N * (size_t)m->C * (size_t)m->H * (size_t)m->W; }
static double *at(const struct map *m, int n, int c, int h, int w)
{
    return &m->p[(((size_t)n * (size_t)m->C + (size_t)c) * (size_t)m->H + (size_t)h) * (size_t)m->W + (size_t)w];
}
static double read0(const struct map *m, int n, int c, int h, int w) /* zero outside */
{
    return h < 0 || w < 0 || h >= m->H || w >= m->W ? 0 : *at(m, n, c, h, w);
}

/* The weight in use: g v / |v| where the layer says so. */
static double *weight(const struct net *n, const struct net_node *l, const double *w)
{
    const struct net_param *p = &n->param[l->param0];
    double *u = malloc((size_t)p->size * sizeof *u);
    assert_non_null(u);
    memcpy(u, w + p->offset, (size_t)p->size * sizeof *u);
    const size_t row = (size_t)p->size / (size_t)p->dim[0];
    for (size_t o = 0; l->at.wn && o < (size_t)p->dim[0]; o++) {
        double s = 0;
        for (size_t i = 0; i < row; i++)
            s += u[o * row + i] * u[o * row + i];
        for (size_t i = 0; i < row; i++)
            u[o * row + i] *= w[n->param[l->param0 + 1].offset + o] / sqrt(s);
    }
    return u;
}

/* A linear layer is the 1x1 kernel on a 1x1 image. */
static void product(const struct net *n, const struct net_node *l, const double *w, const struct map *x, const struct map *y)
{
    const bool conv = l->op == NET_CONV;
    const int k = conv ? l->at.k : 1, s = conv ? l->at.stride : 1, d = conv ? l->at.dilation : 1, G = conv ? l->at.groups : 1, p = conv ? l->at.pad : 0;
    const int ci = x->C / G, co = y->C / G;
    double *u = weight(n, l, w);
    const double *bias = l->at.bias ? w + n->param[l->param0 + 1 + l->at.wn].offset : NULL;
    for (int b = 0; b < y->N; b++)
        for (int o = 0; o < y->C; o++)
            for (int h = 0; h < y->H; h++)
                for (int v = 0; v < y->W; v++) {
                    double sum = bias ? bias[o] : 0;
                    for (int i = 0; i < ci; i++)
                        for (int kh = 0; kh < k; kh++)
                            for (int kw = 0; kw < k; kw++)
                                sum += u[((o * ci + i) * k + kh) * k + kw] * read0(x, b, o / co * ci + i, h * s + kh * d - p, v * s + kw * d - p);
                    *at(y, b, o, h, v) = sum;
                }
    free(u);
}

static void norm(const struct net *n, const struct net_node *l, const double *w, const struct map *x, const struct map *y)
{
    const double *gain = w + n->param[l->param0].offset, *bias = l->at.mean_only ? gain : w + n->param[l->param0 + 1].offset;
    const double M = (double)(x->N * x->H * x->W);
    const int places = x->H * x->W;
    for (int c = 0; c < x->C; c++) {
        double mean = 0, var = 0;
        for (int i = 0; i < x->N * places; i++)
            mean += *at(x, i / places, c, 0, i % places) / M;
        for (int i = 0; i < x->N * places; i++)
            var += pow(*at(x, i / places, c, 0, i % places) - mean, 2) / M;
        for (int i = 0; i < x->N * places; i++) {
            double h = *at(x, i / places, c, 0, i % places) - mean;
            *at(y, i / places, c, 0, i % places) = (l->at.mean_only ? h : gain[c] * h / sqrt(var + l->at.eps)) + bias[c];
        }
    }
}

static void pool(const struct net_node *l, const struct map *x, const struct map *y)
{
    for (int b = 0; b < y->N; b++)
        for (int c = 0; c < y->C; c++)
            for (int h = 0; h < y->H; h++)
                for (int w = 0; w < y->W; w++) {
                    double top = -INFINITY, sum = 0;
                    int count = 0;
                    for (int i = h * l->at.stride - l->at.pad; i < h * l->at.stride - l->at.pad + l->at.k; i++)
                        for (int j = w * l->at.stride - l->at.pad; j < w * l->at.stride - l->at.pad + l->at.k; j++)
                            if (i >= 0 && j >= 0 && i < x->H && j < x->W) {
                                top = fmax(top, *at(x, b, c, i, j));
                                sum += *at(x, b, c, i, j);
                                count++;
                            }
                    *at(y, b, c, h, w) = l->op == NET_MAXPOOL ? top : sum / count;
                }
}

static int mirrored(int i, int n) { return i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; }

/* Ops that read one place, or a few, for each place they write. */
static void pick(const struct net_node *l, const struct map *x, const struct map *y)
{
    for (int b = 0; b < y->N; b++)
        for (int c = 0; c < y->C; c++)
            for (int h = 0; h < y->H; h++)
                for (int w = 0; w < y->W; w++)
                    *at(y, b, c, h, w) = l->op == NET_UP2 ? *at(x, b, c, h / 2, w / 2)
                                                          : *at(x, b, c, mirrored(h - l->at.pad, x->H), mirrored(w - l->at.pad, x->W));
}

static void gap(const struct map *x, const struct map *y)
{
    const int places = x->H * x->W;
    for (int i = 0; i < x->N * x->C; i++) {
        y->p[i] = 0;
        for (int k = 0; k < places; k++)
            y->p[i] += x->p[i * places + k] / places;
    }
}

static void merge(const struct net_node *l, const struct map *all, const struct map *y)
{
    int c0 = 0;
    memset(y->p, 0, elems(y) * sizeof *y->p);
    for (int i = 0; i < l->n_in; i++) {
        const struct map *x = &all[l->in[i]];
        for (int b = 0; b < x->N; b++)
            for (int c = 0; c < x->C; c++)
                for (int k = 0; k < x->H * x->W; k++)
                    *at(y, b, c0 + c, 0, k) += *at(x, b, c, 0, k);
        c0 += l->op == NET_CONCAT ? x->C : 0;
    }
}

static void run(const struct net *n, int i, const double *w, const struct map *all)
{
    const struct net_node *l = &n->node[i];
    const struct map *x = &all[l->in[0]], *y = &all[i];
    switch (l->op) {
    case NET_CONV:
    case NET_LINEAR: product(n, l, w, x, y); break;
    case NET_BN: norm(n, l, w, x, y); break;
    case NET_LRELU:
        for (size_t k = 0; k < elems(x); k++)
            y->p[k] = x->p[k] > 0 ? x->p[k] : l->at.slope * x->p[k];
        break;
    case NET_TANH:
        for (size_t k = 0; k < elems(x); k++)
            y->p[k] = tanh(x->p[k]);
        break;
    case NET_MAXPOOL:
    case NET_AVGPOOL: pool(l, x, y); break;
    case NET_GAP: gap(x, y); break;
    case NET_FLATTEN:
    case NET_RESHAPE: memcpy(y->p, x->p, elems(x) * sizeof *x->p); break; /* c, h, w is the order of a vector */
    case NET_UP2:
    case NET_REFLECTPAD: pick(l, x, y); break;
    case NET_ADD:
    case NET_CONCAT: merge(l, all, y); break;
    default: fail_msg("no reference for %s", net_op_name(l->op));
    }
}

void refnet_forward(const struct net *n, int batch, const double *w, const double *x, double *y)
{
    struct map *all = calloc((size_t)n->n_nodes, sizeof *all);
    assert_non_null(all);
    for (int i = 0; i < n->n_nodes; i++) {
        const struct net_shape s = n->node[i].shape;
        all[i] = (struct map){ batch, s.c, s.h, s.w, NULL };
        all[i].p = calloc(elems(&all[i]), sizeof(double));
        assert_non_null(all[i].p);
        if (i == 0)
            memcpy(all[0].p, x, elems(&all[0]) * sizeof *x);
        else
            run(n, i, w, all);
    }
    memcpy(y, all[n->out].p, elems(&all[n->out]) * sizeof *y);
    for (int i = 0; i < n->n_nodes; i++)
        free(all[i].p);
    free(all);
}
