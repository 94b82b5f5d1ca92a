/* par.h - run n independent items on a few threads, each with the engine's floating-point mode.
 * Which thread takes which item is not fixed: results must not depend on it. */
#ifndef DIDACT_WORKER_PAR_H
#define DIDACT_WORKER_PAR_H

#include "common/err.h"

/* fn(arg, item, thread): items are handed out in rising order; thread is in [0, threads). Returns when all are done.
 * Where a thread cannot be started the others take its share. */
void par_run(int threads, int n, void (*fn)(void *arg, int item, int thread), void *arg);

#endif
