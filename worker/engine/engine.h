/* engine.h - the meta-gradient engine's whole public face.
 *
 * A `struct net` (common/net.h) is compiled for one batch size and dtype into a `struct eng_plan`: order of
 * kernels, every buffer's offset in one arena. A plan runs a flat list of kernels and allocates nothing.
 *
 * Internal layouts (what "internal" means below; nobody outside needs to know more):
 *   images and activations [N,H,W,C]; conv weights [kh,kw,in/groups,out]; linear weights [in,out]; P parameters flat.
 * The import/export calls convert from and to the outside world's row-major [N,C,H,W] and [out,in/groups,k,k].
 *
 * Thread:  a plan or unroll is used by one thread at a time; different ones run side by side. `struct eng_pool`
 *          spreads the inside of one call over threads; results have the same bits for any number of them.
 * Source:  forward-over-reverse meta-gradients (MixFlow-MG, arXiv:2505.00793); Hessian-vector products, Pearlmutter 1994.
 */
#ifndef DIDACT_ENGINE_H
#define DIDACT_ENGINE_H

#include "common/engine_version.h"
#include "common/err.h"
#include "common/inner.h"
#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum eng_dtype { ENG_F32, ENG_F64 };
static inline size_t eng_dtype_size(enum eng_dtype t) { return t == ENG_F64 ? 8 : 4; }

/* ---- instruction set ---- */
/* Choose kernels once per process, before anything else: the best this CPU has, capped by `cap` ("portable", "avx2",
 * "avx512", "neon"; NULL or "": no cap). -ERR_UNAVAILABLE where `cap` is not available here, -ERR_USAGE if unknown.
 * Also sets flush-to-zero for the calling thread (eng_thread_init does it for others). */
int         eng_init(const char *cap, struct errbuf *e);
const char *eng_isa(void);          /* "avx2" … */
void        eng_thread_init(void);  /* call first in every thread that computes: denormals are flushed */

/* ---- threads inside one call ---- */
struct eng_pool;
int  eng_pool_new(int n_threads, struct eng_pool **out, struct errbuf *e); /* n_threads - 1 helpers; 1: none */
void eng_pool_free(struct eng_pool *p);

/* ---- parameters and images: in and out ---- */
/* Kaiming-uniform weights (bound sqrt(3) * gain / sqrt(fan_in), gain sqrt(2)), zero biases, unit gains, g = |v|; internal layout.
 * Keyed by (seed, RNG_WEIGHTS, the parameter's stream): the same bits on any machine. */
void eng_params_init(const struct net *n, enum eng_dtype t, uint64_t seed, void *w);
void eng_params_import(const struct net *n, enum eng_dtype t, const void *outside, void *internal); /* P elements each */
void eng_params_export(const struct net *n, enum eng_dtype t, const void *internal, void *outside);
/* n images [c,h,w] -> [h,w,c] and back, same dtype. */
void eng_images_import(enum eng_dtype t, size_t n, int c, int h, int w, const void *outside, void *internal);
void eng_images_export(enum eng_dtype t, size_t n, int c, int h, int w, const void *internal, void *outside);
/* 8-bit images [n,c,h,w] -> float32 internal, p / 127.5 - 1. */
void eng_images_from_u8(size_t n, int c, int h, int w, const uint8_t *pixels, float *internal);

/* ---- a compiled network ---- */
enum eng_need {
    ENG_FORWARD = 0,      /* logits only: activations are overwritten as soon as nobody needs them */
    ENG_GRAD = 1,         /* + gradients of the loss or of a given output adjoint with respect to parameters */
    ENG_INPUT_GRAD = 2,   /* + with respect to the input */
    ENG_TANGENT = 4,      /* + Hessian-vector products and mixed derivatives */
    ENG_RUNNING = 8,      /* batch norms keep running statistics (verify) */
    ENG_BLAS = 16,        /* large products by OpenBLAS where it knows the CPU: the same bits on this machine only, not on every one */
    ENG_WHOLE = 32        /* op by op over the whole batch, as eng_plan_watch needs it; the same bits in more time and memory */
};
struct eng_plan;
/* `net` is copied. -ERR_SHAPE / -ERR_NOMEM. All memory the plan will ever use is allocated here. */
int      eng_plan_new(const struct net *net, int batch, enum eng_dtype t, unsigned need, struct eng_plan **out, struct errbuf *e);
void     eng_plan_free(struct eng_plan *p);
uint64_t eng_plan_bytes(const struct eng_plan *p);  /* exact arena size */
/* The same without compiling or allocating anything big (what dry-run and scheduling use). */
int      eng_plan_predict(const struct net *net, int batch, enum eng_dtype t, unsigned need, uint64_t *bytes, struct errbuf *e);
void     eng_plan_set_pool(struct eng_plan *p, struct eng_pool *pool); /* borrowed; NULL: this thread alone */

/* Pointers below are internal layout, of the plan's dtype. w [P]; x [B,H,W,C]; logits [B,K]; y [B,K] used as they are.
 * Losses are means over the batch: l = -(1/B) sum y log softmax. */
void   eng_forward(struct eng_plan *p, const void *w, const void *x, void *logits /* may be NULL */);
double eng_loss(struct eng_plan *p, const void *logits, const void *y); /* no side effects */
/* Loss and gradient. g [P] overwritten. gx [B,H,W,C] overwritten, or NULL (needs ENG_INPUT_GRAD). */
double eng_grad(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, void *gx);
/* After eng_forward: pull an output adjoint [B,out] back; g [P] overwritten, gx may be NULL (generator backward). */
void   eng_backward(struct eng_plan *p, const void *w, const void *x, const void *gout, void *g, void *gx);
/* One tangent pass in direction u [P] at (w, x, y): hu [P] = H u; xu [B,H,W,C] = d/dx <grad_w l, u>; yu [B,K] = d/dy of the
 * same; g [P] = the gradient itself where not NULL. xu, yu may be NULL. Returns the loss. Overwrites. */
