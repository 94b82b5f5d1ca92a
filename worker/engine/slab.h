/* slab.h - K learners of one network, trained side by side on a device (device.h): what unroll.c is to one learner on the CPU.
 *
 * All learners see the same images, step sizes and real batches; each has its own initial weights. Shapes and layouts are the
 * engine's internal ones (engine.h), float32. The work of a call is recorded the second time and played from then on: no host
 * waits inside it. Thread: one thread at a time. Errors: -ERR_NOMEM where the device has no room for K, -ERR_UNAVAILABLE where
 * it failed. Source: forward-over-reverse meta-gradients (MixFlow-MG, arXiv:2505.00793), as unroll.c. */
#ifndef DIDACT_ENGINE_SLAB_H
#define DIDACT_ENGINE_SLAB_H

#include "worker/engine/device.h"

enum { SLAB_MAX_META = 8, SLAB_MAX_SNAPS = 17, SLAB_MAX_LEARNERS = 1000 };

struct slab_cfg {
    const struct net *learner;       /* borrowed during slab_new */
    const struct device *device;
    int               K, T, B;
    int               meta_batch;    /* images of each real batch; 0: training alone */
    int               n_meta;        /* real batches, each at its step with its weight */
    struct { int step; double weight; } meta[SLAB_MAX_META];
    int               n_snaps, snap[SLAB_MAX_SNAPS]; /* training alone: steps (rising) after which weights are wanted */
    bool              want_dx, want_dy;
    struct inner_cfg  inner;
};
struct slab_in {
    const float  *w0;                /* [K,P] */
    const float  *x, *y;             /* [T,B,H,W,C], [T,B,classes] */
    const double *lr, *mu;           /* [T] */
    struct { const float *x, *y; } meta[SLAB_MAX_META]; /* [meta_batch,H,W,C], [meta_batch,classes] */
};
struct slab_out {                    /* NULL: not wanted; all overwritten */
    double *meta_loss;               /* [K] J of each learner */
    double *inner_loss;              /* [K,T] */
    float  *wT;                      /* [K,P] */
    float  *snap;                    /* [n_snaps,K,P] */
    float  *dw0;                     /* [K,P] */
    float  *dx, *dy;                 /* as x, y: summed over all K, also over one that `failed` */
    double *dlr, *dmu;               /* [K,T] */
    int    *failed;                  /* [K] the inner step at which it stopped being finite, T: on the way back; -1: it did not */
};
struct slab;
int      slab_new(const struct slab_cfg *c, struct slab **out, struct errbuf *e);
void     slab_free(struct slab *s);
uint64_t slab_bytes(const struct slab *s);
/* Device bytes that slab_new will take, exact. The largest K within a budget: slab_fit. */
int      slab_predict(const struct slab_cfg *c, uint64_t *bytes, struct errbuf *e);
int      slab_fit(const struct slab_cfg *c, uint64_t budget, int *K, struct errbuf *e); /* 0: not one fits */
int      slab_run(struct slab *s, const struct slab_in *in, const struct slab_out *out, struct errbuf *e);

/* Correct answers of K weight vectors [K,P] (host) on n images [n,H,W,C], in batches of `batch` (the last one must be whole). */
int      slab_accuracy(const struct device *d, const struct net *net, int K, int batch, int n, const float *w, const float *x, const int *label,
                       int *right /* [K] */, struct errbuf *e);

#endif
