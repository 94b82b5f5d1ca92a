/* clock.h - how long something took. */
#ifndef DIDACT_WORKER_CLOCK_H
#define DIDACT_WORKER_CLOCK_H

#include <time.h>

/* Since a reading of CLOCK_MONOTONIC. */
static inline double seconds_since(const struct timespec *t0)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - t0->tv_sec) + 1e-9 * (double)(now.tv_nsec - t0->tv_nsec);
}

#endif
