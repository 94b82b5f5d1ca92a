/* device.h - a device that trains K learners of one network at once, as slab.c asks it to: memory, a stream of work, and the
 * rules of every op for all K.
 *
 * Everything of one kind lies K times, `step` bytes apart: the arena's buffers, the parameter vectors, the images or, with step 0,
 * images that all learners share. Calls are queued and done in order; only wait() and get() wait. Queues run side by side. A device's own code is a shared object
 * (cuda/, didact-cuda.so) that names its `struct device` by device_find; nothing else in the worker knows what it is made of.
 * Buffers are float32. Sums have an order that the shapes fix: the same bits run after run on one kind of device. */
#ifndef DIDACT_ENGINE_DEVICE_H
#define DIDACT_ENGINE_DEVICE_H

#include "worker/engine/op.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DEVICE_SHARE 0.8 /* of the memory that is free, where no budget says more: others may use the device, too */
#define DEVICE_ABI 6

/* One rule of one op for all learners: c's pointers are the first learner's. */
struct dev_call {
    struct op_call c;
    int            K;
    int64_t        in_val[OP_MAX_IN], in_adj[OP_MAX_IN]; /* bytes from one learner's val (and dot), adj (and adj_dot) to the next one's */
    int64_t        out_val, out_adj, aux, scratch;
    unsigned      *ticket;                           /* device, DEVICE_TICKETS a learner: 0 before a call and after it */
    void          *queue;
};
#define DEVICE_TICKETS(channels) (((channels) + 31) / 32) /* of the tensor with the most channels */
typedef void (*dev_rule)(const struct dev_call *c);
enum { DEV_FORWARD, DEV_BACKWARD, DEV_DUAL_FORWARD, DEV_DUAL_BACKWARD, DEV_RULES };

enum { DEVICE_MAX_K = 1000 };                        /* a grid has 65535 blocks in z: K times the splits of a product, 64 at most */

struct dev_rows { void *at; int64_t step; };         /* K vectors, step bytes apart */

/* Labelled images that stay on the device as a dataset has them, in bytes; all pointers are the device's. */
struct dev_data {
    const uint8_t *images;                           /* [rows,C,H,W] */
    const int     *label;                            /* [rows] */
    const float   *value;                            /* [256] what a byte is as a network's input */
    int            c, hw, classes;
};

/* One update of the inner optimiser, or its adjoint (cpu/optim.c has the equations). */
struct dev_optim {
    const struct inner_cfg    *cfg;
    const struct optim_tensor *tensor;               /* device */
    int             n_tensors, K, t;
    uint64_t        P, state;                        /* elements from one state to the next (and of their adjoints) */
    const double   *lr, *mu;                         /* device, [T] */
    struct dev_rows w, s, w2, s2, g;                 /* w2, s2: of step t + 1; g: the shaped gradient */
    struct dev_rows a, b, q;                         /* adjoints; q out */
    struct dev_rows raw;                             /* the gradient before it was shaped (unshape; NULL unless clipped) */
    double         *dlr, *dmu, *prod_bar;            /* device; [K][T], [K][T], [K] */
    int             T;
    int            *failed;                          /* device, [K]: of step, as watch() with code t for w2 and all of s2 but its first state */
    void           *scratch;                         /* device, optim_scratch bytes */
    void           *queue;
};

struct dev_loss {
    int             K, B, classes;
    struct dev_rows logits, dot, y, gs, gs_dot, yu;  /* yu.at may be NULL; dot.at NULL: plain */
    double         *loss;                            /* device; += weight * loss with add */
    int64_t         loss_step;                       /* in doubles */
    double          weight;
    bool            add;
    int            *failed, code;                    /* as watch(), for the loss; NULL: nobody asks */
    void           *queue;
};

struct device {
    int         abi;                                 /* DEVICE_ABI */
    const char *kind;                                /* "cuda", "cuda-tf32": the device class of jobs and scores */
    const char *(*name)(void);                       /* "NVIDIA H100 80GB HBM3" */
    uint64_t    (*free_bytes)(void);
    bool        (*works)(void);                      /* false: it does nothing more in this process, only a new one may find it well again */

