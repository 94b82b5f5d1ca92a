/* space_nasbench201.c - cells of 4 nodes and 6 edges (Dong and Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326) in their usual
 * text, "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|", inside a small
 * version of the standard skeleton: one cell a stage and 8, 16, 32 channels, where the benchmark has five and 16, 32, 64.
 *
 * Canonical text: an edge that lies on no path from the input to the output becomes `none`; where node 1 does not feed node 2
 * the two are alike, and the smaller text of both orders stands. A cell without a path is valid text, but builds nothing and
 * is never proposed. */
#include "common/space.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define N_NODES  4
#define N_EDGES  6
#define N_STAGES 3

enum cell_op { OP_NONE, OP_SKIP, OP_CONV1, OP_CONV3, OP_AVG, OP_COUNT };
static const char *const op_names[OP_COUNT] = { "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3" };
static const int stage_channels[N_STAGES] = { 8, 16, 32 };

struct cell { int op[N_EDGES]; }; /* 0>1, 0>2, 1>2, 0>3, 1>3, 2>3: the order of the text */

static int edge(int from, int to)
{
    return to * (to - 1) / 2 + from;
}

static char *put(char *to, const char *s)
{
    size_t n = strlen(s);
    memcpy(to, s, n);
    return to + n;
}

/* By hand: a simulated search prints and reads a million cells in a few seconds, and snprintf was most of them. */
static void print(const struct cell *c, char *text)
{
    for (int to = 1; to < N_NODES; to++) {
        text = put(text, to > 1 ? "+|" : "|");
        for (int from = 0; from < to; from++) {
            text = put(text, op_names[c->op[edge(from, to)]]);
            *text++ = '~';
            *text++ = (char)('0' + from);
            *text++ = '|';
        }
    }
    *text = 0;
}

/* Skip blanks, then `lit`, at *p. */
static bool eat(const char **p, const char *lit)
{
    *p += strspn(*p, " \t\r\n");
    size_t n = strlen(lit);
    if (strncmp(*p, lit, n) != 0)
        return false;
    *p += n;
    return true;
}

static int read_edge(const char **p, int from, int to, int *op, struct errbuf *e)
{
    *p += strspn(*p, " \t\r\n");
    size_t n = strcspn(*p, "~|+");
    for (int i = 0; i < OP_COUNT; i++) {
        const char end[] = { '~', (char)('0' + from), 0 };
        if (strncmp(*p, op_names[i], n) != 0 || op_names[i][n])
            continue;
        *op = i;
        *p += n;
        if (eat(p, end) && eat(p, "|"))
            return 0;
        return err_set(e, ERR_INPUT, "edge %d of node %d must end in '~%d|'", from + 1, to, from);
    }
    return err_set(e, ERR_INPUT, "edge %d of node %d: '%.*s' is none of none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3",
                   from + 1, to, (int)(n < 40 ? n : 40), *p);
}

static int read_cell(const char *in, struct cell *c, struct errbuf *e)
{
    const char *p = in;
    for (int to = 1; to < N_NODES; to++) {
        if (!eat(&p, to > 1 ? "+" : "") || !eat(&p, "|"))
            return err_set(e, ERR_INPUT, "the edges of node %d must open with '%s|'", to, to > 1 ? "+" : "");
        for (int from = 0; from < to; from++) {
            int rc = read_edge(&p, from, to, &c->op[edge(from, to)], e);
            if (rc < 0)
                return rc;
        }
    }
    p += strspn(p, " \t\r\n");
    return *p ? err_set(e, ERR_INPUT, "there is '%.40s' after the last edge", p) : 0;
}

