/* task.h - what compute code is given besides its task, and the three things a worker can compute.
 * The runner (runner.c) calls these from a compute thread; scorer.c, trainer.c and teacher.c implement them.
 * Thread: one task is computed by one thread (a task may spread its inside over `threads`); every call in
 *         task_env is made from that thread. Nothing here touches a socket. */
#ifndef DIDACT_WORKER_TASK_H
#define DIDACT_WORKER_TASK_H

#include "common/err.h"
#include "common/job.h"

#include <stdbool.h>
#include <stdint.h>

struct device;
struct task_env {
    void *arg; /* first argument of the functions below */
    /* Local file of a blob that the task names (dataset, curriculum, resume checkpoint): fetched and verified before
     * the task starts; valid until it returns. NULL for a blob the task does not name. */
    const char *(*blob_path)(void *arg, const char *hash);
    /* Poll it at least every few hundred milliseconds (it costs a clock read). Once true, clean up and return
     * -ERR_CANCELLED; the runner knows whether that was a time-out, a drop or a shutdown. */
    bool (*cancelled)(void *arg);
    /* Show how far it is; cheap, call it as often as is natural. job, trial and attempt are filled in by the runner.
     * A checkpoint_blob is announced to the coordinator only when its transfer has ended. */
    void (*progress)(void *arg, const struct task_progress *p);
    /* Keep `file` durably and give its hash. kind is "curriculum", "weights" or "checkpoint". The loop transfers it in
     * the background and sends a result only after the blobs it names. The caller may delete `file` afterwards. */
    int (*upload)(void *arg, const char *file, const char *kind, hash_str hash, struct errbuf *e);
    const char *work_dir;  /* an empty folder for temporaries; emptied again afterwards */
    int         threads;   /* threads the task may use, this one included */
    const struct device *device; /* where learners are trained (engine/device.h); NULL: the CPU */
    uint64_t    device_bytes; /* of its memory: budget; 0: most of what is free */
    uint64_t    mem_bytes; /* budget; refuse with -ERR_NOMEM what a plan says would not fit */
};

/* Return 0 with *r filled: state SCORED, or FAILED with a reason (a NaN found on purpose). *r comes zeroed;
 * `seconds` is filled in by the runner when left 0. Negative returns:
 *   -ERR_CANCELLED after cancelled() said so;
 *   -ERR_NOMEM -> failed(oom); -ERR_INPUT, -ERR_SHAPE, -ERR_CORRUPT -> failed(input); -ERR_DIVERGED -> failed(nan);
 *   -ERR_TIMEOUT -> failed(timeout); -ERR_IO, -ERR_UNREACHABLE and others that a retry can mend: the lease is handed back;
 *   anything else -> failed(crash) with e's text. */
typedef int (*task_fn)(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e);

int task_score(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e);
int task_train(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e);
int task_teach(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e);

#endif
