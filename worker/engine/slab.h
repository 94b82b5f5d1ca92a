/* slab.h - K learners of one network, trained side by side on a device (device.h): what unroll.c is to one learner on the CPU.
 *
 * All learners see the same images and step sizes, and the same real batches or each its own; each has its own initial weights. Shapes and
 * layouts are the engine's internal ones (engine.h), float32. The work of a call is recorded the second time and played from then on: no
 * host waits inside it. A slab has a queue of its own, so that several started before the first is waited for fill the device. Thread: one
 * thread at a time. Errors: -ERR_NOMEM where the device has no room for K, -ERR_UNAVAILABLE where
 * it failed. Source: forward-over-reverse meta-gradients (MixFlow-MG, arXiv:2505.00793), as unroll.c. */
#ifndef DIDACT_ENGINE_SLAB_H
#define DIDACT_ENGINE_SLAB_H

#include "worker/engine/device.h"

enum { SLAB_MAX_META = 17, SLAB_MAX_SNAPS = 17, SLAB_MAX_LEARNERS = DEVICE_MAX_K };

struct slab_cfg {
    const struct net *learner;       /* borrowed during slab_new */
    const struct device *device;
    int               K, T, B;
    int               meta_batch;    /* images of each real batch; 0: training alone */
    int               n_meta;        /* real batches, each at its step with its weight */
    struct { int step; double weight; } meta[SLAB_MAX_META];
    int               n_snaps, snap[SLAB_MAX_SNAPS]; /* training alone: steps (rising) after which weights are wanted */
    bool              own_meta;      /* of every learner's own: meta[i].x, y, row of slab_in are [K,…] */
    bool              want_dx, want_dy;
    bool              apart;         /* each learner's dx and dy stay on the device until the next start, for slab_weigh; no sum is made */
    struct inner_cfg  inner;
};
struct slab_in {
    const float  *w0;                /* [K,P] */
    const float  *x, *y;             /* [T,B,H,W,C], [T,B,classes] */
    void         *after;             /* NULL: x and y lie on the host. Else on the device, made by what this queue has been given so far */
    const double *lr, *mu;           /* [T] */
    const struct dev_data *real;     /* NULL: x and y of meta are the host's. Else data on the device, of which row names images */
    struct { const float *x, *y; const int *row; } meta[SLAB_MAX_META]; /* [meta_batch,H,W,C], [meta_batch,classes]; or [meta_batch], of the host */
};
struct slab_out {                    /* NULL: not wanted; all overwritten */
    double *meta_loss;               /* [K] J of each learner */
    double *inner_loss;              /* [K,T] */
    float  *wT, *vT;                 /* [K,P]; vT: the optimiser's first state, of SGD and LARS the momentum */
    float  *snap;                    /* [n_snaps,K,P] */
    float  *dw0;                     /* [K,P] */
    float  *dx, *dy;                 /* as x, y: summed over all K, also over one that `failed`; not with `apart` */
    double *dx2, *dy2;               /* [K] sums of squares of each learner's; with `apart` */
    double *dlr, *dmu;               /* [K,T] */
    int    *failed;                  /* [K] the inner step at which it stopped being finite, T: on the way back; -1: it did not */
};
struct slab;
int      slab_new(const struct slab_cfg *c, struct slab **out, struct errbuf *e);
void     slab_free(struct slab *s); /* waits where it was started */
uint64_t slab_bytes(const struct slab *s);
/* Device bytes that slab_new will take, exact. */
int      slab_predict(const struct slab_cfg *c, uint64_t *bytes, struct errbuf *e);
/* n learners in as few slabs as the budget asks for, all of K (the last one may have fewer) and of `bytes`; c->K does not count. K 0: not
 * one learner fits, `bytes` is what it would need. */
int      slab_fit(const struct slab_cfg *c, uint64_t budget, int n, int *K, uint64_t *bytes, struct errbuf *e);
/* Queue the work; what `in` points at on the host is free again afterwards, on the device when slab_wait has returned. */
int      slab_start(struct slab *s, const struct slab_in *in, struct errbuf *e);
int      slab_wait(struct slab *s, const struct slab_out *out, struct errbuf *e);
int      slab_run(struct slab *s, const struct slab_in *in, const struct slab_out *out, struct errbuf *e); /* both */
/* With `apart`, after slab_wait: dx += sum of weight[k] dx_k in order of k, dy likewise, on the device (NULL: not wanted), as work of
 * `queue`; a learner of weight 0 is left out, whatever it says. The next slab_start must come `after` that queue. weight [K]: host. */
void     slab_weigh(struct slab *s, void *queue, const double *weight, float *dx, float *dy);

/* The most weight vectors at a time, up to n, whose answers are found in `budget` bytes of the device; 0: not one's. */
int      slab_accuracy_fit(const struct device *d, const struct net *net, int batch, uint64_t budget, int n, int *K, struct errbuf *e);
/* Correct answers of K weight vectors [K,P] (host) on n images [n,H,W,C], in batches of `batch` (the last one must be whole). */
int      slab_accuracy(const struct device *d, const struct net *net, int K, int batch, int n, const float *w, const float *x, const int *label,
                       int *right /* [K] */, struct errbuf *e);

#endif
