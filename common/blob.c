#include "common/blob.h"

#include "common/fsio.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_BYTES (HASH_HEX_LEN / 2)
#define READ_BUF   (256 * 1024)

struct blob_writer {
    alignas(64) crypto_generichash_state state; /* libsodium wants this alignment, and aligned_alloc gives it */
    struct blob_dir dir;
    struct fs_tmp   tmp;
};

/* ---- hashes ---- */

static void hash_start(crypto_generichash_state *s)
{
    int ready = sodium_init(); /* picks the fastest code for this processor, once; safe from any thread */
    assert(ready >= 0);
    crypto_generichash_init(s, NULL, 0, HASH_BYTES);
}

static void hash_end(crypto_generichash_state *s, hash_str hash)
{
    uint8_t raw[HASH_BYTES];
    crypto_generichash_final(s, raw, sizeof raw);
    sodium_bin2hex(hash, HASH_HEX_LEN + 1, raw, sizeof raw);
}

void hash_bytes(const void *p, size_t n, hash_str hash)
{
    crypto_generichash_state s;
    hash_start(&s);
    crypto_generichash_update(&s, p, n);
    hash_end(&s, hash);
}

/* Feed a file to `each` in pieces. */
typedef int (*on_piece)(void *arg, const void *p, size_t n, struct errbuf *e);

static int read_pieces(const char *path, on_piece each, void *arg, struct errbuf *e)
{
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fs_error(e, errno, "cannot open", path);
    char *buf = malloc(READ_BUF);
    if (!buf) { rc = err_set(e, ERR_NOMEM, "%s: out of memory", path); goto done; }
    while (rc == 0) {
        ssize_t k = read(fd, buf, READ_BUF);
        if (k < 0 && errno == EINTR)
            continue;
        if (k == 0)
            break;
        rc = k < 0 ? fs_error(e, errno, "cannot read", path) : each(arg, buf, (size_t)k, e);
    }
done:
    free(buf);
    close(fd);
    return rc;
}

static int on_hash(void *arg, const void *p, size_t n, struct errbuf *e)
{
    (void)e;
    crypto_generichash_update(arg, p, n);
    return 0;
}

int hash_file(const char *path, hash_str hash, struct errbuf *e)
{
    crypto_generichash_state s;
    hash_start(&s);
    int rc = read_pieces(path, on_hash, &s, e);
    if (rc == 0)
        hash_end(&s, hash);
    return rc;
}

/* ---- the folder ---- */

int blob_dir_open(struct blob_dir *d, const char *path, struct errbuf *e)
{
    if (snprintf(d->path, sizeof d->path, "%s", path) >= (int)sizeof d->path)
        return fs_error(e, ENAMETOOLONG, "cannot open folder", path);
    int rc = fs_mkdir_p(path, e);
    return rc < 0 ? rc : fs_tmp_sweep(path, e);
}

bool blob_valid_hash(const char *hex)
{
    size_t n = 0;
    for (; hex[n]; n++)
        if (n >= HASH_HEX_LEN || !((hex[n] >= '0' && hex[n] <= '9') || (hex[n] >= 'a' && hex[n] <= 'f')))
            return false;
    return n == HASH_HEX_LEN;
}

void blob_path(const struct blob_dir *d, const char *hash, char *out, size_t cap)
{
    snprintf(out, cap, "%s/%s", d->path, hash);
}

/* A hash comes from a peer: it must not be able to name any other file. */
static int checked_path(const struct blob_dir *d, const char *hash, char out[FS_PATH_MAX], struct errbuf *e)
{
    if (!blob_valid_hash(hash))
        return err_set(e, ERR_INPUT, "\"%.80s\" is not a blob hash (64 hex digits)", hash);
    blob_path(d, hash, out, FS_PATH_MAX);
    return 0;
}

