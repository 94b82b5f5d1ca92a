/* teacher_device.h - the learners of a meta-step on a device: each bucket of equal networks is a slab (engine/slab.h), all slabs are started
 * before the first is waited for, as far as there is room. For the files of the teacher.
 *
 * Images, labels and the sums of their gradients stay on the device. Slabs are kept by network within a budget, the one used last the longest,
 * so that an architecture that comes again finds its work recorded. A learner's bits depend neither on who shares its slab nor on the budget. */
#ifndef DIDACT_WORKER_TEACHER_DEVICE_H
#define DIDACT_WORKER_TEACHER_DEVICE_H

#include "worker/engine/device.h"

struct net;
struct teacher;
struct teacher_device;
/* Room for the images, labels and gradients of t (its cfg, kind, data and sizes are set). `device` is borrowed. -ERR_NOMEM. */
int    teacher_device_new(const struct teacher *t, const struct device *device, struct teacher_device **out, struct errbuf *e);
void   teacher_device_free(struct teacher_device *v);
float *teacher_device_x(const struct teacher_device *v);  /* [T,B,H,W,C] there: images; the next: NULL where no dx is wanted of them */
float *teacher_device_dx(const struct teacher_device *v);
/* Bytes of the device's memory that the generator may take. */
uint64_t teacher_device_room(const struct teacher *t);
/* What the slabs may take is what is left: call it when all else has been allocated. */
void   teacher_device_ready(struct teacher *t);
/* learners_run on the device: rc, loss, norm, dlr and dmu of every learner; the sum of dx and dy over those that made it, each divided by its
 * norm, stays there. -ERR_NOMEM where not one learner of a network fits; -ERR_UNAVAILABLE. */
int    teacher_device_run(struct teacher *t, struct errbuf *e);
/* Sums times f. Then: to the host (NULL: not wanted), or for the generator, whose queue goes on behind. */
void   teacher_device_scale(struct teacher *t, double f);
int    teacher_device_get(struct teacher *t, float *dx, float *dy, struct errbuf *e);
void   teacher_device_before(struct teacher *t, void *queue);
/* One learner of `net` from w0 [P] through a whole curriculum, and its right answers on the first n_batches * batch validation images; *right
 * -1: it diverged. Nothing else may be at work. */
struct lessons;
int    teacher_device_exam(struct teacher *t, const struct net *net, const struct lessons *l, const float *w0, int batch, int n_batches, int *right, struct errbuf *e);

#endif
