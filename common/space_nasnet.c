/* space_nasnet.c - a normal and a reduction cell of five nodes each, every node the sum of two operations on two inputs:
 *
 *   normal: sep3~1+skip~0 max3~0+sep5~2 avg3~1+skip~2 sep3~1+sep3~3 sep5~0+skip~5 | reduce: ...
 *
 * Input 0 of a cell is the output of the cell before the last, 1 that of the last, 2 to 6 are its own nodes. Nodes that no other uses
 * are concatenated. The operations are those of ENAS's micro space (Pham et al., 2018, arXiv:1802.03268), which NAO (Luo et al., 2018,
 * arXiv:1808.07233) and Generative Teaching Networks (Such et al., 2019, arXiv:1912.07768) search: identity, separable convolution
 * 3x3 and 5x5 (ReLU, depthwise, 1x1, batch norm, twice), maximum and average over 3x3.
 *
 * Canonical text: nodes may be numbered in any order that puts inputs first, and the two terms of a node may be swapped; of all such
 * writings the smallest stands (numbers compared node by node). Concatenation in another order permutes channels, and the weights
 * that read them: the same network. That a sum of sums can be grouped otherwise is not seen.
 *
 * Skeleton: 3x3 convolution, then three stages of normal cells with 8, 16 and 32 channels with a reduction cell before the second
 * and third; ReLU, global average, linear. A cell's inputs first go through ReLU, 1x1 convolution, batch norm. Where halving is
 * asked of an input or of an identity, it averages 2x2 before its 1x1 convolution (published: two shifted halves, concatenated). */
#include "common/space.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_INPUTS 2 /* of a cell */
#define N_NODES  5
#define N_TERMS  2 /* of a node */
#define N_STAGES 3
#define CHANNELS 8 /* of the first stage */

enum nas_op { OP_SKIP, OP_SEP3, OP_SEP5, OP_MAX, OP_AVG, OP_COUNT };
static const char *const op_names[OP_COUNT] = { "skip", "sep3", "sep5", "max3", "avg3" };

enum { NORMAL, REDUCE, N_CELLS };
static const char *const cell_names[N_CELLS] = { "normal", "reduce" };

struct term { int in, op; }; /* in: 0 and 1 the cell's inputs, 2 … the nodes before */
struct cell { struct term t[N_NODES][N_TERMS]; };
struct arch { struct cell cell[N_CELLS]; };

/* ---- canonical form ---- */

static int order_terms(const struct term *a, const struct term *b)
{
    return a->in != b->in ? a->in - b->in : a->op - b->op;
}

static int order_nodes(const struct term *a, const struct term *b)
{
    int d = order_terms(&a[0], &b[0]);
    return d ? d : order_terms(&a[1], &b[1]);
}

struct numbering {
    const struct cell *from;
    struct cell        now, best;
    int                number[N_INPUTS + N_NODES]; /* the new number of an old one; -1: not placed yet */
    bool               any;
};

/* The node with its new numbers and its terms in order; false where an input has none yet. */
static bool renumber(const struct numbering *n, int node, struct term *out)
{
    for (int k = 0; k < N_TERMS; k++) {
        out[k] = n->from->t[node][k];
        if ((out[k].in = n->number[out[k].in]) < 0)
            return false;
    }
    if (order_terms(&out[0], &out[1]) > 0) {
        struct term t = out[0];
        out[0] = out[1];
        out[1] = t;
    }
    return true;
}

/* Give the number `at` to each node that can have it, in turn. At most 120 numberings. */
static void place(struct numbering *n, int at)
{
    if (at == N_NODES) {
        int d = n->any ? 0 : -1;
        for (int i = 0; i < N_NODES && d == 0; i++)
            d = order_nodes(n->now.t[i], n->best.t[i]);
        if (d < 0)
            n->best = n->now;
        n->any = true;
        return;
    }
    for (int node = 0; node < N_NODES; node++) {
        if (n->number[N_INPUTS + node] >= 0 || !renumber(n, node, n->now.t[at]))
            continue;
        n->number[N_INPUTS + node] = N_INPUTS + at;
        place(n, at + 1);
        n->number[N_INPUTS + node] = -1;
    }
}