/* Remove what lies on no path; false where nothing is left. */
static bool prune(struct cell *c)
{
    bool from_in[N_NODES] = { true }, to_out[N_NODES] = { [N_NODES - 1] = true };
    for (int to = 1; to < N_NODES; to++)
        for (int from = 0; from < to; from++)
            if (c->op[edge(from, to)] != OP_NONE && from_in[from])
                from_in[to] = true;
    for (int from = N_NODES - 2; from >= 0; from--)
        for (int to = from + 1; to < N_NODES; to++)
            if (c->op[edge(from, to)] != OP_NONE && to_out[to])
                to_out[from] = true;
    for (int to = 1; to < N_NODES; to++)
        for (int from = 0; from < to; from++)
            if (!from_in[from] || !to_out[to])
                c->op[edge(from, to)] = OP_NONE;
    return from_in[N_NODES - 1];
}

static bool canonical(struct cell *c, char *text)
{
    bool connected = prune(c);
    print(c, text);
    if (c->op[edge(1, 2)] == OP_NONE) {
        struct cell s = *c;
        char        other[ARCH_TEXT_MAX];
        s.op[edge(0, 1)] = c->op[edge(0, 2)];
        s.op[edge(0, 2)] = c->op[edge(0, 1)];
        s.op[edge(1, 3)] = c->op[edge(2, 3)];
        s.op[edge(2, 3)] = c->op[edge(1, 3)];
        print(&s, other);
        if (strcmp(other, text) < 0) {
            *c = s;
            strcpy(text, other);
        }
    }
    return connected;
}

static int canon(const char *in, char *text, struct errbuf *e)
{
    struct cell c;
    int rc = read_cell(in, &c, e);
    if (rc == 0)
        canonical(&c, text);
    return rc;
}

static void random_cell(struct rng *r, char *text)
{
    struct cell c;
    do {
        for (int i = 0; i < N_EDGES; i++)
            c.op[i] = (int)rng_below(r, OP_COUNT);
    } while (!canonical(&c, text)); /* about one in forty has no path */
}

/* Drawn without replacement until one differs; giving the edge 0>3 another true op always does. */
static void mutate(struct rng *r, const char *parent, char *text)
{
    struct cell a, b;
    char        from[ARCH_TEXT_MAX];
    int         change[N_EDGES * (OP_COUNT - 1)], n = 0;
    int rc = read_cell(parent, &a, NULL);
    assert(rc == 0); /* the contract: a parent is canonical */
    canonical(&a, from);
    for (int i = 0; i < N_EDGES; i++)
        for (int op = 0; op < OP_COUNT; op++)
            if (op != a.op[i])
                change[n++] = i * OP_COUNT + op;
    for (; n > 0; n--) {
        int i = (int)rng_below(r, (uint32_t)n);
        b = a;
        b.op[change[i] / OP_COUNT] = change[i] % OP_COUNT;
        if (canonical(&b, text) && strcmp(from, text) != 0)
            return;
        change[i] = change[n - 1];
    }
    assert(false && "a cell without a neighbour");
}

/* ---- building ---- */

struct builder {
    struct net    *n;
    struct errbuf *e;
    char           prefix[24];
};

static const char *sub(const struct builder *b, char *buf, size_t cap, const char *what)
{
    snprintf(buf, cap, "%s.%s", b->prefix, what);
    return buf;
}

/* ReLU, convolution, batch norm. `what` names the three: WHAT.relu, WHAT.conv, WHAT.bn. */
static int relu_conv_bn(struct builder *b, int x, int out, int k, int stride, const char *what)
{
    char name[32], path[56];
    snprintf(name, sizeof name, "%s.relu", what);
    x = net_lrelu(b->n, x, 0, sub(b, path, sizeof path, name), b->e);
    snprintf(name, sizeof name, "%s.conv", what);
    x = net_conv(b->n, x, out, k, stride, k / 2, sub(b, path, sizeof path, name), b->e);
    snprintf(name, sizeof name, "%s.bn", what);
    return net_bn(b->n, x, false, sub(b, path, sizeof path, name), b->e);
}

static int add_edge(struct builder *b, int x, int op, int channels, const char *what)
{
    char path[56];
    if (op == OP_AVG)
        return net_pool(b->n, NET_AVGPOOL, x, 3, 1, 1, sub(b, path, sizeof path, what), b->e);
    return op == OP_SKIP ? x : relu_conv_bn(b, x, channels, op == OP_CONV3 ? 3 : 1, 1, what);
}

