/* transfer.c - blobs up and down, a chunk at a time; the coordinator says where to go on, so that a cut-off upload
 * resumes and one that it has already costs one message. */
#include "client/conn.h"

#include "common/fsio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int put_chunk(struct conn *c, int fd, struct wire_msg *req, uint64_t offset, uint8_t *buf, struct wire_msg *ans, struct errbuf *e)
{
    uint64_t left = req->blob.total - offset;
    size_t   want = left < BLOB_CHUNK ? (size_t)left : BLOB_CHUNK, got = 0;
    while (got < want) {
        ssize_t n = pread(fd, buf + got, want - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(e, ERR_IO, "reading: %s", n < 0 ? strerror(errno) : "the file became shorter");
        got += (size_t)n;
    }
    req->blob.offset = offset;
    req->blob.data = buf;
    req->blob.len = want;
    return conn_ask(c, req, WIRE_BLOB_PUT_ACK, true, ans, e);
}

static int put_all(struct conn *c, int fd, struct wire_msg *req, uint8_t *buf, void (*tick)(void *, uint64_t, uint64_t), void *arg,
                   struct errbuf *e)
{
    uint64_t offset = 0;
    bool     complete = false;
    /* The coordinator may send us back once (it restarted and lost its temporary), not for ever. */
    for (int back = 0; !complete;) {
        struct wire_msg ans;
        int rc = put_chunk(c, fd, req, offset, buf, &ans, e);
        if (rc < 0)
            return rc;
        uint64_t have = ans.blob_put_ack.have;
        complete = ans.blob_put_ack.complete;
        wire_msg_fini(&ans);
        if (!complete && (have > req->blob.total || (have <= offset && ++back > 3) || have == req->blob.total))
            return err_set(e, ERR_FAILED, "the coordinator does not take the upload on from byte %llu of %llu",
                           (unsigned long long)have, (unsigned long long)req->blob.total);
        offset = have;
        if (tick)
            tick(arg, complete ? req->blob.total : offset, req->blob.total);
    }
    return 0;
}

int conn_put_file(struct conn *c, const char *path, const char *hash, const char *kind, const char *name,
                  void (*tick)(void *arg, uint64_t done, uint64_t total), void *arg, struct errbuf *e)
{
    struct wire_msg req = { .kind = WIRE_BLOB_PUT };
    struct stat st;
    uint8_t *buf = malloc(BLOB_CHUNK);
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        rc = fs_error(e, errno, "cannot open", path);
    else if (st.st_size == 0)
        rc = err_set(e, ERR_INPUT, "%s: the file is empty", path);
    else if (!buf)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    else if (strlen(name) >= sizeof req.blob.name)
        rc = err_set(e, ERR_USAGE, "the name '%s' is longer than %d characters", name, NAME_MAX_LEN);
    if (rc == 0) {
        snprintf(req.blob.hash, sizeof req.blob.hash, "%s", hash);
        snprintf(req.blob.name, sizeof req.blob.name, "%s", name);
        snprintf(req.blob.kind, sizeof req.blob.kind, "%s", kind);
        req.blob.total = (uint64_t)st.st_size;
        rc = put_all(c, fd, &req, buf, tick, arg, e);
        if (rc < 0)
            rc = err_wrap(e, rc, "%s", path);
    }
    if (fd >= 0)
        close(fd);
    free(buf);
    return rc;
}

static int get_chunk(struct conn *c, const char *hash, uint64_t offset, struct wire_msg *ans, struct errbuf *e)
{
    struct wire_msg req = { .kind = WIRE_BLOB_GET };
    snprintf(req.blob_get.hash, sizeof req.blob_get.hash, "%s", hash);
    req.blob_get.offset = offset;
    int rc = conn_ask(c, &req, WIRE_BLOB_CHUNK, true, ans, e);
    if (rc == 0 && (ans->blob.offset != offset || ans->blob.len == 0 || ans->blob.len > ans->blob.total - offset)) {
        rc = err_set(e, ERR_CORRUPT, "blob %.12s…: the coordinator sent a wrong piece", hash);
        wire_msg_fini(ans);
    }
    return rc;
}

int conn_get_head(struct conn *c, const char *hash, uint8_t **out, size_t *len, uint64_t *total, struct errbuf *e)
{
    struct wire_msg ans;
    int rc = get_chunk(c, hash, 0, &ans, e);
    if (rc < 0)
        return rc;
    *out = malloc(ans.blob.len);
    if (*out) {
        memcpy(*out, ans.blob.data, ans.blob.len);
        *len = ans.blob.len;
        *total = ans.blob.total;
    } else {
        rc = err_set(e, ERR_NOMEM, "out of memory");
    }
    wire_msg_fini(&ans);
    return rc;
}

int conn_get_file(struct conn *c, const char *hash, const char *path, struct errbuf *e)
{
    struct fs_tmp tmp = { 0 };
    hash_str found;
    uint64_t offset = 0, total = 1;
    int rc = fs_tmp_open_for(&tmp, path, 0666, e);
    while (rc == 0 && offset < total) {
        struct wire_msg ans;
        rc = get_chunk(c, hash, offset, &ans, e);
        if (rc < 0)
            break;
        rc = fs_tmp_write(&tmp, ans.blob.data, ans.blob.len, e);
        offset += ans.blob.len;
        total = ans.blob.total;
        wire_msg_fini(&ans);
    }
    if (rc == 0)
        rc = hash_file(tmp.path, found, e);
    if (rc == 0 && strcmp(found, hash) != 0)
        rc = err_set(e, ERR_CORRUPT, "blob %.12s… arrived with another content", hash);
    if (rc == 0)
        return fs_tmp_commit(&tmp, path, e);
    fs_tmp_abort(&tmp);
    return rc;
}
