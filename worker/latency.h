/* latency.h - how long one forward pass of a network takes here: a measurement, another one each time, and no part of any score. */
#ifndef DIDACT_WORKER_LATENCY_H
#define DIDACT_WORKER_LATENCY_H

#include "worker/datacache.h"
#include "worker/engine/engine.h"

/* Median milliseconds, over at least 15 passes and 50 ms, of a pass of `batch` validation images (as often as it takes) through fresh weights,
 * batch norms in evaluation: after a few passes that fill caches, on this thread alone, in its own processor time, so that what else the
 * machine does in between is not counted. -ERR_CANCELLED once `cancelled` (may be NULL) says so. */
int latency_measure(const struct net *n, const struct real_data *data, int batch, bool (*cancelled)(void *arg), void *arg, double *ms,
                    struct errbuf *e);

#endif