static int add_cell(struct builder *b, int x, const struct cell *c, int channels)
{
    int node[N_NODES] = { x, -1, -1, -1 };
    for (int to = 1; to < N_NODES; to++) {
        int sum = -1;
        for (int from = 0; from < to; from++) {
            char what[16], path[56];
            int  op = c->op[edge(from, to)];
            if (op == OP_NONE)
                continue;
            snprintf(what, sizeof what, "e%d%d", from, to);
            int y = add_edge(b, node[from], op, channels, what);
            if (y < 0)
                return y;
            snprintf(what, sizeof what, "n%d.add%d", to, from);
            if ((sum = sum < 0 ? y : net_add2(b->n, sum, y, sub(b, path, sizeof path, what), b->e)) < 0)
                return sum;
        }
        node[to] = sum; /* stays -1 where no live edge comes in, and then none leaves */
    }
    return node[N_NODES - 1];
}

/* The residual block between stages: halves the sides, doubles the channels. */
static int add_reduction(struct builder *b, int x, int channels)
{
    char path[56];
    int y = relu_conv_bn(b, relu_conv_bn(b, x, channels, 3, 2, "a"), channels, 3, 1, "b");
    const struct net_shape *s = &b->n->node[x].shape;
    if (s->h % 2 == 0 && s->w % 2 == 0)
        x = net_pool(b->n, NET_AVGPOOL, x, 2, 2, 0, sub(b, path, sizeof path, "down.pool"), b->e);
    else /* the benchmark has even sides only; for odd ones this window rounds up as the convolutions do */
        x = net_pool(b->n, NET_AVGPOOL, x, 3, 2, 1, sub(b, path, sizeof path, "down.pool"), b->e);
    x = net_conv(b->n, x, channels, 1, 1, 0, sub(b, path, sizeof path, "down.conv"), b->e);
    return net_add2(b->n, x, y, sub(b, path, sizeof path, "add"), b->e);
}

static int add_network(struct builder *b, const struct cell *c, int n_classes)
{
    int x = net_conv(b->n, 0, stage_channels[0], 3, 1, 1, "stem.conv", b->e);
    x = net_bn(b->n, x, false, "stem.bn", b->e);
    for (int i = 0; i < N_STAGES && x >= 0; i++) {
        if (i > 0) {
            snprintf(b->prefix, sizeof b->prefix, "reduce%d", i);
            x = add_reduction(b, x, stage_channels[i]);
        }
        snprintf(b->prefix, sizeof b->prefix, "cell%d", i + 1);
        if (x >= 0)
            x = add_cell(b, x, c, stage_channels[i]);
    }
    x = net_bn(b->n, x, false, "last.bn", b->e);
    x = net_lrelu(b->n, x, 0, "last.relu", b->e);
    x = net_unary(b->n, NET_GAP, x, "head.gap", b->e);
    return net_linear(b->n, x, n_classes, "head.linear", b->e);
}

static int build(const char *text, int c, int h, int w, int n_classes, struct net *out, struct errbuf *e)
{
    struct cell cell;
    char        canon_text[ARCH_TEXT_MAX];
    *out = (struct net){ 0 };
    int rc = read_cell(text, &cell, e);
    if (rc < 0)
        return rc;
    if (!canonical(&cell, canon_text))
        return err_set(e, ERR_SHAPE, "no path from input to output in %s", canon_text);
    if ((rc = net_init(out, c, h, w, e)) < 0)
        return rc;
    struct builder b = { out, e, "" };
    int x = add_network(&b, &cell, n_classes);
    if (x < 0)
        net_fini(out);
    return x < 0 ? x : 0;
}

const struct space space_nasbench201 = {
    .name = "nasbench201",
    .about = "cells of four nodes and six edges (NAS-Bench-201), small skeleton",
    .size = 15625,
    .random = random_cell,
    .mutate = mutate,
    .canon = canon,
    .build = build,
};