static void print(const struct arch *a, char *text)
{
    size_t n = 0;
    for (int c = 0; c < N_CELLS; c++) {
        n += (size_t)snprintf(text + n, ARCH_TEXT_MAX - n, "%s%s:", c ? " | " : "", cell_names[c]);
        for (int i = 0; i < N_NODES; i++) {
            const struct term *t = a->cell[c].t[i];
            n += (size_t)snprintf(text + n, ARCH_TEXT_MAX - n, " %s~%d+%s~%d", op_names[t[0].op], t[0].in, op_names[t[1].op], t[1].in);
        }
    }
    assert(n < ARCH_TEXT_MAX); /* twenty terms of 7 characters */
}

static void canonical(struct arch *a, char *text)
{
    for (int c = 0; c < N_CELLS; c++) {
        struct numbering n = { .from = &a->cell[c], .number = { 0, 1, -1, -1, -1, -1, -1 } };
        place(&n, 0);
        assert(n.any); /* inputs stand before their node, so the order as written is one */
        a->cell[c] = n.best;
    }
    print(a, text);
}

/* ---- reading what a person wrote ---- */

static int read_term(const char **p, const char *cell, int node, struct term *t, struct errbuf *e)
{
    size_t n = strcspn(*p, "~+ |\t\r\n");
    for (t->op = 0; t->op < OP_COUNT; t->op++)
        if (strlen(op_names[t->op]) == n && strncmp(*p, op_names[t->op], n) == 0)
            break;
    if (t->op == OP_COUNT)
        return err_set(e, ERR_INPUT, "%s cell, node %d: '%.*s' is none of skip, sep3, sep5, max3, avg3", cell, N_INPUTS + node,
                       (int)(n < 40 ? n : 40), *p);
    *p += n;
    if (**p != '~' || (*p)[1] < '0' || (*p)[1] >= '0' + N_INPUTS + node || strchr("0123456789", (*p)[2] ? (*p)[2] : ' '))
        return err_set(e, ERR_INPUT, "%s cell, node %d: %s must end in ~0 to ~%d, the input", cell, N_INPUTS + node, op_names[t->op],
                       N_INPUTS + node - 1);
    t->in = (*p)[1] - '0';
    *p += 2;
    return 0;
}

static int read_cell(const char **p, int c, struct cell *cell, struct errbuf *e)
{
    const char *name = cell_names[c];
    char        open[16];
    snprintf(open, sizeof open, "%s:", name);
    *p += strspn(*p, " \t\r\n");
    if (strncmp(*p, open, strlen(open)) != 0)
        return err_set(e, ERR_INPUT, "the %s cell must open with '%s'", c ? "second" : "first", open);
    *p += strlen(open);
    for (int i = 0; i < N_NODES; i++)
        for (int k = 0, rc; k < N_TERMS; k++) {
            *p += k ? 0 : strspn(*p, " \t\r\n");
            if (k && *(*p)++ != '+')
                return err_set(e, ERR_INPUT, "%s cell, node %d: must be two operations such as sep3~1+skip~0", name, N_INPUTS + i);
            if ((rc = read_term(p, name, i, &cell->t[i][k], e)) < 0)
                return rc;
        }
    *p += strspn(*p, " \t\r\n");
    return 0;
}

static int read_arch(const char *in, struct arch *a, struct errbuf *e)
{
    const char *p = in;
    int rc = read_cell(&p, NORMAL, &a->cell[NORMAL], e);
    if (rc == 0 && *p++ != '|')
        return err_set(e, ERR_INPUT, "'|' must follow the five nodes of the normal cell");
    if (rc == 0)
        rc = read_cell(&p, REDUCE, &a->cell[REDUCE], e);
    return rc == 0 && *p ? err_set(e, ERR_INPUT, "there is '%.40s' after the five nodes of the reduce cell", p) : rc;
}

