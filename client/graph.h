/* graph.h - a network as boxes that a person can follow, and its drawings. Layers that only follow another one (a batch norm, an
 * activation) share its box: "conv 3×3, 24 · bn · relu". Layers that do not reach the output are left out.
 * Thread: one; a graph is plain memory. */
#ifndef DIDACT_CLIENT_GRAPH_H
#define DIDACT_CLIENT_GRAPH_H

#include "common/err.h"
#include "common/net.h"

#include <stdio.h>

struct box {
    char     label[160];       /* UTF-8 */
    struct net_shape shape;    /* of what it hands on */
    uint64_t params, macs;     /* of an image */
    int      n_in, in[NET_MAX_IN]; /* boxes that it reads: smaller numbers */
    int      level;            /* longest way from the input, 0 … */
    int      last_use;         /* the last box that reads it; n for the output */
};

struct graph {
    int         n;             /* box 0 is the input, the last one the output */
    struct box *box;           /* owned */
};

int  graph_from_net(struct graph *g, const struct net *net, struct errbuf *e);
void graph_fini(struct graph *g); /* NULL members are fine */

const char *shape_text(char out[40], const struct net_shape *s); /* "24×14×14", "10" */

/* draw.c: for terminals, a row a box, the ways between them as lines at the left. */
void graph_draw(const struct graph *g, FILE *f);
/* dot.c: for Graphviz. */
void graph_dot(const struct graph *g, const char *title, FILE *f);
/* svg.c: a layered drawing of its own (Sugiyama, Tagawa, Toda 1981: levels, one place on each level for a way that passes it, order by
 * barycentres). -ERR_NOMEM. */
int  graph_svg(const struct graph *g, const char *title, FILE *f, struct errbuf *e);

#endif
