/* op.h - what an operation is inside the engine: a row of the op table with four rules.
 *
 *   forward         y  = f(x)
 *   backward        gx = f'(x)^T gy
 *   dual_forward    y and its tangent:  dy/de of f(x + e xdot)
 *   dual_backward   gx, and its tangent along the same direction (second order, without a graph of a graph)
 *
 * A plan (plan.c) resolves every tensor to up to four buffers and calls the rules in order. `val` is the value,
 * `dot` its tangent, `adj` the adjoint, `adj_dot` the adjoint's tangent. NULL means: known to be zero (dot), or not
 * wanted (adj, adj_dot of an input). With `acc` an input's adjoint is added to, not overwritten (it has other
 * consumers that came first).
 *
 * Parameters are tensors like any other: conv's inputs are (x, w). Their adjoints lie in the flat gradient. */
#ifndef DIDACT_ENGINE_OP_H
#define DIDACT_ENGINE_OP_H

#include "common/net.h"
#include "worker/engine/engine.h"

#define OP_MAX_IN NET_MAX_IN

/* One list makes the enum, the tables of every kernel variant and the tests: a row is a file op/NAME.c or part of one. */
#define OP_LIST(X)                                                                                      \
    X(OP_CONV, conv)         /* x [N,H,W,Ci], w [k,k,Ci/groups,Co] -> y; linear is k = 1 on 1 x 1 */    \
    X(OP_UPCONV, upconv)     /* x [N,H,W,Ci], f [4,4,Co,Ci] -> y: doubled, then 3 x 3. Pad 1: y is [N,2H,2W,Co]; pad 0, after an edgepad: \
                              * [N,2H-4,2W-4,Co] */                                                      \
    X(OP_FOLD, fold)         /* w [3,3,Ci,Co] -> f of an upconv */                                       \
    X(OP_DWCONV, dwconv)     /* x [N,H,W,C], w [k,k,1,C] -> y */                                        \
    X(OP_BIAS, bias)         /* x + b per channel */                                                    \
    X(OP_WNORM, wnorm)       /* v [rows,Co], g [Co] -> g v / |v| per column */                          \
    X(OP_BN, bn)             /* x, gain, bias (mean_only: x, bias) -> act(norm(x)) */                   \
    X(OP_LRELU, lrelu)                                                                                  \
    X(OP_TANH, tanh)                                                                                    \
    X(OP_MAXPOOL, maxpool)                                                                              \
    X(OP_AVGPOOL, avgpool)                                                                              \
    X(OP_GAP, gap)                                                                                      \
    X(OP_FLATTEN, flatten)   /* [N,H,W,C] -> [N, C*H*W] in the outside order c,h,w */                   \
    X(OP_UNFLATTEN, unflatten) /* and back */                                                           \
    X(OP_UP2, up2)                                                                                      \
    X(OP_REFLECTPAD, reflectpad)                                                                        \
    X(OP_EDGEPAD, edgepad)   /* the edge repeated once all around */                                    \
    X(OP_ADD, add)                                                                                      \
    X(OP_CONCAT, concat)
#define OP_ENUM(e, n) e,
enum op { OP_LIST(OP_ENUM) OP_COUNT };
#undef OP_ENUM

struct op_view {
    void *val, *dot, *adj, *adj_dot;
    struct net_shape s;            /* per image; of a parameter: c = its last dimension, h = the product of the others */
    bool acc;
};

/* Which part of a rule that needs sums over all images (op_traits.gathers) a call is to do. */
enum op_part { OP_WHOLE, OP_GATHER, OP_APPLY };

/* A call may be for a block of the batch's images alone: batch of total, after `first` others that went before it, in order. What
 * is summed over images then goes on from where the block before has left it; first = 0 begins, the last block ends it. */
struct op_call {
    int             batch, first, total;
    enum op_part    part;
    struct net_attr at;
    int             n_in;
    struct op_view  in[OP_MAX_IN], out;
    void           *aux;           /* kept from forward to backward */
    void           *scratch;       /* of the plan, shared by all ops */
    struct eng_pool *pool;         /* may be NULL */
    bool            blas;          /* large products may go to OpenBLAS (ENG_BLAS) */
    bool            evaluation;    /* batch norm: running statistics */
    bool            again;         /* forward rules: a second time, aux as the first time left it; nothing else may change */
    bool            kept;          /* dual_forward: out.val (NULL: nobody needs it) and aux are there, the tangent alone is wanted */
    void           *running;       /* batch norm: mean [C], var [C]; NULL: not kept */
    double          running_momentum;
};

