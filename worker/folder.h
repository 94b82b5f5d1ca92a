/* folder.h - the worker's folder: DIR/{lock, worker.id, outbox/, uploads/, cache/, work/}. One process at a time. */
#ifndef DIDACT_WORKER_FOLDER_H
#define DIDACT_WORKER_FOLDER_H

#include "common/err.h"
#include "common/fsio.h"
#include "common/job.h"

struct folder {
    char     dir[FS_PATH_MAX - 96], outbox[FS_PATH_MAX], uploads[FS_PATH_MAX], cache[FS_PATH_MAX], work[FS_PATH_MAX];
    name_str worker_id;  /* made once, kept */
    int      lock_fd;    /* -1: not open */
};

/* Creates what is missing. -ERR_BUSY, naming the folder, while another process uses it. */
int  folder_open(struct folder *f, const char *dir, struct errbuf *e);
void folder_close(struct folder *f);
/* Remove everything inside `path`, and make it if it is not there. */
int  folder_empty(const char *path, struct errbuf *e);

#endif