    void *(*alloc)(uint64_t bytes);                  /* 256-aligned; NULL: no room */
    void  (*release)(void *p);                       /* when no queue uses it any more */
    void *(*queue_new)(void);
    void  (*queue_free)(void *q);
    void  (*after)(void *q, void *earlier);          /* what q is given from now on begins when all that `earlier` has been given is done */
    void  (*put)(void *q, void *dst, const void *host, uint64_t bytes);  /* host is free again when it returns */
    void  (*wait)(void *q);                          /* until what it has been given is done; what failed stays for get() to tell */
    int   (*get)(void *q, void *host, const void *src, uint64_t bytes, struct errbuf *e); /* waits; what failed before shows here */

    /* Work recorded once and run many times; begin false: not offered, work runs as it is queued. */
    bool  (*begin)(void *q);
    void *(*end)(void *q);
    void  (*play)(void *q, void *recorded);
    void  (*forget)(void *recorded);

    dev_rule rule[OP_COUNT][DEV_RULES];
    size_t (*scratch[OP_COUNT])(const struct op_call *c); /* bytes of one learner; NULL: none */

    /* Of each learner n images and their one-hot labels, in the engine's layout: row, [K,n] on the device, says which. */
    void (*draw)(void *q, int K, int n, const struct dev_data *from, const int *row, struct dev_rows x, struct dev_rows y);
    void (*copy)(void *q, int K, struct dev_rows dst, struct dev_rows src, uint64_t bytes);
    void (*zero)(void *q, int K, struct dev_rows dst, uint64_t bytes);
    void (*affine)(void *q, int K, uint64_t n, double a, double b, struct dev_rows x, struct dev_rows y); /* y = a x + b */
    void (*axpy)(void *q, int K, uint64_t n, double a, struct dev_rows x, struct dev_rows y);             /* y += a x */
    void (*total)(void *q, int K, uint64_t n, struct dev_rows x, float *sum);      /* sum over learners, in order */
    /* sum += the weighted sum over learners, in order; one of weight 0 is left out, whatever its numbers are. weight: device, [K] */
    void (*weigh)(void *q, int K, uint64_t n, const double *weight, struct dev_rows x, float *sum);
    uint64_t (*squares_scratch)(int K);
    void (*squares)(void *q, int K, uint64_t n, struct dev_rows x, double *sum, void *scratch);           /* sum[k] = |x_k|^2 */
    /* failed[k] = min(failed[k], code) where one of learner k's n numbers is not finite */
    void (*watch)(void *q, int K, uint64_t n, struct dev_rows x, int *failed, int code);
    void (*loss)(const struct dev_loss *l);
    void (*count_correct)(void *q, int K, int n, int classes, struct dev_rows logits, const int *label, int *right); /* right[k] += */
    uint64_t (*optim_scratch)(int K, int n_tensors);
    void (*shape)(const struct dev_optim *o, struct dev_rows out);                 /* out from raw and w; out may be raw */
    void (*unshape)(const struct dev_optim *o);                                    /* a and q from raw */
    void (*step[INNER_TYPE_COUNT])(const struct dev_optim *o);
    void (*adjoint[INNER_TYPE_COUNT])(const struct dev_optim *o);
};

/* What the shared object exports. The first three are of every version: one of another can refuse. */
typedef const struct device *(*device_entry)(int abi, int number, struct errbuf *e, const char *kind);
#define DEVICE_ENTRY "didact_device"

/* The device `kind` of this machine, loaded once; NULL and e where there is none. `number`: which of several. What stands before a '-' in the kind
 * names the backend: "cuda" has float32 products, "cuda-tf32" and "cuda-bf16" round a product's factors (cuda/products.cuh).
 * DIDACT_CUDA names the shared object; else it is looked for beside the program and in its ../lib/didact. */
const struct device *device_find(const char *kind, int number, struct errbuf *e);
/* "cpu" (*out NULL), "cuda", "cuda:1", "cuda-tf32:1" …; -ERR_USAGE for anything else, -ERR_UNAVAILABLE where it is not there. */
int device_open(const char *text, const struct device **out, struct errbuf *e);

#ifdef __cplusplus
}
#endif
#endif
