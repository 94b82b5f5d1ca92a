#include "common/fsio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TMP_PREFIX ".tmp-"
#define WRITE_MAX  (1u << 30) /* Linux moves at most 2 GiB a call */

int fs_error(struct errbuf *e, int err, const char *doing, const char *path)
{
    enum err code = err == ENOENT ? ERR_NOTFOUND
                  : err == EACCES || err == EPERM || err == EROFS ? ERR_DENIED
                  : err == ENOMEM ? ERR_NOMEM
                  : err == ENAMETOOLONG ? ERR_INPUT : ERR_IO;
    if (err == ENOSPC || err == EDQUOT) {
        char dir[FS_PATH_MAX];
        fs_dir_of(path, dir);
        return err_set(e, ERR_IO, "%s: no space left on device", dir);
    }
    char text[128];
    return err_set(e, code, "%s %s: %s", doing, path, strerror_r(err, text, sizeof text));
}

void fs_dir_of(const char *path, char out[FS_PATH_MAX])
{
    snprintf(out, FS_PATH_MAX, "%s", path);
    char *slash = strrchr(out, '/');
    if (!slash)
        snprintf(out, FS_PATH_MAX, ".");
    else if (slash == out)
        out[1] = 0;
    else
        *slash = 0;
}

bool fs_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int fs_mkdir_p(const char *path, struct errbuf *e)
{
    char part[FS_PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return fs_error(e, ENAMETOOLONG, "cannot make folder", path);
    for (char *s = part + 1; part[0]; s++) {
        if (*s && *s != '/')
            continue;
        char end = *s;
        *s = 0;
        int err = mkdir(part, 0777) < 0 ? errno : 0;
        if (err && !fs_is_dir(part)) /* whatever mkdir disliked, a folder that is there is what we want */
            return fs_error(e, err == EEXIST ? ENOTDIR : err, "cannot make folder", part);
        if (!end)
            break;
        *s = end;
    }
    return 0;
}

int fs_sync_dir(const char *dir, struct errbuf *e)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fs_error(e, errno, "cannot open folder", dir);
    int err = fsync(fd) < 0 && errno != EINVAL ? errno : 0; /* EINVAL: a file system that has nothing to sync */
    close(fd);
    return err ? fs_error(e, err, "cannot sync folder", dir) : 0;
}

int fs_read_all(const char *path, size_t max, char **out, size_t *len, struct errbuf *e)
{
    int rc = 0;
    char *buf = NULL;
    size_t n = 0, cap = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fs_error(e, errno, "cannot open", path);
    for (;;) {
        if (n + 1 >= cap) { /* grown as read: what stat says of a pipe or of /proc is no size */
            size_t more = cap ? cap * 2 : 16384;
            char *p = realloc(buf, more);
            if (!p) { rc = err_set(e, ERR_NOMEM, "%s: out of memory at %zu bytes", path, more); goto done; }
            buf = p;
            cap = more;
        }
        ssize_t k = read(fd, buf + n, cap - 1 - n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) { rc = fs_error(e, errno, "cannot read", path); goto done; }
        n += (size_t)k;
        if (n > max) { rc = err_set(e, ERR_INPUT, "%s: larger than %zu bytes", path, max); goto done; }
        if (k == 0)
            break;
    }
    buf[n] = 0;
    if (len)
        *len = n;
    *out = buf;
    buf = NULL;
done:
    free(buf);
    close(fd);
    return rc;
}

/* ---- temporaries ---- */