static int canon(const struct space *s, const char *in, char *text, struct errbuf *e)
{
    (void)s;
    struct arch a;
    int rc = read_arch(in, &a, e);
    if (rc == 0)
        canonical(&a, text);
    return rc;
}

/* ---- proposals ---- */

/* The twenty terms in one row. */
static struct term *term_at(struct arch *a, int i)
{
    return &a->cell[i / (N_NODES * N_TERMS)].t[i / N_TERMS % N_NODES][i % N_TERMS];
}
#define ALL_TERMS (N_CELLS * N_NODES * N_TERMS)

static int inputs_of(int i) /* how many the i-th term may choose from */
{
    return N_INPUTS + i / N_TERMS % N_NODES;
}

static void random_arch(const struct space *s, struct rng *r, char *text)
{
    (void)s;
    struct arch a;
    for (int i = 0; i < ALL_TERMS; i++) {
        term_at(&a, i)->in = (int)rng_below(r, (uint32_t)inputs_of(i));
        term_at(&a, i)->op = (int)rng_below(r, OP_COUNT);
    }
    canonical(&a, text);
}

static void read_parent(const char *parent, struct arch *a, char *text)
{
    int rc = read_arch(parent, a, NULL);
    assert(rc == 0); /* the contract: a parent is canonical */
    canonical(a, text);
}

struct change { int term; struct term to; };
#define MAX_CHANGES (ALL_TERMS * (OP_COUNT - 1 + N_INPUTS + N_NODES - 2))

static int list_changes(struct arch *a, struct change *c)
{
    int n = 0;
    for (int i = 0; i < ALL_TERMS; i++) {
        const struct term *t = term_at(a, i);
        for (int op = 0; op < OP_COUNT; op++)
            if (op != t->op)
                c[n++] = (struct change){ i, { t->in, op } };
        for (int in = 0; in < inputs_of(i); in++)
            if (in != t->in)
                c[n++] = (struct change){ i, { in, t->op } };
    }
    assert(n <= MAX_CHANGES);
    return n;
}

static bool child_of(const struct arch *parent, const char *from, const struct change *c, char *text)
{
    struct arch a = *parent;
    *term_at(&a, c->term) = c->to;
    canonical(&a, text);
    return strcmp(from, text) != 0;
}

/* Drawn without replacement until one differs; another operation always does: it changes how often each occurs. */
static void mutate(const struct space *s, struct rng *r, const char *parent, char *text)
{
    (void)s;
    struct arch   a;
    struct change c[MAX_CHANGES];
    char          from[ARCH_TEXT_MAX];
    read_parent(parent, &a, from);
    for (int n = list_changes(&a, c); n > 0; n--) {
        int i = (int)rng_below(r, (uint32_t)n);
        if (child_of(&a, from, &c[i], text))
            return;
        c[i] = c[n - 1];
    }
    assert(!"cells without a neighbour");
}

static int neighbours(const struct space *s, const char *parent, struct arch_list *out, struct errbuf *e)
{
    (void)s;
    struct arch   a;
    struct change c[MAX_CHANGES];
    char          from[ARCH_TEXT_MAX], text[ARCH_TEXT_MAX];
    int           rc = 0;
    read_parent(parent, &a, from);
    for (int i = list_changes(&a, c) - 1; i >= 0 && rc == 0; i--)
        if (child_of(&a, from, &c[i], text))
            rc = arch_list_add(out, text, e);
    arch_list_sort(out);
    return rc;
}

/* An operation and its input stay together: either alone means little. */
static void crossover(const struct space *s, struct rng *r, const char *one, const char *other, char *text)
{
    (void)s;
    struct arch p[2], a;
    read_parent(one, &p[0], text);
    read_parent(other, &p[1], text);
    for (int i = 0; i < ALL_TERMS; i++)
        *term_at(&a, i) = *term_at(&p[rng_below(r, 2)], i);
    canonical(&a, text);
}

