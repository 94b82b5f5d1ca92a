/* plan.h - a compiled network, for plan.c, place.c, blocks.c, pass.c, unroll.c and those who show plans. */
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
    bool     redo, stays;      /* val and dot, on the way back: computed again; still there (neither: not read) */
    bool     kept[N_BUFFERS];  /* lies in the step's kept memory, not in the arena */
    uint64_t place[N_BUFFERS]; /* bytes into either */
    uint64_t again[2];         /* VAL, DOT on the way back: place[], but after a redo */
    int      passing[N_BUFFERS + 2]; /* images it has room for where it lives within one run of blocks (blocks.c); 0: all. VAL and
                                      * DOT that were computed again are the last two */
};
enum { N_USES = N_BUFFERS + 2 };
/* Which of a tensor's passing[] a buffer is. */
static inline int plan_use(const struct tensor *t, int buffer, bool back) { return back && t->redo && buffer <= DOT ? N_BUFFERS + buffer : buffer; }

struct node {
    enum op         op;
    struct net_attr at;
    int             n_in, in[OP_MAX_IN], out;
    bool            acc[OP_MAX_IN];
    int             net_node;  /* which layer it comes from */
    uint64_t        aux, aux_bytes; /* bytes into the arena, or into the kept memory of a plan that has any */
    uint64_t        running;   /* batch norm: elements before its own in the running statistics */
};

/* For profiling (bench/engine --ops): called in place of an op's rule, which it must run as fn(c). `rule` is its number in
 * struct op_rules, in the order of declaration. */
typedef void (*plan_probe)(void *arg, const struct eng_plan *p, int node, int rule, op_rule fn, const struct op_call *c);

/* One call of a rule (blocks.c). At the first of a run of steps that go block by block: how many, the images of a block in a plain and
 * in a tangent pass for one thread, what they are a multiple of, and what they may be at most, whatever the threads. */
enum { STEP_MOST = 24 };       /* steps of one run */
struct step { int node; bool again; enum op_part part; int run, images[2], least, most; };

/* Before node `before` goes back, node `node` goes forward once more. */
struct redo { int before, node; };

/* What the places are to achieve. */
struct plan_wish {
    uint64_t at_most;          /* where the plan would take more bytes, cheap ops are computed again; UINT64_MAX: never */
    bool     keep;             /* what a tangent pass can use of the plain pass before it lies in memory apart: kept_bytes */
    size_t (*const *scratch)(const struct op_call *c); /* [OP_COUNT] of a device (device.h); NULL: the CPU's */
};

struct eng_plan {
    struct net      net;       /* owned copy */
    enum eng_dtype  dtype;
    const struct kernels *k;
    int             batch, n_tensors, n_nodes, input, output;
    unsigned        need;
    struct tensor  *tensor;
    struct node    *node;
    bool           *unread;    /* [net.n_params] the output does not depend on it: its gradient is zero */
    struct redo    *redo;      /* in the order of the way back */
    int             n_redo;
    uint64_t       *alive;     /* [n_times] bytes in use at each time of the pass (place.c), of arena without scratch */
    int             n_times;
    struct step    *forth, *back; /* what a pass calls, in order */
    int             n_forth, n_back;
    uint64_t        scratch, scratch_bytes, bytes;
    uint64_t        kept_bytes; /* of one plain pass; 0 without plan_wish.keep */
    char           *arena, *kept; /* kept: set before each pass */
    bool            owns_arena;
    void           *running;   /* mean, var of each batch norm */
    bool            evaluation;
    struct eng_pool *pool;     /* borrowed */
    plan_probe      probe;     /* NULL, but in a profile */
    void           *probe_arg;
    eng_watch       watch;     /* NULL: nobody looks at rectifiers */
    void           *watch_arg;
};

/* Everything but the arena. wish NULL: nothing kept, nothing computed again. */
int  plan_compile(const struct net *net, int batch, enum eng_dtype t, unsigned need, const struct plan_wish *wish, struct eng_plan **out, struct errbuf *e);
/* What one call brings, beside the arena: parameters w in direction u, images; where gradients go. */
struct plan_bound {
    const void *w, *u, *x;
    void *g, *hu, *gx, *xu;
    bool back;           /* on the way back, where values may lie elsewhere */
    bool kept;           /* a tangent pass over what the plain pass has kept */
};
/* The rules of one way, each through p->probe where there is one. Losses lie between the two ways, and are the caller's, as are the
 * zeros of unread parameters' gradients. */
void plan_forth(const struct eng_plan *p, const struct plan_bound *b, bool dual);
void plan_back(const struct eng_plan *p, const struct plan_bound *b, bool dual);
struct op_view plan_output(const struct eng_plan *p); /* logits and their adjoint; the buffers lie in the arena */
int  plan_place(struct eng_plan *p, const struct plan_wish *wish, struct errbuf *e);
/* The steps of both ways and their runs, from nodes and redo; and which buffers pass. */
int  plan_steps(struct eng_plan *p, struct errbuf *e);
bool plan_keeps_in(const struct node *n);          /* its backward reads its inputs, its output */
bool plan_keeps_out(const struct node *n);
void plan_attach(struct eng_plan *p, void *arena); /* borrowed, p->bytes, 64-aligned */
/* eng_grad that also gives the logits ([B,K], NULL: not wanted). */
double plan_grad(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, void *gx, void *logits);
/* eng_tangent after plan_grad on the same arguments, the same p->kept and g NULL: takes from there what it can. */
double plan_tangent_kept(struct eng_plan *p, const void *w, const void *x, const void *y, const void *u, void *hu, void *xu, void *yu);
/* Operations of a rule of struct op_rules on the step's way (2 a multiply-add; 0 for all but products), cost.c. `kept`: the
 * tangent pass finds what the plain pass has kept. The gradient with respect to the image counts in the tangent alone. */
uint64_t plan_flops(const struct eng_plan *p, int node, int rule, bool kept);
uint64_t plan_pass_flops(const struct eng_plan *p, int rule, bool kept); /* of all; what is computed again belongs to the way back */

/* An unroll's plans and sizes in bytes, borrowed from it. */
struct unroll_view {
    const struct eng_plan *step, *keeper, *real;  /* keeper, real: may be NULL; step runs where fewer than T steps keep */
    int      n_kept;
    uint64_t arena, kept, rows, total;            /* rows: weights, states, gradients, adjoints */
};
struct unroll_view unroll_view(const struct unroll *u);
/* unroll_new without memory: to be looked at and freed alone. */
int unroll_plan(const struct unroll_cfg *c, struct unroll **out, struct errbuf *e);
void unroll_set_probe(struct unroll *u, plan_probe probe, void *arg); /* NULL: none; both of its plans */
struct op_call plan_call(const struct eng_plan *p, const struct node *n);
void *eng_alloc(uint64_t bytes);                   /* 64-aligned; free with free() */

#endif
