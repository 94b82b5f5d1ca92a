/* leases.h - what this worker holds, from the Lease to the ResultAck.
 *
 *     FETCHING   its blobs are on their way
 *     COMPUTING  the runner has it
 *     DROPPED    no longer ours (or handed back); a compute thread still unwinds
 *     then, with a result, an item of the outbox until the coordinator acknowledged it
 *
 * A lease that ends without a result is handed back, unless it was the coordinator who took it away.
 * Thread: the loop's. */
#ifndef DIDACT_WORKER_LEASES_H
#define DIDACT_WORKER_LEASES_H

#include "worker/blobcache.h"
#include "worker/outbox.h"
#include "worker/runner.h"
#include "worker/session.h"

enum held_state { HELD_FETCHING, HELD_COMPUTING, HELD_DROPPED };
struct held {
    struct lease_ref     ref;
    enum held_state      state;
    struct task          task;
    struct task_progress progress;
    hash_str             announced;  /* newest checkpoint whose transfer has ended */
    hash_str             travelling; /* the one that is waited for */
    bool                 fresh;      /* progress not sent yet */
};

struct leases {
    int               slots;
    struct session   *session;       /* these four are borrowed */
    struct runner    *runner;
    struct blobcache *blobs;
    struct outbox    *outbox;
    int               n, cap;
    struct held     **held;          /* owned */
    uint32_t          credit;        /* what the coordinator believes we want */
    bool              credit_known, stopping;
    int               troubles;      /* in a row, on this machine */
    int64_t           pause_until_ms, now_ms;
    uint64_t          n_done;        /* results acknowledged, for the log */
    struct lease_ref     list[WIRE_MAX_LEASES];
    struct task_progress progress[WIRE_MAX_LEASES];
};

void leases_init(struct leases *l, int slots);
void leases_fini(struct leases *l);

/* Arrays for WorkerHello and Heartbeat: valid until the next call. */
int  leases_holding(struct leases *l, struct lease_ref **out);
int  leases_progress(struct leases *l, struct task_progress **out);

void leases_up(struct leases *l, const struct wire_msg *welcome);
void leases_down(struct leases *l);
void leases_on_message(struct leases *l, struct wire_msg *m);
void leases_tick(struct leases *l, int64_t now_ms);

/* From the blob cache and the runner. */
void leases_blobs_ready(struct leases *l, struct held *h, int rc, const struct errbuf *e);
void leases_ended(struct leases *l, struct lease_ref ref, enum run_end end, const struct trial_result *r, bool stored,
                  const struct errbuf *e);
void leases_on_progress(struct leases *l, const struct task_progress *p);
void leases_file_sent(struct leases *l, const char *hash, int rc, const struct errbuf *e);

/* Take no more work, and hand back what has not begun, and of what computes: teachers, which go on elsewhere from their checkpoints (DRAIN),
 * trainings too (SOON), scores too (NOW). */
enum stop_how { STOP_DRAIN, STOP_SOON, STOP_NOW };
void leases_stop(struct leases *l, enum stop_how how);
/* Last resort: a compute thread does not come back. Hands back whatever is left. */
void leases_abandon(struct leases *l);

#endif