/* Errors speak of `named`: people know the file that they asked for, not its temporary. NULL: of the temporary. */
static int tmp_open(struct fs_tmp *t, const char *dir, const char *named, mode_t mode, struct errbuf *e)
{
    static atomic_uint serial;
    *t = (struct fs_tmp){ .fd = -1 };
    for (int tries = 0; tries < 1000; tries++) {
        unsigned k = atomic_fetch_add(&serial, 1);
        if (snprintf(t->path, sizeof t->path, "%s/" TMP_PREFIX "%ld-%u", dir, (long)getpid(), k) >= (int)sizeof t->path)
            return fs_error(e, ENAMETOOLONG, "cannot create a file in", dir);
        t->fd = open(t->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (t->fd < 0 && errno == EEXIST) /* left by a dead process that had our number */
            continue;
        if (t->fd < 0)
            return fs_error(e, errno, errno == ENOENT ? "no folder for" : "cannot create", named ? named : t->path);
        struct stat st; /* a sweep may have come between creation and lock; then the name is gone and we start over */
        flock(t->fd, LOCK_EX);
        if (fstat(t->fd, &st) == 0 && st.st_nlink > 0) {
            t->open = true;
            return 0;
        }
        close(t->fd);
    }
    return err_set(e, ERR_BUSY, "%s: no free temporary name", dir);
}

int fs_tmp_open(struct fs_tmp *t, const char *dir, mode_t mode, struct errbuf *e) { return tmp_open(t, dir, NULL, mode, e); }

int fs_tmp_open_for(struct fs_tmp *t, const char *path, mode_t mode, struct errbuf *e)
{
    char dir[FS_PATH_MAX];
    fs_dir_of(path, dir);
    return tmp_open(t, dir, path, mode, e);
}

int fs_tmp_write(struct fs_tmp *t, const void *p, size_t n, struct errbuf *e)
{
    const char *s = p;
    while (n) {
        ssize_t k = write(t->fd, s, n < WRITE_MAX ? n : WRITE_MAX);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return fs_error(e, errno, "cannot write", t->path);
        s += k;
        n -= (size_t)k;
    }
    return 0;
}

int fs_tmp_commit(struct fs_tmp *t, const char *path, struct errbuf *e)
{
    char dir[FS_PATH_MAX];
    struct stat there;
    fs_dir_of(path, dir);
    int rc = 0;
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode)) /* a rename would put a file in a device's place */
        rc = err_set(e, ERR_INPUT, "%s is no regular file, and is left as it is", path);
    else if (fsync(t->fd) < 0)
        rc = fs_error(e, errno, "cannot sync", t->path);
    else if (rename(t->path, path) < 0)
        rc = fs_error(e, errno, "cannot create", path);
    if (rc < 0) {
        fs_tmp_abort(t);
        return rc;
    }
    close(t->fd);
    t->open = false;
    return fs_sync_dir(dir, e);
}

void fs_tmp_abort(struct fs_tmp *t)
{
    if (!t->open)
        return;
    unlink(t->path);
    close(t->fd);
    t->open = false;
}

/* The writer holds a lock from just after creation until it closes, also beyond the borders of a container, where
 * process numbers say nothing. Only a file system without locks makes us go by the number in the name. */
static bool is_stale(int fd, long pid)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    return errno != EWOULDBLOCK && errno != EINTR && pid != (long)getpid() && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

int fs_tmp_sweep(const char *dir, struct errbuf *e)
{
    DIR *d = opendir(dir);
    if (!d)
        return fs_error(e, errno, "cannot open folder", dir);
    for (struct dirent *it; (it = readdir(d));) {
        long pid;
        unsigned k;
        if (sscanf(it->d_name, TMP_PREFIX "%ld-%u", &pid, &k) != 2 || pid <= 0)
            continue;
        int fd = openat(dirfd(d), it->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) /* finished meanwhile, or not ours to read */
            continue;
        if (is_stale(fd, pid))
            unlinkat(dirfd(d), it->d_name, 0);
        close(fd);
    }
    closedir(d);
    return 0;
}

static int write_whole(const char *path, const void *p, size_t n, mode_t mode, struct errbuf *e)
{
    struct fs_tmp t;
    int rc = fs_tmp_open_for(&t, path, mode, e);
    if (rc < 0)
        return rc;
    rc = fs_tmp_write(&t, p, n, e);
    if (rc == 0)
        return fs_tmp_commit(&t, path, e);
    fs_tmp_abort(&t);
    return rc;
}

int fs_write_atomic(const char *path, const void *p, size_t n, struct errbuf *e)
{
    return write_whole(path, p, n, 0666, e);
}

int fs_write_private(const char *path, const void *p, size_t n, struct errbuf *e)
{
    return write_whole(path, p, n, 0600, e);
}
