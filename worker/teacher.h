/* teacher.h - a teacher in training: what it learns, one meta-step, its checkpoint, its curriculum and how good that is.
 *
 * All that is learned is one flat vector theta, cut into parts: the generator's parameters, the inputs z_t, the labels, log
 * of the step sizes and logit of the momenta. A meta-step draws architectures, lets each learn from the current
 * images, and moves theta down the mean of the directions of their meta-gradients. Every random number is keyed by (seed, purpose, meta-step),
 * so a teacher restored from a checkpoint goes on bit for bit, with any number of threads.
 *
 * Thread: one caller at a time; a meta-step spreads its learners over `threads`. */
#ifndef DIDACT_WORKER_TEACHER_H
#define DIDACT_WORKER_TEACHER_H

#include "common/job.h"
#include "worker/adam.h"
#include "worker/datacache.h"
#include "worker/generator.h"

enum part { PART_GENERATOR, PART_Z, PART_IMAGES, PART_LABELS, PART_LR, PART_MU, PART_COUNT };

struct teach_eval {         /* one row of a teacher's history */
    double meta_step, seconds, meta_loss, accuracy, held_out;
};

struct teacher;
/* Of a generator's learned inputs (teacher_order.c). */
enum teacher_order { ORDER_LEARNED, ORDER_BATCHES, ORDER_ALL, ORDER_NONE };

/* The kinds of teachers: where x_t come from, and what becomes of their gradient. */
struct teacher_kind {
    const char *name;
    enum teacher_order order;
    bool has_generator, learns_images;                      /* images: by a generator or themselves; dx is wanted */
    /* Fills t->x, and t->y where they are not learned. A generator on a device leaves its images there unless `here`. */
    int  (*make_images)(struct teacher *t, uint64_t step, bool here, struct errbuf *e);
    int  (*images_u8)(struct teacher *t, uint8_t *out, float *labels, struct errbuf *e); /* of the curriculum, [T,B,C,H,W] */
};
const struct teacher_kind *teacher_kind_find(const char *name); /* NULL: none such */

struct device;
struct learner_run;
struct teacher_device;
struct teacher {
    struct teach_cfg cfg;
    uint64_t seed;
    const struct teacher_kind *kind;
    const struct real_data    *data;    /* borrowed */
    int      threads;
    uint64_t mem_bytes;                 /* budget; 0: none */
    const struct device *device;        /* borrowed; NULL: the CPU */
    uint64_t device_bytes;              /* of its memory: budget; 0: none */
    size_t   image, n_x, n_y;           /* elements of one image, of x, of y */

    struct { uint64_t first, n; double rate; } part[PART_COUNT]; /* rate: times the outer learning rate */
    uint64_t n_theta;
    float   *theta, *grad;              /* [n_theta]; adam.m and adam.v too */
    struct adam adam;
    struct generator *gen;              /* NULL where images are not learned */

    int     *label;                     /* [T*B]: the class each image is asked to show */
    uint32_t *slot;                     /* [T*B]: whose input a place shows; it, z and dz NULL where the order is learned */
    float   *z, *dz;                    /* [T*B,z_dim]: inputs as they are shown, and their gradient */
    const float *shown;                 /* z or, where the order is learned, theta's: of the last unfold */
    float   *x, *dx, *y, *dy;           /* [T,B,…], the engine's layout */
    double  *lr, *mu, *dlr, *dmu;       /* [T] */
    int      n_learners;                /* a meta-step: cfg.learners * cfg.inits */
    struct learner_run *run;            /* [n_learners] */
    struct teacher_device *dev;         /* NULL: learners train on the CPU */
    struct eng_pool   **pool;           /* inside a learner, where there are fewer learners than threads */
    int      n_crew;                    /* learners side by side */

    uint64_t meta_step;                 /* done so far */
    uint64_t left_out, skipped;         /* learners that diverged; meta-steps that changed nothing */
    int      skipped_in_a_row;
    double   norm_mean, last_norm, meta_loss;
    double   warm_mse;                  /* of the last warm pass: mean square error of a pixel (they span 2) */
    double   seconds;                   /* of computing, over all resumes */
    uint64_t peak_bytes;
    struct teach_eval *history;
    int      n_history;
};

/* device: where learners and generator compute (teacher_device.h), borrowed; NULL: the CPU. device_bytes of its memory; 0: most of what is free. */
int  teacher_new(const struct teach_cfg *cfg, uint64_t seed, const struct real_data *data, int threads, uint64_t mem_bytes, const struct device *device,
                 uint64_t device_bytes, struct teacher **out, struct errbuf *e);
void teacher_free(struct teacher *t);
/* How far it is, from 0 to 1: the larger of meta-steps done and time spent. */
double teacher_fraction(const struct teacher *t);

/* One meta-step. -ERR_DIVERGED when too many in a row gave nothing; -ERR_NOMEM; -ERR_INPUT when no drawn architecture fits. */
int  teacher_step(struct teacher *t, struct errbuf *e);
/* cfg.warm_start passes, before the first meta-step; `go_on` is asked after each and may end it: -ERR_CANCELLED. Not in
 * checkpoints: what was stopped in here begins anew. */
int  teacher_warm(struct teacher *t, bool (*go_on)(void *arg), void *arg, struct errbuf *e);
/* Decode the schedule and make the images that theta stands for now (t->x, y, lr, mu; x where `here`, or without a device). Errors are a device's. */
int  teacher_unfold(struct teacher *t, uint64_t step, bool here, struct errbuf *e);
/* Draw a network of the mix: stream `index` of (seed, step). */
int  teacher_draw(const struct teacher *t, uint64_t step, uint64_t index, struct net *out, char arch[ARCH_TEXT_MAX], struct errbuf *e);

/* ---- checkpoint ---- */
int  teacher_save(const struct teacher *t, const char *path, struct errbuf *e);
int  teacher_load(struct teacher *t, const char *path, struct errbuf *e); /* -ERR_INPUT names what does not agree */

/* ---- what it hands out ---- */
/* The curriculum, 8-bit images and all, ready for scoring. Fini with lessons_fini. */
int  teacher_lessons(struct teacher *t, struct lessons *out, struct errbuf *e);
/* Accuracy of fresh learners of the mix and of held-out architectures after the whole curriculum, on the first
 * validation images; the same learners and seeds each time. Appends to the history. */
int  teacher_evaluate(struct teacher *t, const struct lessons *l, struct teach_eval *out, struct errbuf *e);
/* JSON for curriculum.provenance; deterministic (no times), cut to `cap`. */
void teacher_provenance(const struct teacher *t, char *out, size_t cap);

#endif
