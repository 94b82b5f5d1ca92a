/* fsio.h - whole-file helpers: a file is complete and on disk, or it is not there.
 * A temporary lies in the folder of its destination as ".tmp-PID-N" and is locked (flock) while its writer lives,
 * so that a sweep after a crash removes what is stale and nothing else, whichever process or container wrote it.
 * Errors name the path: no such file is -ERR_NOTFOUND, no permission -ERR_DENIED, the rest -ERR_IO or -ERR_NOMEM;
 * a full disk reads "DIR: no space left on device" and leaves no temporary behind.
 * Thread: no state; a struct fs_tmp is owned by one thread. */
#ifndef DIDACT_FSIO_H
#define DIDACT_FSIO_H

#include "common/err.h"

#include <stdint.h>
#include <sys/types.h>

#define FS_PATH_MAX 4096

int fs_mkdir_p(const char *path, struct errbuf *e);                                 /* existing folders are fine */
/* *out is malloc'ed with a 0 byte after its *len bytes (len may be NULL). More than `max` bytes is -ERR_INPUT. */
int fs_read_all(const char *path, size_t max, char **out, size_t *len, struct errbuf *e);
int fs_write_atomic(const char *path, const void *p, size_t n, struct errbuf *e);   /* mode 0666 less umask */
int fs_write_private(const char *path, const void *p, size_t n, struct errbuf *e);  /* mode 0600: keys */
int fs_sync_dir(const char *dir, struct errbuf *e);                                 /* makes renames in it durable */
void fs_dir_of(const char *path, char out[FS_PATH_MAX]);                            /* "." for a bare name */
bool fs_is_dir(const char *path);

/* Turn errno `err` of an operation on `path` into an error; `doing` ("cannot open") opens the message. */
int fs_error(struct errbuf *e, int err, const char *doing, const char *path);

/* A file in the making. Open, write, then commit or abort; either ends it. Abort of an ended or zeroed one is fine. */
struct fs_tmp {
    int  fd;
    bool open;
    char path[FS_PATH_MAX];
};
int  fs_tmp_open(struct fs_tmp *t, const char *dir, mode_t mode, struct errbuf *e);
int  fs_tmp_open_for(struct fs_tmp *t, const char *path, mode_t mode, struct errbuf *e); /* in the folder of `path`, which errors name */
int  fs_tmp_write(struct fs_tmp *t, const void *p, size_t n, struct errbuf *e);
/* fsync, rename to path, fsync the folder. -ERR_INPUT where path is a device, a pipe or a socket. */
int  fs_tmp_commit(struct fs_tmp *t, const char *path, struct errbuf *e);
void fs_tmp_abort(struct fs_tmp *t);
int  fs_tmp_sweep(const char *dir, struct errbuf *e);                     /* remove temporaries without a live writer */

#endif
