/* plan.h - a compiled network, for plan.c, pass.c and unroll.c alone. */
#ifndef DIDACT_ENGINE_PLAN_H
#define DIDACT_ENGINE_PLAN_H

#include "worker/engine/op.h"

#define NO_PLACE UINT64_MAX
#define PLAN_MAX_BYTES (UINT64_C(1) << 46) /* of all values in one direction: sums of a few such never overflow */

enum buffer { VAL, DOT, ADJ, ADJ_DOT, N_BUFFERS };

struct tensor {
    struct net_shape s;
    int      root;             /* another tensor of the same numbers (flatten of one channel), or itself */
    int      producer;         /* node; -1: the network's input or a parameter */
    bool     param, batched;
    bool     has_dot, needs_adj;
    uint64_t offset, elems;    /* offset: of a parameter in the flat vector; elems with the batch */
    uint64_t place[N_BUFFERS]; /* bytes into the arena */
};

struct node {
    enum op         op;
    struct net_attr at;
    int             n_in, in[OP_MAX_IN], out;
    bool            acc[OP_MAX_IN];
    int             net_node;  /* which layer it comes from */
    uint64_t        aux, aux_bytes;
    uint64_t        running;   /* batch norm: elements before its own in the running statistics */
};

/* For profiling (bench/engine --ops): called in place of an op's rule, which it must run as fn(c). `rule` is its number in
 * struct op_rules, in the order of declaration. */
typedef void (*plan_probe)(void *arg, const struct eng_plan *p, int node, int rule, op_rule fn, const struct op_call *c);

struct eng_plan {
    struct net      net;       /* owned copy */
    enum eng_dtype  dtype;
    const struct kernels *k;
    int             batch, n_tensors, n_nodes, input, output;
    unsigned        need;
    struct tensor  *tensor;
    struct node    *node;
    bool           *unread;    /* [net.n_params] the output does not depend on it: its gradient is zero */
    uint64_t        scratch, scratch_bytes, bytes;
    char           *arena;
    bool            owns_arena;
    void           *running;   /* mean, var of each batch norm */
    bool            evaluation;
    struct eng_pool *pool;     /* borrowed */
    plan_probe      probe;     /* NULL, but in a profile */
    void           *probe_arg;
};

/* Everything but the arena. */
int  plan_compile(const struct net *net, int batch, enum eng_dtype t, unsigned need, struct eng_plan **out, struct errbuf *e);
void plan_attach(struct eng_plan *p, void *arena); /* borrowed, p->bytes, 64-aligned */
/* eng_grad that also gives the logits ([B,K], NULL: not wanted). */
double plan_grad(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, void *gx, void *logits);
void unroll_set_probe(struct unroll *u, plan_probe probe, void *arg); /* NULL: none; both of its plans */
struct op_call plan_call(const struct eng_plan *p, const struct node *n);
void *eng_alloc(uint64_t bytes);                   /* 64-aligned; free with free() */

#endif