double eng_tangent(struct eng_plan *p, const void *w, const void *x, const void *y, const void *u,
                   void *hu, void *xu, void *yu, void *g);
/* Correct answers among argmax(logits) [n,K]; label[i] in [0,K). A NaN row counts as wrong. */
int    eng_count_correct(enum eng_dtype t, const void *logits, int n, int K, const int *label);

/* What a rectifier has just computed, for those who count signs: `val` [batch, elems] in internal layout, gone after the call. */
struct eng_rectified { enum eng_dtype dtype; int batch; uint64_t elems; const void *val; };
typedef void (*eng_watch)(void *arg, const struct eng_rectified *r);
/* Call `fn` after each (leaky) ReLU of a forward pass, those folded into a batch norm too, in the order of the plan. NULL: no more.
 * The plan must have been made with ENG_WHOLE. */
void   eng_plan_watch(struct eng_plan *p, eng_watch fn, void *arg);

/* Running statistics (ENG_RUNNING): eng_grad updates them with this momentum (new = (1-m) old + m batch);
 * in evaluation mode eng_forward uses them instead of the batch's. stats [eng_running_count] is mean and variance, layer by layer. */
void   eng_set_evaluation(struct eng_plan *p, bool on);
size_t eng_running_count(const struct net *n);
void   eng_running_get(const struct eng_plan *p, void *stats);
void   eng_running_set(struct eng_plan *p, const void *stats);

/* ---- T inner steps, and the way back ---- */
struct unroll_cfg {
    const struct net *learner;   /* borrowed during unroll_new */
    enum eng_dtype    dtype;
    int               T, B;
    int               meta_batch;    /* images of each real batch; 0: no way back, training alone */
    bool              want_dx, want_dy;
    struct inner_cfg  inner;
    /* Where the way back may take more memory, the last steps keep their activations and adjoints, as many as fit, and their
     * tangent pass computes only tangents; where less, cheap ops are computed again; -ERR_NOMEM where that does not do.
     * 0: no step keeps anything, and the real batch takes no more than a step where it can. The bits are the same. */
    uint64_t          budget_bytes;
};
/* A real batch whose loss, times weight, enters J after `step` inner steps (1 <= step <= T). */
struct unroll_meta {
    int         step;
    double      weight;
    const void *x, *y;               /* [meta_batch,H,W,C], [meta_batch,K] */
};
struct unroll_in {
    const void   *w0;                /* [P] */
    const void   *x, *y;             /* [T,B,H,W,C], [T,B,K] */
    const double *lr, *mu;           /* [T] */
    const struct unroll_meta *meta;  /* any order; usually one at step T with weight 1 */
    int           n_meta;
};
struct unroll_out {                  /* NULL members are not wanted; all overwritten */
    double  meta_loss;               /* J */
    double *inner_loss;              /* [T] */
    void   *wT, *vT;                 /* [P] */
    void   *logits;                  /* [meta_batch,K] of the meta batch at step T */
    void   *dw0;                     /* [P] */
    void   *dx, *dy;                 /* as x, y */
    double *dlr, *dmu;               /* [T] */
    int     failed_step;             /* of -ERR_DIVERGED */
};
struct unroll;
int      unroll_new(const struct unroll_cfg *c, struct unroll **out, struct errbuf *e);
void     unroll_free(struct unroll *u);
uint64_t unroll_bytes(const struct unroll *u);
int      unroll_predict(const struct unroll_cfg *c, uint64_t *bytes, struct errbuf *e);
void     unroll_set_pool(struct unroll *u, struct eng_pool *pool);
/* Forward and the way back. -ERR_DIVERGED when a loss, a weight or anything of `out` stops being finite: failed_step tells, e
 * names the step and the op that began ("not finite at inner step 3 of 32: output of layer 2.body.1 (dwconv)"). */
int      unroll_meta_grad(struct unroll *u, const struct unroll_in *in, struct unroll_out *out, struct errbuf *e);
/* Plain inner training in two weight buffers, nothing kept. `after_step(arg, t, w, loss)` runs after step t (1 … T) with the
 * current weights [P]; it returns false to stop early. Same bits as the forward half of unroll_meta_grad. */
int      unroll_train(struct unroll *u, const struct unroll_in *in, double *inner_loss, void *wT,
                      bool (*after_step)(void *arg, int t, const void *w, double loss), void *arg,
                      int *failed_step, struct errbuf *e);

/* ---- small vector operations on internal float buffers that teachers and verifiers need ---- */
void eng_axpy(enum eng_dtype t, uint64_t n, double a, const void *x, void *y);    /* y += a x */
double eng_dot(enum eng_dtype t, uint64_t n, const void *x, const void *y);        /* fixed order, double accumulation */
bool eng_finite(enum eng_dtype t, uint64_t n, const void *x);
/* After eng_grad gave a loss or gradient that is not finite: run it again and name the op that began, "output of layer
 * 2.body.1 (dwconv)". g [P] overwritten, running statistics updated once more. false, and what "", if all was finite. */
bool eng_nonfinite(struct eng_plan *p, const void *w, const void *x, const void *y, void *g, char *what, size_t cap);

#endif
