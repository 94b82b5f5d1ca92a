/* runner.h - the compute threads. Tasks go in through a queue and a condition; ends, progress and kept files come out
 * through a queue and one uv_async, whose callback calls the functions of runner_events on the loop's thread.
 * A result is written to the outbox by the compute thread, before the loop hears of it: the loop never waits for a disk.
 * Thread: everything here is called from the loop's thread. */
#ifndef DIDACT_WORKER_RUNNER_H
#define DIDACT_WORKER_RUNNER_H

#include "common/blob.h"
#include "common/wire.h"
#include "worker/task.h"

#include <uv.h>

#define TASK_MAX_BLOBS (2 + MAX_MIX)

/* A blob that a task names, and where it lies. */
struct task_blob { hash_str hash; char path[4096]; };
/* Hashes of the blobs that a task needs (0 ... TASK_MAX_BLOBS). */
int task_blobs(const struct task *t, hash_str hash[TASK_MAX_BLOBS]);

enum run_end {
    RUN_RESULT,    /* r holds a result; `stored`: it is in the outbox folder */
    RUN_CANCELLED, /* runner_cancel was called and nothing came of it */
    RUN_TROUBLE,   /* this machine could not do it (disk, network): the lease goes back. e says why */
    RUN_LOST       /* nor can this process ever again: its device does not work any more */
};
struct runner_events {
    void (*ended)(void *arg, struct lease_ref ref, enum run_end end, const struct trial_result *r, bool stored,
                  const struct errbuf *e);
    void (*progress)(void *arg, const struct task_progress *p);     /* the newest of each task; finite numbers only */
    void (*kept)(void *arg, const char *hash, const char *kind);     /* a file is in the uploads folder */
    void *arg;
};
struct runner_cfg {
    int      slots;            /* compute threads */
    int      threads;          /* that a teach task may use */
    uint64_t mem_bytes;        /* of a task */
    const struct device *device; /* borrowed; NULL: this worker has its CPU alone */
    uint64_t device_bytes;     /* of its memory, of a task */
    char     work_dir[4000], outbox_dir[4000];
    struct blob_dir uploads;
    task_fn  fn[TASK_KIND_COUNT];
    void   (*thread_init)(void); /* called first in every compute thread; may be NULL */
};

struct runner;
int  runner_new(const struct runner_cfg *c, uv_loop_t *loop, const struct runner_events *ev, struct runner **out,
                struct errbuf *e);
/* Takes copies. A task that finds no free thread waits for one. */
int  runner_submit(struct runner *r, const struct task *t, const struct task_blob *blob, int n_blobs, struct errbuf *e);
/* The task ends with RUN_CANCELLED, or, when it was quicker, with RUN_RESULT. False: no such task. */
bool runner_cancel(struct runner *r, struct lease_ref ref);
bool runner_started(struct runner *r, struct lease_ref ref); /* a thread has taken it */
/* Cancels everything, joins the threads, delivers what is still to tell, and closes the async handle. The memory goes
 * when the loop has closed it: run the loop once more. NULL is fine. */
void runner_stop(struct runner *r);

#endif
