/* loop.h - the worker as a whole: one libuv loop that owns the DEALER socket and everything that is not computing.
 * Thread: worker_run occupies the calling thread; worker_stop may be called from any thread and from a signal handler. */
#ifndef DIDACT_WORKER_LOOP_H
#define DIDACT_WORKER_LOOP_H

#include "worker/conf.h"
#include "worker/task.h"

struct worker_tasks {
    task_fn     fn[TASK_KIND_COUNT];
    void      (*thread_init)(void);   /* in each compute thread; may be NULL */
    const char *engine_version, *isa; /* borrowed */
    const struct device *device;      /* beside the CPU (engine/device.h); NULL: none */
};

struct worker;
/* Opens the folder, starts the compute threads. Does not wait for the coordinator. */
int  worker_new(const struct worker_conf *c, const struct worker_tasks *tasks, struct worker **out, struct errbuf *e);
/* First thing in main(): a SIGTERM or SIGINT that comes during start-up waits for worker_run. Threads inherit this. */
void worker_hold_signals(void);
/* Until it was told to stop and has handed back or delivered what it held. With `signals`, SIGTERM and SIGINT tell it.
 * Returns the status of the process: 0, or 75 where its device was lost. */
int  worker_run(struct worker *w, bool signals);
/* Once: finish scores within the grace, hand the rest back, deliver results, say goodbye. Twice: at once. */
void worker_stop(struct worker *w);
void worker_free(struct worker *w); /* NULL is fine */

#endif
