/* space_nasbench201.c - cells of 4 nodes and 6 edges (Dong and Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326) in their usual
 * text, "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|", inside a small
 * version of the standard skeleton: one cell a stage and 8, 16, 32 channels, where the benchmark has five and 16, 32, 64.
 *
 * Canonical text. Two cells are the same network where they compute the same function of the same parameters, for every value of
 * these: an edge on no path from the input to the output does nothing, a node with one skip_connect is its source, sums may be
 * taken in any order and grouping, and convolutions of the same kind and input may change names. Of each class of such cells the one
 * with the fewest live edges stands, and of these the first text. Only sums and names are looked into: that averages of a
 * sum are the sum of averages is not used. The 15,625 cells are 5,260 networks, counting the cells without a path as one; such a
 * cell is valid text, but builds nothing and is never proposed.
 *
 * Difference from `isomorphic_id` of the published tables (6,466 classes): that one writes every node as the sorted sum of its
 * edges. So it takes two convolutions of one input for one convolution used twice, which have other parameters; and it tells
 * apart what differs only in a zero edge or in the grouping of a sum. */
#include "common/space.h"

#include <assert.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_NODES  4
#define N_EDGES  6
#define N_STAGES 3
#define N_CELLS  15625 /* 5^6 */

enum cell_op { OP_NONE, OP_SKIP, OP_CONV1, OP_CONV3, OP_AVG, OP_COUNT };
static const char *const op_names[OP_COUNT] = { "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3" };
#define CHANNELS 8 /* of the first stage */

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

/* ---- canonical form ---- */

/* A node as a sum of terms, each the text of an operation on a sum; "" is zero. Six edges nest at most three deep, over at
 * most seven paths. */
#define FORM_MAX 128
struct form { int n; char term[8][FORM_MAX]; };