bool blob_exists(const struct blob_dir *d, const char *hash, uint64_t *size)
{
    char path[FS_PATH_MAX];
    struct stat st;
    if (checked_path(d, hash, path, NULL) < 0 || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    if (size)
        *size = (uint64_t)st.st_size;
    return true;
}

int blob_verify(const struct blob_dir *d, const char *hash, struct errbuf *e)
{
    char path[FS_PATH_MAX], aside[FS_PATH_MAX + 16];
    hash_str have;
    int rc = checked_path(d, hash, path, e);
    if (rc == 0)
        rc = hash_file(path, have, e);
    if (rc < 0)
        return err_wrap(e, rc, "blob %.64s", hash);
    if (strcmp(have, hash) == 0)
        return 0;
    snprintf(aside, sizeof aside, "%s.corrupt", path);
    bool moved = rename(path, aside) == 0;
    return err_set(e, ERR_CORRUPT, "blob %s is corrupt: its content has hash %.16s...; %s", path, have,
                   moved ? "kept as *.corrupt" : "it could not be renamed");
}

int blob_read(const struct blob_dir *d, const char *hash, uint64_t off, void *buf, size_t cap, size_t *got, uint64_t *total,
              struct errbuf *e)
{
    char path[FS_PATH_MAX];
    struct stat st;
    int rc = checked_path(d, hash, path, e);
    if (rc < 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? err_set(e, ERR_NOTFOUND, "no blob %s", hash) : fs_error(e, errno, "cannot open", path);
    if (fstat(fd, &st) < 0) { rc = fs_error(e, errno, "cannot read", path); goto done; }
    *total = (uint64_t)st.st_size;
    *got = 0;
    if (off > *total) {
        rc = err_set(e, ERR_INPUT, "blob %s: offset %llu is past its %llu bytes", hash, (unsigned long long)off, (unsigned long long)*total);
        goto done;
    }
    while (*got < cap) {
        ssize_t k = pread(fd, (char *)buf + *got, cap - *got, (off_t)(off + *got));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) { rc = fs_error(e, errno, "cannot read", path); goto done; }
        if (k == 0)
            break;
        *got += (size_t)k;
    }
done:
    close(fd);
    return rc;
}

/* ---- writing ---- */

int blob_writer_open(const struct blob_dir *d, struct blob_writer **out, struct errbuf *e)
{
    struct blob_writer *w = aligned_alloc(alignof(struct blob_writer), sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "out of memory for a blob");
    w->dir = *d;
    int rc = fs_tmp_open(&w->tmp, d->path, 0666, e);
    if (rc < 0) {
        free(w);
        return rc;
    }
    hash_start(&w->state);
    *out = w;
    return 0;
}

int blob_writer_add(struct blob_writer *w, const void *p, size_t n, struct errbuf *e)
{
    crypto_generichash_update(&w->state, p, n);
    return fs_tmp_write(&w->tmp, p, n, e);
}

int blob_writer_commit(struct blob_writer *w, const char *expect, hash_str hash, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    hash_str have;
    hash_end(&w->state, have);
    int rc = 0;
    if (*expect && strcmp(expect, have) != 0)
        rc = err_set(e, ERR_CORRUPT, "content has hash %s, expected %.64s", have, expect);
    if (rc == 0) { /* an existing blob is replaced: the same content, or, after damage, the right one */
        blob_path(&w->dir, have, path, sizeof path);
        rc = fs_tmp_commit(&w->tmp, path, e);
    }
    if (rc == 0)
        memcpy(hash, have, sizeof have);
    blob_writer_abort(w);
    return rc;
}

void blob_writer_abort(struct blob_writer *w)
{
    if (!w)
        return;
    fs_tmp_abort(&w->tmp);
    free(w);
}

static int on_add(void *arg, const void *p, size_t n, struct errbuf *e) { return blob_writer_add(arg, p, n, e); }

int blob_put_file(const struct blob_dir *d, const char *src, hash_str hash, struct errbuf *e)
{
    struct blob_writer *w;
    int rc = blob_writer_open(d, &w, e);
    if (rc < 0)
        return rc;
    rc = read_pieces(src, on_add, w, e);
    if (rc == 0)
        return blob_writer_commit(w, "", hash, e);
    blob_writer_abort(w);
    return rc;
}

int blob_put_bytes(const struct blob_dir *d, const void *p, size_t n, hash_str hash, struct errbuf *e)
{
    struct blob_writer *w;
    int rc = blob_writer_open(d, &w, e);
    if (rc < 0)
        return rc;
    rc = blob_writer_add(w, p, n, e);
    if (rc == 0)
        return blob_writer_commit(w, "", hash, e);
    blob_writer_abort(w);
    return rc;
}
