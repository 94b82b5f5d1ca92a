#include "worker/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define ID_BYTES 8

static int on_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    return at->level == 0 ? 0 : remove(path);
}

int folder_empty(const char *path, struct errbuf *e)
{
    int rc = fs_mkdir_p(path, e);
    if (rc == 0 && nftw(path, on_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        rc = fs_error(e, errno, "cannot empty", path);
    return rc;
}

static int take_lock(struct folder *f, struct errbuf *e)
{
    char path[FS_PATH_MAX], pid[32];
    snprintf(path, sizeof path, "%s/lock", f->dir);
    f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (f->lock_fd < 0)
        return fs_error(e, errno, "cannot open", path);
    if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = errno == EWOULDBLOCK ? pread(f->lock_fd, pid, sizeof pid - 1, 0) : -1;
        if (n < 0)
            return fs_error(e, errno, "cannot lock", path);
        pid[n] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return err_set(e, ERR_BUSY, "%s: another worker (process %s) uses this folder", f->dir, pid);
    }
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(f->lock_fd, 0) != 0 || pwrite(f->lock_fd, pid, (size_t)n, 0) != n)
        return fs_error(e, errno, "cannot write", path);
    return 0;
}

/* The identity outlives the process, so that a restarted worker is known again. */
static int load_id(struct folder *f, struct errbuf *e)
{
    char    path[FS_PATH_MAX], *text = NULL;
    uint8_t raw[ID_BYTES];
    snprintf(path, sizeof path, "%s/worker.id", f->dir);
    int rc = fs_read_all(path, 256, &text, NULL, e);
    if (rc == 0) {
        text[strcspn(text, "\n")] = 0;
        size_t n = strlen(text);
        if (n == 0 || n > NAME_MAX_LEN || strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
            rc = err_set(e, ERR_CORRUPT, "%s: not a worker's identity; remove the file to get a new one", path);
        else
            memcpy(f->worker_id, text, n + 1);
        free(text);
        return rc;
    }
    if (rc != -ERR_NOTFOUND)
        return rc;
    randombytes_buf(raw, sizeof raw);
    memcpy(f->worker_id, "w-", 2);
    sodium_bin2hex(f->worker_id + 2, 2 * ID_BYTES + 1, raw, sizeof raw);
    char line[sizeof f->worker_id + 1];
    int  n = snprintf(line, sizeof line, "%s\n", f->worker_id);
    return fs_write_atomic(path, line, (size_t)n, e);
}

int folder_open(struct folder *f, const char *dir, struct errbuf *e)
{
    memset(f, 0, sizeof *f);
    f->lock_fd = -1;
    if (sodium_init() < 0)
        return err_set(e, ERR_INTERNAL, "libsodium does not start");
    if (snprintf(f->dir, sizeof f->dir, "%s", dir) >= (int)sizeof f->dir)
        return err_set(e, ERR_INPUT, "%.60s...: the path is too long", dir);
    int rc = fs_mkdir_p(dir, e);
    if (rc == 0)
        rc = take_lock(f, e);
    if (rc == 0)
        rc = load_id(f, e);
    snprintf(f->outbox, sizeof f->outbox, "%s/outbox", f->dir);
    snprintf(f->uploads, sizeof f->uploads, "%s/uploads", f->dir);
    snprintf(f->cache, sizeof f->cache, "%s/cache", f->dir);
    snprintf(f->work, sizeof f->work, "%s/work", f->dir);
    if (rc == 0)
        rc = folder_empty(f->work, e);
    if (rc < 0)
        folder_close(f);
    return rc;
}

void folder_close(struct folder *f)
{
    if (f->lock_fd >= 0)
        close(f->lock_fd);
    f->lock_fd = -1;
}