static int by_term(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void form_text(struct form *f, char *text)
{
    size_t n = 0;
    qsort(f->term, (size_t)f->n, sizeof f->term[0], by_term);
    text[0] = 0;
    for (int i = 0; i < f->n; i++)
        n += (size_t)snprintf(text + n, FORM_MAX - n, "%s%s", i ? "+" : "", f->term[i]);
    assert(n < FORM_MAX);
}

/* What a pruned cell computes. The tree alone does not tell one convolution used twice from two; with the number of
 * convolutions of each kind it does, in a space this small: a program that compares graphs finds the same 5,260 classes. */
static void form_of(const struct cell *c, char *key)
{
    static const char sign[OP_COUNT] = "  13a";
    struct form node[N_NODES] = { { 1, { "x" } } };
    int  count[OP_COUNT] = { 0 };
    char sum[FORM_MAX];
    for (int to = 1; to < N_NODES; to++)
        for (int from = 0; from < to; from++) {
            int op = c->op[edge(from, to)];
            struct form *f = &node[to];
            count[op]++;
            if (op == OP_SKIP) {
                memcpy(f->term[f->n], node[from].term, (size_t)node[from].n * sizeof f->term[0]);
                f->n += node[from].n;
            } else if (op != OP_NONE) {
                form_text(&node[from], sum);
                size_t n = (size_t)snprintf(f->term[f->n++], FORM_MAX, "%c(%.*s)", sign[op], FORM_MAX - 4, sum);
                assert(n < FORM_MAX);
            }
        }
    form_text(&node[N_NODES - 1], sum);
    snprintf(key, FORM_MAX + 8, "%d%d%s", count[OP_CONV1], count[OP_CONV3], sum);
}

static uint16_t  canonical_code[N_CELLS]; /* of every cell: the cell that stands for its class */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct cell decode(int code)
{
    struct cell c;
    for (int i = 0; i < N_EDGES; i++, code /= OP_COUNT)
        c.op[i] = code % OP_COUNT;
    return c;
}

static int encode(const struct cell *c)
{
    int code = 0;
    for (int i = N_EDGES - 1; i >= 0; i--)
        code = code * OP_COUNT + c->op[i];
    return code;
}

/* 64 bits of the form's BLAKE2b: a table without allocation, and a test counts the classes. */
struct member { uint64_t form; uint16_t code; uint8_t edges; };

static int by_class(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    char tx[ARCH_TEXT_MAX], ty[ARCH_TEXT_MAX];
    if (x->form != y->form)
        return x->form < y->form ? -1 : 1;
    if (x->edges != y->edges)
        return x->edges - y->edges;
    struct cell cx = decode(x->code), cy = decode(y->code);
    print(&cx, tx);
    print(&cy, ty);
    return strcmp(tx, ty);
}

static struct member member_of(const struct cell *c)
{
    struct member m = { .code = (uint16_t)encode(c) };
    char key[FORM_MAX + 8];
    unsigned char hash[crypto_generichash_BYTES_MIN];
    form_of(c, key);
    crypto_generichash(hash, sizeof hash, (const unsigned char *)key, strlen(key), NULL, 0);
    memcpy(&m.form, hash, sizeof m.form);
    for (int i = 0; i < N_EDGES; i++)
        m.edges = (uint8_t)(m.edges + (c->op[i] != OP_NONE));
    return m;
}

/* A function of nothing, made at first use in some 20 ms. Only pruned cells are sorted; the others go where theirs goes. */
static void find_classes(void)
{
    static struct member m[N_CELLS];
    int n = 0;
    for (int code = 0; code < N_CELLS; code++) {
        struct cell c = decode(code);
        prune(&c);
        canonical_code[code] = (uint16_t)encode(&c);
        if (canonical_code[code] == code)
            m[n++] = member_of(&c);
    }
    qsort(m, (size_t)n, sizeof *m, by_class);
    for (int i = 0, first = 0; i < n; i++) {
        first = m[i].form == m[first].form ? first : i;
        canonical_code[m[i].code] = m[first].code;
    }
    for (int code = 0; code < N_CELLS; code++) /* a cell that is not pruned points at one that is; that one points at its class */
        canonical_code[code] = canonical_code[canonical_code[code]];
}

/* The cell becomes its canonical one; false where it has no path. */
static bool canonical(struct cell *c, char *text)
{
    pthread_once(&once, find_classes);
    *c = decode(canonical_code[encode(c)]);
    print(c, text);
    return encode(c) != 0;
}

static int canon(const struct space *s, const char *in, char *text, struct errbuf *e)
{
    (void)s;
    struct cell c;
    int rc = read_cell(in, &c, e);
    if (rc == 0)
        canonical(&c, text);
    return rc;
}

/* ---- proposals ---- */

static void random_cell(const struct space *s, struct rng *r, char *text)
{
    (void)s;
    struct cell c;
    do {
        for (int i = 0; i < N_EDGES; i++)
            c.op[i] = (int)rng_below(r, OP_COUNT);
    } while (!canonical(&c, text)); /* about one in forty has no path */
}

static void read_parent(const char *parent, struct cell *c, char *text)
{
    int rc = read_cell(parent, c, NULL);
    assert(rc == 0); /* the contract: a parent is canonical */
    canonical(c, text);
}

static int list_changes(const struct cell *c, int *change)
{
    int n = 0;
    for (int i = 0; i < N_EDGES; i++)
        for (int op = 0; op < OP_COUNT; op++)
            if (op != c->op[i])
                change[n++] = i * OP_COUNT + op;
    return n;
}

/* False where the change gives the parent again, or a cell without a path. */
static bool child_of(const struct cell *parent, const char *from, int change, char *text)
{
    struct cell c = *parent;
    c.op[change / OP_COUNT] = change % OP_COUNT;
    return canonical(&c, text) && strcmp(from, text) != 0;
}

/* Drawn without replacement until one differs; giving the edge 0>3 another true op always does. */
static void mutate(const struct space *s, struct rng *r, const char *parent, char *text)
{
    (void)s;
    struct cell a;
    char        from[ARCH_TEXT_MAX];
    int         change[N_EDGES * (OP_COUNT - 1)];
    read_parent(parent, &a, from);
    for (int n = list_changes(&a, change); n > 0; n--) {
        int i = (int)rng_below(r, (uint32_t)n);
        if (child_of(&a, from, change[i], text))
            return;
        change[i] = change[n - 1];
    }
    assert(false && "a cell without a neighbour");
}

static int neighbours(const struct space *s, const char *parent, struct arch_list *out, struct errbuf *e)
{
    (void)s;
    struct cell a;
    char        from[ARCH_TEXT_MAX], text[ARCH_TEXT_MAX];
    int         change[N_EDGES * (OP_COUNT - 1)], rc = 0;
    read_parent(parent, &a, from);
    for (int i = list_changes(&a, change) - 1; i >= 0 && rc == 0; i--)
        if (child_of(&a, from, change[i], text))
            rc = arch_list_add(out, text, e);
    arch_list_sort(out);
    return rc;
}

/* All edges of one parent are among the combinations, so the loop ends. */
static void crossover(const struct space *s, struct rng *r, const char *one, const char *other, char *text)
{
    (void)s;
    struct cell p[2], c;
    read_parent(one, &p[0], text);
    read_parent(other, &p[1], text);
    do {
        for (int i = 0; i < N_EDGES; i++)
            c.op[i] = p[rng_below(r, 2)].op[i];
    } while (!canonical(&c, text));
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
            char what[32], path[56];
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

static int add_network(struct builder *b, const struct cell *c, const struct arch_frame *f, int x)
{
    int channels = f->proxy.channels ? f->proxy.channels : CHANNELS, n_cells = f->proxy.cells ? f->proxy.cells : 1, at = 0;
    x = net_conv(b->n, x, channels, 3, 1, 1, "stem.conv", b->e);
    x = net_bn(b->n, x, false, "stem.bn", b->e);
    for (int i = 0; i < N_STAGES && x >= 0; i++, channels *= 2) {
        if (i > 0) {
            snprintf(b->prefix, sizeof b->prefix, "reduce%d", i);
            x = add_reduction(b, x, channels);
        }
        for (int k = 0; k < n_cells && x >= 0; k++) {
            snprintf(b->prefix, sizeof b->prefix, "cell%d", ++at);
            x = add_cell(b, x, c, channels);
        }
    }
    x = net_bn(b->n, x, false, "last.bn", b->e);
    x = net_lrelu(b->n, x, 0, "last.relu", b->e);
    x = net_unary(b->n, NET_GAP, x, "head.gap", b->e);
    return net_linear(b->n, x, f->n_classes, "head.linear", b->e);
}

static int build(const struct space *s, const char *text, const struct arch_frame *f, struct net *out, struct errbuf *e)
{
    (void)s;
    struct cell cell;
    char        canon_text[ARCH_TEXT_MAX];
    int rc = read_cell(text, &cell, e);
    if (rc < 0)
        return rc;
    if (!canonical(&cell, canon_text))
        return err_set(e, ERR_SHAPE, "no path from input to output in %s", text);
    struct builder b = { out, e, "" };
    int x = add_network(&b, &cell, f, space_input(out, f, e));
    if (x < 0)
        net_fini(out);
    return x < 0 ? x : 0;
}

static int edges(const struct space *s, const char *text, struct arch_edge *out)
{
    (void)s;
    struct cell c;
    char        from_text[ARCH_TEXT_MAX];
    int         n = 0;
    read_parent(text, &c, from_text);
    for (int to = 1; to < N_NODES; to++)
        for (int from = 0; from < to; from++)
            if (c.op[edge(from, to)] != OP_NONE)
                out[n++] = (struct arch_edge){ "cell", op_names[c.op[edge(from, to)]], from, to };
    return n;
}

const struct space space_nasbench201 = {
    .name = "nasbench201",
    .about = "cells of four nodes and six edges (NAS-Bench-201), small skeleton",
    .size = 15625,
    .has_cells = true,
    .random = random_cell,
    .mutate = mutate,
    .crossover = crossover,
    .neighbours = neighbours,
    .canon = canon,
    .edges = edges,
    .build = build,
};
