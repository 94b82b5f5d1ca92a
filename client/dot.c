#include "client/graph.h"
#include "client/print.h"

static void put_quoted(FILE *f, const char *s)
{
    for (; *s; s++)
        fprintf(f, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
}

void graph_dot(const struct graph *g, const char *title, FILE *f)
{
    char shape[40];
    short_str s;
    fprintf(f, "digraph network {\n    label=\"");
    put_quoted(f, title);
    fprintf(f, "\"; labelloc=t; rankdir=TB;\n    node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=11];\n");
    for (int b = 0; b < g->n; b++) {
        const struct box *x = &g->box[b];
        fprintf(f, "    n%d [label=\"", b);
        put_quoted(f, x->label);
        fprintf(f, "\\n%s", shape_text(shape, &x->shape));
        if (x->params)
            fprintf(f, ", %s parameters", fmt_count(s, (double)x->params));
        if (x->macs)
            fprintf(f, ", %s MACs", fmt_count(s, (double)x->macs));
        fprintf(f, "\"];\n");
    }
    for (int b = 0; b < g->n; b++)
        for (int k = 0; k < g->box[b].n_in; k++)
            fprintf(f, "    n%d -> n%d;\n", g->box[b].in[k], b);
    fprintf(f, "}\n");
}
