/* local.h - a coordinator and workers on this machine, over ipc in one folder: the embedded default.
 *
 *   DIR/endpoints.json          written by didactd when it is ready
 *   DIR/logs/didactd.log, worker-N.log
 *   DIR/run/didactd.pid, worker-N.pid, lock
 *   DIR/workers/worker-N/       identity, outbox and cache of each worker
 *
 * The rest of DIR is the coordinator's. Everything stays when it is stopped. Thread: one; starts and stops of one folder
 * exclude each other by a lock. */
#ifndef DIDACT_CLIENT_LOCAL_H
#define DIDACT_CLIENT_LOCAL_H

#include "common/err.h"
#include "common/fsio.h"

#include <stdio.h>

#define LOCAL_MAX_WORKERS 64

struct local_cfg {
    char dir[FS_PATH_MAX];  /* absolute after local_dir */
    int  workers, slots;    /* slots a worker */
    int  threads;           /* of a worker, for a task that is alone; 0: all cores */
};

/* What runs in a folder. */
struct local_state {
    long coordinator;       /* process number, 0: not running */
    int  n_workers;
    struct { char name[32]; long pid; } worker[LOCAL_MAX_WORKERS];
};

/* Make `given` (NULL: the default folder) absolute. The folder need not exist. */
int  local_dir(const char *given, char out[FS_PATH_MAX], struct errbuf *e);
/* Start what does not run yet and wait until the coordinator answers and all workers are online. Says on `talk` (may be
 * NULL) what it does. -ERR_FAILED shows the end of the log of what did not start. */
int  local_start(const struct local_cfg *cfg, FILE *talk, struct errbuf *e);
/* SIGTERM to workers, then to the coordinator; SIGKILL to what does not end. *stopped counts processes. */
int  local_stop(const char *dir, int *stopped, FILE *talk, struct errbuf *e);
void local_look(const char *dir, struct local_state *out);

/* Path of a program next to this one. */
int local_program(const char *name, char out[FS_PATH_MAX], struct errbuf *e);
/* The folder of shipped curricula and examples: $DIDACT_SHARE, ../share/didact, or share/ of the source tree. */
int local_share(char out[FS_PATH_MAX], struct errbuf *e);

#endif
