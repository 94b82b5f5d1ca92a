#include "client/blocks.h"

#include "client/print.h"

#include <string.h>

/* "3 conv, 2 bn, add": what a block is made of, in the order in which each kind first comes. */
static void layers_of(const struct net *n, int from, int to, char *text, size_t cap)
{
    enum { RELU = NET_OP_COUNT, KINDS }; /* one more than there are ops: a leaky one that does not leak */
    int  count[KINDS] = { 0 }, order[KINDS], kinds = 0;
    size_t at = 0;
    for (int i = from; i < to; i++) {
        const struct net_node *d = &n->node[i];
        int kind = d->op == NET_LRELU && d->at.slope == 0 ? RELU : (int)d->op;
        if (count[kind]++ == 0)
            order[kinds++] = kind;
    }
    text[0] = 0;
    for (int i = 0; i < kinds && at < cap; i++) {
        int c = count[order[i]];
        at += (size_t)snprintf(text + at, cap - at, i ? ", " : "");
        if (c > 1 && at < cap)
            at += (size_t)snprintf(text + at, cap - at, "%d ", c);
        if (at < cap)
            at += (size_t)snprintf(text + at, cap - at, "%s", order[i] == RELU ? "relu" : net_op_name((enum net_op)order[i]));
    }
}

json_t *blocks_json(const struct net *n)
{
    json_t *list = json_array();
    for (int from = 0, to; from < n->n_nodes; from = to) {
        const char *path = n->node[from].path;
        int         len = (int)strcspn(path, ".");
        uint64_t    params = 0, macs = 0;
        char        layers[256];
        for (to = from; to < n->n_nodes && strncmp(n->node[to].path, path, (size_t)len) == 0 &&
                        strcspn(n->node[to].path, ".") == (size_t)len; to++) {
            macs += net_node_macs(n, to);
            for (int k = 0; k < n->node[to].n_params; k++)
                params += n->param[n->node[to].param0 + k].size;
        }
        const struct net_shape *s = &n->node[to - 1].shape;
        layers_of(n, from, to, layers, sizeof layers);
        json_array_append_new(list, json_pack("{s:s%,s:[i,i,i],s:s,s:I,s:I}", "block", path, (size_t)len, "shape", s->c, s->h, s->w,
                                              "layers", from ? layers : "", "params", (json_int_t)params, "macs", (json_int_t)macs));
    }
    return list;
}

json_t *blocks_edges(const struct space *s, const char *text)
{
    struct arch_edge edge[ARCH_MAX_EDGES];
    json_t *list = json_array();
    int n = s->edges ? s->edges(s, text, edge) : 0;
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:s}", "cell", edge[i].cell, "to", edge[i].to, "from", edge[i].from, "op",
                                              edge[i].op));
    return list;
}

static void print_blocks(FILE *f, const json_t *blocks)
{
    static const struct table_col cols[] = { { "BLOCK", false, false }, { "OUT", false, false }, { "PARAMS", true, false },
                                             { "MACS", true, false }, { "LAYERS", false, true } };
    struct table t;
    size_t i;
    json_t *b;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(blocks, i, b) {
        const json_t *s = doc_get(b, "shape");
        short_str a, m;
        bool last = i + 1 == json_array_size(blocks);
        table_cell(&t, "%s %s", i == 0 ? "┌" : last ? "└" : "│", doc_str(b, "block"));
        table_cell(&t, "%d×%d×%d", (int)json_integer_value(json_array_get(s, 0)), (int)json_integer_value(json_array_get(s, 1)),
                   (int)json_integer_value(json_array_get(s, 2)));
        table_cell(&t, "%s", fmt_count(a, doc_num(b, "params")));
        table_cell(&t, "%s", fmt_count(m, doc_num(b, "macs")));
        table_cell(&t, "%s", doc_str(b, "layers"));
    }
    table_print(&t, f, print_width(f));
    table_fini(&t);
}

/* "  3 = nor_conv_3x3(1) + skip_connect(2)", a line a node, under the name of its cell. */
static void print_edges(FILE *f, const json_t *edges)
{
    const char *cell = "";
    int         node = -1;
    size_t      i;
    json_t     *e;
    json_array_foreach(edges, i, e) {
        bool fresh = strcmp(cell, doc_str(e, "cell")) != 0;
        cell = doc_str(e, "cell");
        if (fresh)
            fprintf(f, "%s\n%s\n", i ? "\n" : "", cell);
        if (fresh || (int)doc_num(e, "to") != node)
            fprintf(f, "%s  %d = ", fresh ? "" : "\n", (int)doc_num(e, "to"));
        else
            fputs(" + ", f);
        node = (int)doc_num(e, "to");
        fprintf(f, "%s(%d)", doc_str(e, "op"), (int)doc_num(e, "from"));
    }
    if (json_array_size(edges))
        fputc('\n', f);
}

void blocks_print(FILE *f, const json_t *blocks, const json_t *edges)
{
    print_blocks(f, blocks);
    print_edges(f, edges);
}
