/* net.h - the description of a network: a directed acyclic graph of layers, with its shapes,
 * parameters and exact costs. No tensors here: the coordinator uses it for constraints, the client
 * for exports, the engine compiles it into a plan.
 *
 * Nodes stand in evaluation order; node 0 is the input. A node's inputs have smaller numbers.
 * Shapes are per image: c channels, h x w places; a flat vector of D features is c = D, h = w = 1,
 * flat = true. Everything outside the engine is row-major [N,C,H,W] with weights [out, in/groups, k, k].
 * Thread: a net is plain data; build it in one thread, then read it from any. */
#ifndef DIDACT_NET_H
#define DIDACT_NET_H

#include "common/err.h"

#include <stdint.h>

#define NET_MAX_NODES 4096
#define NET_MAX_IN    16
#define NET_MAX_DIM   65536        /* of any channel count or side */
#define NET_MAX_ELEMS (1u << 30)   /* of any one image's activation, or one parameter tensor */
#define NET_MAX_PARAMS (UINT64_C(1) << 34) /* of the whole network */

/* enum, name in layer lists and plans */
#define NET_OPS(X)              \
    X(NET_INPUT, "input")       \
    X(NET_CONV, "conv")         \
    X(NET_LINEAR, "linear")     \
    X(NET_BN, "bn")             \
    X(NET_LRELU, "lrelu")       \
    X(NET_TANH, "tanh")         \
    X(NET_MAXPOOL, "maxpool")   \
    X(NET_AVGPOOL, "avgpool")   \
    X(NET_GAP, "gap")           \
    X(NET_FLATTEN, "flatten")   \
    X(NET_RESHAPE, "reshape")   \
    X(NET_UP2, "up2")           \
    X(NET_REFLECTPAD, "reflectpad") \
    X(NET_ADD, "add")           \
    X(NET_CONCAT, "concat")
#define NET_ENUM(e, s) e,
enum net_op { NET_OPS(NET_ENUM) NET_OP_COUNT };
#undef NET_ENUM

struct net_shape {
    int  c, h, w;
    bool flat; /* a vector: linear takes only these */
};

/* Everything a layer can be told. Fields that an op does not use are zero. relu is lrelu with slope 0;
 * dwconv is conv with groups = in = out; sepconv is two conv nodes whose weights are called dw and pw. */
struct net_attr {
    int    out;                     /* conv: channels; linear: features */
    int    k, stride, pad, dilation, groups;
    bool   bias, wn, mean_only;     /* wn: weight = g * v / |v| per output channel */
    double eps, slope;              /* bn; lrelu */
    int    c, h, w;                 /* reshape: to what */
    const char *weight_name;        /* "weight" unless set ("dw", "pw"); a string literal */
};

struct net_node {
    enum net_op      op;
    struct net_attr  at;
    int              n_in, in[NET_MAX_IN];
    struct net_shape shape;         /* of the output, inferred */
    int              param0, n_params;
    char             path[56];      /* "3.body.1": where it stands in the layer list, for messages and names */
};

enum net_role { NET_WEIGHT, NET_WEIGHT_V, NET_WEIGHT_G, NET_BIAS, NET_BN_GAIN, NET_BN_BIAS, NET_ROLE_COUNT };

struct net_param {
    char          name[72];         /* "3.body.1.weight" */
    enum net_role role;
    int           node, ndim, dim[4];
    uint64_t      size, offset;     /* elements; offset in the flat vector of all P parameters */
    uint64_t      fan_in;           /* of weights */
    int           stream;           /* of its initial values: its number when it was added, whatever is pruned later */
};

struct net {
    int               n_nodes, cap_nodes, n_params, cap_params, out;
    struct net_node  *node;         /* owned */
    struct net_param *param;        /* owned */
    uint64_t          param_count;  /* P */
};

/* Start with the input [c,h,w] (h = w = 0: a flat vector of c). */
int  net_init(struct net *n, int c, int h, int w, struct errbuf *e);
void net_fini(struct net *n);
int  net_copy(struct net *dst, const struct net *src, struct errbuf *e);
/* The same layers, shapes, parameters and streams of initial values in the same order: what one computes with a vector of parameters the
 * other one does, too. Names do not count. */
bool net_same(const struct net *a, const struct net *b);

/* Append a node; returns its index, or -ERR_SHAPE / -ERR_INPUT / -ERR_NOMEM with `path` named in e.
 * The last added node is the network's output until net_set_out says otherwise. Calls nest: an input that is itself a
 * negative error comes back unchanged, and `e` keeps the first message. */
int net_add(struct net *n, enum net_op op, const int *in, int n_in, const struct net_attr *at, const char *path,
            struct errbuf *e);

int  net_set_out(struct net *n, int node, struct errbuf *e); /* -ERR_INPUT where there is no such node */
/* Take out the layers that the output does not depend on, with their parameters; the input stays. What is left keeps its order, its
 * names and its initial weights, so it computes the same. */
void net_prune(struct net *n);

/* Shorthands for builders; all return the new node's index or a negative error. path may be NULL ("nodeN"). */
int net_conv(struct net *n, int src, int out, int k, int stride, int pad, const char *path, struct errbuf *e);
int net_dwconv(struct net *n, int src, int k, int stride, int pad, const char *path, struct errbuf *e);
int net_linear(struct net *n, int src, int out, const char *path, struct errbuf *e);   /* with bias */
int net_bn(struct net *n, int src, bool mean_only, const char *path, struct errbuf *e);
int net_lrelu(struct net *n, int src, double slope, const char *path, struct errbuf *e);
int net_pool(struct net *n, enum net_op op, int src, int k, int stride, int pad, const char *path, struct errbuf *e);
int net_unary(struct net *n, enum net_op op, int src, const char *path, struct errbuf *e); /* gap flatten tanh up2 */
int net_add2(struct net *n, int a, int b, const char *path, struct errbuf *e);

/* Multiply-adds of one image's forward pass, bilinear layers only (what papers call MACs; FLOPs = 2 x MACs). */
uint64_t net_macs(const struct net *n);
uint64_t net_node_macs(const struct net *n, int node);
/* Elements of all activations of one image. */
uint64_t net_activation_elems(const struct net *n);

const char *net_op_name(enum net_op op);

/* A layer list in the vocabulary of the oracle cases (JSON array; see docs/networks.md) appended to `n`.
 * `where` opens every message ("learner"). An unknown key or type is -ERR_INPUT naming the layer's path. */
struct json_t;
int net_from_json(struct net *n, const struct json_t *layers, const char *where, struct errbuf *e);

#endif
