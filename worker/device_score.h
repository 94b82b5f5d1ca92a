/* device_score.h - several initialisations of one candidate trained on a curriculum side by side on a device (engine/slab.h): what
 * scorer.c does one by one on the CPU. The same definition of a score in float32 with sums in another order: a fact about the kind of device.
 * Thread: any; a device may be used by several threads, each call has a queue of its own. */
#ifndef DIDACT_WORKER_DEVICE_SCORE_H
#define DIDACT_WORKER_DEVICE_SCORE_H

#include "common/job.h"
#include "worker/datacache.h"
#include "worker/engine/slab.h"

struct device_learner {
    int    failed_step;              /* from 0; -1: it stayed finite */
    double acc[MAX_CHECKPOINTS + 1]; /* at each of fidelity.checkpoint, last at the end; 1/K from where it failed on */
    double loss;                     /* inner losses summed; log K for steps from where it failed on */
};
struct device_task {
    const struct device    *device;
    const struct net       *net;
    const struct real_data *data;
    const struct lessons   *lessons;
    const struct fidelity  *fidelity;
    int                     steps;
    uint64_t                seed;    /* of the trial */
    const double           *lr;      /* [steps] */
    uint64_t                budget;  /* bytes on the device; 0: most of what is free */
    uint64_t                bytes;   /* out: most taken on the device at a time */
};
/* learner[fidelity.inits]. As many at a time as the device has room for; -ERR_NOMEM where not one fits. */
int device_score(struct device_task *t, struct device_learner *learner, struct errbuf *e);

#endif
