/* outbox.h - finished results until the coordinator has them.
 * One file a result, JOB-TRIAL-ATTEMPT.result: a line with the hash of the rest, then the wire message. It is on disk before it is
 * first sent and goes away on ResultAck only, so a result survives kill -9, power loss and a coordinator that is gone for a week.
 * Thread: outbox_write is called from compute threads (it waits for the disk); everything else belongs to the loop. */
#ifndef DIDACT_WORKER_OUTBOX_H
#define DIDACT_WORKER_OUTBOX_H

#include "common/err.h"
#include "common/fsio.h"
#include "common/wire.h"

struct outbox_item {
    struct lease_ref    ref;
    struct trial_result r;
    uint64_t            seq;            /* of the last Result sent; 0: not sent in this session */
    int64_t             sent_ms, not_before_ms;
    int                 refusals;       /* times the coordinator said "not now" */
    bool                on_disk;
};
struct outbox {
    char                 dir[FS_PATH_MAX];
    int                  n, cap;
    struct outbox_item **item;          /* owned, in order of arrival */
};

bool lease_same(struct lease_ref a, struct lease_ref b);

/* Load what an earlier process left. A damaged file is renamed to *.corrupt and logged: its lease will run again. */
int  outbox_open(struct outbox *o, const char *dir, struct errbuf *e);
void outbox_close(struct outbox *o);  /* memory only */

/* Durable when it returns. -ERR_INPUT where the result is one that the wire refuses. */
int  outbox_write(const char *dir, struct lease_ref ref, const struct trial_result *r, struct errbuf *e);
/* Take up a result that was written (or, with the disk full, was not). NULL when memory is out. A known one is returned as it is. */
struct outbox_item *outbox_add(struct outbox *o, struct lease_ref ref, const struct trial_result *r, bool on_disk);
struct outbox_item *outbox_find(struct outbox *o, struct lease_ref ref);
void outbox_remove(struct outbox *o, struct outbox_item *it);  /* acknowledged: the file goes too */
void outbox_refuse(struct outbox *o, struct outbox_item *it);  /* will never be accepted: kept as *.refused for people */

#endif
