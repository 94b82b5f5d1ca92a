/* device_pass.h - a plan walked on a device, for K learners (slab.c) or K batches (lanes.c) side by side; and work that is recorded
 * once and played again. Thread: as the device's queue, one at a time. */
#ifndef DIDACT_ENGINE_DEVICE_PASS_H
#define DIDACT_ENGINE_DEVICE_PASS_H

#include "worker/engine/device.h"
#include "worker/engine/plan.h"

/* Where the others of K lie: bytes from one to the next one. 0: all share one. */
struct device_pass {
    const struct device *device;
    void   *queue;
    int     K;
    int64_t arena;              /* what the plan places */
    int64_t param, grad;        /* parameters and their tangents; their gradients. param 0: what is made of parameters alone is shared, too,
                                 * and made once on the way forth */
    int64_t x, gx;              /* the input; its gradient, or the mixed derivative by it */
    void   *ticket;             /* device_tickets bytes, zeroed once */
};
uint64_t device_tickets(const struct eng_plan *p, int K);

/* From now on p's rules are the device's, for `pass` as it is at each call. Borrowed: pass, and the device's memory `arena` (K times). */
void device_pass_attach(struct device_pass *pass, struct eng_plan *p, void *arena);
/* -ERR_SHAPE where a tensor has more numbers than a device's indices of 32 bits reach. */
int  device_pass_check(const struct eng_plan *p, struct errbuf *e);
struct dev_rows device_rows(void *at, int64_t step);
/* The output of pass.K: its val, or (adjoint) its adj. */
struct dev_rows device_pass_output(const struct device_pass *pass, const struct eng_plan *p, bool adjoint);

/* Places on a device begin at multiples of this. */
enum { DEVICE_ALIGN = 256 };
static inline uint64_t device_up(uint64_t bytes) { return (bytes + DEVICE_ALIGN - 1) & ~(uint64_t)(DEVICE_ALIGN - 1); }

/* Work that is done as it is queued the first time (what runs once is not worth a recording; and then all code is loaded), recorded the
 * second time, and played from then on. Start it zeroed. */
struct device_work { bool ran; void *recorded; };
/* work(arg) queues on `queue` alone, the same each time. -ERR_UNAVAILABLE where it could not be recorded. */
int  device_work_run(struct device_work *k, const struct device *d, void *queue, void (*work)(void *arg), void *arg, struct errbuf *e);
void device_work_fini(struct device_work *k, const struct device *d);

#endif