/* ---- building ---- */

struct builder {
    struct net    *n;
    struct errbuf *e;
    char           prefix[24]; /* of the cell at work */
};

static const char *sub(const struct builder *b, char *buf, size_t cap, const char *what, const char *layer)
{
    snprintf(buf, cap, "%s.%s.%s", b->prefix, what, layer);
    return buf;
}

/* Half the sides, rounded up as strided convolutions do. */
static int halve(struct builder *b, int x, const char *what)
{
    char path[56];
    if (x < 0)
        return x;
    const struct net_shape *s = &b->n->node[x].shape;
    bool even = s->h % 2 == 0 && s->w % 2 == 0;
    return net_pool(b->n, NET_AVGPOOL, x, even ? 2 : 3, 2, even ? 0 : 1, sub(b, path, sizeof path, what, "pool"), b->e);
}

/* ReLU, 1x1 convolution, batch norm; halved in between if asked. */
static int project(struct builder *b, int x, int channels, bool half, const char *what)
{
    char path[56];
    x = net_lrelu(b->n, x, 0, sub(b, path, sizeof path, what, "relu"), b->e);
    if (half)
        x = halve(b, x, what);
    x = net_conv(b->n, x, channels, 1, 1, 0, sub(b, path, sizeof path, what, "conv"), b->e);
    return net_bn(b->n, x, false, sub(b, path, sizeof path, what, "bn"), b->e);
}

static int separable(struct builder *b, int x, int channels, int k, int stride, const char *what)
{
    char path[56], layer[16];
    for (int i = 1; i <= 2; i++, stride = 1) {
        snprintf(layer, sizeof layer, "relu%d", i);
        x = net_lrelu(b->n, x, 0, sub(b, path, sizeof path, what, layer), b->e);
        snprintf(layer, sizeof layer, "dw%d", i);
        x = net_dwconv(b->n, x, k, stride, k / 2, sub(b, path, sizeof path, what, layer), b->e);
        snprintf(layer, sizeof layer, "pw%d", i);
        x = net_conv(b->n, x, channels, 1, 1, 0, sub(b, path, sizeof path, what, layer), b->e);
        snprintf(layer, sizeof layer, "bn%d", i);
        x = net_bn(b->n, x, false, sub(b, path, sizeof path, what, layer), b->e);
    }
    return x;
}

static int add_term(struct builder *b, int x, int op, int channels, bool half, const char *what)
{
    char path[56];
    int  stride = half ? 2 : 1;
    switch (op) {
    case OP_SKIP: return half ? project(b, x, channels, true, what) : x;
    case OP_SEP3:
    case OP_SEP5: return separable(b, x, channels, op == OP_SEP3 ? 3 : 5, stride, what);
    default:
        return net_pool(b->n, op == OP_MAX ? NET_MAXPOOL : NET_AVGPOOL, x, 3, stride, 1, sub(b, path, sizeof path, what, "pool"), b->e);
    }
}

/* The nodes that no other reads, side by side. */
static int add_output(struct builder *b, const struct cell *c, const int *state)
{
    bool used[N_INPUTS + N_NODES] = { false };
    int  loose[N_NODES], n = 0;
    char path[56];
    for (int i = 0; i < N_NODES; i++)
        for (int k = 0; k < N_TERMS; k++)
            used[c->t[i][k].in] = true;
    for (int i = N_INPUTS; i < N_INPUTS + N_NODES; i++)
        if (!used[i])
            loose[n++] = state[i];
    if (n == 1)
        return loose[0];
    snprintf(path, sizeof path, "%s.concat", b->prefix);
    return net_add(b->n, NET_CONCAT, loose, n, &(struct net_attr){ 0 }, path, b->e);
}