typedef void (*op_rule)(const struct op_call *c);
struct op_rules { op_rule forward, backward, dual_forward, dual_backward; };

/* What the planner has to know about an op, whatever the kernel variant. */
struct op_traits {
    const char *name;
    bool keeps_in;                 /* backward reads val (and dot) of its inputs */
    bool keeps_out;                /* backward reads val (and dot) of its output; dual_forward too may then read its val */
    bool keeps_adj;                /* dual_backward reads adj of its output */
    bool by_image;                 /* may be called for blocks of images (op_call.first) */
    bool gathers;                  /* needs sums over all images before it can say anything of one: op_part */
    int  again;                    /* what computing an element again costs, in passes over it; 0: too much to consider */
};
extern const struct op_traits op_traits[OP_COUNT];

/* ---- one kernel variant: everything whose code depends on the real type or the instruction set ---- */
struct optim_tensor { uint64_t offset, size; int ndim; };
struct optim_ctx {
    const struct inner_cfg    *cfg;
    const struct optim_tensor *tensor;
    int      n_tensors;
    uint64_t P, stride;            /* stride: elements from one state (and its adjoint) to the next */
};
struct optim_at {                  /* where in the training: step t with its lr and mu */
    int    t;
    double lr, mu;
    double prod;                   /* of mu_i, i < t */
    double prod_bar;               /* way back: adjoint of that product after step t, carried from step to step */
};
struct optim_back {
    const void *w, *s, *s2, *g;    /* w_t, states before and after, shaped gradient (NULL unless needs_g) */
    void *a, *b, *q;               /* adjoints of w_{t+1} and of the states (updated); out: adjoint of g */
    double *dlr, *dmu;
};
/* One inner optimiser: w', s' from (w, s, g); and the way back. Equations stand in cpu/optim.c. */
struct optim_row {
    int  n_states;                 /* vectors of P numbers beside w; the first is what `out.vT` shows */
    bool needs_g;                  /* the adjoint reads g_t: the unroll keeps it */
    void (*step)(const struct optim_ctx *c, const struct optim_at *t, const void *w, const void *s, const void *g, void *w2, void *s2);
    void (*adjoint)(const struct optim_ctx *c, struct optim_at *t, const struct optim_back *k);
};

struct kernels {
    const char    *name;
    enum eng_dtype dtype;
    struct op_rules op[OP_COUNT];
    size_t (*aux[OP_COUNT])(const struct op_call *c);      /* bytes kept from forward to backward; NULL: none */
    size_t (*scratch[OP_COUNT])(const struct op_call *c);  /* bytes for one call's own use */
    const char *(*way[OP_COUNT])(const struct op_call *c, bool transposed);  /* which of an op's kernels; NULL: it has one */
    const struct optim_row *optim;                         /* [INNER_TYPE_COUNT] */
    double (*loss)(int B, int K, const void *logits, const void *y, void *gs);      /* gs NULL: value only */
    /* gs and gs_dot from logits and their tangents; yu may be NULL */
    double (*dual_loss)(int B, int K, const void *logits, const void *sdot, const void *y, void *gs, void *gs_dot, void *yu);
    void   (*shape_gradient)(const struct optim_ctx *c, const void *w, const void *g, void *out);   /* clip, weight decay; out may be g */
    void   (*unshape_gradient)(const struct optim_ctx *c, const void *g, void *a, void *q);         /* its adjoint; g NULL unless clipped */
    void   (*affine)(uint64_t n, double a, double b, const void *x, void *y);                       /* y = a x + b; y may be x */
    void   (*axpy)(uint64_t n, double a, const void *x, void *y);
    double (*dot)(uint64_t n, const void *x, const void *y);
    bool   (*finite)(uint64_t n, const void *x);
    int    (*count_correct)(const void *logits, int n, int K, const int *label);
};
const struct kernels *eng_kernels(enum eng_dtype t);
bool eng_blas_serves(void); /* OpenBLAS has kernels for this CPU; where not, ENG_BLAS changes nothing. After eng_init */

/* Run fn(arg, i) for i in [0, n); order free, outputs disjoint. pool NULL: in this thread. */
void eng_pool_for(struct eng_pool *p, int n, void (*fn)(void *arg, int i, int thread), void *arg);
int  eng_pool_threads(const struct eng_pool *p); /* 1 for NULL */

#endif
