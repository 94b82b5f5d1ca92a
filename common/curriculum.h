/* curriculum.h - what a teacher hands out: T batches of images with soft labels, and the inner schedule.
 * One safetensors file: images U8 [T,B,C,H,W], labels F32 [T,B,K], lr F32 [T], mu F32 [T]; metadata: format, inner
 * (JSON), dataset, provenance. It is all that a scoring worker needs. Immutable, named by its hash. */
#ifndef DIDACT_CURRICULUM_H
#define DIDACT_CURRICULUM_H

#include "common/err.h"
#include "common/inner.h"
#include "common/job.h"

struct curriculum {
    int      T, B, c, h, w, K;
    uint8_t *images;    /* owned [T,B,C,H,W]; network input is p / 127.5 - 1 */
    float   *labels;    /* owned [T,B,K] */
    float   *lr, *mu;   /* owned [T] */
    struct inner_cfg inner;
    char     provenance[2048]; /* JSON: job, seed, meta-steps, dataset hash and name, engine version */
    hash_str hash;      /* set by load and save */
};

int  curriculum_load(struct curriculum *c, const char *path, struct errbuf *e);
int  curriculum_save(struct curriculum *c, const char *path, struct errbuf *e); /* atomically; sets c->hash */
void curriculum_fini(struct curriculum *c);

/* The class with the largest label of image b of step t; the first of several. */
int  curriculum_class(const struct curriculum *c, int t, int b);
/* Sums of the labels of all images of steps [from, to), for each class: out [K] is overwritten. */
void curriculum_class_sums(const struct curriculum *c, int from, int to, double *out);

#endif