static int add_cell(struct builder *b, const int in[N_INPUTS], const struct cell *c, int channels, bool half)
{
    const struct net_node *node = b->n->node;
    bool shrink = node[in[0]].shape.h != node[in[1]].shape.h || node[in[0]].shape.w != node[in[1]].shape.w;
    int  state[N_INPUTS + N_NODES];
    char what[16], path[56];
    state[0] = project(b, in[0], channels, shrink, "in0");
    state[1] = project(b, in[1], channels, false, "in1");
    for (int i = 0; i < N_NODES; i++) {
        int y[N_TERMS];
        for (int k = 0; k < N_TERMS; k++) {
            const struct term *t = &c->t[i][k];
            snprintf(what, sizeof what, "n%d%c", N_INPUTS + i, 'a' + k);
            if ((y[k] = add_term(b, state[t->in], t->op, channels, half && t->in < N_INPUTS, what)) < 0)
                return y[k];
        }
        snprintf(what, sizeof what, "n%d", N_INPUTS + i);
        if ((state[N_INPUTS + i] = net_add2(b->n, y[0], y[1], sub(b, path, sizeof path, what, "add"), b->e)) < 0)
            return state[N_INPUTS + i];
    }
    return add_output(b, c, state);
}

static int add_network(struct builder *b, const struct arch *a, const struct arch_frame *f, int x)
{
    int channels = f->proxy.channels ? f->proxy.channels : CHANNELS, n_cells = f->proxy.cells ? f->proxy.cells : 1, at = 0;
    x = net_conv(b->n, x, channels, 3, 1, 1, "stem.conv", b->e);
    x = net_bn(b->n, x, false, "stem.bn", b->e);
    int last[N_INPUTS] = { x, x };
    for (int i = 0; i < N_STAGES && x >= 0; i++, channels *= 2)
        for (int k = i == 0; k <= n_cells && x >= 0; k++) { /* the reduction cell is number 0 of its stage */
            snprintf(b->prefix, sizeof b->prefix, k ? "cell%d" : "reduce%d", k ? ++at : i);
            x = add_cell(b, last, &a->cell[k ? NORMAL : REDUCE], channels, k == 0);
            last[0] = last[1];
            last[1] = x;
        }
    x = net_lrelu(b->n, x, 0, "last.relu", b->e);
    x = net_unary(b->n, NET_GAP, x, "head.gap", b->e);
    return net_linear(b->n, x, f->n_classes, "head.linear", b->e);
}

static int build(const struct space *s, const char *text, const struct arch_frame *f, struct net *out, struct errbuf *e)
{
    (void)s;
    struct arch a;
    char        canon_text[ARCH_TEXT_MAX];
    int rc = read_arch(text, &a, e);
    if (rc < 0)
        return rc;
    canonical(&a, canon_text);
    struct builder b = { out, e, "" };
    int x = add_network(&b, &a, f, space_input(out, f, e));
    if (x < 0)
        net_fini(out);
    return x < 0 ? x : 0;
}

static int edges(const struct space *s, const char *text, struct arch_edge *out)
{
    (void)s;
    struct arch a;
    char        from_text[ARCH_TEXT_MAX];
    read_parent(text, &a, from_text);
    for (int i = 0; i < ALL_TERMS; i++) {
        const struct term *t = term_at(&a, i);
        out[i] = (struct arch_edge){ cell_names[i / (N_NODES * N_TERMS)], op_names[t->op], t->in, inputs_of(i) };
    }
    return ALL_TERMS;
}

const struct space space_nasnet = {
    .name = "nasnet",
    .about = "normal and reduction cells of five nodes (ENAS, NAO), small skeleton",
    .size = 2.562890625e25, /* texts: ((10 x 15 x 20 x 25 x 30)^2)^2 */
    .has_cells = true,
    .random = random_arch,
    .mutate = mutate,
    .crossover = crossover,
    .neighbours = neighbours,
    .canon = canon,
    .edges = edges,
    .build = build,
};
